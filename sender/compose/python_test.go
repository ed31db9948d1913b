package compose

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/sender"
)

// readInPython takes mails apart with the policy that reads modern mail, and answers what it saw.
const readInPython = `
import base64, email, email.policy, json, sys
out = {}
for name, raw in json.load(sys.stdin).items():
    m = email.message_from_bytes(base64.b64decode(raw), policy=email.policy.default)
    s = {"Subject": str(m["Subject"]), "FromName": m["From"].addresses[0].display_name, "Text": "", "HTML": "", "Names": [], "Files": []}
    s["Defects"] = [str(d) for p in m.walk() for d in p.defects + [d for v in p.values() for d in getattr(v, "defects", ())]]
    def visit(p):
        if p.get_content_disposition():
            s["Names"].append(p.get_filename())
            data = p.get_content() if p.get_content_maintype() == "message" else p.get_payload(decode=True)
            if not isinstance(data, bytes):
                data = data.as_bytes(policy=email.policy.SMTP)
            s["Files"].append(base64.b64encode(data).decode())
        elif p.is_multipart():
            for q in p.iter_parts():
                visit(q)
        else:
            s["HTML" if p.get_content_type() == "text/html" else "Text"] = p.get_payload(decode=True).decode("utf-8")
    visit(m)
    out[name] = s
json.dump(out, sys.stdout)
`

// pythonSeen is what Python read, and what it found wrong.
type pythonSeen struct {
	seen
	Defects []string
}

func pythonReads(t *testing.T, contents map[string]sender.Content) map[string]pythonSeen {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 here")
	}
	mails := map[string]string{}
	for name, c := range contents {
		mails[name] = base64.StdEncoding.EncodeToString(mustMessage(t, mailOf(c)))
	}
	in, err := json.Marshal(mails)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, "-c", readInPython)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	var all map[string]pythonSeen
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatal(err)
	}
	if len(all) != len(contents) {
		t.Fatalf("read %d mails of %d", len(all), len(contents))
	}
	return all
}

// TestPythonReadsTheHardCases has a second parser, of other parents, read the same mails.
func TestPythonReadsTheHardCases(t *testing.T) {
	all := pythonReads(t, hardCases())
	for name, c := range hardCases() {
		t.Run(name, func(t *testing.T) {
			got, want := all[name], expected(c)
			want.Tree = ""
			if name == "odd characters" { // python's header reader drops what is no printable character
				got.Subject, want.Subject = "", ""
			}
			// Python before 3.13 leaves the fold between the encoded-words of a name.
			got.FromName, want.FromName = strings.ReplaceAll(got.FromName, " ", ""), strings.ReplaceAll(want.FromName, " ", "")
			compare(t, got.seen, want)
			if len(got.Defects) > 0 {
				t.Errorf("defects: %s", strings.Join(got.Defects, "; "))
			}
		})
	}
}

// TestBothReadRandomMails has both parsers read mails of random mixes of hard pieces.
func TestBothReadRandomMails(t *testing.T) {
	contents := map[string]sender.Content{}
	for seed := range uint64(250) {
		contents[strconv.FormatUint(seed, 10)] = randomContent(rand.New(rand.NewPCG(seed, 10)))
	}
	for name, c := range contents { // even where there is no Python
		compare(t, read(t, mustMessage(t, mailOf(c))), expected(c))
		if t.Failed() {
			t.Fatalf("seed %s", name)
		}
	}
	all := pythonReads(t, contents)
	for name, c := range contents {
		got, want := all[name], expected(c)
		want.Tree = ""
		got.FromName, want.FromName = strings.ReplaceAll(got.FromName, " ", ""), strings.ReplaceAll(want.FromName, " ", "")
		compare(t, got.seen, want)
		if len(got.Defects) > 0 {
			t.Errorf("defects: %s", strings.Join(got.Defects, "; "))
		}
		if t.Failed() {
			t.Fatalf("seed %s:\n%s", name, mustMessage(t, mailOf(c)))
		}
	}
}

// randomContent leaves out of headers what Python's reader changes or drops by its own rules: controls, tabs, and
// characters that show as nothing.
func randomContent(rng *rand.Rand) sender.Content {
	header := []string{"é", "漢字", "🎉", " ", "  ", "a", "word ", ":", ";", ",", "<", ">", "(", ")", "\"", "\\", "@", "=", "%0d%0a", "--=_", ".", "*", "'", "/", "_", "?", strings.Repeat("x", 1200), strings.Repeat("é", 70), strings.Repeat("y z ", 50)}
	body := append([]string{"\n", "\r\n", "\r", "\n.\n", "\n..", "\nFrom x", "\t", "=", "=3D", "\x00", "\x7f", "\u2028", "\u0085", "\xff", "\n--=_", strings.Repeat("=", 80), strings.Repeat("é ", 600)}, header...)
	some := func(pieces []string, most int) string {
		var b strings.Builder
		for range rng.IntN(most) {
			b.WriteString(pieces[rng.IntN(len(pieces))])
		}
		return b.String()
	}
	c := sender.Content{From: sender.Address{Email: "a@example.com", Name: some(header, 9)}, Subject: some(header, 20),
		AutoText: rng.IntN(4) == 0, AutoHTML: rng.IntN(4) == 0}
	if rng.IntN(3) > 0 {
		c.Text = some(body, 40)
	}
	if rng.IntN(3) > 0 {
		c.HTML = some(body, 40)
	}
	for range rng.IntN(3) {
		c.Attachments = append(c.Attachments, sender.Attachment{Type: "application/pdf", Name: "f" + some(header, 12), Content: []byte(some(body, 30))})
	}
	for range rng.IntN(3) {
		c.Images = append(c.Images, sender.Attachment{Type: "image/png", Name: "f" + some(header, 12), Content: []byte(some(body, 30))})
	}
	return c
}
