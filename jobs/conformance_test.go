package jobs_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postrider/postrider/jobs"
	"github.com/postrider/postrider/jobs/jobstest"
)

// counters are rows, each to be counted up once. Their handler is a small real one: the row says whether it is done.
type counters struct {
	mu     sync.Mutex
	rows   map[[16]byte]int
	broken string // what is wrong with the handler
}

func (c *counters) count(ctx context.Context, j jobs.Job) jobs.Result {
	res := map[[16]byte]jobs.Result{}
	for _, id := range j.IDs {
		res[id] = c.one(ctx, id)
	}
	return jobs.PerItem(res)
}

func (c *counters) one(ctx context.Context, id [16]byte) jobs.Result {
	c.mu.Lock()
	n := c.rows[id]
	if c.broken == "looks before it locks" {
		c.mu.Unlock()
		for range 3 { // as long as a round trip
			select {
			case <-ctx.Done():
			case <-time.After(time.Millisecond):
			}
		}
		c.mu.Lock()
	}
	defer c.mu.Unlock()
	if n == 0 || c.broken == "forgets" {
		c.rows[id]++
	}
	return jobs.Done()
}

func (c *counters) make(*testing.T) jobstest.Work {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := [16]byte{byte(len(c.rows)), 1}
	c.rows[id] = 0
	return jobstest.Work{Job: jobs.Job{Kind: "count", Shard: "shard_0001", IDs: [][16]byte{id}}, Effects: func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.rows[id]
	}}
}

const brokenBy = "POSTRIDER_TEST_BROKEN"

func TestConformance(t *testing.T) {
	c := counters{rows: map[[16]byte]int{}, broken: os.Getenv(brokenBy)}
	jobstest.Conformance(t, jobstest.Start(t), jobstest.Spec{Kind: "count", Handler: jobs.Handler{Do: c.count, Concurrency: 4}, Make: c.make})
}

// TestConformanceCatches runs it on handlers that are wrong.
func TestConformanceCatches(t *testing.T) {
	for broken, fails := range map[string]string{"forgets": "TestConformance/twice", "looks before it locks": "TestConformance/concurrently"} {
		c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestConformance$")
		c.Env = append(os.Environ(), brokenBy+"="+broken)
		out, err := c.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "--- FAIL: "+fails) {
			t.Errorf("a handler that %s passes: %v\n%s", broken, err, out)
		}
	}
}
