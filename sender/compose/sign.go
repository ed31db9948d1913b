package compose

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// signedNames are the fields that a signature covers, each once more than it stands in the header, so that one
// added on the way breaks the signature (RFC 6376 §5.4, §8.15). Sender is not among them, since mailing lists
// write their own, nor is what hosts on the way write.
var signedNames = [...]string{
	"From", "To", "Cc", "Subject", "Date", "Message-ID", "Reply-To", "MIME-Version", "Content-Type",
	"Content-Transfer-Encoding", "List-Unsubscribe", "List-Unsubscribe-Post", "Feedback-ID",
}

// Limits of an RSA key, in bits: verifiers refuse less (RFC 8301 §3.2), and few read more.
const minRSA, maxRSA = 1024, 4096

// signatureSize is more bytes than the DKIM-Signature of a 2048-bit key takes.
const signatureSize = 1200

// Key signs for a domain (RFC 6376). Its public half stands in the TXT record SELECTOR._domainkey.DOMAIN, see
// Record. Both names are ASCII: a domain outside ASCII is given as A-labels.
type Key struct {
	Domain, Selector string
	Signer           crypto.Signer // of an RSA key (1,024 to 4,096 bits) or an Ed25519 key
}

// Sign is the mail with a DKIM-Signature for each key before it; without keys it is the mail itself. The
// signatures say that they were made at that time (t=, in whole seconds): with one and the same time a mail has one
// and the same signatures. It is the last thing done to a mail, but for dots, before the wire.
//
// An error says that a key cannot sign, that the mail has not exactly one From, or that a line does not end in CRLF.
func Sign(mail []byte, keys []Key, at time.Time) ([]byte, error) {
	if len(keys) == 0 {
		return mail, nil
	}
	signed, err := AppendSignatures(make([]byte, 0, len(keys)*signatureSize+len(mail)), mail, keys, at)
	if err != nil {
		return nil, err
	}
	return append(signed, mail...), nil
}

// AppendSignatures appends what Sign puts before the mail, and not the mail. No line of it starts with a dot.
func AppendSignatures(dst, mail []byte, keys []Key, at time.Time) ([]byte, error) {
	if len(keys) == 0 {
		return dst, nil
	}
	header, body := mail, []byte(nil)
	if i := bytes.Index(mail, []byte("\r\n\r\n")); i >= 0 {
		header, body = mail[:i+2], mail[i+4:]
	}
	s := signing{at: strconv.FormatInt(max(at.Unix(), 0), 10)}
	if err := s.readHeader(header); err != nil {
		return nil, err
	}
	if err := s.readBody(body); err != nil {
		return nil, err
	}
	for _, k := range keys {
		var err error
		if dst, err = s.append(dst, k); err != nil {
			return nil, err
		}
	}
	return dst, nil
}

// signing is what the signatures of a mail have in common, which is nearly everything.
type signing struct {
	at       string
	counts   [len(signedNames)]int // how often each of signedNames stands in the header
	header   []byte                // the signed fields in relaxed form
	bodyHash string                // base64
}

func (s *signing) readHeader(header []byte) error {
	fields, err := splitHeader(make([]headerField, 0, 32), header)
	if err != nil {
		return err
	}
	s.header = make([]byte, 0, len(header)+signatureSize)
	for i, name := range signedNames {
		for j := len(fields) - 1; j >= 0; j-- { // fields of one name are signed from the last up, RFC 6376 §5.4.2
			if len(fields[j].name) == len(name) && bytes.EqualFold(fields[j].name, []byte(name)) {
				s.header = append(appendRelaxedField(s.header, name, fields[j].value), lineEnd...)
				s.counts[i]++
			}
		}
	}
	if n := s.counts[0]; n != 1 {
		return fmt.Errorf("cannot sign a mail with %d From fields: it must have one (RFC 5322 §3.6)", n)
	}
	return nil
}

// append appends the DKIM-Signature of one key: all of it is signed but the value of its last tag.
func (s *signing) append(dst []byte, k Key) ([]byte, error) {
	algorithm, hash, err := k.check()
	if err != nil {
		return nil, err
	}
	f := begin(dst, "DKIM-Signature")
	value := len(f.b)
	f.token("v=1;")
	f.token("a=", algorithm, ";")
	f.token("c=relaxed/relaxed;")
	f.token("d=", k.Domain, ";")
	f.token("s=", k.Selector, ";")
	f.token("t=", s.at, ";")
	s.names(&f)
	f.token("bh=", s.bodyHash, ";")

	signed := append(appendRelaxedField(s.header, "DKIM-Signature", f.b[value:]), " b="...)
	digest := sha256.Sum256(signed)
	signature, err := k.Signer.Sign(nil, digest[:], hash) // neither PKCS #1 v1.5 nor Ed25519 draws on chance
	if err != nil {
		return nil, fmt.Errorf("sign with selector %s of %s: %w", k.Selector, k.Domain, err)
	}
	text := base64.StdEncoding.EncodeToString(signature)
	const wide = softLine - len(" b=")
	f.token("b=", text[:min(wide, len(text))])
	for i := wide; i < len(text); i += wide {
		f.token(text[i:min(i+wide, len(text))])
	}
	return f.end(), nil
}

// names writes the tag h=.
func (s *signing) names(f *field) {
	tag := "h="
	for i, name := range signedNames {
		for range s.counts[i] {
			f.token(tag, name, ":")
			tag = ""
		}
		if i == len(signedNames)-1 {
			f.token(name, ";")
		} else {
			f.token(name, ":")
		}
	}
}

// check says how the key signs: an Ed25519 key signs the digest as it would any text (RFC 8463 §3).
func (k Key) check() (algorithm string, hash crypto.Hash, err error) {
	if !dnsName(k.Domain) || !dnsName(k.Selector) {
		return "", 0, fmt.Errorf("cannot sign: domain %.80q and selector %.80q must be host names in ASCII", k.Domain, k.Selector)
	}
	if k.Signer == nil {
		return "", 0, fmt.Errorf("cannot sign: selector %s of %s has no key", k.Selector, k.Domain)
	}
	switch public := k.Signer.Public().(type) {
	case *rsa.PublicKey:
		if err := checkRSA(public); err != nil {
			return "", 0, fmt.Errorf("cannot sign with selector %s of %s: %w", k.Selector, k.Domain, err)
		}
		return "rsa-sha256", crypto.SHA256, nil
	case ed25519.PublicKey:
		return "ed25519-sha256", 0, nil
	default:
		return "", 0, fmt.Errorf("cannot sign with selector %s of %s: %w", k.Selector, k.Domain, unknownKey(public))
	}
}

// dnsName holds a name against what can stand in a tag and be looked up. The underscore is common in selectors.
func dnsName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	label := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
			label++
		case c == '.' && label > 0:
			label = 0
		default:
			return false
		}
		if label > 63 {
			return false
		}
	}
	return label > 0
}

var (
	errLineEnd = errors.New("cannot sign: a line holds a bare CR or LF; every line must end in CRLF")
	errField   = errors.New("cannot sign: a line of the header is no field")
)
