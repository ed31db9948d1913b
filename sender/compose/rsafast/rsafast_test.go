package rsafast

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"runtime"
	"sync"
	"testing"
)

func newKey(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newSigner(t testing.TB, key crypto.Signer) crypto.Signer {
	t.Helper()
	s, err := Signer(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSameSignatures(t *testing.T) {
	t.Logf("signed by %s", By)
	for _, bits := range []int{1024, 2048, 4096} {
		key := newKey(t, bits)
		s := newSigner(t, key)
		if !key.PublicKey.Equal(s.Public()) {
			t.Errorf("%d bits: another public key", bits)
		}
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				for j := range 10 {
					digest := sha256.Sum256([]byte{byte(i), byte(j)})
					want, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, digest[:])
					if err != nil {
						t.Error(err)
					}
					if got, err := s.Sign(nil, digest[:], crypto.SHA256); err != nil || !bytes.Equal(got, want) {
						t.Errorf("%d bits: got %x, %v, want %x", bits, got, err, want)
					}
				}
			})
		}
		all.Wait()
	}
}

func TestRefusesOtherDigests(t *testing.T) {
	s := newSigner(t, newKey(t, 2048))
	if _, err := s.Sign(nil, make([]byte, 31), crypto.SHA256); err == nil {
		t.Error("signed 31 bytes as a SHA-256 digest")
	}
	if _, err := s.Sign(nil, nil, crypto.SHA256); err == nil {
		t.Error("signed nothing as a SHA-256 digest")
	}
}

func TestOtherKeysStay(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if s := newSigner(t, key); !key.Equal(s) {
		t.Errorf("became %T", s)
	}
}

// TestKeysAreLetGo makes and drops keys while the collector runs: memory freed too early would crash.
func TestKeysAreLetGo(t *testing.T) {
	key := newKey(t, 2048)
	digest := sha256.Sum256(nil)
	for range 50 {
		if _, err := newSigner(t, key).Sign(nil, digest[:], crypto.SHA256); err != nil {
			t.Fatal(err)
		}
		runtime.GC()
	}
}

func BenchmarkSign2048(b *testing.B) {
	s := newSigner(b, newKey(b, 2048))
	digest := sha256.Sum256(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Sign(nil, digest[:], crypto.SHA256); err != nil {
			b.Fatal(err)
		}
	}
}
