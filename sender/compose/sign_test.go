package compose

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/sender"
)

var testTime = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func testKeys(t testing.TB) []Key {
	t.Helper()
	r, err := NewRSA()
	if err != nil {
		t.Fatal(err)
	}
	e, err := NewEd25519()
	if err != nil {
		t.Fatal(err)
	}
	return []Key{{"example.com", "pr1r", r}, {"example.com", "pr1e", e}}
}

// rfc8463 is the key of RFC 8463, appendix A.2, and its record.
func rfc8463(t testing.TB) (ed25519.PrivateKey, string) {
	t.Helper()
	seed, err := base64.StdEncoding.DecodeString("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
	if err != nil {
		t.Fatal(err)
	}
	return ed25519.NewKeyFromSeed(seed), "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
}

const goldenMail = "From: Joe <joe@football.example.com>\r\nTo: a@example.org\r\nReceived: x\r\nto: b@example.org\r\nSubject: Hi\r\n there\r\n\r\nHi.\r\n\r\n"

// The signature was checked by dkimpy and mailauth.
const goldenSignature = "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n" +
	" d=football.example.com; s=brisbane; t=1772366400; h=From: From: To: To: To:\r\n" +
	" Cc: Subject: Subject: Date: Message-ID: Reply-To: MIME-Version:\r\n" +
	" Content-Type: Content-Transfer-Encoding: List-Unsubscribe:\r\n" +
	" List-Unsubscribe-Post: Feedback-ID;\r\n" +
	" bh=UrA8rmgY3eNBotmDWtzAmHyn5RyZv8Gea45sNGsP0zw=;\r\n" +
	" b=ow7ugty2uGK/7hwF6xJjosfaOGC9FvKcWlEUfefZO/xP1F1RnbmlpOjZvlso8aPZRMxKjiPUB\r\n" +
	" GFbwdVQ/xXDAQ==\r\n"

func TestSignatureGolden(t *testing.T) {
	key, _ := rfc8463(t)
	got, err := AppendSignatures(nil, []byte(goldenMail), []Key{{"football.example.com", "brisbane", key}}, testTime)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != goldenSignature {
		t.Errorf("got\n%s\nwant\n%s", got, goldenSignature)
	}
}

// TestRelaxed has the example of RFC 6376 §3.4.5.
func TestRelaxed(t *testing.T) {
	fields, err := splitHeader(nil, []byte("A: X\r\nB : Y\t\r\n\tZ  \r\n"))
	if err != nil {
		t.Fatal(err)
	}
	var got []byte
	for _, f := range fields {
		got = append(appendRelaxedField(got, string(f.name), f.value), lineEnd...)
	}
	if string(got) != "a:X\r\nb:Y Z\r\n" {
		t.Errorf("header %q", got)
	}
	for body, same := range map[string]string{
		" C \r\nD \t E\r\n\r\n\r\n": " C\r\nD E\r\n",
		"":                          "",
		"\r\n \r\n\t\r\n":           "",
		"no end":                    "no end\r\n",
		"\r\n\r\na":                 "\r\n\r\na\r\n",
		strings.Repeat("\r\n", 5000) + "x " + strings.Repeat("y", 9000): strings.Repeat("\r\n", 5000) + "x " + strings.Repeat("y", 9000) + "\r\n",
	} {
		var s signing
		if err := s.readBody([]byte(body)); err != nil {
			t.Fatal(err)
		}
		hash := crypto.SHA256.New()
		hash.Write([]byte(same))
		if want := base64.StdEncoding.EncodeToString(hash.Sum(nil)); s.bodyHash != want {
			t.Errorf("%.40q: hash %s, want %s", body, s.bodyHash, want)
		}
	}
}

func TestSignIsRepeatable(t *testing.T) {
	keys := testKeys(t)
	mail := mustMessage(t, mailOf(sender.Content{Subject: "é", Text: "x", HTML: "y"}))
	given := bytes.Clone(mail)
	first, err := Sign(mail, keys, testTime)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasSuffix(first, mail) || !bytes.Equal(mail, given) {
		t.Error("the mail was changed")
	}
	for range 5 {
		if again, err := Sign(mail, keys, testTime.Add(999*time.Millisecond)); err != nil || !bytes.Equal(first, again) {
			t.Fatalf("the bytes changed: %v", err)
		}
	}
	if later, err := Sign(mail, keys, testTime.Add(time.Second)); err != nil || bytes.Equal(first, later) {
		t.Errorf("another time gives the same bytes: %v", err)
	}
	if plain, err := Sign(mail, nil, testTime); err != nil || !bytes.Equal(plain, mail) {
		t.Errorf("without keys: %v", err)
	}
	header, err := AppendSignatures([]byte("before\r\n"), mail, keys, testTime)
	if err != nil || string(header)+string(mail) != "before\r\n"+string(first) {
		t.Errorf("appended: %v", err)
	}
}

// TestSignatureLines has names as long as can be, and a field many times.
func TestSignatureLines(t *testing.T) {
	label := strings.Repeat("x", 63) + "."
	long := strings.Repeat(label, 3) + "example.com"
	key, _ := rfc8463(t)
	mail := "From: a@example.com\r\n" + strings.Repeat("Feedback-ID: a\r\n", 500) + "\r\n"
	got, err := AppendSignatures(nil, []byte(mail), []Key{{long, long, key}}, testTime)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(got), lineEnd) {
		if len(line) > 76 && !strings.Contains(line, long) || len(line) > hardLine || strings.HasPrefix(line, ".") {
			t.Errorf("%d bytes: %s", len(line), line)
		}
	}
	if n := strings.Count(string(got), "Feedback-ID"); n != 501 {
		t.Errorf("signed %d times", n)
	}
}

func TestSignRefuses(t *testing.T) {
	good, _ := rfc8463(t)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	small.N.Rsh(small.N, 1)
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const mail = "From: a@example.com\r\n\r\nx\r\n"
	for _, tt := range []struct {
		name, mail string
		key        Key
		want       string
	}{
		{"as it should be", mail, Key{"example.com", "a", good}, ""},
		{"selector of two labels", mail, Key{"example.com", "a_1.b", good}, ""},
		{"header only", "From: a@example.com\r\n", Key{"example.com", "a", good}, ""},
		{"no domain", mail, Key{"", "a", good}, "host names"},
		{"domain that ends a tag", mail, Key{"example.com; x=", "a", good}, "host names"},
		{"domain that ends a line", mail, Key{"example.com\r\nX: y", "a", good}, "host names"},
		{"domain outside ASCII", mail, Key{"exämple.com", "a", good}, "host names"},
		{"selector that ends with a dot", mail, Key{"example.com", "a.", good}, "host names"},
		{"long label", mail, Key{"example.com", strings.Repeat("a", 64), good}, "host names"},
		{"no key", mail, Key{"example.com", "a", nil}, "no key"},
		{"small RSA", mail, Key{"example.com", "a", small}, "1023 bits"},
		{"elliptic curve", mail, Key{"example.com", "a", curve}, "*ecdsa.PublicKey"},
		{"key that fails", mail, Key{"example.com", "a", broke{good}}, "out of order"},
		{"no From", "To: a@example.com\r\n\r\nx\r\n", Key{"example.com", "a", good}, "0 From"},
		{"two From", "from: a@example.com\r\n" + mail, Key{"example.com", "a", good}, "2 From"},
		{"empty", "", Key{"example.com", "a", good}, "0 From"},
		{"no header", "\r\nx\r\n", Key{"example.com", "a", good}, "no field"},
		{"starts with a fold", " x: y\r\n" + mail, Key{"example.com", "a", good}, "no field"},
		{"no colon", "x\r\n" + mail, Key{"example.com", "a", good}, "no field"},
		{"LF in the header", "X: y\n" + mail, Key{"example.com", "a", good}, "CRLF"},
		{"CR in the header", "X: y\rz\r\n" + mail, Key{"example.com", "a", good}, "CRLF"},
		{"LF in the body", mail + "x\ny\r\n", Key{"example.com", "a", good}, "CRLF"},
		{"CR in the body", mail + "x\ry\r\n", Key{"example.com", "a", good}, "CRLF"},
		{"CR at the end", mail + "x\r", Key{"example.com", "a", good}, "CRLF"},
	} {
		got, err := Sign([]byte(tt.mail), []Key{tt.key}, testTime)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || got != nil):
			t.Errorf("%s: got error %v", tt.name, err)
		}
	}
}

// broke is a key in a device that does not answer.
type broke struct{ ed25519.PrivateKey }

func (broke) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("out of order")
}

func TestPrivateKeys(t *testing.T) {
	for _, k := range testKeys(t) {
		der, err := EncodePrivate(k.Signer)
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodePrivate(der)
		if err != nil {
			t.Fatal(err)
		}
		if same, ok := k.Signer.(interface{ Equal(crypto.PrivateKey) bool }); !ok || !same.Equal(back) {
			t.Errorf("%T came back as another", k.Signer)
		}
		if _, err := DecodePrivate(der[:len(der)-1]); err == nil {
			t.Errorf("half of a %T was read", k.Signer)
		}
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := EncodePrivate(curve); err == nil {
		t.Error("an elliptic curve key was written")
	}
	der, err := x509.MarshalPKCS8PrivateKey(curve)
	if err != nil {
		t.Fatal(err)
	}
	if key, err := DecodePrivate(der); err == nil || key != nil {
		t.Error("an elliptic curve key was read")
	}
}

func TestRecords(t *testing.T) {
	for _, k := range testKeys(t) {
		record, err := Record(k.Signer.Public())
		if err != nil {
			t.Fatal(err)
		}
		public, err := ParseRecord(record)
		if err != nil {
			t.Fatalf("%s: %v", record, err)
		}
		if same, ok := public.(interface{ Equal(crypto.PublicKey) bool }); !ok || !same.Equal(k.Signer.Public()) {
			t.Errorf("%s is another key", record)
		}
	}
	key, want := rfc8463(t)
	if got, err := Record(key.Public()); got != want || err != nil {
		t.Errorf("got %s, %v", got, err)
	}
	if _, err := Record(key); err == nil {
		t.Error("a private key was published")
	}
}

func TestParseRecord(t *testing.T) {
	keys := testKeys(t)
	public := keys[0].Signer.Public().(*rsa.PublicKey)
	whole, err := Record(public)
	if err != nil {
		t.Fatal(err)
	}
	p := whole[strings.Index(whole, "p=")+2:]
	old := base64.StdEncoding.EncodeToString(x509.MarshalPKCS1PublicKey(public))
	for _, tt := range []struct{ record, want string }{
		{"p=" + p, ""},
		{" v = DKIM1 ;k=rsa;\tp= " + p[:100] + " \t" + p[100:] + " ; t=y; n=a note; h=sha1 : sha256; s=email;", ""},
		{"v=DKIM1; s=*; p=" + old, ""},
		{"k=rsa; v=DKIM1; p=" + p, "start with v=DKIM1"},
		{"v=DKIM2; p=" + p, "start with v=DKIM1"},
		{"v=DKIM1; h=sha1; p=" + p, "sha256"},
		{"v=DKIM1; s=tlsrpt; p=" + p, "email"},
		{"v=DKIM1; k=rsa", "no p="},
		{"v=DKIM1; p=", ErrRevoked.Error()},
		{"v=DKIM1; p=" + p[:100] + "\"" + p[100:], "not base64"},
		{"v=DKIM1; p=" + p[:100], "cut off"},
		{"v=DKIM1; k=ed25519; p=" + p, "an Ed25519 key has 32"},
		{"v=DKIM1; k=ecc; p=" + p, "neither"},
		{"v=DKIM1; p=" + p + "; p=" + p, "not a new"},
		{"v=spf1 -all", "start with v=DKIM1"},
		{"hello", "not a new"},
		{"", "no p="},
		{"p=" + strings.Repeat("A", maxRecord), "bytes"},
	} {
		key, err := ParseRecord(tt.record)
		switch {
		case tt.want == "" && (err != nil || !public.Equal(key)):
			t.Errorf("%s: got %v, %v", tt.record, key, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || key != nil):
			t.Errorf("%s: got error %v", tt.record, err)
		}
	}
	if _, err := ParseRecord("v=DKIM1; p="); !errors.Is(err, ErrRevoked) {
		t.Errorf("got %v", err)
	}
}

// TestSignedNames holds the list against what must and must not be signed.
func TestSignedNames(t *testing.T) {
	for _, name := range []string{"Sender", "Received", "Return-Path", "DKIM-Signature", "Bcc"} {
		if slices.Contains(signedNames[:], name) {
			t.Errorf("%s is signed", name)
		}
	}
	if signedNames[0] != "From" || len(signedNames) != 13 {
		t.Errorf("signed: %q", signedNames)
	}
}
