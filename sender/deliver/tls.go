package deliver

import (
	"cmp"
	"crypto/tls"
	"errors"
	"net"
	"strconv"
	"sync"
	"time"
)

// clientTLS is a configuration for opportunistic TLS: against someone who only listens any certificate helps, and
// whoever can change the traffic could as well hide the offer of TLS (RFC 7435, RFC 3207 §6).
func clientTLS(cfg *tls.Config) *tls.Config {
	if cfg == nil {
		cfg = &tls.Config{}
	}
	cfg = cfg.Clone()
	cfg.InsecureSkipVerify = true // session.prove checks where a policy asks for it
	if cfg.MinVersion == 0 {
		cfg.MinVersion = tls.VersionTLS10 //nolint:gosec // better than the clear text that would follow; a policy asks for 1.2
	}
	cfg.DynamicRecordSizingDisabled = true // small first records are for browsers; here they are system calls
	if cfg.ClientSessionCache == nil {
		cfg.ClientSessionCache = tls.NewLRUClientSessionCache(2000)
	}
	return cfg
}

// inClear goes on without TLS, or not, as the policy says.
func (s *session) inClear(p *policy, why string) result {
	s.fault = noSTARTTLS
	if p.level == mayTLS {
		return result{}
	}
	return p.refuse(s.host, why)
}

// startTLS turns on TLS. A host that refuses after all is used in the clear, on the same connection, if the policy allows.
func (s *session) startTLS(cfg *tls.Config, p *policy) result {
	if err := s.ask("STARTTLS"); err != nil {
		return s.failed("starttls", err)
	}
	switch {
	case s.rep.code == 421:
		return s.said("starttls")
	case s.rep.code != 220:
		return s.inClear(p, "the host offers TLS but answered "+strconv.Itoa(s.rep.code)+" when asked for it")
	case s.br.Buffered() > 0:
		// Somebody put words into the host's mouth: read after the handshake they would pass for its answers.
		s.fault = validationFailure
		return s.failed("starttls", protocolError("sent more than the answer to STARTTLS before the handshake"))
	}
	mine := cfg.Clone()
	mine.ServerName = cmp.Or(p.base, s.host) // RFC 7672 §8.1
	if p.level > mayTLS {
		mine.MinVersion = max(mine.MinVersion, tls.VersionTLS12)
	}
	conn := tls.Client(s.tcp, mine)
	s.by(s.cfg.Timeouts.Command)
	if err := conn.Handshake(); err != nil {
		if errors.Is(err, net.ErrClosed) {
			return s.failed("starttls", err)
		}
		r := p.refuse(s.host, "TLS handshake failed: "+reason(err))
		r.tlsFailed, s.fault = true, validationFailure
		return r
	}
	state := conn.ConnectionState()
	var err error
	if s.fault, err = s.prove(&state, cfg.RootCAs, p); err != nil {
		return p.refuse(s.host, reason(err))
	}
	s.conn, s.tls = conn, true
	s.br.Reset(net.Conn(conn))
	return result{}
}

// How many hosts without working TLS are remembered, and for how long.
const (
	maxRemembered = 10_000
	rememberFor   = time.Hour
)

// hostMemory remembers hosts for an hour.
type hostMemory struct {
	mu    sync.Mutex
	until map[string]time.Time
}

func newHostMemory() *hostMemory { return &hostMemory{until: map[string]time.Time{}} }

func (m *hostMemory) has(host string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Now().Before(m.until[host])
}

func (m *hostMemory) add(host string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if len(m.until) >= maxRemembered {
		for h, t := range m.until {
			if now.After(t) {
				delete(m.until, h)
			}
		}
	}
	if len(m.until) < maxRemembered { // a host too many is asked for TLS again: slower, not wrong
		m.until[host] = now.Add(rememberFor)
	}
}
