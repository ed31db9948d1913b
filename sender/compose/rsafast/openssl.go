//go:build openssl && cgo

package rsafast

/*
#cgo LDFLAGS: -lcrypto
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

static EVP_PKEY *readKey(const unsigned char *der, long size) {
	EVP_PKEY *key = d2i_AutoPrivateKey(NULL, &der, size);
	ERR_clear_error();
	return key;
}

// sign is 0, or OpenSSL's reason. A context belongs to one caller, a key to all.
static unsigned long sign(EVP_PKEY *key, const unsigned char *digest, size_t digestSize, unsigned char *signature, size_t *size) {
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new(key, NULL);
	unsigned long why = 0;
	if (c == NULL || EVP_PKEY_sign_init(c) != 1 || EVP_PKEY_CTX_set_rsa_padding(c, RSA_PKCS1_PADDING) != 1 ||
		EVP_PKEY_CTX_set_signature_md(c, EVP_sha256()) != 1 || EVP_PKEY_sign(c, signature, size, digest, digestSize) != 1) {
		why = ERR_get_error();
		why = why == 0 ? 1 : why;
		ERR_clear_error();
	}
	EVP_PKEY_CTX_free(c);
	return why;
}
*/
import "C"

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"runtime"
	"unsafe"
)

// By says whose code signs, for a log at start.
const By = "OpenSSL"

// opensslKey holds a key in OpenSSL's memory, which is freed when nobody can use it any more.
type opensslKey struct {
	public *rsa.PublicKey
	key    *C.EVP_PKEY
}

func fast(key *rsa.PrivateKey) (crypto.Signer, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("hand an RSA key to OpenSSL: %w", err)
	}
	defer clear(der)
	read := C.readKey((*C.uchar)(unsafe.Pointer(&der[0])), C.long(len(der)))
	if read == nil {
		return nil, errors.New("OpenSSL does not take an RSA key that Go takes: build without -tags openssl")
	}
	k := &opensslKey{public: &key.PublicKey, key: read}
	runtime.AddCleanup(k, func(key *C.EVP_PKEY) { C.EVP_PKEY_free(key) }, read)
	return k, nil
}

// Public is the *rsa.PublicKey.
func (k *opensslKey) Public() crypto.PublicKey { return k.public }

// Sign signs a SHA-256 digest with PKCS #1 v1.5 padding, and nothing else.
func (k *opensslKey) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if _, pss := opts.(*rsa.PSSOptions); pss || opts.HashFunc() != crypto.SHA256 || len(digest) != sha256.Size {
		return nil, errors.New("this RSA key signs SHA-256 digests with PKCS #1 v1.5 only")
	}
	signature := make([]byte, k.public.Size())
	size := C.size_t(len(signature))
	why := C.sign(k.key, (*C.uchar)(unsafe.Pointer(&digest[0])), C.size_t(len(digest)), (*C.uchar)(unsafe.Pointer(&signature[0])), &size)
	runtime.KeepAlive(k)
	if why != 0 || int(size) != len(signature) {
		return nil, fmt.Errorf("OpenSSL did not sign: error %#x (openssl errstr tells its text)", uint64(why))
	}
	return signature, nil
}
