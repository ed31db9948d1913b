// Reads {"records": {name: TXT}, "mails": {id: base64}}, answers {id: ["pass" or why not, one a signature]}.
// Its argument is the folder where mailauth is installed.
const path = require('node:path');
const installed = require('node:module').createRequire(path.resolve(process.argv[2], 'package.json'));
const { dkimVerify } = installed('mailauth/lib/dkim/verify');

async function main() {
    const given = JSON.parse(require('node:fs').readFileSync(0, 'utf8'));
    const resolver = async (name, type) => {
        if (type === 'TXT' && given.records[name]) {
            return [[given.records[name]]];
        }
        throw Object.assign(new Error('no such name'), { code: 'ENOTFOUND' });
    };
    const answers = {};
    for (const [id, raw] of Object.entries(given.mails)) {
        const { results } = await dkimVerify(Buffer.from(raw, 'base64'), { resolver });
        answers[id] = results.map(({ status }) => (status.result === 'pass' ? 'pass' : `${status.result} ${status.comment}`));
    }
    process.stdout.write(JSON.stringify(answers));
}

main();
