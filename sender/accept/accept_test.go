package accept_test

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/accept"
	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/shards/shardtest"
)

// TestMany has 200 submissions of 50 accounts come in at once, over 8 shards and 2 servers.
func TestMany(t *testing.T) {
	w := open(t, pg.New(t, 8))
	answers := make([][]accept.Result, 200)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() {
			var to []string
			for k := range 1 + i%3 {
				to = append(to, fmt.Sprintf("r%d.%d@example.net", i, k))
			}
			var err error
			if answers[i], err = w.door.Accept(context.Background(), mail(int64(i%50+1), to...)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	want := map[string]int64{} // id to account
	for i, results := range answers {
		for k, r := range results {
			if r.Email != fmt.Sprintf("r%d.%d@example.net", i, k) || r.Status != accept.Sent || r.Reason != "" || r.QueuedReason != "" {
				t.Errorf("answer %+v", r)
			}
			want[r.ID] = int64(i%50 + 1)
		}
	}
	servers := map[string]bool{}
	for account := int64(1); account <= 50; account++ {
		servers[w.Shards.Of(account).Server.Name] = true
		for _, f := range w.stored(t, account) {
			if want[f.ID.String()] != account {
				t.Errorf("%s is in account %d", f.ID, account)
			}
			delete(want, f.ID.String())
			w.checkHanded(t, account, &f)
		}
	}
	if len(want) != 0 || len(servers) != 2 {
		t.Errorf("%d messages were answered and not stored, on %d servers", len(want), len(servers))
	}
}

// checkHanded holds a message to how it was born: in hand and handed over once, or free and rung for.
func (w *world) checkHanded(t *testing.T, account int64, f *store.Found) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	state, handed := sender.Queued, 0
	if w.offered[f.ID] {
		state, handed = sender.Sending, 1
	}
	if f.State != state || f.Attempt != handed || w.handed[f.ID] != handed {
		t.Errorf("state %d, attempt %d, handed over %d times; offered and taken: %v", f.State, f.Attempt, w.handed[f.ID], w.offered[f.ID])
	}
	if handed == 0 && w.rung[w.Shards.Of(account).Name] == 0 {
		t.Error("nobody was rung for it")
	}
}

// TestLockedShard has a shard locked: its caller waits or is told to come again, the others do not notice.
func TestLockedShard(t *testing.T) {
	w := open(t, pg.New(t, 8))
	const slow = 1
	quick := w.elsewhere(t, slow)
	w.send(t, mail(quick, "warm@example.net"))
	lock := exec(t, w.server(t, slow), "begin; lock table "+w.Shards.Of(slow).Name+".messages")
	waiting := make(chan error, 1)
	go func() {
		_, err := w.door.Accept(context.Background(), mail(slow, "slow@example.net"))
		waiting <- err
	}()
	begin := time.Now()
	for i := range 50 {
		w.send(t, mail(quick, fmt.Sprintf("q%d@example.net", i)))
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("50 submissions beside a locked shard took %v", took)
	}
	if err := lock.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; err != nil {
		t.Errorf("after the lock was gone: %v", err)
	}
	if n := len(w.stored(t, slow)); n != 1 {
		t.Errorf("%d messages of 1", n)
	}
}

// TestFencedShard has a shard fenced for good: its caller is told within 5 s to come again, and nothing is stored.
func TestFencedShard(t *testing.T) {
	w := open(t, pg.New(t, 8))
	const fenced = 1
	quick, schema := w.elsewhere(t, fenced), w.Shards.Of(fenced).Name
	exec(t, w.server(t, fenced), "create trigger fence before insert on "+schema+".submissions for each statement execute function "+schema+".fenced()")
	begin := time.Now()
	waiting := make(chan error, 1)
	go func() {
		_, err := w.door.Accept(context.Background(), mail(fenced, "fenced@example.net"))
		waiting <- err
	}()
	w.send(t, mail(quick, "quick@example.net"))
	if err := <-waiting; kind(err) != sender.KindUnavailable || time.Since(begin) > 6*time.Second {
		t.Errorf("after %v: %v", time.Since(begin), err)
	}
	if n := len(w.stored(t, fenced)) + len(w.handed); n != 1 || len(w.stored(t, quick)) != 1 {
		t.Errorf("%d stored behind the fence, handed over: %v", len(w.stored(t, fenced)), w.handed)
	}
	for id, unsure := range w.dropped {
		if !unsure || w.handed[id] > 0 {
			t.Errorf("%s was dropped as sure, or handed over too", id)
		}
	}
}

func TestServerDown(t *testing.T) {
	e, stop, start := shardtest.Own(t, 2)
	w := open(t, e)
	w.send(t, mail(1, "before@example.net"))
	stop()
	for _, key := range []string{"", "k"} {
		s := mail(1, "during@example.net")
		s.IdempotencyKey = key
		begin := time.Now()
		_, err := w.door.Accept(context.Background(), s)
		if kind(err) != sender.KindUnavailable || time.Since(begin) > 5*time.Second {
			t.Errorf("key %q, after %v: %v", key, time.Since(begin), err)
		}
	}
	start()
	again := mail(1, "after@example.net")
	again.IdempotencyKey = "k" // free: what failed left nothing
	shardtest.Within(t, 10*time.Second, "the server to be used again", func() bool {
		_, err := w.door.Accept(context.Background(), again)
		return err == nil
	})
	if n := len(w.stored(t, 1)); n != 2 {
		t.Errorf("%d messages of 2", n)
	}
}

// TestResults has every way in which a recipient is answered in one submission.
func TestResults(t *testing.T) {
	w := open(t, pg.New(t, 2))
	exec(t, w.server(t, 1), fmt.Sprintf(`insert into %s.rejects (account_id, email, reason, expires_at) values
		(1, 'gone@example.net', 'hard-bounce', now() + interval '1 day'), (1, 'angry@example.net', 'spam', null),
		(1, 'back@example.net', 'hard-bounce', now() - interval '1 second'), (2, 'fine@example.net', 'spam', null)`, w.Shards.Of(1).Name))
	results := w.send(t, mail(1, "fine@example.net", "GONE@example.NET", "no address", "angry@example.net", "back@example.net", "fine@example.net"))
	want := []struct {
		status accept.Status
		reason sender.RejectReason
	}{{accept.Sent, ""}, {accept.Rejected, "hard-bounce"}, {accept.Invalid, "invalid"}, {accept.Rejected, "spam"}, {accept.Sent, ""}, {accept.Sent, ""}}
	ids := map[string]bool{}
	for i, r := range results {
		ids[r.ID] = true
		if r.Status != want[i].status || r.Reason != want[i].reason {
			t.Errorf("%s: %+v", r.Email, r)
		}
	}
	if len(ids) != 6 {
		t.Errorf("%d different ids: a duplicate has its own", len(ids))
	}
	states := map[sender.State]int{}
	for _, f := range w.stored(t, 1) {
		states[f.State]++
		if f.State == sender.Rejected && (w.handed[f.ID] != 0 || f.Attempt != 0 || f.Reason == "") {
			t.Errorf("a rejected message: %+v", f)
		}
	}
	if !reflect.DeepEqual(states, map[sender.State]int{sender.Sending: 3, sender.Rejected: 2}) || len(w.handed) != 3 || len(w.dropped) != 2 {
		t.Errorf("states %v, handed over %d, dropped %d", states, len(w.handed), len(w.dropped))
	}
	nobody := mail(1, "a@example.net", "b@example.net")
	nobody.Content.From.Email = ""
	for _, r := range w.send(t, nobody) {
		if r.Status != accept.Rejected || r.Reason != sender.ReasonInvalidSender {
			t.Errorf("without a sender: %+v", r)
		}
	}
	if n := len(w.stored(t, 1)); n != 5 {
		t.Errorf("%d messages are stored, want the 5 of before", n)
	}
}

func TestQueued(t *testing.T) {
	w := open(t, pg.New(t, 1))
	to := strings.Split(strings.Repeat("a@example.net ", 11), " ")[:11]
	for n, want := range map[int]accept.Result{10: {Status: accept.Sent}, 11: {Status: accept.Queued, QueuedReason: "multiple-recipients"}} {
		results := w.send(t, mail(1, to[:n]...))
		for _, r := range results {
			if r.Status != want.Status || r.QueuedReason != want.QueuedReason {
				t.Errorf("of %d recipients: %+v", n, r)
			}
		}
	}
	async := mail(1, "a@example.net")
	async.Async = true
	if r := w.send(t, async)[0]; r.Status != accept.Queued || r.QueuedReason != "" {
		t.Errorf("async: %+v", r)
	}
}

// TestCopies sends with a bcc_address: each recipient's mail goes there too, as its own message that shows whom it was to.
func TestCopies(t *testing.T) {
	w := open(t, pg.New(t, 1))
	s := mail(2, "a@example.net", "b@example.net", "no address") // account 2: the dispatcher has no room
	s.Content.BccAddress = "copy@example.com"
	s.Recipients[0].Name = "A"
	s.Metadata, s.Recipients[1].Metadata = map[string]string{"k": "all", "x": "1"}, map[string]string{"k": "own"}
	if n := len(w.send(t, s)); n != 3 {
		t.Errorf("%d answers to 3 recipients", n)
	}
	claimed, err := w.store.Claim(context.Background(), w.Shards.Of(2).Name, store.Take{Prompt: 10})
	if err != nil || len(claimed) != 4 {
		t.Fatalf("%d messages of 4, %v", len(claimed), err)
	}
	shown := map[sender.Address]bool{}
	for _, c := range claimed {
		if c.Recipient.Email == "copy@example.com" {
			shown[c.Recipient.Shown] = c.Recipient.Kind == sender.Bcc
		}
	}
	if want := map[sender.Address]bool{{Email: "a@example.net", Name: "A"}: true, {Email: "b@example.net"}: true}; !reflect.DeepEqual(shown, want) {
		t.Errorf("copies show %v", shown)
	}
	for _, f := range w.stored(t, 2) {
		want := map[string]string{"k": "all", "x": "1"}
		if f.Recipient.Email == "b@example.net" {
			want["k"] = "own"
		}
		if !reflect.DeepEqual(f.Metadata, want) {
			t.Errorf("%s has %v", f.Recipient.Email, f.Metadata)
		}
	}
}

// TestInvalidCostsNothing has a refused submission leave no trace.
func TestInvalidCostsNothing(t *testing.T) {
	w := open(t, pg.New(t, 1))
	s := mail(1, "a@example.net")
	s.Content.Subject = "a\r\nBcc: b@example.net"
	if _, err := w.door.Accept(context.Background(), s); kind(err) != sender.KindValidation {
		t.Errorf("an injection: %v", err)
	}
	if n := len(w.stored(t, 1)) + len(w.offered) + len(w.rung); n != 0 {
		t.Errorf("it left %d traces", n)
	}
}
