// Package rsafast signs with RSA as fast as the build can: with Go's own code by default, and with OpenSSL 3 in a
// build with cgo and -tags openssl, in about a third of the time. The signatures are the same, byte for byte.
package rsafast

import (
	"crypto"
	"crypto/rsa"
)

// Signer is the key itself or one that makes the same PKCS #1 v1.5 signatures in less time; keys other than
// *rsa.PrivateKey are returned as they are. Making one takes longer than signing with it: keep it. It may be used by
// many at once. An error says that OpenSSL does not take the key.
func Signer(key crypto.Signer) (crypto.Signer, error) {
	if key, ok := key.(*rsa.PrivateKey); ok {
		return fast(key)
	}
	return key, nil
}
