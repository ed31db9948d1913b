package compose

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// RSABits is the size of a new RSA key: what every verifier reads (RFC 8301 §3.2).
const RSABits = 2048

// maxRecord is in bytes: a key of 4,096 bits takes 750.
const maxRecord = 4 << 10

// ErrRevoked says that a record withdraws its key: its p= is empty (RFC 6376 §3.6.1).
var ErrRevoked = errors.New("the DKIM record is empty (p=): its key is revoked")

// NewRSA makes a key of RSABits. It takes up to a second of CPU.
func NewRSA() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, RSABits) }

// NewEd25519 makes a key for signatures after RFC 8463; one of RSA costs forty times the CPU. Many receivers
// do not read them yet: let an RSA key sign too.
func NewEd25519() (ed25519.PrivateKey, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	return private, err
}

// EncodePrivate is a key that NewRSA or NewEd25519 made, as PKCS #8 in DER (RFC 5958). It is a secret.
func EncodePrivate(key crypto.Signer) ([]byte, error) {
	switch key.(type) {
	case *rsa.PrivateKey, ed25519.PrivateKey:
		return x509.MarshalPKCS8PrivateKey(key)
	}
	return nil, unknownKey(key)
}

// DecodePrivate reads what EncodePrivate wrote, and RSA keys of 1,024 to 4,096 bits made elsewhere. The key is
// checked and ready to sign: reading it costs more than signing with it, so keep it.
func DecodePrivate(der []byte) (crypto.Signer, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("read a private key as PKCS #8: %w", err)
	}
	switch key := key.(type) {
	case *rsa.PrivateKey:
		if err := checkRSA(&key.PublicKey); err != nil {
			return nil, err
		}
		return key, nil
	case ed25519.PrivateKey:
		return key, nil
	}
	return nil, unknownKey(key)
}

// Record is the value of the TXT record that publishes a key (RFC 6376 §3.6.1, RFC 8463 §4). That of a 2048-bit key is
// longer than the 255 bytes of one string in DNS: it is split over several, which readers put together.
func Record(public crypto.PublicKey) (string, error) {
	switch key := public.(type) {
	case *rsa.PublicKey:
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			return "", fmt.Errorf("encode an RSA public key: %w", err)
		}
		return "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der), nil
	case ed25519.PublicKey:
		return "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(key), nil
	}
	return "", unknownKey(public)
}

// ParseRecord is the key, *rsa.PublicKey or ed25519.PublicKey, that a record publishes, with its strings put
// together. It reads records as others write them too, and refuses those with which our signatures fail. Errors
// are fit for whoever published the record; ErrRevoked is one of them.
func ParseRecord(record string) (crypto.PublicKey, error) {
	tags, err := recordTags(record)
	if err != nil {
		return nil, err
	}
	if v, ok := tags["v"]; ok && (v != "DKIM1" || !strings.HasPrefix(strings.TrimLeft(record, " \t"), "v")) {
		return nil, errors.New("the record must start with v=DKIM1")
	}
	if !allows(tags, "h", "sha256") {
		return nil, errors.New("the record's h= leaves out sha256, with which mail is signed: remove h=")
	}
	if !allows(tags, "s", "email") && !allows(tags, "s", "*") {
		return nil, errors.New("the record's s= leaves out email: remove s=")
	}
	p, ok := tags["p"]
	switch {
	case !ok:
		return nil, errors.New("the record has no p=, which holds the key")
	case p == "":
		return nil, ErrRevoked
	}
	key, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(p), ""))
	if err != nil {
		return nil, errors.New("the record's p= is not base64: was it cut off, or pasted with quotes?")
	}
	return publicKey(tags["k"], key)
}

func publicKey(kind string, key []byte) (crypto.PublicKey, error) {
	switch kind {
	case "", "rsa":
		return publicRSA(key)
	case "ed25519":
		if len(key) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("the record's p= holds %d bytes; an Ed25519 key has %d", len(key), ed25519.PublicKeySize)
		}
		return ed25519.PublicKey(key), nil
	}
	return nil, fmt.Errorf("the record's k=%.20q is neither rsa nor ed25519", kind)
}

func publicRSA(der []byte) (crypto.PublicKey, error) {
	var key *rsa.PublicKey
	if public, err := x509.ParsePKIXPublicKey(der); err == nil {
		key, _ = public.(*rsa.PublicKey)
	} else {
		key, _ = x509.ParsePKCS1PublicKey(der) // some publish this form, RFC 6376 erratum 3017
	}
	if key == nil {
		return nil, errors.New("the record's p= is not an RSA key: was it cut off?")
	}
	if err := checkRSA(key); err != nil {
		return nil, err
	}
	return key, nil
}

// recordTags reads a tag list (RFC 6376 §3.2).
func recordTags(record string) (map[string]string, error) {
	if len(record) > maxRecord {
		return nil, fmt.Errorf("the record has %d bytes; a DKIM record has at most %d", len(record), maxRecord)
	}
	tags := map[string]string{}
	for tag := range strings.SplitSeq(record, ";") {
		if strings.TrimSpace(tag) == "" {
			continue
		}
		name, value, ok := strings.Cut(tag, "=")
		name = strings.TrimSpace(name)
		if _, twice := tags[name]; !ok || twice {
			return nil, fmt.Errorf("%.40q in the record is not a new NAME=VALUE", tag)
		}
		tags[name] = strings.TrimSpace(value)
	}
	return tags, nil
}

// allows says that a record's list, if it has it, holds the value.
func allows(tags map[string]string, name, value string) bool {
	list, ok := tags[name]
	return !ok || slices.ContainsFunc(strings.Split(list, ":"), func(s string) bool { return strings.TrimSpace(s) == value })
}

func checkRSA(key *rsa.PublicKey) error {
	if n := key.N.BitLen(); n < minRSA || n > maxRSA {
		return fmt.Errorf("an RSA key of %d bits: it must have %d to %d (RFC 8301 §3.2)", n, minRSA, maxRSA)
	}
	return nil
}

func unknownKey(key any) error {
	return fmt.Errorf("a key of type %T: DKIM knows RSA and Ed25519", key)
}
