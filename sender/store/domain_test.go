package store_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/store"
)

func domain(account int64, name string) *store.Domain {
	return &store.Domain{Account: account, Name: name, Token: "token", ReturnPath: "bounces", Tracking: "links", Keys: []store.DomainKey{
		{Selector: "s1", Algorithm: "rsa", Stage: store.StageCurrent, Record: "r1", Sealed: []byte{1}},
		{Selector: "s2", Algorithm: "ed25519", Stage: store.StageCurrent, Record: "r2", Sealed: []byte{2}}}}
}

// TestDomainRow stores a domain, changes all of it, and reads it back.
func TestDomainRow(t *testing.T) {
	e := pg.New(t, 2)
	st, ctx := store.New(e.Shards), context.Background()
	first, err := st.AddDomain(ctx, domain(1, "example.com"))
	if err != nil || first.Created.IsZero() || len(first.Keys) != 2 || !first.Next.IsZero() {
		t.Fatalf("%+v, %v", first, err)
	}
	other := domain(1, "example.com")
	other.Token, other.Keys[0].Selector = "another", "s9"
	if again, err := st.AddDomain(ctx, other); err != nil || !reflect.DeepEqual(again, first) {
		t.Errorf("added twice: %+v, %v", again, err)
	}
	if _, err := st.AddDomain(ctx, domain(2, "example.com")); err != nil {
		t.Fatal(err)
	}
	at := time.Now().UTC().Truncate(time.Microsecond)
	want, err := st.ChangeDomain(ctx, 1, "example.com", func(d *store.Domain) error {
		d.Ed25519Only, d.Vouched, d.Mailed, d.Mailbox, d.Verified = true, true, at, at.Add(1*time.Second), at.Add(2*time.Second)
		d.Proved, d.Failing, d.Checked, d.Next = at.Add(3*time.Second), at.Add(4*time.Second), at.Add(5*time.Second), at.Add(6*time.Second)
		d.Results = []byte("results")
		d.Keys[0].Stage, d.Keys[0].Sealed, d.Keys[0].Retires = store.StageOld, nil, at
		d.Keys[1] = store.DomainKey{Selector: "s3", Algorithm: "ed25519", Stage: store.StageNext, Record: "r3", Sealed: []byte{3}, Published: at}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := st.Domain(ctx, 1, "example.com")
	if err != nil || len(got.Keys) != 2 || got.Keys[0].Selector != "s3" || got.Keys[1].Selector != "s1" || len(got.Keys[1].Sealed) != 0 ||
		!got.Keys[1].Retires.Equal(at) || !got.Keys[0].Published.Equal(at) || got.Keys[0].Created.IsZero() {
		t.Errorf("keys: %+v, %v", got.Keys, err)
	}
	got.Keys, want.Keys = nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	fault := errors.New("fault")
	if _, err := st.ChangeDomain(ctx, 1, "example.com", func(d *store.Domain) error { d.Vouched = false; return fault }); !errors.Is(err, fault) {
		t.Error(err)
	}
	if got, _ := st.Domain(ctx, 1, "example.com"); !got.Vouched {
		t.Error("a change that failed was stored")
	}
	list, err := st.Domains(ctx, 2)
	if err != nil || len(list) != 1 || len(list[0].Keys) != 2 || list[0].Keys[0].Selector != "s1" {
		t.Errorf("the other account's: %+v, %v", list, err)
	}
	for _, lost := range []func() error{
		func() error { _, err := st.Domain(ctx, 1, "example.org"); return err },
		func() error {
			_, err := st.ChangeDomain(ctx, 3, "example.com", func(*store.Domain) error { return nil })
			return err
		},
	} {
		if err := lost(); !errors.Is(err, store.ErrNotFound) {
			t.Error(err)
		}
	}
}

// TestSigning reads the keys that sign and whose record was seen.
func TestSigning(t *testing.T) {
	e := pg.New(t, 1)
	st, ctx := store.New(e.Shards), context.Background()
	read := func(want int, verified bool) store.Signing {
		t.Helper()
		s, err := st.Signing(ctx, 1, "example.com")
		if err != nil || len(s.Keys) != want || s.Verified != verified {
			t.Errorf("%+v, %v, want %d keys, %v", s, err, want, verified)
		}
		return s
	}
	change := func(fn func(*store.Domain)) {
		t.Helper()
		if _, err := st.ChangeDomain(ctx, 1, "example.com", func(d *store.Domain) error { fn(d); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	read(0, false)
	if _, err := st.AddDomain(ctx, domain(1, "example.com")); err != nil {
		t.Fatal(err)
	}
	read(0, false)
	change(func(d *store.Domain) { d.Keys[0].Published = time.Now() })
	read(1, false)
	change(func(d *store.Domain) { d.Keys[1].Published, d.Verified = time.Now(), time.Now() })
	if s := read(2, true); s.Keys[0].Algorithm != "rsa" || s.Keys[0].Sealed[0] != 1 || s.Keys[1].Sealed[0] != 2 || s.ReturnPath != "bounces" {
		t.Errorf("%+v", s)
	}
	change(func(d *store.Domain) { d.Ed25519Only = true })
	if s := read(1, true); s.Keys[0].Algorithm != "ed25519" {
		t.Errorf("%+v", s)
	}
	change(func(d *store.Domain) { d.Keys[0].Stage, d.Keys[1].Stage = store.StageOld, store.StageNext })
	read(0, true)
}

// TestDueDomains are each taken once, and again when whoever took them said nothing more.
func TestDueDomains(t *testing.T) {
	e := pg.New(t, 1)
	st, ctx := store.New(e.Shards), context.Background()
	for i := range 5 {
		d := domain(int64(1+i%2), fmt.Sprintf("d%d.example.com", i))
		d.Next = time.Now().Add(-time.Minute)
		if i == 4 {
			d.Next = time.Now().Add(time.Hour)
		}
		if _, err := st.AddDomain(ctx, d); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[store.DomainRef]bool{}
	for _, want := range []int{3, 1, 0} {
		due, err := st.DueDomains(ctx, "shard_0000", 3, time.Minute)
		if err != nil || len(due) != want {
			t.Fatalf("%v, %v, want %d", due, err, want)
		}
		for _, ref := range due {
			seen[ref] = true
		}
	}
	if len(seen) != 4 || seen[store.DomainRef{Account: 1, Name: "d4.example.com"}] {
		t.Errorf("%v", seen)
	}
	if _, err := st.ChangeDomain(ctx, 1, "d0.example.com", func(d *store.Domain) error { d.Next = time.Now(); return nil }); err != nil {
		t.Fatal(err)
	}
	if due, err := st.DueDomains(ctx, "shard_0000", 3, time.Minute); err != nil || len(due) != 1 || due[0].Name != "d0.example.com" {
		t.Errorf("%v, %v", due, err)
	}
}

// TestMaxDomains refuses one more, and still gives what is there.
func TestMaxDomains(t *testing.T) {
	e := pg.New(t, 1)
	st, ctx := store.New(e.Shards), context.Background()
	err := e.Shards.WriteShard(ctx, "shard_0000", func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `insert into domains (account_id, domain, token, return_path, tracking)
			select 1, 'd' || n || '.example.com', 't', 'b', 'l' from generate_series(1, $1) n`, store.MaxDomains)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var known *sender.Error
	if _, err := st.AddDomain(ctx, domain(1, "example.com")); !errors.As(err, &known) || known.Field != "domain" {
		t.Error(err)
	}
	if _, err := st.AddDomain(ctx, domain(1, "d7.example.com")); err != nil {
		t.Error(err)
	}
	if _, err := st.AddDomain(ctx, domain(2, "example.com")); err != nil {
		t.Error(err)
	}
}
