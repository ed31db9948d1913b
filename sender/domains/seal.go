package domains

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// sealer keeps private keys at rest: AES-256-GCM (NIST SP 800-38D) under a key derived from the installation's secret
// by HKDF-SHA256 (RFC 5869). Account, domain and selector are bound to what is sealed, so that no row opens in
// another's place.
type sealer struct {
	aead    cipher.AEAD
	mailbox []byte // the key of links to mailboxes
}

const sealVersion = 1 // the first byte of what is sealed

var errSealed = errors.New("cannot be opened: was `secret` changed in the configuration? put the old one back, or rotate the domain's keys")

func newSealer(secret [32]byte) sealer {
	block, err := aes.NewCipher(derive(secret, "postrider dkim keys at rest"))
	if err != nil {
		panic(err) // only for a key of another length
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // only for a cipher with another block
	}
	return sealer{aead, derive(secret, "postrider domain mailboxes")}
}

func derive(secret [32]byte, purpose string) []byte {
	key, err := hkdf.Key(sha256.New, secret[:], nil, purpose, 32)
	if err != nil {
		panic(err) // only for a length over 8 KiB
	}
	return key
}

// seal gives version, nonce and ciphertext with its tag.
func (s sealer) seal(private []byte, account int64, domain, selector string) []byte {
	out := make([]byte, 1+s.aead.NonceSize(), 1+s.aead.NonceSize()+len(private)+s.aead.Overhead())
	out[0] = sealVersion
	_, _ = rand.Read(out[1:]) // never fails: crypto/rand ends the process instead
	return s.aead.Seal(out, out[1:], private, bound(account, domain, selector))
}

func (s sealer) open(sealed []byte, account int64, domain, selector string) ([]byte, error) {
	n := 1 + s.aead.NonceSize()
	if len(sealed) < n || sealed[0] != sealVersion {
		return nil, fmt.Errorf("the DKIM key %s of %s %w", selector, domain, errSealed)
	}
	private, err := s.aead.Open(nil, sealed[1:n], sealed[n:], bound(account, domain, selector))
	if err != nil {
		return nil, fmt.Errorf("the DKIM key %s of %s %w", selector, domain, errSealed)
	}
	return private, nil
}

// bound is the additional data; a NUL stands in no domain and no selector.
func bound(account int64, domain, selector string) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(account)), domain+"\x00"+selector...)
}
