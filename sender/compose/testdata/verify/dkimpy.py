"""Reads {"records": {name: TXT}, "mails": {id: base64}}, answers {id: ["pass" or why not, one a signature]}."""
import base64, json, sys
import dkim

given = json.load(sys.stdin)


def txt(name, timeout=5):
    record = given["records"].get(name.decode().rstrip("."))
    return record.encode() if record else None


def verify(mail, i):
    try:
        return "pass" if dkim.DKIM(mail, minkey=1024).verify(idx=i, dnsfunc=txt) else "fail"
    except dkim.DKIMException as e:
        return repr(e)


answers = {}
for name, raw in given["mails"].items():
    mail = base64.b64decode(raw)
    count = sum(1 for n, _ in dkim.rfc822_parse(mail)[0] if n.lower() == b"dkim-signature")
    answers[name] = [verify(mail, i) for i in range(count)]
json.dump(answers, sys.stdout)
