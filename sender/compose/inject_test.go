package compose

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/mail"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-message"

	"github.com/postrider/postrider/sender"
)

// request is everything that anybody says about a mail.
type request struct {
	sender.Submission
	Unsubscribe     Unsubscribe
	Feedback        Feedback
	MessageIDDomain string
}

func newRequest() *request {
	ann := sender.Address{Email: "ann@example.org", Name: "Ann"}
	r := sender.Recipient{Address: ann, Metadata: map[string]string{"k": "v"}, Shown: ann}
	f := []sender.Attachment{{Type: "image/png", Name: "a.png", Content: []byte("x")}}
	return &request{
		Submission: sender.Submission{ID: testID, Account: 17, Tags: []string{"t"}, Metadata: map[string]string{"k": "v"}, Recipients: []sender.Recipient{r},
			Content: sender.Content{From: sender.Address{Email: "shop@example.com", Name: "Shop"}, Subject: "s", Text: "t", HTML: "<p>h", PreserveRecipients: true,
				Recipients: []sender.Recipient{r}, Headers: []sender.Header{{Name: "X-A", Value: "a"}, {Name: "Reply-To", Value: "r@example.com"}}, Attachments: f, Images: slices.Clone(f)}},
		Unsubscribe: Unsubscribe{URL: testLink, Mailto: "mailto:u@example.com"}, Feedback: Feedback{"c", "s", "p"}, MessageIDDomain: "example.com"}
}

func (r *request) mail() Mail {
	f := r.Feedback
	f.Campaign += strings.Join(r.Tags, "")
	return Mail{Content: &r.Content, Message: &sender.Message{ID: testID, Account: r.Account, Recipient: r.Recipients[0]},
		MessageIDDomain: r.MessageIDDomain, Unsubscribe: r.Unsubscribe, Feedback: f}
}

// leaf is a text in a request, which a client can set to anything.
type leaf struct {
	path string
	set  func(string)
}

// leaves finds every text in a request by reflection, so that a field that is added tomorrow is tried too.
func leaves(path string, v reflect.Value) (all []leaf) {
	switch v.Kind() {
	case reflect.String:
		return []leaf{{path, v.SetString}}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				all = append(all, leaves(path+"."+f.Name, v.Field(i))...)
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return []leaf{{path, func(s string) { v.SetBytes([]byte(s)) }}}
		}
		for i := range v.Len() {
			all = append(all, leaves(fmt.Sprintf("%s[%d]", path, i), v.Index(i))...)
		}
	case reflect.Map:
		return []leaf{{path, func(s string) { v.SetMapIndex(reflect.ValueOf(s), reflect.ValueOf(s)) }}}
	}
	return all
}

// nasty are the pieces of what is tried. The line ends come first.
var nasty = [...]string{"\r\nX-Canary: 1", "\nBcc: canary@example.net", "\rX-Canary: 1", "\x00", "\r\n\r\nbody", "\r\n.\r\n", "\r\n X-Canary: 1",
	"\u2028X-Canary: 1", "\u2029", "\u0085X-Canary: 1", "\vX-Canary: 1", "\f", "\x1c", "\x1e", "\x7f", "\x1b[2J", "\u202e", "\ufeff", "\xff\xfe", "\xe2\x80", "\xc0\x8a", "é", "漢字", "🎉",
	" ", "\t", "  ", "a", "word", ":", ";", ",", "<", ">", "(", ")", "\"", "\\", "@", "=", "=?utf-8?q?=0D=0ABcc:_x?=", "%0d%0aBcc:", "--=_", ".", "*", "'", "/", "X-Canary: 1", strings.Repeat("x", 1200),
	strings.Repeat("é", 700), strings.Repeat("y z ", 500)}

const lineBreaks = 7 // of nasty

// never are fields that must not leave in a mail of ours.
var never = [...]string{"bcc", "received", "return-path", "dkim-signature", "authentication-results", "delivered-to", "x-canary"}

// noHeader are the texts that stand in no header: bodies, and what stays with us. Feedback's parts lose what is no letter.
var noHeader = [...]string{".HTML", ".Text", ".Content", "Metadata", "Tags[", "Subaccount", "IdempotencyKey", "BccAddress", "ReturnPathDomain", "Feedback.", "Pool",
	"Submission.Recipients[0].Address", "Content.Recipients[0].Shown"} // only Shown of who gets a copy of another's mail

func inHeader(path string) bool {
	return !slices.ContainsFunc(noHeader[:], func(part string) bool {
		return strings.HasSuffix(path, part) || part[0] != '.' && strings.Contains(path, part)
	})
}

// checkMail holds what became of a request against what the request may say: one header section with these fields and no
// others, or a refusal that names a field.
func checkMail(t *testing.T, r *request, what string) (refused bool) {
	t.Helper()
	b, err := Message(r.mail())
	if err != nil {
		var e *sender.Error
		if !errors.As(err, &e) || e.Field == "" || b != nil {
			t.Fatalf("%s: got %v", what, err)
		}
		return true
	}
	checkWire(t, b)
	want := r.fields()
	for reader, fields := range fieldsOf(t, b, what) {
		for name, n := range fields {
			if slices.Contains(never[:], name) || strings.HasPrefix(name, "arc-") || strings.HasPrefix(name, "x-mc-") {
				t.Fatalf("%s: %s reads %s in\n%q", what, reader, name, b)
			}
			if want[name] != n {
				t.Fatalf("%s: %s reads %d times %s, want %d in\n%q", what, reader, n, name, want[name], b)
			}
		}
		for name, n := range want {
			if fields[name] != n {
				t.Fatalf("%s: %s reads %d times %s, want %d in\n%q", what, reader, fields[name], name, n, b)
			}
		}
	}
	return false
}

// fields counts the fields that a mail of the request must have, by name.
func (r *request) fields() map[string]int {
	want := map[string]int{"date": 1, "from": 1, "to": 1, "subject": 1, "message-id": 1, "mime-version": 1, "content-type": 1}
	if feedbackPart(r.Feedback.Sender) != "" {
		want["feedback-id"] = 1
	}
	unsubscribe := r.Unsubscribe.URL != "" && !given(r.Content.Headers, "List-Unsubscribe")
	if unsubscribe {
		want["list-unsubscribe"] = 1
	}
	if unsubscribe && strings.HasPrefix(r.Unsubscribe.URL, "https:") {
		want["list-unsubscribe-post"] = 1
	}
	for _, h := range r.Content.Headers {
		name := strings.ToLower(h.Name)
		if own(name) || is(name, onceNames[:]) && want[name] > 0 || unsubscribe && name == "list-unsubscribe-post" {
			continue
		}
		want[name]++
	}
	if text, html := bodies(&r.Content); (text == "" || html == "") && len(r.Content.Images)+len(r.Content.Attachments) == 0 {
		want["content-transfer-encoding"] = 1 // one body is the whole mail
	}
	return want
}

// fieldsOf counts the fields of a mail's header by name, as two parsers see them.
func fieldsOf(t *testing.T, b []byte, what string) map[string]map[string]int {
	t.Helper()
	std, err := mail.ReadMessage(bytes.NewReader(b))
	if err != nil {
		t.Fatalf("%s: %v in\n%q", what, err, b)
	}
	e, err := message.Read(bytes.NewReader(b))
	if err != nil && !message.IsUnknownCharset(err) {
		t.Fatalf("%s: %v in\n%q", what, err, b)
	}
	all := map[string]map[string]int{"net/mail": {}, "go-message": {}}
	for name, values := range std.Header {
		all["net/mail"][strings.ToLower(name)] = len(values)
	}
	for f := e.Header.Fields(); f.Next(); {
		all["go-message"][strings.ToLower(f.Key())]++
	}
	return all
}

// TestNoFieldInjects sets each text of a request to each of the nasty pieces, alone and behind what is good.
func TestNoFieldInjects(t *testing.T) {
	paths := leaves("", reflect.ValueOf(newRequest()).Elem())
	if len(paths) < 35 {
		t.Fatalf("found %d texts in a request", len(paths))
	}
	for i, p := range paths {
		refused, written := 0, 0
		for _, bad := range nasty {
			for _, value := range []string{bad, "a" + bad, "a" + bad + "b", "a@example.com" + bad, "a" + bad + "@example.com", testLink + bad, "mailto:a" + bad} {
				r := newRequest()
				leaves("", reflect.ValueOf(r).Elem())[i].set(value)
				switch was := checkMail(t, r, fmt.Sprintf("%s = %.80q", p.path, value)); {
				case was:
					refused++
				case inHeader(p.path) && strings.ContainsAny(value, "\r\n\x00"):
					t.Fatalf("%s = %.80q was not refused", p.path, value) // not even when it is encoded: somebody decodes it
				default:
					written++
				}
			}
		}
		if written == 0 {
			t.Errorf("%s: everything was refused (%d), so nothing is proved", p.path, refused)
		}
	}
}

// TestNoMixInjects sets all texts of a request at once to mixes of the nasty pieces.
func TestNoMixInjects(t *testing.T) {
	refused, written := 0, 0
	for seed := range uint64(4000) {
		rng := rand.New(rand.NewPCG(seed, 5))
		r := newRequest()
		for _, l := range leaves("", reflect.ValueOf(r).Elem()) {
			if rng.IntN(3) > 0 {
				l.set(mix(rng, l.path))
			}
		}
		if checkMail(t, r, fmt.Sprintf("seed %d", seed)) {
			refused++
		} else {
			written++
		}
	}
	if refused < 400 || written < 400 {
		t.Errorf("%d were refused and %d written: too few of one of them to prove anything", refused, written)
	}
}

// mix is up to eight pieces; one in sixty has a line break. What must have a form has it, mostly.
func mix(rng *rand.Rand, path string) string {
	var b strings.Builder
	from := lineBreaks
	if rng.IntN(60) == 0 {
		from = 0
	}
	for range rng.IntN(8) {
		b.WriteString(nasty[from+rng.IntN(len(nasty)-from)])
	}
	if rng.IntN(60) == 0 {
		return b.String()
	}
	switch {
	case strings.HasSuffix(path, ".Email"):
		return []string{"a@example.com", "é@example.com", "a.b+c@xn--bcher-kva.example"}[rng.IntN(3)]
	case strings.Contains(path, "Headers[") && strings.HasSuffix(path, ".Name"):
		return []string{"X-A", "BCC", "From", "Received", "ARC-Seal", "DKIM-Signature", "reply-to", "Message-ID", "Date", "List-Unsubscribe", "Feedback-ID", "X-MC-Tags"}[rng.IntN(12)]
	case strings.HasSuffix(path, ".URL"), strings.HasSuffix(path, ".Mailto"), strings.HasSuffix(path, "MessageIDDomain"):
		return map[bool]string{true: testLink, false: ""}[strings.HasSuffix(path, ".URL")]
	}
	return b.String()
}
