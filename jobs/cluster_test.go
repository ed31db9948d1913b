package jobs_test

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

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

func TestClusterOutlivesOneOfItsServers(t *testing.T) {
	if testing.Short() {
		t.Skip("elections take a while")
	}
	servers, urls := cluster(t)
	q := jobstest.Connect(t, jobs.Config{URL: urls})
	got := make(chan string, 1000)
	run(t, q, map[string]jobs.Handler{"deliver": {Concurrency: 2, Do: func(_ context.Context, j jobs.Job) jobs.Result {
		got <- j.Shard
		return jobs.Done()
	}}})
	until(t, "the streams are made", func() bool { return q.Ring(t.Context(), jobs.Job{Kind: "deliver", Shard: "before"}) == nil })
	receive(t, got, "a job from three servers")
	ring(t, q, jobs.Job{Kind: "later", Shard: "kept"})
	servers[0].Shutdown()
	servers[0].WaitForShutdown()
	until(t, "two servers agree", func() bool { return q.Ring(t.Context(), jobs.Job{Kind: "deliver", Shard: "after"}) == nil })
	for receive(t, got, "a job from two servers") != "after" {
	}
	late := make(chan string, 1)
	run(t, q, map[string]jobs.Handler{"later": {Do: func(_ context.Context, j jobs.Job) jobs.Result {
		late <- j.Shard
		return jobs.Done()
	}}})
	receive(t, late, "the job that three servers had taken")
}
