// Sends a mail through the official SDK and reads it back. Only the base URL differs from what its users write.
const client = require('@mailchimp/mailchimp_transactional')(process.env.KEY);
client.basePath = process.env.BASE;

async function main() {
  const ping = await client.users.ping();
  const ping2 = await client.users.ping2();
  const sent = await client.messages.send({
    message: {
      from_email: 'sdk@example.com',
      from_name: 'Sdk Ünï',
      subject: 'From the SDK',
      html: '<p>Grüße</p>',
      text: 'Grüße',
      to: [{ email: process.env.TO, name: 'Reader', type: 'to' }],
      tags: ['sdk'],
      metadata: { order: 17 },
      attachments: [{ type: 'text/plain', name: 'hällo.txt', content: Buffer.from('attached ✓').toString('base64') }],
    },
  });
  let info;
  for (const end = Date.now() + 20_000; Date.now() < end; await new Promise((r) => setTimeout(r, 100))) {
    info = await client.messages.info({ id: sent[0]._id });
    if (info.state === 'sent') break;
  }
  const content = await client.messages.content({ id: sent[0]._id });
  const found = await client.messages.search({ query: 'SDK', limit: 10 });
  const user = await client.users.info();
  const unknown = await client.messages.info({ id: '0'.repeat(32) });
  const stranger = require('@mailchimp/mailchimp_transactional')('no-key');
  stranger.basePath = process.env.BASE;
  const badKey = await stranger.users.ping();
  client.setDefaultOutputFormat('json');
  const asJSON = await client.users.ping2();
  const failure = (e) => ({ status: e.response && e.response.status, data: e.response && e.response.data });
  console.log(JSON.stringify({ ping, ping2, sent, info, content, found, user, unknown: failure(unknown), badKey: failure(badKey), asJSON }));
}

main().catch((e) => {
  console.error(e);
  process.exit(1);
});
