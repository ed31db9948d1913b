package loadtest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

const (
	maxAccounts    = 100_000
	accountTimeout = time.Minute // for one `account create`
	accountsAtOnce = 4
)

// Ready is what `postrider dev --ready-file` writes, as far as it is of use here.
type Ready struct {
	PID    int    `json:"pid"`
	Config string `json:"config"`
	API    string `json:"api"`
	SMTP   string `json:"smtp"`
	Key    string `json:"key"`

	Metrics string `json:"metrics"` // a whole URL
}

// ReadReady reads a ready file.
func ReadReady(path string) (Ready, error) {
	var r Ready
	text, err := os.ReadFile(path)
	if err != nil {
		return r, fmt.Errorf("ready file: %w; is `postrider dev --ready-file` running?", err)
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("ready file %s: %w", path, err)
	}
	return r, nil
}

// ReadKeys reads API keys, one a line; empty lines and lines that start with # are skipped.
func ReadKeys(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	defer f.Close()
	var keys []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		if line != "" && line[0] != '#' {
			keys = append(keys, line)
		}
		if len(keys) > maxAccounts {
			return nil, fmt.Errorf("keys: %s holds more than %d", path, maxAccounts)
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("keys: %s holds none; it wants one a line", path)
	}
	return keys, nil
}

// MakeAccounts makes n accounts by the operator's command and returns a key of each, in order.
func MakeAccounts(ctx context.Context, postrider, config string, n int) ([]string, error) {
	if n < 1 || n > maxAccounts {
		return nil, fmt.Errorf("--accounts must be between 1 and %d", maxAccounts)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	name, keys, turns := newName(), make([]string, n), make(chan int)
	var wg sync.WaitGroup
	for range accountsAtOnce {
		wg.Go(func() {
			for i := range turns {
				key, err := makeAccount(ctx, postrider, config, fmt.Sprintf("loadtest %s %d", name, i))
				if err != nil {
					cancel(err)
				}
				keys[i] = key
			}
		})
	}
	for i := 0; i < n && ctx.Err() == nil; i++ {
		turns <- i
	}
	close(turns)
	wg.Wait()
	return keys, context.Cause(ctx)
}

func makeAccount(ctx context.Context, postrider, config, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, accountTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, postrider, "account", "create", "--name", name, "--json", "--config", config)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return "", fmt.Errorf("account create: %w: %s", err, bytes.TrimSpace(exit.Stderr[:min(len(exit.Stderr), maxFirstText)]))
	}
	if err != nil {
		return "", fmt.Errorf("account create: %w", err)
	}
	var made struct{ Key string }
	if err := json.Unmarshal(out, &made); err != nil || made.Key == "" {
		return "", errors.New("account create: its answer holds no key")
	}
	return made.Key, nil
}
