package jobs_test

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/postrider/postrider/jobs"
	"github.com/postrider/postrider/jobs/jobstest"
)

// cluster starts three servers that know each other, as an operator would run them.
func cluster(t *testing.T) (servers []*server.Server, urls string) {
	t.Helper()
	var routes []*url.URL
	for range 3 {
		routes = append(routes, &url.URL{Scheme: "nats", Host: freeAddress(t)})
	}
	for i, r := range routes {
		port, err := strconv.Atoi(r.Port())
		if err != nil {
			t.Fatal(err)
		}
		s, err := server.NewServer(&server.Options{ServerName: fmt.Sprintf("n%d", i), Host: "127.0.0.1", Port: server.RANDOM_PORT,
			NoSigs: true, NoLog: true, Authorization: "secret", JetStream: true, StoreDir: t.TempDir(), Routes: routes,
			Cluster: server.ClusterOpts{Name: "mail", Host: "127.0.0.1", Port: port}})
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
		servers = append(servers, s)
	}
	var list []string
	for _, s := range servers {
		if !s.ReadyForConnections(patience) {
			t.Fatal("a server of the cluster does not start")
		}
		list = append(list, "nats://secret@"+s.Addr().String())
	}
	return servers, strings.Join(list, ",")
}

// TestClusterOutlivesOneOfItsServers stops the server that leads the jobs while these are rung and done. What a call of
// Ring has taken is done, before it or after.
func TestClusterOutlivesOneOfItsServers(t *testing.T) {
	if testing.Short() {
		t.Skip("elections take a while")
	}
	servers, urls := cluster(t)
	q := jobstest.Connect(t, jobs.Config{URL: urls})
	until(t, "the streams are made", func() bool {
		return q.Ring(t.Context(), jobs.Job{Kind: "later", Shard: "kept"}) == nil && q.Ready() == nil
	})
	var done sync.Map
	run(t, q, map[string]jobs.Handler{"deliver": {Concurrency: 4, Do: func(_ context.Context, j jobs.Job) jobs.Result {
		done.Store(j.IDs[0], true)
		return jobs.Done()
	}}})
	leader := leaderOfThree(t, urls)
	var taken [][16]byte
	ringOne := func(n int) bool {
		id := [16]byte{byte(n), byte(n >> 8)}
		if q.Ring(t.Context(), jobs.Job{Kind: "deliver", Shard: "shard_0001", IDs: [][16]byte{id}}) != nil {
			return false
		}
		taken = append(taken, id)
		return true
	}
	n := 0
	for ; len(taken) < 500; n++ {
		ringOne(n)
		if len(taken) == 200 {
			for _, s := range servers {
				if s.Name() == leader {
					go s.Shutdown() // while we go on
				}
			}
		}
		if len(taken) == 201 {
			until(t, "two servers agree", func() bool { n++; return ringOne(n) })
		}
	}
	for _, id := range taken {
		until(t, "each job that was taken is done", func() bool { _, ok := done.Load(id); return ok })
	}
	t.Logf("%d of %d calls failed while %s went", n-len(taken), n, leader)
	late := make(chan string, 1)
	run(t, q, map[string]jobs.Handler{"later": {Do: func(_ context.Context, j jobs.Job) jobs.Result {
		late <- j.Shard
		return jobs.Done()
	}}})
	receive(t, late, "the job that three servers had taken")
}

// leaderOfThree is the server that leads the jobs; all streams must be on three.
func leaderOfThree(t *testing.T, urls string) string {
	t.Helper()
	nc, err := nats.Connect(urls)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	leader := ""
	for _, name := range []string{"EVENTS", "DEAD", "JOBS"} {
		stream, err := js.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		info := stream.CachedInfo()
		if info.Config.Replicas != 3 || info.Cluster == nil || len(info.Cluster.Replicas) != 2 {
			t.Errorf("%s is on %d servers", name, info.Config.Replicas)
		}
		leader = info.Cluster.Leader
	}
	return leader
}
