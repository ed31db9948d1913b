package domains

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Limits of a look-up.
const (
	queryTime  = 3 * time.Second // of one question to one server
	queryTries = 2               // servers, or times the only one is asked
	udpSize    = 1232            // bytes that cross the Internet unfragmented
	maxAliases = 8
	maxRecords = 100 // of one name
)

// resolver asks recursive DNS servers, and remembers nothing: a record that was published just now must be found.
type resolver struct {
	servers  []string
	udp, tcp *dns.Client
}

// newResolver takes the servers of /etc/resolv.conf if none are given. Without any each look-up says so.
func newResolver(servers []string) *resolver {
	if len(servers) == 0 {
		if conf, err := dns.ClientConfigFromFile("/etc/resolv.conf"); err == nil {
			for _, s := range conf.Servers {
				servers = append(servers, net.JoinHostPort(s, conf.Port))
			}
		}
	}
	return &resolver{servers: servers, udp: &dns.Client{Net: "udp", Timeout: queryTime, UDPSize: udpSize}, tcp: &dns.Client{Net: "tcp", Timeout: queryTime}}
}

// answer is what a name has of one type.
type answer struct {
	values  []string // of TXT the parts joined, of CNAME and MX the host in lower case without the dot at the end
	aliased bool     // the records stand at another name, to which an alias led
}

var errNoServers = errors.New("no DNS server is known: set resolvers, or add a nameserver to /etc/resolv.conf")

// lookup gives the records of a name; none if there are none. An error says that nobody could tell.
func (r *resolver) lookup(ctx context.Context, name string, kind uint16) (answer, error) {
	var a answer
	target := dns.Fqdn(name)
	for range maxAliases {
		msg, err := r.ask(ctx, target, kind)
		if err != nil {
			return answer{}, err
		}
		from := target
		if kind != dns.TypeCNAME {
			target = follow(msg, target)
			a.aliased = a.aliased || target != from
		}
		a.values = read(msg, target, kind)
		if len(a.values) > 0 || target == from || closed(msg) {
			return a, nil
		}
	}
	return answer{}, fmt.Errorf("%s leads through too many aliases", name)
}

// follow goes through the aliases in an answer as far as they lead (RFC 1034 §3.6.2).
func follow(msg *dns.Msg, name string) string {
	for range maxAliases {
		next := ""
		for _, rr := range msg.Answer {
			if c, ok := rr.(*dns.CNAME); ok && strings.EqualFold(c.Hdr.Name, name) {
				next = c.Target
				break
			}
		}
		if next == "" {
			break
		}
		name = next
	}
	return name
}

// closed says that the server followed the aliases to their end, where nothing is.
func closed(msg *dns.Msg) bool {
	for _, rr := range msg.Ns {
		if rr.Header().Rrtype == dns.TypeSOA {
			return true
		}
	}
	return msg.Rcode == dns.RcodeNameError
}

func read(msg *dns.Msg, name string, kind uint16) []string {
	var out []string
	for _, rr := range msg.Answer {
		if len(out) == maxRecords || rr.Header().Rrtype != kind || !strings.EqualFold(rr.Header().Name, name) {
			continue
		}
		switch rr := rr.(type) {
		case *dns.TXT:
			out = append(out, strings.Join(rr.Txt, ""))
		case *dns.CNAME:
			out = append(out, host(rr.Target))
		case *dns.MX:
			out = append(out, host(rr.Mx))
		}
	}
	return out
}

func host(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// ask puts a question to the servers in turn until one knows that there is, or is not, an answer.
func (r *resolver) ask(ctx context.Context, name string, kind uint16) (*dns.Msg, error) {
	if len(r.servers) == 0 {
		return nil, errNoServers
	}
	m := new(dns.Msg)
	m.SetQuestion(name, kind)
	m.SetEdns0(udpSize, false)
	var last error
	for try := range queryTries {
		server := r.servers[try%len(r.servers)]
		m.Id = dns.Id()
		got, _, err := r.udp.ExchangeContext(ctx, m, server)
		if err == nil && got.Truncated {
			got, _, err = r.tcp.ExchangeContext(ctx, m, server) // RFC 7766 §5
		}
		switch {
		case err != nil:
			last = errors.New("the DNS server did not answer")
		case len(got.Question) != 1 || got.Question[0].Qtype != kind || !strings.EqualFold(got.Question[0].Name, name):
			last = errors.New("the DNS server answered another question")
		case got.Rcode == dns.RcodeSuccess || got.Rcode == dns.RcodeNameError:
			return got, nil
		default:
			last = errors.New("the DNS server answered " + dns.RcodeToString[got.Rcode])
			if got.Rcode == dns.RcodeFormatError || got.Rcode == dns.RcodeNotImplemented {
				m.Extra = nil // a server of before RFC 6891
			}
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, last
}
