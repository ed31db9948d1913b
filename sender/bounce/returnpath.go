package bounce

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"strings"

	"github.com/postrider/postrider/sender"
)

// Key signs return paths. Whoever holds it can forge bounces; a new one makes all paths before it void.
type Key [32]byte

// ReturnPath says what a mail that comes back is about.
type ReturnPath struct {
	Account int64
	Message sender.ID
}

const (
	pathPrefix = "b."
	pathScope  = "postrider return path\x00" // the key may sign other things elsewhere
	macSize    = 8                           // bytes: 64 bits, far beyond what can be tried by sending mail
	maxPath    = binary.MaxVarintLen64 + len(sender.ID{}) + macSize
	maxLocal   = 64 // octets, RFC 5321 §4.5.3.1.1; ours take 57 at most
)

var (
	errPath  = errors.New("is not a return path of ours")
	alphabet = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
)

// Encode is the local part of a return path: "b." and the base32 of account (unsigned varint), message and MAC
// (the first 8 bytes of an HMAC-SHA256). It holds only lower-case letters, digits and the dot, since hosts on the way may change the case.
func (k Key) Encode(p ReturnPath) string {
	var buf [maxPath]byte
	plain := binary.AppendUvarint(buf[:0], uint64(p.Account))
	plain = append(plain, p.Message[:]...)
	mac := k.mac(plain)
	var local [maxLocal]byte
	return string(alphabet.AppendEncode(append(local[:0], pathPrefix...), append(plain, mac[:]...)))
}

// mac is HMAC-SHA256 (RFC 2104 §2) over pathScope and plain, cut to macSize. It is written out because it runs for
// every attempt: crypto/hmac takes nine allocations for the same bytes, to which a test holds it.
func (k Key) mac(plain []byte) [macSize]byte {
	var inner [sha256.BlockSize + len(pathScope) + maxPath]byte
	var outer [sha256.BlockSize + sha256.Size]byte
	for i := range sha256.BlockSize {
		var b byte
		if i < len(k) {
			b = k[i]
		}
		inner[i], outer[i] = b^0x36, b^0x5c
	}
	n := sha256.BlockSize + copy(inner[sha256.BlockSize:], pathScope)
	n += copy(inner[n:], plain)
	sum := sha256.Sum256(inner[:n])
	copy(outer[sha256.BlockSize:], sum[:])
	sum = sha256.Sum256(outer[:])
	return [macSize]byte(sum[:])
}

// Decode reads what Encode made, in any case. Every other change is an error, which says nothing about where it was.
func (k Key) Decode(local string) (ReturnPath, error) {
	var p ReturnPath
	if len(local) > maxLocal {
		return p, errPath
	}
	local = lower(local)
	coded, ok := strings.CutPrefix(local, pathPrefix)
	if !ok {
		return p, errPath
	}
	b, err := alphabet.DecodeString(coded)
	if err != nil {
		return p, errPath
	}
	account, n := binary.Uvarint(b)
	if n <= 0 || len(b) != n+len(p.Message)+macSize {
		return p, errPath
	}
	p.Account = int64(account)
	copy(p.Message[:], b[n:])
	// Made again and compared whole, so that neither a longer varint nor the spare bits of base32 give a second form.
	if !hmac.Equal([]byte(k.Encode(p)), []byte(local)) {
		return ReturnPath{}, errPath
	}
	return p, nil
}

// lower knows ASCII only: to Unicode the Kelvin sign is a K as well.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, s)
}
