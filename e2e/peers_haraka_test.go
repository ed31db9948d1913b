package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"
)

// harakaVersion runs on Node 20 and later.
const harakaVersion = "3.3.4"

// keepPlugin has Haraka keep each mail in a file, as it came but for its own Received field.
const keepPlugin = `const fs = require('node:fs')
const path = require('node:path')

exports.hook_rcpt = (next) => next(OK)

exports.hook_queue = (next, connection) => {
  const txn = connection.transaction
  const part = path.join(process.env.KEEP, txn.uuid + '.part')
  const file = fs.createWriteStream(part)
  file.on('error', () => next(DENYSOFT))
  file.on('finish', () => { fs.renameSync(part, part.replace('.part', '.eml')); next(OK) })
  txn.message_stream.pipe(file, { dot_stuffed: true })
}
`

// testHaraka sends 500 mails of every kind to Haraka. They must arrive as they were sent, with signatures that hold.
func testHaraka(t *testing.T, p *peers) {
	if os.Getenv("POSTRIDER_FULL") == "" {
		t.Skip("installs Haraka from npm: only with POSTRIDER_FULL=1")
	}
	kept := startHaraka(t, p)
	const n = 500
	ids, texts := make([]string, n), map[string]string{}
	for i := range ids {
		text := fmt.Sprintf("Mail %d\n.\n..\n.leading\nübung – 日本語 🙂\n\nFrom here\n%s\n.", i, strings.Repeat("long ", i))
		m := object{"subject": fmt.Sprintf("Größe %d – 日本", i), "text": text}
		if i%2 == 1 {
			m["html"] = "<p>" + text + "</p>\n.\n"
		}
		if i%5 == 0 {
			m["attachments"] = []object{{"type": "application/pdf", "name": "größe.pdf", "content": "Lg0KLg0KLi4NCg0uDQo="}}
		}
		ids[i] = p.send(t, fmt.Sprintf("r%d@haraka.example.net", i), m)
		texts[ids[i]] = text
	}
	p.allIn(t, 120*time.Second, ids, "sent")
	lookup := p.published(t, "example.com")
	mails := kept.mails(t)
	for _, id := range ids {
		sent, got := mails[id].sent, mails[id].got
		if len(sent) != 1 || len(got) != 1 {
			t.Fatalf("%s was sent %d times and arrived %d times", id, len(sent), len(got))
		}
		if field, same := bytes.CutSuffix(got[0], sent[0]); !same || !bytes.HasPrefix(field, []byte("Received: from ")) {
			t.Fatalf("sent:\n%q\narrived:\n%q", sent[0], got[0])
		}
		results, err := dkim.VerifyWithOptions(bytes.NewReader(got[0]), &dkim.VerifyOptions{LookupTXT: lookup})
		if err != nil || len(results) != 2 || results[0].Err != nil || results[1].Err != nil {
			t.Fatalf("%+v, %v of\n%s", results, err, got[0])
		}
	}
	if len(mails) != n {
		t.Errorf("%d mails arrived, want %d", len(mails), n)
	}
}

// published answers TXT look-ups from the records that a domain has to have.
func (d *dev) published(t *testing.T, domain string) func(string) ([]string, error) {
	t.Helper()
	var shown struct {
		Records []struct{ Name, Value string }
	}
	d.json(t, &shown, "domain", "show", domain, "--account", "1", "--json")
	return func(name string) ([]string, error) {
		for _, r := range shown.Records {
			if r.Name == name {
				return []string{r.Value}, nil
			}
		}
		return nil, errors.New("no such record")
	}
}

// haraka is a running Haraka and what was said to it.
type haraka struct {
	dir     string // where it keeps its mails
	mu      sync.Mutex
	streams []*bytes.Buffer
}

// startHaraka installs and runs Haraka as the host of haraka.example.net, behind a tap on the line.
func startHaraka(t *testing.T, p *peers) *haraka {
	t.Helper()
	npm, err := exec.LookPath("npm")
	if err != nil {
		noPeer(t, "needs Node.js with npm: %v", err)
	}
	home := t.TempDir()
	h := &haraka{dir: filepath.Join(home, "kept")}
	install := exec.Command(npm, "install", "--omit=optional", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline", "--prefix", home, "Haraka@"+harakaVersion)
	if out, err := install.CombinedOutput(); err != nil {
		noPeer(t, "npm could not install Haraka (is there a network?): %v\n%s", err, out)
	}
	address := freeAddress(t)
	usual, err := os.ReadFile(filepath.Join(home, "node_modules", "Haraka", "config", "connection.ini")) // it cannot do without
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"config/smtp.ini": "listen=" + address + "\n", "config/plugins": "keep\n", "config/me": "haraka.example.net\n", "config/loglevel": "warn\n",
		"config/connection.ini": string(usual),
		"plugins/keep.js":       keepPlugin, "kept/.keep": "", "package.json": `{"name":"peer","private":true}`,
	} {
		path := filepath.Join(home, "etc", name)
		if name == "kept/.keep" {
			path = filepath.Join(home, name)
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	cmd, said := exec.Command(filepath.Join(home, "node_modules", ".bin", "haraka"), "-c", filepath.Join(home, "etc")), &tail{}
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), "KEEP="+h.dir), said, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("what Haraka printed:\n%s", said)
		}
	})
	wait(t, 30*time.Second, "Haraka to listen", func() bool {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	h.tap(t, p.place("haraka.example.net"), address)
	return h
}

// tap passes connections on and writes down what the client says.
func (h *haraka) tap(t *testing.T, listen, to string) {
	t.Helper()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); running.Wait() })
	running.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				_ = client.Close()
				continue
			}
			stream := &bytes.Buffer{}
			h.mu.Lock()
			h.streams = append(h.streams, stream)
			h.mu.Unlock()
			running.Go(func() { _, _ = io.Copy(client, server); _ = client.Close() })
			running.Go(func() {
				_, _ = io.Copy(io.MultiWriter(server, &locked{&h.mu, stream}), client)
				_ = server.Close()
			})
		}
	})
}

type locked struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// carried is a mail as it was sent and as it arrived.
type carried struct{ sent, got [][]byte }

// mails are those on the line and those that Haraka has kept, by id.
func (h *haraka) mails(t *testing.T) map[string]*carried {
	t.Helper()
	out := map[string]*carried{}
	of := func(raw []byte) *carried {
		m := messageID.FindSubmatch(raw)
		if m == nil {
			t.Fatalf("a mail without our Message-ID:\n%q", raw)
		}
		id := string(m[1])
		if out[id] == nil {
			out[id] = &carried{}
		}
		return out[id]
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, stream := range h.streams {
		rest := stream.Bytes()
		for {
			_, content, more := bytes.Cut(rest, []byte("\r\nDATA\r\n"))
			if !more {
				break
			}
			var raw []byte
			raw, rest, _ = bytes.Cut(content, []byte("\r\n.\r\n"))
			raw = append(bytes.ReplaceAll(raw, []byte("\r\n.."), []byte("\r\n.")), "\r\n"...)
			of(raw).sent = append(of(raw).sent, raw)
			rest = append([]byte("\r\n"), rest...)
		}
	}
	files, err := filepath.Glob(filepath.Join(h.dir, "*.eml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		of(raw).got = append(of(raw).got, raw)
	}
	return out
}
