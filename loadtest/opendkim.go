package loadtest

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// opendkimConf signs everything from loopback as many do: one RSA key, relaxed, without a log. Its key lies in a folder
// below one that everybody may write to, which it would refuse.
const opendkimConf = `# opendkim for one benchmark; removed after it.
Mode s
Domain example.com
Selector bench
KeyFile %[1]s/key.pem
RequireSafeKeys no
Canonicalization relaxed/relaxed
SignatureAlgorithm rsa-sha256
OversignHeaders From
Socket inet:%[2]s@127.0.0.1
Background no
AutoRestart no
Syslog no
`

const opendkimKey = 2048 // bits

// errNotInstalled is for what somebody could install.
var errNotInstalled = errors.New("not installed")

// opendkim is a running opendkim of our own, which signs what a Postfix shows it (its milter protocol).
type opendkim struct {
	child *child
	addr  string
}

func startOpendkim(ctx context.Context, dir string) (*opendkim, error) {
	path, err := exec.LookPath("opendkim")
	if err != nil {
		path = "/usr/sbin/opendkim" // often not in an ordinary user's PATH
	}
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("opendkim is %w, so there is no signed Postfix to compare with (Debian: apt install opendkim)", errNotInstalled)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "opendkim.conf")
	if err := configureOpendkim(dir, conf, port); err != nil {
		return nil, fmt.Errorf("set opendkim up: %w", err)
	}
	o := &opendkim{addr: "127.0.0.1:" + port}
	if o.child, err = startChild("opendkim", filepath.Join(dir, "opendkim.log"), path, "-f", "-x", conf); err != nil {
		return nil, err
	}
	if err := o.child.until(ctx, time.Minute, o.listens); err != nil {
		o.stop()
		return nil, err
	}
	return o, nil
}

func configureOpendkim(dir, conf, port string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	key, err := rsa.GenerateKey(rand.Reader, opendkimKey)
	if err != nil {
		return err
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if err := os.WriteFile(filepath.Join(dir, "key.pem"), block, 0o600); err != nil {
		return err
	}
	return os.WriteFile(conf, fmt.Appendf(nil, opendkimConf, dir, port), 0o644)
}

func (o *opendkim) listens() bool {
	c, err := net.DialTimeout("tcp", o.addr, time.Second)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

func (o *opendkim) stop() { o.child.stop(o.child.pid()) }
