package dispatch_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/compose"
	"github.com/postrider/postrider/sender/dispatch"
)

// TestSigned signs mail with the keys of its domain, and sends none without them while they cannot be had.
func TestSigned(t *testing.T) {
	rsa, err := compose.NewRSA()
	if err != nil {
		t.Fatal(err)
	}
	ed, err := compose.NewEd25519()
	if err != nil {
		t.Fatal(err)
	}
	keys := []compose.Key{{Domain: "example.com", Selector: "r", Signer: rsa}, {Domain: "example.com", Selector: "e", Signer: ed}}
	var away atomic.Bool
	away.Store(true)
	s := build(t, pg.New(t, 1).Shards, world(t), dispatch.Config{Retry: []time.Duration{300 * time.Millisecond},
		Keys: func(_ context.Context, account int64, domain string) ([]compose.Key, error) {
			if away.Load() {
				return nil, errors.New("sealed with another secret")
			}
			if account != 1 || domain != "example.com" {
				t.Errorf("asked for the keys of %s of account %d", domain, account)
			}
			return keys, nil
		}})
	id := s.send(t, "defer-1@example.net")[0]
	s.waitFor(t, id, sender.Deferred)
	if n := s.arrived(t); n != 0 {
		t.Fatalf("%d mails arrived unsigned", n)
	}
	away.Store(false)
	s.waitFor(t, id, sender.Delivered)
	results, err := dkim.VerifyWithOptions(bytes.NewReader(s.raw(t)), &dkim.VerifyOptions{LookupTXT: func(name string) ([]string, error) {
		for _, k := range keys {
			if name == k.Selector+"._domainkey."+k.Domain {
				record, err := compose.Record(k.Signer.Public())
				return []string{record}, err
			}
		}
		return nil, errors.New("no such record")
	}})
	if err != nil || len(results) != 2 || results[0].Err != nil || results[1].Err != nil {
		t.Errorf("%+v, %v", results, err)
	}
}

// raw is the newest mail of the inbox as it came.
func (s *stack) raw(t *testing.T) []byte {
	t.Helper()
	get := func(path string) []byte {
		res, err := http.Get("http://" + s.sandbox.InboxAddr() + "/api/v1/" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var list struct{ Messages []struct{ ID string } }
	if err := json.Unmarshal(get("messages?limit=1"), &list); err != nil || len(list.Messages) != 1 {
		t.Fatal(list, err)
	}
	return get("message/" + list.Messages[0].ID + "/raw")
}
