package e2e

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/nats-io/nats-server/v2/server"
)

// cluster is a directory and two Postgres servers with nothing on them but what postrider serve brings. A postrider
// dev has made them; it does not run any more, since it takes itself for the only one.
type cluster struct {
	key    string
	config object // of that postrider dev
	sink   string // takes all mail
	inbox  *dev   // shows it
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	out := outside(t)
	dir := folder(t)
	d := start(t, dir)
	c := &cluster{key: d.Key, sink: out.SMTPAddr(), inbox: &dev{Inbox: "http://" + out.InboxAddr()}}
	if _, err := toml.DecodeFile(d.Config, &c.config); err != nil {
		t.Fatal(err)
	}
	var again []func()
	for _, server := range []string{"directory", "pg1", "pg2"} {
		again = append(again, postgresOf(t, dir, server))
	}
	d.stop(t)
	for _, start := range again {
		start()
	}
	return c
}

// postgresOf looks at a running Postgres of a postrider dev and returns what starts the same one without it.
func postgresOf(t *testing.T, dir, server string) func() {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d", postmaster(t, dir, server))
	program, err := os.Readlink(proc + "/exe")
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(proc)
	if err != nil {
		t.Fatal(err)
	}
	owner, data := info.Sys().(*syscall.Stat_t), filepath.Join(dir, "postgres", server)
	return func() {
		cmd, said := exec.Command(program, "-D", data), &tail{}
		cmd.Dir, cmd.Stdout, cmd.Stderr = data, said, said
		if os.Geteuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}}
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Signal(syscall.SIGQUIT) // at once: the folder goes too
			_ = cmd.Wait()
			if t.Failed() {
				t.Logf("what Postgres %s printed:\n%s", server, said)
			}
		})
		wait(t, 30*time.Second, "Postgres "+server+" to be ready", func() bool {
			b, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
			return err == nil && strings.HasPrefix(string(b), strconv.Itoa(cmd.Process.Pid)+"\n") && strings.Contains(string(b), "ready")
		})
	}
}

// serve starts a postrider serve with a queue, and waits until it can accept.
func (c *cluster) serve(t *testing.T, queue object) *dev {
	t.Helper()
	d := &dev{Key: c.key, Config: filepath.Join(t.TempDir(), "postrider.toml"), output: &tail{}, ended: make(chan struct{})}
	cfg := object{}
	for name, v := range c.config {
		cfg[name] = v
	}
	http, metrics := freeAddress(t), freeAddress(t)
	d.API, d.Metrics = "http://"+http, "http://"+metrics+"/metrics"
	cfg["http"], cfg["metrics"], cfg["queue"] = http, metrics, queue
	cfg["delivery"] = object{"route": c.sink, "allow_private": true, "connections_per_site": 50, "messages_per_domain": perDomain,
		"retry": []string{"1s", "2s", "4s"}, "life": "1h", "command_timeout": "15s", "sweep": "1s"}
	f, err := os.Create(d.Config)
	if err == nil {
		err = toml.NewEncoder(f).Encode(cfg)
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	d.serve(t, "--roles", "api,sender")
	return d
}

// serve runs postrider serve on the configuration that was written for it, until it is ready.
func (d *dev) serve(t *testing.T, flags ...string) {
	t.Helper()
	d.cmd = exec.Command(os.Getenv(binaryEnv), append([]string{"serve", "--config", d.Config}, flags...)...)
	d.run(t)
	wait(t, 60*time.Second, "postrider serve to be ready", func() bool {
		select {
		case <-d.ended:
			t.Fatalf("postrider serve ended:\n%s", d.output)
		default:
		}
		status, _ := d.ready()
		return status == 200
	})
}

// perDomain is how many messages for one domain a process of a cluster has under way at once.
const perDomain = 5

// freeAddress is one that nobody listens on at the moment.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// ready asks /readyz; 0 when nobody answers.
func (d *dev) ready() (status int, text string) {
	return d.get(d.API + "/readyz")
}

func (d *dev) get(url string) (status int, text string) {
	client := &http.Client{Timeout: 5 * time.Second}
	res, err := client.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = res.Body.Close() }()
	var b strings.Builder
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		b.WriteString(lines.Text() + "\n")
	}
	return res.StatusCode, b.String()
}

// metric is the sum of a metric over its labels, or one series of it if they are named; -1 when it is not there.
func (d *dev) metric(name string) float64 {
	sum, found := 0.0, false
	_, text := d.get(d.Metrics)
	for line := range strings.Lines(text) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if plain, _, _ := strings.Cut(series, "{"); plain != name && series != name {
			continue
		}
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			sum, found = sum+v, true
		}
	}
	if !found {
		return -1
	}
	return sum
}

// startQueue starts a NATS server of its own; the function returned stops it.
func startQueue(t *testing.T, dir, address string) (stop func()) {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.NewServer(&server.Options{ServerName: "outside", Host: host, Port: number, JetStream: true, StoreDir: dir, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	stop = func() { s.Shutdown(); s.WaitForShutdown() }
	t.Cleanup(stop)
	if !s.ReadyForConnections(30 * time.Second) {
		t.Fatal("the queue is not ready")
	}
	return stop
}
