package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/jobs"
	"github.com/postrider/postrider/jobs/jobstest"
	"github.com/postrider/postrider/shards/shardtest"
)

// operated is a Postgres of two shards and a queue that listens, and the configuration that commands reach them with.
type operated struct {
	env    *shardtest.Env
	queue  *jobs.Queue
	config string
}

func newOperated(t *testing.T) *operated {
	t.Helper()
	e, _, _ := shardtest.Own(t, 2)
	s, err := jobs.StartServer(jobs.ServerConfig{Dir: t.TempDir(), Listen: "127.0.0.1:0", Token: "sesame"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop(context.Background()) })
	_, listen, _ := strings.Cut(s.URL(), "@")
	w := &operated{e, jobstest.Connect(t, jobs.Config{Server: s}), filepath.Join(t.TempDir(), "postrider.toml")}
	text := fmt.Sprintf("directory = %q\nsecret = %q\nhostname = \"mx.example.com\"\n[[servers]]\nname = \"own\"\ndsn = %q\n[queue]\ndir = \"queue\"\nlisten = %q\ntoken = \"sesame\"\n",
		e.Directory, secretHex, e.Servers[0].DSN, listen)
	if err := os.WriteFile(w.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

// jobs runs postrider jobs, and gives what it printed apart from its progress.
func (w *operated) jobs(t *testing.T, line string) (code int, out string, err error) {
	t.Helper()
	c := command()
	var b bytes.Buffer
	c.SetOut(&b)
	c.SetErr(&bytes.Buffer{})
	c.SetArgs(append(append([]string{"jobs"}, strings.Fields(line)...), "--config", w.config))
	if err = c.ExecuteContext(t.Context()); err != nil {
		code = exitCode(err)
	}
	return code, b.String(), err
}

// answer reads the JSON of a command that must succeed.
func (w *operated) answer(t *testing.T, into any, line string) {
	t.Helper()
	code, out, err := w.jobs(t, line+" --json")
	if code != 0 {
		t.Fatalf("%s: exit %d, %v", line, code, err)
	}
	if err := json.Unmarshal([]byte(out), into); err != nil {
		t.Fatalf("%s: %v in %s", line, err, out)
	}
}

// due puts a message into a shard that is due, but in nobody's hands and rung for by nobody.
func (w *operated) due(t *testing.T, shard string) {
	t.Helper()
	id := uuid.Must(uuid.NewV7())
	err := w.env.Shards.WriteShard(t.Context(), shard, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `insert into messages (account_id, id, submission_id, state, expires_at, email, next_attempt_at)
			values (1, $1, $1, 1, now() + interval '1 day', 'a@example.com', now() - interval '1 hour')`, id)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestJobsCommands(t *testing.T) {
	w := newOperated(t)
	for i, reason := range []string{"no such host", "no such host", "timed out"} {
		if err := w.queue.Bury(t.Context(), jobs.Job{Kind: "deliver", Shard: fmt.Sprintf("shard_%04d", i%2), IDs: [][16]byte{{byte(i)}}}, reason, 5); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.queue.Ring(t.Context(), jobs.Job{Kind: "deliver", Shard: "shard_0001"}, jobs.Job{Kind: "hook", Shard: "shard_0000", IDs: [][16]byte{{7}}}); err != nil {
		t.Fatal(err)
	}
	var stats jobsAnswer
	w.answer(t, &stats, "stats")
	if len(stats.Lanes) != 2 || stats.Lanes[0].Lane != "deliver" || stats.Lanes[0].Pending != 1 || stats.Lanes[0].Dead != 3 || stats.Lanes[1].Pending != 1 || stats.Dead != 3 || stats.Queue != "up" {
		t.Errorf("stats: %+v", stats)
	}
	var waiting []jobs.Waiting
	if w.answer(t, &waiting, "peek --kind hook"); len(waiting) != 1 || waiting[0].Items != 1 || waiting[0].IDs[0][:4] != "0700" {
		t.Errorf("peek: %+v", waiting)
	}
	var dead []jobs.DeadJob
	if w.answer(t, &dead, "dead list --reason host --shard shard_0001"); len(dead) != 1 || dead[0].Number != 2 {
		t.Errorf("dead list: %+v", dead)
	}
	var one jobs.DeadJob
	if w.answer(t, &one, "dead show 3"); one.Reason != "timed out" || one.Tries != 5 || one.IDs[0][:4] != "0200" {
		t.Errorf("dead show: %+v", one)
	}
	for line, says := range map[string]string{"stats": "KIND     PENDING", "peek": "what is due", "peek --limit 1": "shard_0001", "dead list": "no such host", "dead show 3": "0200000000"} {
		if code, out, err := w.jobs(t, line); code != 0 || !strings.Contains(out, says) {
			t.Errorf("%s: exit %d, %v, %s", line, code, err, out)
		}
	}
	for line, want := range map[string]struct {
		code int
		says string
	}{
		"dead show 9": {1, "no dead job"}, "dead replay 9": {1, "no dead job"}, "dead show x": {2, "NUMBER"}, "dead show": {2, "accepts 1 arg"},
		"dead replay": {2, "--all"}, "dead replay 1 --all": {2, "not both"}, "dead replay 1 --kind deliver": {2, "--all"}, "dead replay --all --kind A!": {2, "a-z"},
		"peek --limit 1001": {2, "limit"}, "dead list --shard *": {2, "a-z"}, "rebuild --wipe --shard shard_0001": {2, "--wipe"}, "rebuild --shard shard_0009": {1, "shards list"},
	} {
		if code, _, err := w.jobs(t, line); code != want.code || err == nil || !strings.Contains(err.Error(), want.says) {
			t.Errorf("%s: exit %d, %v", line, code, err)
		}
	}
	if code, out, err := w.jobs(t, "dead replay 3 99"); code != 1 || !strings.Contains(err.Error(), "99") || !strings.Contains(out, "job 3 (deliver, shard_0000) rung again") {
		t.Errorf("one of two replayed: exit %d, %v, %s", code, err, out)
	}
	var all struct{ Replayed int }
	if w.answer(t, &all, "dead replay --all --reason host"); all.Replayed != 2 {
		t.Errorf("%d replayed", all.Replayed)
	}
	if st, err := w.queue.Stats(t.Context()); err != nil || st.Dead != 0 || st.Pending != 5 {
		t.Errorf("in the end: %+v, %v", st, err)
	}
}

func TestJobsRebuild(t *testing.T) {
	w := newOperated(t)
	if err := w.queue.Ring(t.Context(), jobs.Job{Kind: "hook", Shard: "shard_0000"}); err != nil {
		t.Fatal(err)
	}
	if err := w.queue.Bury(t.Context(), jobs.Job{Kind: "hook", Shard: "shard_0000"}, "hopeless", 1); err != nil {
		t.Fatal(err)
	}
	w.due(t, "shard_0001")
	waits := func() (kinds []string) {
		t.Helper()
		list, err := w.queue.Peek(t.Context(), jobs.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		for _, j := range list {
			kinds = append(kinds, j.Kind+" "+j.Shard)
		}
		return kinds
	}
	var a rebuildAnswer
	if w.answer(t, &a, "rebuild --shard shard_0000"); len(a.Rung) != 0 || a.Due != 0 || a.Wiped {
		t.Errorf("of a shard where nothing is due: %+v", a)
	}
	for range 2 { // it may be run at any time
		if w.answer(t, &a, "rebuild"); !slices.Equal(a.Rung, []string{"shard_0001"}) || a.Due != 1 || a.Retrying != 0 || len(a.Missing) != 0 {
			t.Errorf("%+v", a)
		}
	}
	if got := waits(); !slices.Equal(got, []string{"hook shard_0000", "deliver shard_0001"}) {
		t.Errorf("rebuilt: %v", got)
	}
	if w.answer(t, &a, "rebuild --wipe"); !slices.Equal(a.Rung, []string{"shard_0001"}) || !a.Wiped {
		t.Errorf("%+v", a)
	}
	if got := waits(); !slices.Equal(got, []string{"deliver shard_0001"}) {
		t.Errorf("rebuilt from nothing: %v", got)
	}
	if list, err := w.queue.DeadJobs(t.Context(), jobs.Filter{}); err != nil || len(list) != 1 {
		t.Errorf("the dead: %v, %v", list, err)
	}
}

// TestQueueThatRefuses has a wrong token be told, and stats go on without the queue.
func TestQueueThatRefuses(t *testing.T) {
	w := newOperated(t)
	text, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.config, bytes.Replace(text, []byte(`"sesame"`), []byte(`"guess"`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, err := w.jobs(t, "peek"); code != 1 || !strings.Contains(strings.ToLower(err.Error()), "authorization violation") || strings.Contains(err.Error(), "guess") {
		t.Errorf("exit %d, %v", code, err)
	}
	w.due(t, "shard_0000")
	var stats jobsAnswer
	code, out, err := w.jobs(t, "stats --json")
	if err == nil || code != 1 {
		t.Errorf("stats without the queue: exit %d, %v", code, err)
	}
	if err := json.Unmarshal([]byte(out), &stats); err != nil || stats.Due != 1 || !strings.Contains(strings.ToLower(stats.Queue), "authorization violation") {
		t.Errorf("%+v", stats)
	}
}
