// Package e2e tests the real binary from outside: HTTP in, mail out, kills and faults in between.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binaryEnv names the program under test. TestMain builds it into a folder that every user can reach, unless it is
// set: then that program is tested as it is.
const binaryEnv = "POSTRIDER_E2E_BINARY"

func TestMain(m *testing.M) {
	status, err := build(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		status = 1
	}
	os.Exit(status)
}

func build(m *testing.M) (int, error) {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil { // most tests wait for the program
		return 1, err
	}
	if os.Getenv(binaryEnv) != "" {
		return m.Run(), nil
	}
	folder, err := os.MkdirTemp("", "postrider-e2e-")
	if err != nil {
		return 1, err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	if err := os.Chmod(folder, 0o755); err != nil {
		return 1, err
	}
	binary := filepath.Join(folder, "postrider")
	if out, err := exec.Command("go", "build", "-o", binary, "../cmd/postrider").CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build: %w\n%s", err, out)
	}
	if err := os.Setenv(binaryEnv, binary); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// dev is a running postrider dev.
type dev struct {
	PID     int
	Config  string
	API     string
	SMTP    string
	Inbox   string
	Metrics string
	Account int64
	Key     string
	Servers []struct{ Name, DSN string }
	NATS    string

	dir    string
	cmd    *exec.Cmd
	output *tail
	ended  chan struct{}
}

// tail keeps the last of what a process printed.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if len(t.b) > 64<<10 {
		t.b = t.b[len(t.b)-32<<10:]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}

// folder is a fresh DIR that Postgres's user can reach.
func folder(t *testing.T) string {
	t.Helper()
	base, err := os.MkdirTemp("", "postrider-e2e-dir-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	return filepath.Join(base, "dir")
}

func devArgs(dir string, more ...string) []string {
	return append([]string{"dev", "--dir", dir, "--http", "127.0.0.1:0", "--smtp", "127.0.0.1:0", "--inbox", "127.0.0.1:0", "--metrics", "127.0.0.1:0",
		"--search", "postgres", "--log-level", "warn", "--ready-file", dir + ".ready"}, more...)
}

// start runs postrider dev on a folder until the test ends.
func start(t *testing.T, dir string, more ...string) *dev {
	t.Helper()
	return startAs(t, dir, nil, more...)
}

// startAs is start as another user.
func startAs(t *testing.T, dir string, user *syscall.Credential, more ...string) *dev {
	t.Helper()
	_ = os.Remove(dir + ".ready")
	d := begin(t, dir, user, more...)
	d.waitReady(t)
	return d
}

// begin is startAs without waiting.
func begin(t *testing.T, dir string, user *syscall.Credential, more ...string) *dev {
	t.Helper()
	d := &dev{dir: dir, output: &tail{}, ended: make(chan struct{})}
	d.cmd = exec.Command(os.Getenv(binaryEnv), devArgs(dir, more...)...)
	if user != nil {
		d.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: user}
		d.cmd.Dir, d.cmd.Env = filepath.Dir(dir), []string{"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Dir(dir)}
	}
	d.run(t)
	return d
}

// run starts its command, and stops it when the test ends.
func (d *dev) run(t *testing.T) {
	t.Helper()
	d.cmd.Stdout, d.cmd.Stderr = d.output, d.output
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = d.cmd.Wait(); close(d.ended) }()
	t.Cleanup(func() {
		d.stop(t)
		if t.Failed() {
			t.Logf("what postrider printed:\n%s", d.output)
		}
	})
}

func (d *dev) waitReady(t *testing.T) {
	t.Helper()
	wait(t, 60*time.Second, "postrider dev to be ready", func() bool {
		select {
		case <-d.ended:
			t.Fatalf("postrider dev ended:\n%s", d.output)
		default:
		}
		b, err := os.ReadFile(d.dir + ".ready")
		return err == nil && json.Unmarshal(b, d) == nil && d.PID == d.cmd.Process.Pid
	})
}

// stop ends it by SIGTERM and holds it to the promise: 10 s, exit 0, no ready file.
func (d *dev) stop(t *testing.T) {
	t.Helper()
	select {
	case <-d.ended:
		return
	default:
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.ended:
	case <-time.After(12 * time.Second):
		t.Errorf("not stopped 12 s after SIGTERM")
		_ = d.cmd.Process.Kill()
		<-d.ended
	}
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit %d after SIGTERM", code)
	}
	if _, err := os.Stat(d.dir + ".ready"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the ready file is still there: %v", err)
	}
}

func (d *dev) kill() {
	_ = d.cmd.Process.Kill()
	<-d.ended
}

func wait(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline, tick := time.After(limit), time.NewTicker(50*time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("waited %v for %s", limit, what)
		case <-tick.C:
		}
	}
}

type object = map[string]any

// call posts JSON and decodes the answer; the status is returned with it.
func (d *dev) call(path string, body object, header ...string) (int, any, error) {
	if _, ok := body["key"]; !ok {
		body["key"] = d.Key
	}
	b, err := json.Marshal(body)
	if err != nil {
		return 0, nil, err
	}
	return d.post(path, b, header...)
}

func (d *dev) post(path string, body []byte, header ...string) (int, any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, d.API+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return res.StatusCode, nil, err
	}
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		return res.StatusCode, nil, fmt.Errorf("not JSON: %q", text)
	}
	return res.StatusCode, v, nil
}

// must is call for what has to work.
func (d *dev) must(t *testing.T, path string, body object, header ...string) any {
	t.Helper()
	status, v, err := d.call(path, body, header...)
	if err != nil || status != 200 {
		t.Fatalf("%s: %d %v %v", path, status, v, err)
	}
	return v
}

func mail(to string, more ...object) object {
	m := object{"from_email": "from@example.com", "from_name": "Frøm", "subject": "Hello " + to, "text": "hello", "to": []object{{"email": to}}}
	for _, x := range more {
		for k, v := range x {
			m[k] = v
		}
	}
	return object{"message": m}
}

// send sends one mail to one recipient and returns its id.
func (d *dev) send(t *testing.T, to string, more ...object) string {
	t.Helper()
	v := d.must(t, "/api/1.0/messages/send", mail(to, more...))
	return v.([]any)[0].(object)["_id"].(string)
}

func (d *dev) state(t *testing.T, id string) object {
	t.Helper()
	return d.must(t, "/api/1.0/messages/info", object{"id": id}).(object)
}

func (d *dev) waitState(t *testing.T, id, want string) object {
	t.Helper()
	var m object
	wait(t, 30*time.Second, "message "+id+" to be "+want, func() bool {
		m = d.state(t, id)
		return m["state"] == want
	})
	return m
}

// inbox asks the inbox's API.
func (d *dev) inbox(t *testing.T, path string, into any) {
	t.Helper()
	res, err := http.Get(d.Inbox + path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("inbox %s: %d %s %v", path, res.StatusCode, b, err)
	}
	if raw, ok := into.(*[]byte); ok {
		*raw = b
	} else if err := json.Unmarshal(b, into); err != nil {
		t.Fatal(err)
	}
}

type inboxList struct {
	Total    int `json:"total"`
	Messages []struct {
		ID, MessageID, Subject string
		To, Cc, Bcc            []struct{ Name, Address string }
		Created                time.Time // when it arrived
	} `json:"messages"`
}

// received is how many mails with the id as their Message-ID are in the inbox, and the source of the newest.
func (d *dev) received(t *testing.T, id string) (int, []byte) {
	t.Helper()
	var list inboxList
	d.inbox(t, "/api/v1/search?query=message-id:"+id, &list)
	if len(list.Messages) == 0 {
		return 0, nil
	}
	var raw []byte
	d.inbox(t, "/api/v1/message/"+list.Messages[0].ID+"/raw", &raw)
	return len(list.Messages), raw
}

func (d *dev) waitMail(t *testing.T, id string) []byte {
	t.Helper()
	var raw []byte
	wait(t, 20*time.Second, "mail "+id+" in the inbox", func() bool {
		n, b := d.received(t, id)
		raw = b
		return n > 0
	})
	return raw
}

// command runs the program as an operator does.
func (d *dev) command(args ...string) (stdout, stderr string, code int) {
	c := exec.Command(os.Getenv(binaryEnv), args...)
	c.Env = append(os.Environ(), "POSTRIDER_CONFIG="+d.Config)
	var out, errs strings.Builder
	c.Stdout, c.Stderr = &out, &errs
	_ = c.Run()
	return out.String(), errs.String(), c.ProcessState.ExitCode()
}

func (d *dev) accountKey(t *testing.T) (account object, key string) {
	t.Helper()
	out, stderr, code := d.command("account", "create", "--name", t.Name(), "--json")
	var a object
	if err := json.Unmarshal([]byte(out), &a); err != nil || code != 0 {
		t.Fatalf("account create: %d %q %q %v", code, out, stderr, err)
	}
	return a, a["key"].(string)
}
