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
	maxAccounts     = 100_000
	operatorTimeout = time.Minute // for one command
	accountsAtOnce  = 4
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

// account is what `account create` says of the account that it made.
type account struct {
	ID  int64  `json:"account"`
	Key string `json:"key"`
}

// MakeAccounts makes n accounts by the operator's command and returns a key of each, in order.
func MakeAccounts(ctx context.Context, postrider, config string, n int) ([]string, error) {
	accounts, err := makeAccounts(ctx, operator{postrider, config}, n)
	keys := make([]string, len(accounts))
	for i, a := range accounts {
		keys[i] = a.Key
	}
	return keys, err
}

func makeAccounts(ctx context.Context, o operator, n int) ([]account, error) {
	if n < 1 || n > maxAccounts {
		return nil, fmt.Errorf("--accounts must be between 1 and %d", maxAccounts)
	}
	name, all := newName(), make([]account, n)
	err := severally(ctx, n, func(ctx context.Context, i int) error {
		text, err := o.run(ctx, "account", "create", "--name", fmt.Sprintf("loadtest %s %d", name, i), "--json")
		if err != nil {
			return err
		}
		if err := json.Unmarshal(text, &all[i]); err != nil || all[i].Key == "" {
			return errors.New("account create: its answer holds no key")
		}
		return nil
	})
	return all, err
}

// severally calls fn for 0 to n-1, a few at a time, until one of them fails.
func severally(ctx context.Context, n int, fn func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	turns := make(chan int)
	var wg sync.WaitGroup
	for range accountsAtOnce {
		wg.Go(func() {
			for i := range turns {
				if err := fn(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	for i := 0; i < n && ctx.Err() == nil; i++ {
		turns <- i
	}
	close(turns)
	wg.Wait()
	return context.Cause(ctx)
}

// operator runs commands of a postrider program.
type operator struct{ program, config string }

// run is the output of a command, like run(ctx, "account", "list").
func (o operator) run(ctx context.Context, words ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, operatorTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, o.program, append(words, "--config", o.config)...)
	cmd.WaitDelay = time.Second
	name := strings.Join(words[:min(len(words), 2)], " ")
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return nil, fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(exit.Stderr[:min(len(exit.Stderr), maxFirstText)]))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return out, nil
}
