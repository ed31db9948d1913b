package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestServerFault stops one of two Postgres servers under load, first by freezing every process of it, then by
// killing them. The accounts of the other must not notice, its own get a quick 503 and go on by themselves.
func TestServerFault(t *testing.T) {
	out := outside(t)
	dir := folder(t)
	d := start(t, dir, "--sink", out.SMTPAddr())
	victim, other := d.on(t, "pg1"), d.on(t, "pg2")
	f := &fault{victim: victim, other: other, answered: map[string]bool{}}
	pid := postmaster(t, dir, "pg1")
	t.Run("frozen", func(t *testing.T) {
		tree := family(pid)
		t.Cleanup(func() { signalAll(tree, syscall.SIGCONT) })
		f.round(t, func() { signalAll(tree, syscall.SIGSTOP) }, func() { signalAll(tree, syscall.SIGCONT) })
	})
	t.Run("killed", func(t *testing.T) {
		f.round(t, func() { signalAll(family(pid), syscall.SIGKILL) }, func() {
			wait(t, 10*time.Second, "the server to be started again", func() bool {
				b, err := os.ReadFile(filepath.Join(dir, "postgres", "pg1", "postmaster.pid"))
				first, _, _ := strings.Cut(string(b), "\n")
				return err == nil && first != "" && first != strconv.Itoa(pid)
			})
		})
	})
	t.Run("directory frozen", func(t *testing.T) { f.directory(t, d, postmaster(t, dir, "directory")) })
	wait(t, 60*time.Second, fmt.Sprintf("all of %d answered mails to arrive", len(f.answered)), func() bool {
		copies := inboxCopies(t, &dev{Inbox: "http://" + out.InboxAddr()})
		for id := range f.answered {
			if copies[id] == 0 {
				return false
			}
		}
		return true
	})
	t.Logf("%d answered, all arrived", len(f.answered))
	for _, account := range []*dev{victim, other} {
		id := account.send(t, "after@example.net")
		account.waitState(t, id, "sent")
	}
}

// on is the system called by an account that lives on a server.
func (d *dev) on(t *testing.T, server string) *dev {
	t.Helper()
	for range 50 {
		a, key := d.accountKey(t)
		out, stderr, code := d.command("account", "show", fmt.Sprint(a["account"]), "--json")
		var shown object
		if err := json.Unmarshal([]byte(out), &shown); err != nil || code != 0 {
			t.Fatalf("account show: %d %q %q %v", code, out, stderr, err)
		}
		if shown["server"] == server {
			return d.as(key)
		}
	}
	t.Fatalf("none of 50 accounts is on %s", server)
	return nil
}

// fault is a load on two servers, one of which is made to fail.
type fault struct {
	victim, other *dev
	mu            sync.Mutex
	answered      map[string]bool
}

const (
	faultMeasure = 3 * time.Second // of throughput before and during
	faultAnswer  = 5 * time.Second // within which a 503 must come
	faultRecover = 10 * time.Second
)

func (f *fault) round(t *testing.T, hurt, heal func()) {
	stop := make(chan struct{})
	var load sync.WaitGroup
	var done, failed atomic.Int64
	endLoad := sync.OnceFunc(func() { close(stop); load.Wait() })
	defer endLoad()
	for range 4 {
		load.Go(func() { f.goOn(t, stop, &done, &failed) })
	}
	rate := func() int64 { // over a fixed time, so that two can be compared
		begin := done.Load()
		<-time.After(faultMeasure)
		return done.Load() - begin
	}
	f.keep(t, f.victim, 20)
	before := rate()
	hurt()
	var probes sync.WaitGroup
	for range 4 {
		probes.Go(func() { f.probe(t, f.victim) })
	}
	during := rate()
	probes.Wait()
	heal()
	begin := time.Now()
	f.recover(t, f.victim)
	t.Logf("the other server: %d sends before, %d during; the hurt one was back after %v", before, during, time.Since(begin))
	endLoad()
	f.keep(t, f.victim, 20)
	if failed.Load() > 0 {
		t.Errorf("%d calls for the other server failed", failed.Load())
	}
	if during < before/2 {
		t.Errorf("the other server's accounts sent %d mails before and %d during the fault", before, during)
	}
	if before < 30 {
		t.Errorf("only %d sends in %v: the load was none", before, faultMeasure)
	}
}

// recover waits until an account's sends work again, twenty in a row.
func (f *fault) recover(t *testing.T, d *dev) {
	t.Helper()
	var last string
	deadline := time.Now().Add(faultRecover)
	for row := 0; row < 20; row++ {
		status, _, v, err := d.timed("after")
		if err == nil && status == 200 {
			f.note(v)
			continue
		}
		row, last = -1, answer(status, v, err)
		if time.Now().After(deadline) {
			t.Fatalf("not served %v after the fault; the last answer was %s", faultRecover, last)
		}
	}
	if last != "" {
		t.Logf("the last refusal after the fault was %s", last)
	}
}

// directory freezes the server that knows keys and accounts. A key that cannot be looked up is not a wrong key: it is
// answered 503, or as before where it is remembered.
func (f *fault) directory(t *testing.T, d *dev, pid int) {
	fresh := d.fresh(t) // made by another process, so that this one has never seen its key
	f.keep(t, f.victim, 1)
	tree := family(pid)
	t.Cleanup(func() { signalAll(tree, syscall.SIGCONT) })
	signalAll(tree, syscall.SIGSTOP)
	known := 0
	for begin := time.Now(); time.Since(begin) < 2*faultMeasure; {
		for _, account := range []*dev{f.victim, f.other, fresh} {
			asked := time.Now()
			status, retry, v, err := account.timed("directory")
			if took := time.Since(asked); err != nil || status != 200 && status != 503 || took > faultAnswer || status == 503 && retry == "" {
				t.Errorf("answered %d %v %v after %v, Retry-After %q", status, v, err, took, retry)
			}
			if status == 200 {
				f.note(v)
				known++
			}
		}
	}
	t.Logf("%d calls were answered from memory", known)
	signalAll(tree, syscall.SIGCONT)
	for _, account := range []*dev{f.victim, f.other, fresh} {
		f.recover(t, account)
	}
}

// goOn sends for the account on the healthy server until told to stop.
func (f *fault) goOn(t *testing.T, stop chan struct{}, done, failed *atomic.Int64) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		status, v, err := f.other.call("/api/1.0/messages/send", mail("on@example.net"))
		if err != nil || status != 200 {
			if failed.Add(1) == 1 {
				t.Errorf("the other server's account was answered %d %v %v", status, v, err)
			}
			continue
		}
		done.Add(1)
		f.note(v)
	}
}

func (f *fault) note(v any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answered[v.([]any)[0].(object)["_id"].(string)] = true
}

func (f *fault) keep(t *testing.T, d *dev, n int) {
	t.Helper()
	for range n {
		f.note(d.must(t, "/api/1.0/messages/send", mail("kept@example.net")))
	}
}

// probe calls for the account on the hurt server: sends and reads must be refused in time, and say when to come again.
func (f *fault) probe(t *testing.T, d *dev) {
	for range 3 {
		begin := time.Now()
		status, retry, v, err := d.timed("probe")
		took := time.Since(begin)
		switch {
		case err == nil && status == 200: // stored by a process that had not stopped yet, or is there again
			f.note(v)
			continue
		case err != nil || status != 503:
			t.Errorf("the hurt server's account was answered %d %v %v after %v", status, v, err, took)
		case retry == "" || retry == "0":
			t.Errorf("503 without Retry-After: %v", v)
		}
		if took > faultAnswer {
			t.Errorf("the answer %d took %v, at most %v are promised", status, took, faultAnswer)
		}
	}
	begin := time.Now()
	status, v, err := d.call("/api/1.0/messages/search", object{})
	if took := time.Since(begin); err != nil || status != 503 && status != 200 || took > faultAnswer {
		t.Errorf("a search was answered %d %v %v after %v", status, v, err, took)
	}
}

// timed is a send whose Retry-After is looked at.
func (d *dev) timed(subject string) (status int, retryAfter string, v any, err error) {
	body := mail("probe@example.net", object{"subject": subject})
	body["key"] = d.Key
	b, err := json.Marshal(body)
	if err != nil {
		return 0, "", nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, d.API+"/api/1.0/messages/send", strings.NewReader(string(b)))
	if err != nil {
		return 0, "", nil, err
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", nil, err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, res.Header.Get("Retry-After"), v, errors.Join(err, json.Unmarshal(text, &v))
}
