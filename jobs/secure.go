package jobs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/nats-io/nats.go"
)

// Login is how this process shows who it is to an external server, and knows the server. Its files are read by Connect,
// so that a wrong one is told at once; credentials and certificate are read again at each connection, so they can be
// renewed under a running process. A token, or a user and password, may stand in the URL instead.
type Login struct {
	User, Password string
	Credentials    string // file of a user's JWT and seed (.creds), or of an nkey seed alone
	TLSCA          string // PEM file of the authorities that servers' certificates come from; empty: those of the system
	TLSCert        string // PEM file of our certificate, for servers that ask for one
	TLSKey         string // PEM file of its key
}

var (
	errTwoLogins = errors.New("credentials and user: set one of them")
	errNoUser    = errors.New("password without user: set both")
	errHalfPair  = errors.New("tls_cert and tls_key: set both or none")
)

func (l Login) options() ([]nats.Option, error) {
	var opts []nats.Option
	switch {
	case l.Credentials != "" && l.User != "":
		return nil, errTwoLogins
	case l.User == "" && l.Password != "":
		return nil, errNoUser
	case l.User != "":
		opts = append(opts, nats.UserInfo(l.User, l.Password))
	case l.Credentials != "":
		opt, err := l.credentials()
		if err != nil {
			return nil, fmt.Errorf("credentials: %w", err)
		}
		opts = append(opts, opt)
	}
	if l.TLSCA == "" && l.TLSCert == "" && l.TLSKey == "" {
		return opts, nil
	}
	cfg, err := l.tls()
	if err != nil {
		return nil, err
	}
	return append(opts, nats.Secure(cfg)), nil
}

// credentials tells the two kinds of file apart. No error may hold what is in them.
func (l Login) credentials() (nats.Option, error) {
	text, err := os.ReadFile(l.Credentials)
	if err != nil {
		return nil, err
	}
	opt, err := nats.NkeyOptionFromSeed(l.Credentials)
	jwt := strings.Contains(string(text), "BEGIN NATS USER JWT")
	switch {
	case err != nil: // a seed is in both
		return nil, fmt.Errorf("%s holds no seed of a user: it must be a .creds file, or an nkey seed that begins with SU", l.Credentials)
	case jwt:
		return nats.UserCredentials(l.Credentials), nil
	}
	return opt, nil
}

func (l Login) tls() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if l.TLSCA != "" {
		pem, err := os.ReadFile(l.TLSCA)
		if err != nil {
			return nil, fmt.Errorf("tls_ca: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls_ca: %s holds no certificate in PEM form", l.TLSCA)
		}
	}
	if (l.TLSCert == "") != (l.TLSKey == "") {
		return nil, errHalfPair
	}
	if l.TLSCert == "" {
		return cfg, nil
	}
	pair := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		c, err := tls.LoadX509KeyPair(l.TLSCert, l.TLSKey)
		return &c, err
	}
	if _, err := pair(nil); err != nil {
		return nil, fmt.Errorf("tls_cert and tls_key: %w", err)
	}
	cfg.GetClientCertificate = pair
	return cfg, nil
}
