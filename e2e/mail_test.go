package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/emersion/go-message"
	netmail "github.com/emersion/go-message/mail"
)

// parsed is what a reader makes of a mail.
type parsed struct {
	subject, fromName, toName string
	to, cc                    []string
	text, html                string
	files, images             []enclosure
	header                    message.Header
}

// readMail reads with go-message.
func readMail(t *testing.T, raw []byte) parsed {
	t.Helper()
	e, err := message.Read(bytes.NewReader(raw))
	if err != nil {
		t.Fatalf("%v\n%.2000s", err, raw)
	}
	h := netmail.Header{Header: e.Header}
	p := parsed{header: e.Header}
	if p.subject, err = h.Subject(); err != nil {
		t.Error(err)
	}
	names := func(field string) (name string, list []string) {
		addresses, err := h.AddressList(field)
		if err != nil {
			t.Errorf("%s: %v", field, err)
		}
		for i, a := range addresses {
			if i == 0 {
				name = a.Name
			}
			list = append(list, a.Address)
		}
		return name, list
	}
	p.fromName, _ = names("From")
	p.toName, p.to = names("To")
	_, p.cc = names("Cc")
	err = e.Walk(func(_ []int, part *message.Entity, err error) error {
		if err != nil && !message.IsUnknownCharset(err) {
			return err
		}
		return p.take(part)
	})
	if err != nil {
		t.Errorf("%v\n%.2000s", err, raw)
	}
	return p
}

// take sorts a leaf by its kind. Text files are taken as bytes, whatever charset they claim.
func (p *parsed) take(part *message.Entity) error {
	kind, _, _ := part.Header.ContentType()
	if strings.HasPrefix(kind, "multipart/") {
		return nil
	}
	body, err := io.ReadAll(part.Body)
	if err != nil {
		return err
	}
	h := netmail.AttachmentHeader{Header: part.Header}
	disposition, _, _ := part.Header.ContentDisposition()
	switch id := strings.Trim(part.Header.Get("Content-Id"), "<>"); {
	case disposition == "attachment":
		name, err := h.Filename()
		if err != nil {
			return err
		}
		p.files = append(p.files, enclosure{name, kind, body})
	case id != "" || disposition == "inline":
		p.images = append(p.images, enclosure{id, kind, body})
	case kind == "text/html":
		p.html += string(body)
	default:
		p.text += string(body)
	}
	return nil
}

// pythonScript reads mails with Python's email package and tells what it finds, defects included.
const pythonScript = `
import base64, email, email.policy, glob, json, sys
out = []
for path in sorted(glob.glob(sys.argv[1] + "/*.eml")):
    m = email.message_from_bytes(open(path, "rb").read(), policy=email.policy.default)
    one = {"subject": m["subject"] or "", "from": m["from"].addresses[0].display_name, "to": m["to"].addresses[0].display_name,
           "text": "", "html": "", "files": [], "images": [], "defects": []}
    for header in ("subject", "from", "to", "date", "message-id"):
        if m[header] is not None: one["defects"] += [header + ": " + repr(d) for d in m[header].defects]
    def leaf(part):
        if part.get_content_type() == "message/rfc822" and part.get_content_disposition() == "attachment":
            one["files"].append([part.get_filename() or "", None]); return
        if part.is_multipart():
            one["defects"] += [repr(d) for d in part.defects]
            for p in part.iter_parts(): leaf(p)
            return
        body = part.get_payload(decode=True)
        one["defects"] += [repr(d) for d in part.defects]
        entry = [part.get_filename() or "", base64.b64encode(body).decode()]
        if part.get_content_disposition() == "attachment": one["files"].append(entry)
        elif part["content-id"] is not None: one["images"].append([part["content-id"].strip("<> "), entry[1]])
        elif part.get_content_type() == "text/html": one["html"] += body.decode()
        else: one["text"] += body.decode()
    leaf(m)
    out.append(one)
json.dump(out, sys.stdout)
`

type pythonMail struct {
	Subject, From, To, Text, HTML string
	Files, Images                 [][2]*string
	Defects                       []string
}

// check runs Python over all collected mails.
func (p *pythonReader) check(t *testing.T) {
	defer func() { _ = os.RemoveAll(p.dir) }()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 on this machine")
	}
	c := exec.CommandContext(t.Context(), python, "-c", pythonScript, p.dir)
	var stderr strings.Builder
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	var mails []pythonMail
	if err := json.Unmarshal(out, &mails); err != nil || len(mails) != len(p.letters) {
		t.Fatalf("%d mails of %d: %v", len(mails), len(p.letters), err)
	}
	for i, m := range mails {
		t.Run(p.letters[i].name, func(t *testing.T) {
			if len(m.Defects) > 0 {
				t.Errorf("defects: %v", m.Defects)
			}
			l := p.letters[i]
			got := parsed{subject: m.Subject, fromName: m.From, toName: m.To, text: m.Text, html: m.HTML}
			if !strings.Contains(l.from, " ") { // Python before 3.13 reads blanks between the encoded words of a phrase
				got.fromName = strings.ReplaceAll(got.fromName, " ", "")
			}
			got.files, got.images = m.enclosures(t, m.Files, l.files), m.enclosures(t, m.Images, l.images)
			l.check(t, got)
		})
	}
}

// enclosures takes kinds from what was sent, and the content of what Python reads on as a mail of its own.
func (m pythonMail) enclosures(t *testing.T, list [][2]*string, sent []enclosure) []enclosure {
	var out []enclosure
	for i, f := range list {
		e := enclosure{name: *f[0]}
		if i < len(sent) {
			e.kind, e.content = sent[i].kind, sent[i].content
		}
		if f[1] != nil {
			content, err := base64.StdEncoding.DecodeString(*f[1])
			if err != nil {
				t.Fatal(err)
			}
			e.content = content
		}
		out = append(out, e)
	}
	return out
}
