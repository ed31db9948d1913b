package bounce

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"math"
	"strings"
	"testing"

	"github.com/postrider/postrider/sender"
)

func testKey() Key {
	var k Key
	for i := range k {
		k[i] = byte(i)
	}
	return k
}

func TestReturnPathComesBack(t *testing.T) {
	k := testKey()
	for _, account := range []int64{0, 1, 127, 128, 1 << 40, math.MaxInt64, -1} {
		p := ReturnPath{Account: account, Message: sender.ID{1, 0x9c, 15: 0xff}}
		local := k.Encode(p)
		if len(local) > 64 || sender.CheckEmail(local+"@bounces.example.com") != nil {
			t.Errorf("%q is no local part", local)
		}
		for _, form := range []string{local, strings.ToUpper(local)} {
			if got, err := k.Decode(form); err != nil || got != p {
				t.Errorf("%q: got %+v, %v", form, got, err)
			}
		}
	}
}

// TestReturnPathIsStable pins the form: paths of mails sent before an upgrade come back after it.
func TestReturnPathIsStable(t *testing.T) {
	const want = "b.aiaqeaybaaaaaaaaaaaaaaaaaaaq4cecjqwed2nv"
	if got := testKey().Encode(ReturnPath{Account: 2, Message: sender.ID{1, 2, 3, 1, 15: 1}}); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestMACIsHMAC(t *testing.T) {
	k := testKey()
	for n := range maxPath - macSize + 1 {
		plain := bytes.Repeat([]byte{0xa5}, n)
		h := hmac.New(sha256.New, k[:])
		h.Write([]byte(pathScope))
		h.Write(plain)
		if got := k.mac(plain); !bytes.Equal(got[:], h.Sum(nil)[:macSize]) {
			t.Errorf("%d bytes: got %x", n, got)
		}
	}
}

func TestEveryChangeOfAReturnPathIsRefused(t *testing.T) {
	k := testKey()
	local := k.Encode(ReturnPath{Account: 7, Message: sender.ID{1, 2, 3}})
	changed := []string{"", "b.", "b", local + "a", local + "=", local[:len(local)-1], local[1:], "b." + local, local + "\n", local[:9] + "\r\n" + local[9:],
		strings.Repeat("a", 1000), "postmaster", strings.Replace(local, "a", "\u00e0", 1), local + "\u212a"}
	for i := range local {
		for _, c := range "abcdefghijklmnopqrstuvwxyz234567.-=\x00\xff\u212a" {
			if b := local[:i] + string(c) + local[i+1:]; b != local {
				changed = append(changed, b)
			}
		}
	}
	for _, s := range changed {
		if got, err := k.Decode(s); err == nil || got != (ReturnPath{}) {
			t.Errorf("%q: got %+v, %v", s, got, err)
		}
	}
	other := k
	other[31]++
	if _, err := other.Decode(local); err == nil {
		t.Error("another key took it")
	}
}

func FuzzDecode(f *testing.F) {
	k := testKey()
	f.Add(k.Encode(ReturnPath{Account: 1}))
	f.Add("b.aaaa")
	f.Fuzz(func(t *testing.T, local string) {
		if p, err := k.Decode(local); err == nil && !strings.EqualFold(k.Encode(p), local) {
			t.Errorf("%q is a second form of %q", local, k.Encode(p))
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	k := testKey()
	p := ReturnPath{Account: 123456, Message: sender.ID{1, 2, 3}}
	b.ReportAllocs()
	for b.Loop() {
		k.Encode(p)
	}
}
