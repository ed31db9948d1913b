package loadtest

import (
	"context"
	"fmt"
	"strconv"
)

// signedAccounts is how many send, each from a domain of its own, when signed mail is measured: making an RSA key takes
// a core for a while.
const signedAccounts = 8

// The systems of a benchmark.
const (
	plainPostrider   = "postrider"
	signedPostrider  = "postrider rsa+ed25519"
	ed25519Postrider = "postrider ed25519"
	plainPostfix     = "postfix"
	signedPostfix    = "postfix+opendkim"
)

// comparison is two systems whose figures are put beside each other.
type comparison struct {
	system, beside string
	goal           float64 // messages a second, times those of the other, at goalConnections or more; 0: none
}

const goalConnections = 50

var comparisons = []comparison{
	{plainPostrider, plainPostfix, 0},
	{signedPostrider, plainPostrider, 0},
	{ed25519Postrider, plainPostrider, 0.9},
	{signedPostrider, signedPostfix, 3},
}

// own is the postrider of the world: without signatures, and with each choice of them if they are wanted. All send from
// as many accounts.
func (b Bench) own(ctx context.Context, w *world) ([]benched, error) {
	keys, err := w.accounts(ctx, b.accounts())
	systems := []benched{b.postrider(w, plainPostrider, keys, nil, 0)}
	if err != nil || !b.Signed {
		return systems, err
	}
	both, err := b.signed(ctx, w, signedPostrider, 2, "both")
	if err != nil {
		return nil, err
	}
	alone, err := b.signed(ctx, w, ed25519Postrider, 1, "ed25519", "--ed25519")
	return append(systems, both, alone), err
}

// accounts is how many send.
func (b Bench) accounts() int {
	if b.Signed {
		return min(b.Accounts, signedAccounts)
	}
	return b.Accounts
}

func (b Bench) postrider(w *world, name string, keys, froms []string, signatures int) benched {
	load := b.load(w)
	load.API, load.Keys, load.Froms = w.ready.API, keys, froms
	return benched{name: name, load: load, pids: []int{w.child.pid()}, signatures: signatures}
}

// signed is postrider with accounts whose mail is signed: each has a domain, vouched for with those options.
func (b Bench) signed(ctx context.Context, w *world, name string, signatures int, zone string, options ...string) (benched, error) {
	n, o := b.accounts(), operator{b.Postrider, w.ready.Config}
	w.say("making %d accounts with domains and keys: %s", n, zone)
	accounts, err := makeAccounts(ctx, o, n)
	if err != nil {
		return benched{}, err
	}
	keys, froms := make([]string, n), make([]string, n)
	err = severally(ctx, n, func(ctx context.Context, i int) error {
		domain := fmt.Sprintf("d%d.%s.example.net", i, zone)
		keys[i], froms[i] = accounts[i].Key, "bench@"+domain
		words := append([]string{"domain", "vouch", domain, "--account", strconv.FormatInt(accounts[i].ID, 10)}, options...)
		_, err := o.run(ctx, words...)
		return err
	})
	return b.postrider(w, name, keys, froms, signatures), err
}
