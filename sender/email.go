package sender

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

var (
	errNoAt       = errors.New("has no @")
	errLocal      = errors.New("has a local part that is empty, longer than 64 bytes or not a dot-atom")
	errDomain     = errors.New("has a domain that is not a host name")
	errTooLong    = errors.New("is longer than 254 bytes")
	errNoDot      = errors.New("has a domain without a dot")
	errNotUTF8    = errors.New("is not valid UTF-8")
	errBadLiteral = errors.New("has an address literal as its domain")
)

// CheckEmail holds an envelope address against our own strict grammar: the dot-atom form of
// RFC 5321 §4.1.2 with the UTF-8 of RFC 6531 §3.3, at most 64 bytes before the @ and 254 in all
// (RFC 3696 errata 1690). Quoted local parts and address literals are refused: they are how
// parameters get smuggled into the next host's RCPT.
func CheckEmail(s string) error {
	if len(s) > 254 {
		return errTooLong
	}
	if !utf8.ValidString(s) {
		return errNotUTF8
	}
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return errNoAt
	}
	if !dotAtom(s[:at]) {
		return errLocal
	}
	return checkDomain(s[at+1:])
}

func dotAtom(s string) bool {
	if s == "" || len(s) > 64 || s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, "..") {
		return false
	}
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		case strings.ContainsRune(".!#$%&'*+-/=?^_`{|}~", r):
		case r >= 0x80 && unicode.IsPrint(r): // no controls, spaces, separators, nor characters that show as nothing
		default:
			return false
		}
	}
	return true
}

func checkDomain(s string) error {
	if strings.HasPrefix(s, "[") {
		return errBadLiteral
	}
	if s == "" || len(s) > 253 {
		return errDomain
	}
	labels := strings.Split(s, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return errDomain
		}
		for _, r := range l {
			switch {
			case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-':
			case r >= 0x80 && unicode.IsPrint(r) && r != 0x3002 && r != 0xff0e && r != 0xff61: // not the other full stops
			default:
				return errDomain
			}
		}
	}
	if len(labels) < 2 {
		return errNoDot
	}
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" {
		return errDomain // an IP address, RFC 3696 §2
	}
	return nil
}

// Domain is what stands behind the @, in lower case.
func Domain(email string) string {
	return strings.ToLower(email[strings.LastIndexByte(email, '@')+1:])
}
