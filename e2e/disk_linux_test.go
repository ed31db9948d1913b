package e2e

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestQueueDiskFull fills the disk that the queue alone is on. Mail is taken and delivered all the same, and when there
// is room again all is as before.
func TestQueueDiskFull(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small disk")
	}
	out := outside(t)
	dir, inbox := folder(t), &dev{Inbox: "http://" + out.InboxAddr()}
	queue := filepath.Join(dir, "queue")
	if err := os.MkdirAll(queue, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("postrider-e2e", queue, "tmpfs", 0, "size=16m"); err != nil {
		t.Skipf("no small disk can be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(queue, syscall.MNT_DETACH) })
	d := start(t, dir, "--sink", out.SMTPAddr())
	p := newPromises()
	p.mustMixed(t, d, 80)
	filler := filepath.Join(queue, "filler")
	fill(t, filler)
	p.mustMixed(t, d, 400)
	p.once(t, inbox, 30*time.Second)
	wait(t, 10*time.Second, "the queue to refuse for want of room", func() bool { return d.metric(`postrider_jobs_rung_total{result="full"}`) > 0 })
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	d.queueBack(t)
	p = newPromises()
	p.mustMixed(t, d, 80)
	p.once(t, inbox, 30*time.Second)
}

// fill writes a file until the disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	block, written := make([]byte, 4<<10), 0
	for ; err == nil && written < 64<<20; written += len(block) {
		_, err = f.Write(block)
	}
	if err == nil {
		t.Fatalf("the disk took %d bytes and is not full", written)
	}
}
