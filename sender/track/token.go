package track

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/postrider/postrider/sender"
)

// Kind says what a token is good for. A token of one kind is no token of another.
type Kind byte

// The kinds.
const (
	Unsubscribe Kind = 1
)

// Token names a message to whoever has its mail: it holds no address, and nobody without the key can make one.
type Token struct {
	Kind    Kind
	Account int64
	Message sender.ID
}

const (
	keyScope = "postrider track token v1" // the secret makes keys for other things elsewhere
	kidSize  = 2
	macSize  = 16 // bytes: 128 bits
	maxRaw   = kidSize + 1 + binary.MaxVarintLen64 + len(sender.ID{}) + macSize
	maxKeys  = 16
)

// maxToken is the length of the longest token in characters.
var maxToken = encoding.EncodedLen(maxRaw)

// encoding is base64url without padding (RFC 4648 §5), in its only form.
var encoding = base64.RawURLEncoding.Strict()

var errToken = errors.New("is not a token of ours")

type key struct {
	id     [kidSize]byte
	secret []byte
}

// Keys sign and read tokens.
type Keys struct {
	list []key // newest first
}

// NewKeys derives a key from each secret, at most 16 (HKDF, RFC 5869). The first signs; the others still read what they
// signed: links in mail that was sent must work for years.
func NewKeys(secrets ...[32]byte) (*Keys, error) {
	if len(secrets) == 0 || len(secrets) > maxKeys {
		return nil, fmt.Errorf("%d secrets for tracking: give 1 to %d, the newest first", len(secrets), maxKeys)
	}
	k := &Keys{}
	for i, s := range secrets {
		derived, err := hkdf.Key(sha256.New, s[:], nil, keyScope, 32+kidSize)
		if err != nil {
			return nil, fmt.Errorf("derive the key of tracking: %w", err)
		}
		made := key{id: [kidSize]byte(derived[32:]), secret: derived[:32]}
		if _, ok := k.find(made.id); ok {
			return nil, fmt.Errorf("secret %d for tracking is there twice, or looks like another: take it out", i+1)
		}
		k.list = append(k.list, made)
	}
	return k, nil
}

// find is the key with an id, or an empty one: with it a token takes as long to be refused.
func (k *Keys) find(id [kidSize]byte) (key, bool) {
	for _, one := range k.list {
		if one.id == id {
			return one, true
		}
	}
	return key{}, false
}

// Encode is the base64url of key id, kind, account (unsigned varint), message and the first 16 bytes of an HMAC-SHA256
// over them (RFC 2104): at most 63 letters, digits, - and _.
func (k *Keys) Encode(t Token) string { return k.list[0].encode(t) }

func (k key) encode(t Token) string {
	var buf [maxRaw]byte
	b := append(buf[:0], k.id[:]...)
	b = append(b, byte(t.Kind))
	b = binary.AppendUvarint(b, uint64(t.Account))
	b = append(b, t.Message[:]...)
	mac := hmac.New(sha256.New, k.secret)
	_, _ = mac.Write(b) // a hash never fails
	var sum [sha256.Size]byte
	return encoding.EncodeToString(append(b, mac.Sum(sum[:0])[:macSize]...))
}

// Decode reads what Encode made with any of the keys. Everything else is the same error: how long it takes tells of the form
// of the text, which its sender knows, and not of how near it came.
func (k *Keys) Decode(s string) (Token, error) {
	var t Token
	if len(s) > maxToken {
		return t, errToken
	}
	b, err := encoding.DecodeString(s)
	if err != nil || len(b) < kidSize+1 {
		return t, errToken
	}
	by, known := k.find([kidSize]byte(b))
	t.Kind = Kind(b[kidSize])
	b = b[kidSize+1:]
	account, n := binary.Uvarint(b)
	if n <= 0 || len(b) != n+len(t.Message)+macSize {
		return Token{}, errToken
	}
	t.Account = int64(account)
	copy(t.Message[:], b[n:])
	// Made again and compared whole, so that a longer varint gives no second form.
	if !hmac.Equal([]byte(by.encode(t)), []byte(s)) || !known {
		return Token{}, errToken
	}
	return t, nil
}
