package track

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"math"
	"strings"
	"testing"
	"testing/quick"

	"github.com/postrider/postrider/sender"
)

func keys(t testing.TB, seeds ...byte) *Keys {
	t.Helper()
	secrets := make([][32]byte, len(seeds))
	for i, s := range seeds {
		secrets[i][0] = s
	}
	k, err := NewKeys(secrets...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestTokens(t *testing.T) {
	k := keys(t, 1)
	if err := quick.Check(func(kind byte, account int64, id sender.ID) bool {
		token := Token{Kind(kind), account, id}
		s := k.Encode(token)
		got, err := k.Decode(s)
		return err == nil && got == token && len(s) <= maxToken && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == ""
	}, nil); err != nil {
		t.Error(err)
	}
	if n := len(k.Encode(Token{Unsubscribe, math.MaxInt64, sender.NewID()})); n > 63 {
		t.Errorf("a token of %d characters", n)
	}
}

// TestForgedTokens changes every bit and every length of a token.
func TestForgedTokens(t *testing.T) {
	k := keys(t, 1)
	good := Token{Unsubscribe, 300, sender.NewID()}
	s := k.Encode(good)
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	forged := []string{"", "a", s[:len(s)-1], s + "A", s + "=", " " + s, s + "\n", s[:5] + "\n" + s[5:], strings.ToUpper(s), strings.Repeat("A", len(s)), strings.Repeat("A", 1<<20),
		base64.StdEncoding.EncodeToString(raw), keys(t, 2).Encode(good), key{}.encode(good), key{id: k.list[0].id}.encode(good)}
	for i := range len(raw) * 8 {
		b := append([]byte(nil), raw...)
		b[i/8] ^= 1 << (i % 8)
		forged = append(forged, base64.RawURLEncoding.EncodeToString(b))
	}
	for i := range len(raw) {
		forged = append(forged, base64.RawURLEncoding.EncodeToString(raw[:i]))
	}
	for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" { // the last may have spare bits
		if other := s[:len(s)-1] + string(c); other != s {
			forged = append(forged, other)
		}
	}
	for _, f := range forged {
		if got, err := k.Decode(f); err == nil || got != (Token{}) {
			t.Errorf("%.100q is read as %v", f, got)
		}
	}
	if _, err := k.Decode(s); err != nil {
		t.Error(err)
	}
}

// TestLongVarint signs a token with its account in a longer form with the real key: only the shortest is read.
func TestLongVarint(t *testing.T) {
	k := keys(t, 1)
	id := sender.NewID()
	b := append(append([]byte{}, k.list[0].id[:]...), byte(Unsubscribe), 0x80|5, 0)
	if account, n := binary.Uvarint(b[kidSize+1:]); account != 5 || n != 2 {
		t.Fatalf("account %d of %d bytes", account, n)
	}
	b = append(b, id[:]...)
	mac := hmac.New(sha256.New, k.list[0].secret)
	mac.Write(b)
	b = append(b, mac.Sum(nil)[:macSize]...)
	if got, err := k.Decode(base64.RawURLEncoding.EncodeToString(b)); err == nil {
		t.Errorf("read as %v", got)
	}
}

func TestRotation(t *testing.T) {
	was, now, later := keys(t, 1), keys(t, 2, 1), keys(t, 3, 2)
	token := Token{Unsubscribe, 7, sender.NewID()}
	old, fresh := was.Encode(token), now.Encode(token)
	if old == fresh {
		t.Error("the newest key does not sign")
	}
	for name, tt := range map[string]struct {
		k    *Keys
		s    string
		want bool
	}{
		"old by old": {was, old, true}, "new by old": {was, fresh, false}, "old by both": {now, old, true}, "new by both": {now, fresh, true},
		"old after its end": {later, old, false}, "new as the second": {later, fresh, true},
	} {
		if got, err := tt.k.Decode(tt.s); (err == nil) != tt.want || tt.want && got != token {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	var same [32]byte
	for name, list := range map[string][][32]byte{"none": nil, "twice": {same, same}, "too many": make([][32]byte, maxKeys+1)} {
		if _, err := NewKeys(list...); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	k := keys(f, 1)
	f.Add(k.Encode(Token{Unsubscribe, 17, sender.ID{1}}))
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		if token, err := k.Decode(s); err == nil && k.Encode(token) != s {
			t.Errorf("%q is another form of %v", s, token)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	k, token := keys(b, 1), Token{Unsubscribe, 17, sender.NewID()}
	b.ReportAllocs()
	for b.Loop() {
		k.Encode(token)
	}
}
