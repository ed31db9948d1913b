package deliver

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// What a script may answer in place of a reply. Everything else is sent as it is, "\r\n" added.
const (
	hang  = "<hang>"  // say nothing until the client goes
	drop  = "<drop>"  // close
	reset = "<reset>" // close with RST
	drip  = "<drip>"  // a byte now and then, without end
	flood = "<flood>" // 64 MiB of greeting
)

// script decides a host's answers. verb is GREETING, EHLO, …, DOT; n counts that verb on this connection from 1.
// An empty answer means the usual one.
type script func(p *peer, verb, line string, n int) string

// mail is a message that a host took.
type mail struct{ from, to, data string }

// host is a mail host that speaks real SMTP over TCP by a script and remembers what it saw.
type host struct {
	t      *testing.T
	addr   string
	ext    []string // offered to EHLO
	extTLS []string // offered under TLS
	script script
	tls    *tls.Config

	mu     sync.Mutex
	conns  int
	open   int
	peak   int
	mails  []mail
	log    []string      // "conn:line"
	closed chan struct{} // one for each connection that ended
}

// peer is one connection to a host.
type peer struct {
	h        *host
	id       int
	conn     net.Conn
	br       *bufio.Reader
	secure   bool
	seen     map[string]int
	from, to string
	inMail   bool
}

var pipelining = []string{"PIPELINING", "SIZE 1000000", "8BITMIME", "ENHANCEDSTATUSCODES"}

// startHost listens on 127.0.0.1, or on the address given.
func startHost(t *testing.T, addr string, ext []string, s script) *host {
	t.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, addr: ln.Addr().String(), ext: ext, script: s, closed: make(chan struct{}, 10_000)}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			h.mu.Lock()
			h.conns++
			h.open++
			h.peak = max(h.peak, h.open)
			p := &peer{h: h, id: h.conns, conn: conn, br: bufio.NewReader(conn), seen: map[string]int{}}
			h.mu.Unlock()
			all.Go(p.serve)
		}
	})
	t.Cleanup(func() { _ = ln.Close(); all.Wait() })
	return h
}

func (p *peer) serve() {
	defer func() {
		_ = p.conn.Close()
		p.h.mu.Lock()
		p.h.open--
		p.h.mu.Unlock()
		p.h.closed <- struct{}{}
	}()
	for ok := p.answer("GREETING", ""); ok; {
		line, err := p.br.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\r\n")
		verb, _, _ := strings.Cut(line, " ")
		p.h.mu.Lock()
		p.h.log = append(p.h.log, strconv.Itoa(p.id)+":"+line)
		p.h.mu.Unlock()
		ok = p.answer(strings.ToUpper(verb), line)
	}
}

// answer says what the script wants, or what a plain server would, and keeps the state of the dialogue.
func (p *peer) answer(verb, line string) bool {
	p.seen[verb]++
	reply := ""
	if p.h.script != nil {
		reply = p.h.script(p, verb, line, p.seen[verb])
	}
	if reply == "" {
		reply = p.usual(verb)
	}
	switch reply {
	case hang:
		_, _ = p.br.WriteTo(discard{})
		return false
	case drop:
		return false
	case reset:
		_ = p.conn.(*net.TCPConn).SetLinger(0)
		return false
	case drip:
		for range time.Tick(20 * time.Millisecond) {
			if _, err := p.conn.Write([]byte("2")); err != nil {
				return false
			}
		}
	case flood:
		junk := []byte(strings.Repeat("220-all work and no play makes a dull mail host\r\n", 1000))
		for range (64 << 20) / len(junk) {
			if _, err := p.conn.Write(junk); err != nil {
				return false
			}
		}
	}
	if _, err := p.conn.Write([]byte(reply + "\r\n")); err != nil {
		return false
	}
	return p.move(verb, line, reply)
}

func (p *peer) usual(verb string) string {
	switch verb {
	case "GREETING":
		return "220 mx.test ESMTP"
	case "EHLO":
		ext := p.h.ext
		if p.secure {
			ext = p.h.extTLS
		}
		lines := append([]string{"mx.test greets you"}, ext...)
		for i := range lines[:len(lines)-1] {
			lines[i] = "250-" + lines[i]
		}
		lines[len(lines)-1] = "250 " + lines[len(lines)-1]
		return strings.Join(lines, "\r\n")
	case "MAIL":
		if p.inMail {
			return "503 5.5.1 nested MAIL"
		}
		return "250 2.1.0 sender ok"
	case "RCPT":
		if !p.inMail {
			return "503 5.5.1 MAIL first"
		}
		return "250 2.1.5 recipient ok"
	case "DATA":
		if p.to == "" {
			return "503 5.5.1 no valid recipients"
		}
		return "354 go on"
	case "DOT":
		return fmt.Sprintf("250 2.0.0 queued as %d.%d", p.id, p.seen["DOT"])
	case "STARTTLS":
		return "220 2.0.0 go ahead"
	case "HELO", "RSET":
		return "250 ok"
	case "QUIT":
		return "221 bye"
	}
	return "500 5.5.2 what?"
}

// move follows the dialogue after an answer; false ends the connection.
func (p *peer) move(verb, line, reply string) bool {
	good := reply[0] == '2'
	switch {
	case verb == "QUIT" || strings.HasPrefix(reply, "421"):
		return false
	case verb == "MAIL" && good:
		p.from, p.to, p.inMail = line, "", true
	case verb == "RCPT" && good:
		p.to = line
	case verb == "RSET":
		p.from, p.to, p.inMail = "", "", false
	case verb == "DATA" && reply[0] == '3':
		return p.content()
	case verb == "STARTTLS" && good:
		conn := tls.Server(p.conn, p.h.tls)
		if conn.Handshake() != nil {
			return false
		}
		p.conn, p.br, p.secure, p.seen = conn, bufio.NewReader(conn), true, map[string]int{}
	}
	return true
}

func (p *peer) content() bool {
	var b strings.Builder
	for {
		line, err := p.br.ReadString('\n')
		if err != nil {
			return false
		}
		if line == ".\r\n" {
			break
		}
		b.WriteString(strings.TrimPrefix(line, "."))
	}
	p.h.mu.Lock()
	p.h.log = append(p.h.log, strconv.Itoa(p.id)+":.")
	p.h.mails = append(p.h.mails, mail{p.from, p.to, b.String()})
	p.h.mu.Unlock()
	p.from, p.to, p.inMail = "", "", false
	return p.answer("DOT", "")
}

func (h *host) took() []mail {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.mails)
}

func (h *host) lines() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.log)
}

func (h *host) connections() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.conns
}

// awaitClosed waits until n more connections have ended.
func (h *host) awaitClosed(n int) {
	h.t.Helper()
	for range n {
		select {
		case <-h.closed:
		case <-time.After(10 * time.Second):
			h.t.Fatal("a connection stayed open")
		}
	}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// answers is a script that gives fixed answers to verbs, every time.
func answers(pairs ...string) script {
	return func(_ *peer, verb, _ string, _ int) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == verb {
				return pairs[i+1]
			}
		}
		return ""
	}
}

// zone is what a DNS server knows: "MX example.com." → records without their names. SERVFAIL, NXDOMAIN and HANG
// stand for themselves; "TC" as a first record says that UDP cannot hold the rest, "AD" that a validating resolver, which
// this server plays, has checked the signatures.
type zone map[string][]string

// startDNS serves a zone over UDP and TCP, and counts the questions.
func startDNS(t *testing.T, z zone) (addr string, asked func(question string) int) {
	t.Helper()
	ip := loopback() // so that the port is free for both
	pc, err := net.ListenPacket("udp", ip+":0")
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	count := map[string]int{}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, req *dns.Msg) {
		key := dns.TypeToString[req.Question[0].Qtype] + " " + strings.ToLower(req.Question[0].Name)
		network := w.LocalAddr().Network()
		mu.Lock()
		count[key]++
		count[network+" "+key]++
		mu.Unlock()
		if m := z.answer(req, network); m != nil {
			_ = w.WriteMsg(m)
		}
	})
	for _, srv := range []*dns.Server{{PacketConn: pc, Handler: handler}, {Listener: ln, Handler: handler}} {
		go func() { _ = srv.ActivateAndServe() }()
		t.Cleanup(func() { _ = srv.Shutdown() })
	}
	return pc.LocalAddr().String(), func(q string) int {
		mu.Lock()
		defer mu.Unlock()
		return count[q]
	}
}

func (z zone) answer(req *dns.Msg, network string) *dns.Msg {
	q := req.Question[0]
	m := new(dns.Msg)
	m.SetReply(req)
	records := z[dns.TypeToString[q.Qtype]+" "+strings.ToLower(q.Name)]
	if len(records) == 0 {
		m.Rcode = dns.RcodeNameError
		for key := range z {
			if strings.HasSuffix(key, " "+strings.ToLower(q.Name)) {
				m.Rcode = dns.RcodeSuccess
			}
		}
		return m
	}
	for _, rec := range records {
		switch {
		case rec == "HANG":
			return nil
		case rec == "SERVFAIL":
			m.Rcode = dns.RcodeServerFailure
		case rec == "TC" && network == "udp":
			m.Truncated = true
			return m
		case rec == "TC":
		case rec == "AD":
			m.AuthenticatedData = req.AuthenticatedData // told to those who ask
		default:
			rr, err := dns.NewRR(rec)
			if err != nil {
				panic(err)
			}
			if rr.Header().Name == "." { // no owner given: it is the name asked for
				rr.Header().Name = q.Name
			}
			m.Answer = append(m.Answer, rr)
		}
	}
	return m
}

// loopback is an address of 127/8 that no other test uses.
func loopback() string {
	return fmt.Sprintf("127.%d.%d.%d", 1+mrand.IntN(250), mrand.IntN(250), 1+mrand.IntN(250))
}

// selfSigned is a server's TLS with a certificate that nobody trusts.
func selfSigned(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(-time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}
