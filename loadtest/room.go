package loadtest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// room is what the system takes up, in bytes.
type room struct {
	all      int64  // RSS of all its processes: a page that several of them share counts in each
	own      int64  // of that, what is not Postgres's shared cache; a shared page of a program counts once
	cache    int64  // Postgres's shared cache as far as it is in use, once
	resident *int64 // of the postrider process alone, as it says itself
	queue    *int64 // disk: the queue's folder
	rows     *int64 // disk: Postgres's folders
}

// measureRoom reads the process tree, /metrics and the folder of a world.
func (w *world) measureRoom(ctx context.Context) (room, error) {
	r, err := treeMemory(w.child.pid())
	if err != nil {
		return r, fmt.Errorf("memory of the system: %w", err)
	}
	if r.resident, err = residentOf(ctx, w.ready.Metrics); err != nil {
		return r, err
	}
	for folder, into := range map[string]**int64{"queue": &r.queue, "postgres": &r.rows} {
		n, err := diskUse(filepath.Join(w.data(), folder))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return r, err
		}
		*into = &n
	}
	return r, nil
}

// treeMemory adds up smaps_rollup of a process and its descendants (proc_pid_smaps(5)).
func treeMemory(pid int) (room, error) {
	var r room
	all, err := processTable()
	if err != nil {
		return r, err
	}
	for _, p := range descendants(all, []int{pid}) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p))
		switch {
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH): // it ended meanwhile
			continue
		case err != nil:
			return r, err
		}
		rss, pss, shared := parseRollup(text)
		r.all, r.own, r.cache = r.all+rss, r.own+pss-shared, r.cache+shared
	}
	if r.all == 0 {
		return r, fmt.Errorf("process %d is not there, or /proc does not tell its memory", pid)
	}
	return r, nil
}

func parseRollup(text []byte) (rss, pss, shared int64) {
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		kilobytes, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
		if err != nil {
			continue
		}
		switch name {
		case "Rss":
			rss = kilobytes << 10
		case "Pss":
			pss = kilobytes << 10
		case "Pss_Shmem":
			shared = kilobytes << 10
		}
	}
	return rss, pss, shared
}

// residentOf asks a metrics address for process_resident_memory_bytes; nil when it does not say.
func residentOf(ctx context.Context, url string) (*int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(io.LimitReader(resp.Body, 16<<20))
	for lines.Scan() {
		if value, found := bytes.CutPrefix(lines.Bytes(), []byte("process_resident_memory_bytes ")); found {
			f, err := strconv.ParseFloat(string(value), 64)
			n := int64(f)
			return &n, err
		}
	}
	return nil, lines.Err()
}

// diskUse adds up the blocks of all files below a folder.
func diskUse(dir string) (int64, error) {
	var sum int64
	if _, err := os.Stat(dir); err != nil {
		return 0, err
	}
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				if st, ok := info.Sys().(*syscall.Stat_t); ok {
					sum += st.Blocks * 512
				}
			}
		}
		if errors.Is(err, fs.ErrNotExist) { // removed meanwhile
			return nil
		}
		return err
	})
	return sum, err
}
