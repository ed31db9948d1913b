package jobs_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/postrider/postrider/jobs"
	"github.com/postrider/postrider/jobs/jobstest"
)

// The user of testdata/user.creds and user.nk, of an operator and an account that exist in testdata alone.
const (
	testUser    = "UBPGXKUJ3NVZ4JFSZNG3WKLOXPPJ5RFDBU5XPOVSOC6GWR3D2TT6GL5P"
	testAccount = "ADTCY34YLZJDNQAIU2KS4BBY5XH7GWSOES5PKD2DSFD5HTNCG62OXBZG"
	testSystem  = "AASHQUND2HTHMF7YOIOKX6HQVMGK2LHCGCHWV4T5ALQEJ5DNPZDIBQXX"
)

// external starts a server as an operator would run it, apart from us.
func external(t *testing.T, opts server.Options) (url string) {
	t.Helper()
	opts.Host, opts.Port, opts.NoSigs, opts.NoLog = "127.0.0.1", server.RANDOM_PORT, true, true
	opts.JetStream, opts.StoreDir = true, t.TempDir()
	s, err := server.NewServer(&opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(patience) {
		t.Fatal("the server does not start")
	}
	return "nats://" + s.Addr().String()
}

// authority makes certificates for a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{cert: &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}}
	a.file, _, a.key = a.sign(t, a.cert)
	return a
}

// sign writes a certificate and its key to files. The first one that it signs is its own.
func (a *authority) sign(t *testing.T, c *x509.Certificate) (certFile, keyFile string, key *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	by := a.key
	if by == nil {
		by = key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile, key
}

func (a *authority) leaf(t *testing.T, use x509.ExtKeyUsage) (certFile, keyFile string) {
	t.Helper()
	certFile, keyFile, _ = a.sign(t, &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{use}})
	return certFile, keyFile
}

// usable rings once with a login and says why the queue could not be used.
func usable(t *testing.T, url string, login jobs.Login) error {
	t.Helper()
	q := jobstest.Connect(t, jobs.Config{URL: url, Login: login})
	if err := q.Ready(); err != nil {
		return err
	}
	return q.Ring(t.Context(), bell("shard_0001"))
}

func TestLoginWithTLSAndPassword(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	serverCert, serverKey := a.leaf(t, x509.ExtKeyUsageServerAuth)
	pair, err := tls.LoadX509KeyPair(serverCert, serverKey)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(mustParse(t, a.file))
	url := external(t, server.Options{Username: "postrider", Password: "right", TLSTimeout: 10,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}})
	cert, key := a.leaf(t, x509.ExtKeyUsageClientAuth)
	good := jobs.Login{User: "postrider", Password: "right", TLSCA: a.file, TLSCert: cert, TLSKey: key}
	if err := usable(t, url, good); err != nil {
		t.Errorf("the right login: %v", err)
	}
	if err := usable(t, strings.Replace(url, "nats://", "tls://postrider:right@", 1), jobs.Login{TLSCA: a.file, TLSCert: cert, TLSKey: key}); err != nil {
		t.Errorf("the right login in the URL: %v", err)
	}
	for name, c := range map[string]struct {
		change func(*jobs.Login)
		says   string
	}{
		"wrong password":       {func(l *jobs.Login) { l.Password = "wrong" }, "authorization violation"},
		"no user":              {func(l *jobs.Login) { l.User, l.Password = "", "" }, "authorization violation"},
		"authority of another": {func(l *jobs.Login) { l.TLSCA = other.file }, "certificate"},
		"no authority":         {func(l *jobs.Login) { l.TLSCA = "" }, "certificate"},
		"no certificate":       {func(l *jobs.Login) { l.TLSCert, l.TLSKey = "", "" }, "certificate required"},
	} {
		login := good
		c.change(&login)
		q := jobstest.Connect(t, jobs.Config{URL: url, Login: login})
		until(t, "it is said what is wrong: "+c.says, func() bool {
			err := q.Ready()
			return err != nil && strings.Contains(strings.ToLower(err.Error()), c.says)
		})
		if err := q.Ring(t.Context(), bell("shard_0001")); err == nil || strings.Contains(err.Error(), "wrong") {
			t.Errorf("%s: rung, %v", name, err)
		}
	}
}

func mustParse(t *testing.T, file string) *x509.Certificate {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestLoginWithCredentials(t *testing.T) {
	operator, err := server.ReadOperatorJWT("testdata/operator.jwt")
	if err != nil {
		t.Fatal(err)
	}
	resolver := &server.MemAccResolver{}
	for name, file := range map[string]string{testAccount: "testdata/account.jwt", testSystem: "testdata/system.jwt"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := resolver.Store(name, strings.TrimSpace(string(text))); err != nil {
			t.Fatal(err)
		}
	}
	trusting := server.Options{AccountResolver: resolver, SystemAccount: testSystem}
	trusting.TrustedOperators = append(trusting.TrustedOperators, operator)
	byJWT := external(t, trusting)
	byNkey := external(t, server.Options{Nkeys: []*server.NkeyUser{{Nkey: testUser}}})
	for name, c := range map[string]struct{ url, file string }{"JWT": {byJWT, "testdata/user.creds"}, "nkey": {byNkey, "testdata/user.nk"}} {
		if err := usable(t, c.url, jobs.Login{Credentials: c.file}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := usable(t, c.url, jobs.Login{}); err == nil {
			t.Errorf("%s: let in without it", name)
		}
	}
}

// TestWrongLogins has each be told at once, with the setting, and without what is in the files.
func TestWrongLogins(t *testing.T) {
	dir := t.TempDir()
	none, junk := filepath.Join(dir, "none"), filepath.Join(dir, "junk")
	if err := os.WriteFile(junk, []byte("sesame"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := newAuthority(t)
	cert, key := a.leaf(t, x509.ExtKeyUsageClientAuth)
	_, otherKey := a.leaf(t, x509.ExtKeyUsageClientAuth)
	for name, c := range map[string]struct {
		login jobs.Login
		says  []string
	}{
		"no CA file":          {jobs.Login{TLSCA: none}, []string{"tls_ca", none}},
		"junk for a CA":       {jobs.Login{TLSCA: junk}, []string{"tls_ca", junk, "PEM"}},
		"no certificate file": {jobs.Login{TLSCert: none, TLSKey: key}, []string{"tls_cert", none}},
		"junk for a key":      {jobs.Login{TLSCert: cert, TLSKey: junk}, []string{"tls_key"}},
		"key of another":      {jobs.Login{TLSCert: cert, TLSKey: otherKey}, []string{"tls_key", "match"}},
		"half a pair":         {jobs.Login{TLSCert: cert}, []string{"tls_key"}},
		"no credentials file": {jobs.Login{Credentials: none}, []string{"credentials", none}},
		"junk credentials":    {jobs.Login{Credentials: junk}, []string{"credentials", junk, "seed"}},
		"two logins":          {jobs.Login{User: "u", Credentials: "testdata/user.nk"}, []string{"credentials", "user"}},
		"password alone":      {jobs.Login{Password: "sesame"}, []string{"password", "user"}},
	} {
		q, err := jobs.Connect(t.Context(), jobs.Config{URL: "nats://127.0.0.1:1", Login: c.login})
		if err == nil {
			q.Close()
			t.Errorf("%s: taken", name)
			continue
		}
		for _, s := range c.says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%s: %v does not say %s", name, err, s)
			}
		}
		if strings.Contains(err.Error(), "sesame") {
			t.Errorf("%s: said too much: %v", name, err)
		}
	}
}
