package domains

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/store"
)

// TestLifeOfADomain adds, publishes, verifies, loses and finds again.
func TestLifeOfADomain(t *testing.T) {
	w, ctx := open(t), t.Context()
	d := w.add(t, 1, "Example.COM.")
	if d.Name != "example.com" || !d.Verified.IsZero() || len(d.Records) != 7 || len(d.Token) != 32 {
		t.Fatalf("added: %+v", d)
	}
	for _, r := range d.Records {
		if r.State != Unchecked {
			t.Errorf("%s before the first check: %s", r.Purpose, r.State)
		}
	}
	if w.zone.questions() != 0 {
		t.Error("a domain that was just added was looked up: its records are now remembered as missing by resolvers")
	}
	if again := w.add(t, 1, "example.com"); again.Token != d.Token || again.Records[1].Value != d.Records[1].Value {
		t.Error("added twice, a domain is another")
	}
	cannotSend(t, w, 1, "example.com")

	w.publish(t, d, Ownership)
	if d = w.check(t, 1, "example.com"); !d.Verified.IsZero() || !d.Owned {
		t.Errorf("with the token alone: verified %v, owned %v", d.Verified, d.Owned)
	}
	w.publish(t, d, DKIM, SPF, DMARC, ReturnPath, Tracking)
	if d = w.check(t, 1, "example.com"); d.Verified.IsZero() {
		t.Fatalf("all is published: %+v", d.Records)
	}
	for _, r := range d.Records {
		if r.State != Valid || r.Error != "" {
			t.Errorf("%s %s: %s %s", r.Purpose, r.Name, r.State, r.Error)
		}
	}
	id, err := w.Identity(ctx, 1, "example.com")
	if err != nil || !id.Verified || len(id.Keys) != 2 || id.ReturnPath != "bounces.example.com" || id.Tracking != "links.example.com" {
		t.Fatalf("%+v, %v", id, err)
	}
	if err := w.MaySend(ctx, 1, "EXAMPLE.com"); err != nil {
		t.Error(err)
	}

	w.zone.drop("_postrider.example.com")
	if d = w.check(t, 1, "example.com"); d.Verified.IsZero() || stateOf(t, d, Ownership).State != Missing {
		t.Errorf("one look that finds nothing is no proof: %v", d.Verified)
	}
	w.pass(time.Minute)
	if d = w.check(t, 1, "example.com"); d.Verified.IsZero() {
		t.Error("nor are two within an hour")
	}
	w.pass(time.Hour)
	if d = w.check(t, 1, "example.com"); !d.Verified.IsZero() {
		t.Error("it is gone, and still verified an hour later")
	}
	cannotSend(t, w, 1, "example.com")
	w.publish(t, d, Ownership)
	if d = w.check(t, 1, "example.com"); d.Verified.IsZero() {
		t.Error("published again, and not verified")
	}
}

func cannotSend(t *testing.T, w *world, account int64, domain string) {
	t.Helper()
	err := w.MaySend(t.Context(), account, domain)
	var known *sender.Error
	if !errors.As(err, &known) || known.Kind != sender.KindValidation || known.Field != "from_email" || !strings.Contains(known.Message, domain) {
		t.Errorf("%s may be sent from: %v", domain, err)
	}
	if keys, err := w.Keys(t.Context(), account, domain); len(keys) != 0 || err != nil {
		t.Errorf("%s has %d keys, %v", domain, len(keys), err)
	}
}

// TestKeysAreThoseOfTheRecords verifies with the published keys what was signed with the private ones.
func TestKeysAreThoseOfTheRecords(t *testing.T) {
	w := open(t)
	d := w.add(t, 1, "example.com")
	w.publish(t, d)
	d = w.check(t, 1, "example.com")
	keys, err := w.Keys(t.Context(), 1, "example.com")
	if err != nil || len(keys) != 2 {
		t.Fatal(keys, err)
	}
	sum := sha256.Sum256([]byte("a mail"))
	for i, k := range keys {
		r := d.Records[1+i]
		if r.Name != k.Selector+"._domainkey.example.com" || k.Domain != "example.com" {
			t.Errorf("key %s, record %s", k.Selector, r.Name)
		}
		public, err := base64.StdEncoding.DecodeString(tags(r.Value)["p"])
		if err != nil {
			t.Fatal(err)
		}
		options := crypto.SignerOpts(crypto.SHA256)
		if r.Ed25519() {
			options = crypto.Hash(0)
		}
		sig, err := k.Signer.Sign(nil, sum[:], options)
		if err != nil {
			t.Fatal(err)
		}
		if r.Ed25519() {
			if len(public) != ed25519.PublicKeySize || !ed25519.Verify(public, sum[:], sig) {
				t.Error("Ed25519: the record is not the key's")
			}
			continue
		}
		key, err := x509.ParsePKIXPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		if key := key.(*rsa.PublicKey); key.N.BitLen() != 2048 || rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], sig) != nil {
			t.Error("RSA: the record is not the key's, or not of 2,048 bits")
		}
	}
}

// TestAnotherAccountCannotTakeADomain whose records are all there, for the first account.
func TestAnotherAccountCannotTakeADomain(t *testing.T) {
	w := open(t)
	a := w.add(t, 1, "example.com")
	w.publish(t, a)
	if a = w.check(t, 1, "example.com"); a.Verified.IsZero() {
		t.Fatal(a.Records)
	}
	b := w.add(t, 2, "example.com")
	if b.Token == a.Token || b.Records[1].Name == a.Records[1].Name || b.Records[1].Value == a.Records[1].Value {
		t.Error("two accounts have the same token, selector or key")
	}
	if b = w.check(t, 2, "example.com"); !b.Verified.IsZero() {
		t.Errorf("the second account is verified: %+v", b.Records)
	}
	if r := stateOf(t, b, Ownership); r.State != Wrong || !strings.Contains(r.Error, b.Token) {
		t.Errorf("%+v", r)
	}
	cannotSend(t, w, 2, "example.com")
	cannotSend(t, w, 1, "sub.example.com")
	w.publish(t, b, Ownership, DKIM) // the domain's owner wants both
	if b = w.check(t, 2, "example.com"); b.Verified.IsZero() {
		t.Errorf("%+v", b.Records)
	}
	if a = w.check(t, 1, "example.com"); a.Verified.IsZero() {
		t.Errorf("the first account lost it: %+v", a.Records)
	}
	owners, err := w.Owners(t.Context(), "example.com")
	if err != nil || len(owners) != 2 {
		t.Error(owners, err)
	}
}

// TestForgottenAlias has an attacker publish the token where an alias of the victim's leads.
func TestForgottenAlias(t *testing.T) {
	w := open(t)
	d := w.add(t, 66, "shop.victim.test")
	for _, r := range d.Records {
		if r.Purpose == Ownership || r.Purpose == DKIM { // a wildcard alias of the victim's makes all names lead out
			w.zone.add(t, Record{Name: r.Name, Type: "CNAME", Value: "x" + r.Name + ".rented.test"})
			w.zone.txt(t, "x"+r.Name+".rented.test", r.Value)
		}
	}
	d = w.check(t, 66, "shop.victim.test")
	if r := stateOf(t, d, Ownership); r.State != Wrong || !strings.Contains(r.Error, "alias") || !d.Verified.IsZero() {
		t.Errorf("%+v, verified %v", r, d.Verified)
	}
}

// TestRemovedTokenWithinADay runs by the times that the checks themselves set.
func TestRemovedTokenWithinADay(t *testing.T) {
	w := open(t)
	d := w.add(t, 1, "example.com")
	w.publish(t, d)
	w.check(t, 1, "example.com")
	w.zone.drop("_postrider.example.com") // just after a check
	st, begun := store.New(w.Shards), w.now()
	for range 100 {
		row, err := st.Domain(t.Context(), 1, "example.com")
		if err != nil {
			t.Fatal(err)
		}
		if row.Verified.IsZero() {
			break
		}
		w.pass(row.Next.Sub(w.now()))
		w.check(t, 1, "example.com")
	}
	cannotSend(t, w, 1, "example.com")
	if took := w.now().Sub(begun); took > 24*time.Hour {
		t.Errorf("a removed token was believed for %v", took)
	}
}

// TestDNSGone takes nothing away for three days, whether the server fails or is silent.
func TestDNSGone(t *testing.T) {
	w := open(t)
	d := w.add(t, 1, "example.com")
	w.publish(t, d)
	w.check(t, 1, "example.com")
	w.zone.ail(".", false)
	for range 71 {
		w.pass(time.Hour)
		if d = w.check(t, 1, "example.com"); d.Verified.IsZero() {
			t.Fatal("a DNS that does not answer took the domain away")
		}
	}
	if r := stateOf(t, d, Ownership); r.State != Unknown || !strings.Contains(r.Error, "SERVFAIL") {
		t.Errorf("%+v", r)
	}
	if keys, err := w.Keys(t.Context(), 1, "example.com"); len(keys) != 2 || err != nil {
		t.Errorf("%d keys, %v", len(keys), err)
	}
	w.pass(2 * time.Hour)
	if d = w.check(t, 1, "example.com"); !d.Verified.IsZero() {
		t.Error("three days without an answer, and still verified")
	}
	w.zone.ail("", false)
	if d = w.check(t, 1, "example.com"); d.Verified.IsZero() {
		t.Error("it answers again, and the domain is not verified")
	}
}

// TestSilentDNS ends within the time of a check.
func TestSilentDNS(t *testing.T) {
	w := open(t)
	w.add(t, 1, "example.com")
	w.zone.ail("", true)
	w.limit = time.Second
	begun := time.Now()
	d := w.check(t, 1, "example.com")
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	for _, r := range d.Records {
		if r.State != Unknown {
			t.Errorf("%s: %s", r.Purpose, r.State)
		}
	}
}

// TestOneKeyIsEnough, and a key whose record went away signs no more while the other does.
func TestOneKeyIsEnough(t *testing.T) {
	w := open(t)
	d := w.add(t, 1, "example.com")
	w.zone.add(t, d.Records[0].Record)
	w.zone.add(t, d.Records[2].Record)
	if d = w.check(t, 1, "example.com"); d.Verified.IsZero() {
		t.Fatal(d.Records)
	}
	ed, err := w.Keys(t.Context(), 1, "example.com")
	if err != nil || len(ed) != 1 || !strings.HasSuffix(ed[0].Selector, "-ed25519") {
		t.Fatal(ed, err)
	}
	if d, err = w.Sign(t.Context(), 1, "example.com", true); err != nil || !d.Ed25519Only || len(d.Records) != 6 {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err = w.Sign(t.Context(), 1, "example.com", false); err != nil || d.Ed25519Only {
		t.Errorf("%+v, %v", d, err)
	}
	w.zone.add(t, d.Records[1].Record)
	w.zone.drop(d.Records[2].Name)
	w.check(t, 1, "example.com")
	long, err := w.Keys(t.Context(), 1, "example.com")
	if err != nil || len(long) != 1 || !strings.HasSuffix(long[0].Selector, "-rsa") {
		t.Fatal(long, err)
	}
	if _, err = w.Sign(t.Context(), 1, "example.com", true); err == nil {
		t.Error("Ed25519 alone, whose record is not there")
	}
}

// TestSealed opens a key only in its own row and with the installation's own secret.
func TestSealed(t *testing.T) {
	s := newSealer([32]byte{1})
	private := []byte("a private key")
	sealed := s.seal(private, 1, "example.com", "s1")
	if again := s.seal(private, 1, "example.com", "s1"); bytes.Equal(again, sealed) || bytes.Contains(sealed, private) {
		t.Error("sealed twice alike, or not at all")
	}
	if got, err := s.open(sealed, 1, "example.com", "s1"); err != nil || !bytes.Equal(got, private) {
		t.Fatal(got, err)
	}
	flipped := bytes.Clone(sealed)
	flipped[len(flipped)-1] ^= 1
	for name, open := range map[string]func() ([]byte, error){
		"another account":  func() ([]byte, error) { return s.open(sealed, 2, "example.com", "s1") },
		"another domain":   func() ([]byte, error) { return s.open(sealed, 1, "example.org", "s1") },
		"another selector": func() ([]byte, error) { return s.open(sealed, 1, "example.com", "s2") },
		"a bit flipped":    func() ([]byte, error) { return s.open(flipped, 1, "example.com", "s1") },
		"nothing":          func() ([]byte, error) { return s.open(nil, 1, "example.com", "s1") },
		"another secret":   func() ([]byte, error) { return newSealer([32]byte{2}).open(sealed, 1, "example.com", "s1") },
	} {
		if got, err := open(); !errors.Is(err, errSealed) || got != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// TestAnotherSecret has mail wait: it says what to do, and nothing goes unsigned.
func TestAnotherSecret(t *testing.T) {
	w := open(t)
	if err := w.Vouch(t.Context(), 1, "example.com"); err != nil {
		t.Fatal(err)
	}
	other := New(Config{Shards: w.Shards, Store: store.New(w.Shards), Secret: [32]byte{2}})
	if keys, err := other.Keys(t.Context(), 1, "example.com"); !errors.Is(err, errSealed) || keys != nil || !strings.Contains(err.Error(), "rotate") {
		t.Errorf("%v, %v", keys, err)
	}
}

// TestVouched is verified without a look-up, at the first start and at each one after it.
func TestVouched(t *testing.T) {
	w := open(t)
	for range 2 {
		if err := w.Vouch(t.Context(), 1, "example.com"); err != nil {
			t.Fatal(err)
		}
	}
	w.check(t, 1, "example.com")
	before, err := w.Keys(t.Context(), 1, "example.com")
	if err != nil || len(before) != 2 || w.MaySend(t.Context(), 1, "example.com") != nil {
		t.Fatal(before, err)
	}
	if _, err := w.Rotate(t.Context(), 1, "example.com"); err != nil {
		t.Fatal(err)
	}
	after, err := w.Keys(t.Context(), 1, "example.com")
	if err != nil || len(after) != 2 || after[0].Selector == before[0].Selector {
		t.Errorf("rotated: %v, %v", after, err)
	}
	if w.zone.questions() != 0 {
		t.Errorf("%d questions about a domain that the operator vouches for", w.zone.questions())
	}
}

func TestNames(t *testing.T) {
	w := New(Config{})
	for in, want := range map[string]string{
		"example.com": "example.com", " EXAMPLE.com. ": "example.com", "bücher.example": "xn--bcher-kva.example", "a.b.c.example.co.uk": "a.b.c.example.co.uk",
		"": "", "com": "", "exa mple.com": "", "-a.com": "", "a..com": "", "a.com/": "", "a@b.com": "", "10.0.0.1": "", "[::1]": "", "xn--abc.com": "",
		"_dmarc.example.com": "", "a\r\nb.com": "", strings.Repeat("a", 64) + ".com": "", strings.Repeat("a.", 130) + "com": "",
	} {
		got, err := w.Name(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

// TestVouchedInRotation vouches for a domain whose next keys wait for their records: they are taken at once, and it can be
// rotated again.
func TestVouchedInRotation(t *testing.T) {
	w := open(t)
	if _, err := w.Add(t.Context(), 1, "example.com"); err != nil {
		t.Fatal(err)
	}
	if d, err := w.Rotate(t.Context(), 1, "example.com"); err != nil || !d.Rotating {
		t.Fatalf("%+v, %v", d, err)
	}
	if err := w.Vouch(t.Context(), 1, "example.com"); err != nil {
		t.Fatal(err)
	}
	before, err := w.Keys(t.Context(), 1, "example.com")
	if err != nil || len(before) != 2 {
		t.Fatal(before, err)
	}
	if d, err := w.Rotate(t.Context(), 1, "example.com"); err != nil || d.Rotating {
		t.Errorf("%+v, %v", d, err)
	}
	after, err := w.Keys(t.Context(), 1, "example.com")
	if err != nil || len(after) != 2 || after[0].Selector == before[0].Selector {
		t.Errorf("rotated: %v, %v", after, err)
	}
}
