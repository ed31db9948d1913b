package loadtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"time"
)

// postfixMain is Postfix as it comes, but for its folders, its log and where mail goes. All other
// settings are its defaults.
const postfixMain = `# Postfix for one benchmark; removed after it.
compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
maillog_file = %[1]s/mail.log
maillog_file_prefixes = %[1]s
myhostname = postfix.loadtest.test
mydestination =
alias_maps =
alias_database =
biff = no
inet_interfaces = loopback-only
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
relayhost = [%[2]s]:%[3]s
`

// postfixTuned takes off the brakes that matter to a relay on loopback.
const postfixTuned = `in_flow_delay = 0
smtpd_peername_lookup = no
disable_dns_lookups = yes
initial_destination_concurrency = 20
default_destination_concurrency_limit = 50
`

// postfixMaster lists the services that a relay needs, none of them in a chroot.
const postfixMaster = `127.0.0.1:%s inet n - n - - smtpd
cleanup    unix  n - n -     0 cleanup
qmgr       unix  n - n 300   1 qmgr
rewrite    unix  - - n -     - trivial-rewrite
bounce     unix  - - n -     0 bounce
defer      unix  - - n -     0 bounce
trace      unix  - - n -     0 bounce
verify     unix  - - n -     1 verify
flush      unix  n - n 1000? 0 flush
tlsmgr     unix  - - n 1000? 1 tlsmgr
proxymap   unix  - - n -     - proxymap
proxywrite unix  - - n -     1 proxymap
smtp       unix  - - n -     - smtp
relay      unix  - - n -     - smtp
error      unix  - - n -     - error
retry      unix  - - n -     - error
discard    unix  - - n -     - discard
showq      unix  n - n -     - showq
anvil      unix  - - n -     1 anvil
scache     unix  - - n -     1 scache
postlog    unix-dgram n - n - 1 postlogd
`

// postfix is a running Postfix of our own, beside one that the machine may have.
type postfix struct {
	child *child
	dir   string
	addr  string
}

// findPostfix says where Postfix is, or why it cannot be measured here and what to do.
func findPostfix() (string, error) {
	path, err := exec.LookPath("postfix")
	if err != nil {
		path = "/usr/sbin/postfix" // often not in an ordinary user's PATH
	}
	if _, err := os.Stat(path); err != nil {
		return "", errors.New("Postfix is not installed, so there is nothing to compare with (Debian: apt install postfix)")
	}
	if os.Geteuid() != 0 {
		return "", errors.New("Postfix starts as root only: run this as root to compare with it")
	}
	return path, nil
}

// startPostfix starts one whose mail goes to sink, with so much more in its main.cf.
func startPostfix(ctx context.Context, path, dir, sink, more string) (*postfix, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	p := &postfix{dir: dir, addr: "127.0.0.1:" + port}
	if err := p.configure(sink, port, more); err != nil {
		return nil, fmt.Errorf("set Postfix up: %w", err)
	}
	if p.child, err = startChild("Postfix", filepath.Join(dir, "start.log"), path, "-c", filepath.Join(dir, "etc"), "start-fg"); err != nil {
		return nil, err
	}
	if err := p.child.until(ctx, time.Minute, p.greets); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

func (p *postfix) configure(sink, port, more string) error {
	for _, name := range []string{"", "etc", "queue", "data"} {
		if err := os.MkdirAll(filepath.Join(p.dir, name), 0o755); err != nil {
			return err
		}
	}
	if err := p.giveData(); err != nil {
		return err
	}
	host, sinkPort, err := net.SplitHostPort(sink)
	if err != nil {
		return err
	}
	main := fmt.Sprintf(postfixMain, p.dir, host, sinkPort) + more
	if err := os.WriteFile(filepath.Join(p.dir, "etc", "main.cf"), []byte(main), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(p.dir, "etc", "master.cf"), fmt.Appendf(nil, postfixMaster, port), 0o644)
}

// giveData gives the data folder to Postfix's user, which insists.
func (p *postfix) giveData() error {
	u, err := user.Lookup("postfix")
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return err
	}
	return os.Chown(filepath.Join(p.dir, "data"), uid, -1)
}

func (p *postfix) greets() bool {
	c, err := net.DialTimeout("tcp", p.addr, time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	greeting := make([]byte, 4)
	_, err = c.Read(greeting)
	_, _ = c.Write([]byte("QUIT\r\n"))
	return err == nil && bytes.HasPrefix(greeting, []byte("220"))
}

// stop ends the master, which ends its services and with it the script that we started.
func (p *postfix) stop() {
	pid := p.child.pid()
	text, err := os.ReadFile(filepath.Join(p.dir, "queue", "pid", "master.pid"))
	if err == nil {
		if master, err := strconv.Atoi(string(bytes.TrimSpace(text))); err == nil && master > 1 {
			pid = master
		}
	}
	p.child.stop(pid)
}

// freePort finds a port that is free now. Somebody may take it before it is used; then the start
// of what was to listen there fails, and says so.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}
