package jobs_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postrider/postrider/jobs"
	"github.com/postrider/postrider/jobs/jobstest"
)

const insideNamespace = "POSTRIDER_TEST_SMALL_DISK"

// TestFullDisk runs the disk full that the queue's folder is on. It goes on in a process of its own that may mount one.
func TestFullDisk(t *testing.T) {
	if os.Getenv(insideNamespace) != "" {
		fullDisk(t)
		return
	}
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFullDisk$", "-test.v")
	c.Env = append(os.Environ(), insideNamespace+"=1", "TMPDIR="+t.TempDir())
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER, Pdeathsig: syscall.SIGKILL,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}}
	if os.Getuid() == 0 { // no other user is needed
		c.SysProcAttr.Cloneflags, c.SysProcAttr.UidMappings, c.SysProcAttr.GidMappings = syscall.CLONE_NEWNS, nil, nil
	}
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &exit):
		noDisk(t, err)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skip(string(out))
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	}
}

func fullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		noDisk(t, err)
	}
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=24m"); err != nil {
		noDisk(t, err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	q := jobstest.Connect(t, jobs.Config{Server: start(t, jobs.ServerConfig{Dir: filepath.Join(dir, "queue")})})
	ring(t, q, bell("shard_0001"))
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 16<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	fill(t, q, 1)
	last, err := os.Create(filepath.Join(dir, "last"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil { // to the last byte, as another program may
		_, err = last.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	last.Close()
	handled := make(chan bool, 10_000)
	run(t, q, map[string]jobs.Handler{"deliver": {Do: func(context.Context, jobs.Job) jobs.Result { // its answers have to be written too
		handled <- true
		return jobs.Done()
	}}})
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); { // in which a server that fails starts over
		for _, j := range []jobs.Job{fat(), bell("shard_0002")} {
			if err := soon(t, q, j); !errors.Is(err, jobs.ErrFull) && q.Ready() == nil {
				t.Fatalf("rung on a full disk: %v", err)
			}
		}
	}
	for _, file := range []string{ballast, last.Name()} {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	for len(handled) > 0 {
		<-handled
	}
	until(t, "jobs are taken again", func() bool { return soon(t, q, fat()) == nil })
	until(t, "the queue is ready", func() bool { return q.Ready() == nil })
	receive(t, handled, "a job after the disk was full")
}
