package deliver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// issuer is a certificate authority of the test.
type issuer struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	a := &issuer{t: t, key: newKey(t)}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "An authority"}, NotBefore: time.Now().Add(-48 * time.Hour),
		NotAfter: time.Now().Add(48 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.cert = a.sign(template, template, a.key)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *issuer) sign(template, parent *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

// server is the TLS of a server that has a certificate for the names, which ended or will end at a time from now.
func (a *issuer) server(left time.Duration, names ...string) *tls.Config {
	a.t.Helper()
	key := newKey(a.t)
	c := a.sign(&x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(left), DNSNames: names}, a.cert, key)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{c.Raw, a.cert.Raw}, PrivateKey: key}}}
}

func (a *issuer) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// policyHost serves MTA-STS policies by HTTPS, and counts what it is asked.
type policyHost struct {
	ip, port string

	mu    sync.Mutex
	serve http.HandlerFunc
	asked int
	conns int
}

func startPolicyHost(t *testing.T, cfg *tls.Config) *policyHost {
	t.Helper()
	ln, err := net.Listen("tcp", loopback()+":0")
	if err != nil {
		t.Fatal(err)
	}
	h := &policyHost{}
	h.ip, h.port, _ = net.SplitHostPort(ln.Addr().String())
	srv := &http.Server{TLSConfig: cfg, ErrorLog: log.New(io.Discard, "", 0), ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			h.mu.Lock()
			h.conns++
			h.mu.Unlock()
		}
	}, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.asked++
		serve := h.serve
		h.mu.Unlock()
		serve(w, r)
	})}
	ended := make(chan struct{})
	go func() { _ = srv.ServeTLS(ln, "", ""); close(ended) }()
	t.Cleanup(func() { _ = srv.Close(); <-ended })
	return h
}

func (h *policyHost) says(serve http.HandlerFunc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.serve = serve
}

func (h *policyHost) publishes(policy string) {
	h.says(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/.well-known/mta-sts.txt" || r.Host != "mta-sts.example.com" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte(policy))
	})
}

func (h *policyHost) counts() (asked, conns int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked, h.conns
}

func stsText(mode string, hosts ...string) string {
	return "version: STSv1\r\nmode: " + mode + "\r\nmax_age: 86400\r\nmx: " + strings.Join(hosts, "\r\nmx: ") + "\r\n"
}

// world has the domains example.com and other.example with one mail host, mx.example.com, and a policy host for the first.
type world struct {
	t      *testing.T
	ca     *issuer
	mx     *host
	policy *policyHost
	zone   zone
	client *Client
}

// newWorld makes a world whose mail host has this TLS; nil for none. change may alter the zone before it is served.
func newWorld(t *testing.T, ca *issuer, mx *tls.Config, s script, change func(w *world, port int)) *world {
	t.Helper()
	ext := pipelining
	if mx != nil {
		ext = append([]string{"STARTTLS"}, pipelining...)
	}
	w := &world{t: t, ca: ca, policy: startPolicyHost(t, ca.server(time.Hour, "mta-sts.example.com"))}
	w.mx = startHost(t, loopback()+":0", ext, s)
	w.mx.tls, w.mx.extTLS = mx, pipelining
	ip, port := splitAddr(t, w.mx.addr)
	w.zone = zone{
		"MX example.com.":           {". MX 10 mx.example.com."},
		"MX other.example.":         {". MX 10 mx.example.com."},
		"A mx.example.com.":         {". A " + ip},
		"TXT _mta-sts.example.com.": {`. TXT "v=STSv1; id=1;"`},
		"A mta-sts.example.com.":    {". A " + w.policy.ip},
	}
	w.policy.publishes("")
	if change != nil {
		change(w, port)
	}
	server, _ := startDNS(t, w.zone)
	w.client = newClient(t, Config{Resolver: []string{server}, Port: port, AllowPrivate: true, Timeouts: quick(), TLS: &tls.Config{RootCAs: ca.pool()}})
	fetcher := newSTSFetcher(w.client, ca.pool())
	fetcher.port = w.policy.port
	w.client.sts.fetch = fetcher.fetch
	return w
}

// noMail says that the host has heard of no message, neither in the clear nor otherwise.
func (h *host) noMail() {
	h.t.Helper()
	if lines := h.lines(); slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, "MAIL FROM") }) {
		h.t.Errorf("a message was begun: %q", lines)
	}
}

// results are the counts for reports, as "domain policy result host count".
func results(c *Client) (list []string) {
	_, all := c.TLSResults()
	for _, r := range all {
		if r.Success > 0 {
			list = append(list, r.Domain+" "+r.Policy+" success "+strconv.FormatInt(r.Success, 10))
		}
		for _, f := range r.Failures {
			list = append(list, strings.Join([]string{r.Domain, r.Policy, f.Result, f.Host, strconv.FormatInt(f.Count, 10)}, " "))
		}
	}
	return list
}

func wantResults(t *testing.T, c *Client, expect ...string) {
	t.Helper()
	if got := results(c); !slices.Equal(got, expect) {
		t.Errorf("counted %q, want %q", got, expect)
	}
}

func only(version uint16, cfg *tls.Config) *tls.Config {
	cfg.MinVersion, cfg.MaxVersion = version, version
	return cfg
}
