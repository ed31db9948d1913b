//go:build !openssl || !cgo

package rsafast

import (
	"crypto"
	"crypto/rsa"
)

// By says whose code signs, for a log at start.
const By = "Go"

func fast(key *rsa.PrivateKey) (crypto.Signer, error) { return key, nil }
