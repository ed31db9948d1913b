package shards

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// Account is a customer as the directory knows it.
type Account struct {
	ID      int64     `json:"account"`
	Name    string    `json:"name"`
	Shard   string    `json:"shard"`
	Server  string    `json:"server"`
	Created time.Time `json:"created_at"`
}

// Scope is what a key may do.
type Scope string

// The scopes: everything; only send; never send nor write; send nothing but make activity.
const (
	ScopeFull Scope = "full"
	ScopeSend Scope = "send"
	ScopeRead Scope = "read"
	ScopeTest Scope = "test"
)

// Key is an API key without its secret.
type Key struct {
	ID      int64      `json:"id"`
	Account int64      `json:"account"`
	Scope   Scope      `json:"scope"`
	Hint    string     `json:"hint"`
	Created time.Time  `json:"created_at"`
	Revoked *time.Time `json:"revoked_at"`
}

// Errors of the directory.
var (
	ErrNoAccount = errors.New("no such account")
	ErrNoKey     = errors.New("no such key")
)

const (
	insertAccountSQL = `insert into accounts (name) values ($1) returning id`
	setBucketSQL     = `update accounts set bucket = $2 where id = $1`
	insertKeySQL     = `insert into keys (account, hash, hint, scope) values ($1, $2, $3, $4) returning id, created_at`
	listAccountsSQL  = `select id, name, created_at from accounts where ($1 = 0 or id = $1) order by id`
	listKeysSQL      = `select id, account, scope, hint, created_at, revoked_at from keys where ($1 = 0 or account = $1) order by id`
	revokeKeySQL     = `update keys set revoked_at = coalesce(revoked_at, now()) where id = $1`
	findKeySQL       = `select id, account, scope, hint, created_at from keys where hash = $1 and revoked_at is null`
)

// CreateAccount makes an account with a first full key, which is returned and kept nowhere.
func (s *Shards) CreateAccount(ctx context.Context, name string) (Account, string, error) {
	secret, hint := newSecret()
	a := Account{Name: name}
	err := pgx.BeginFunc(ctx, s.directory, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, insertAccountSQL, name).Scan(&a.ID); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, setBucketSQL, a.ID, BucketOf(a.ID)); err != nil {
			return err
		}
		hash := sha256.Sum256([]byte(secret))
		var id int64
		return tx.QueryRow(ctx, insertKeySQL, a.ID, hash[:], hint, ScopeFull).Scan(&id, &a.Created)
	})
	if err != nil {
		return a, "", fmt.Errorf("create the account: %w", err)
	}
	return s.place(a), secret, nil
}

func (s *Shards) place(a Account) Account {
	sh := s.Of(a.ID)
	a.Shard, a.Server = sh.Name, sh.Server.Name
	return a
}

// Accounts lists accounts with their place; id 0 means all.
func (s *Shards) Accounts(ctx context.Context, id int64) ([]Account, error) {
	rows, err := s.directory.Query(ctx, listAccountsSQL, id)
	if err != nil {
		return nil, fmt.Errorf("list accounts: %w", err)
	}
	out, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (Account, error) {
		var a Account
		err := r.Scan(&a.ID, &a.Name, &a.Created)
		return s.place(a), err
	})
	if err == nil && id != 0 && len(out) == 0 {
		err = ErrNoAccount
	}
	return out, err
}

// CreateKey makes a key; its text is returned and kept nowhere.
func (s *Shards) CreateKey(ctx context.Context, account int64, scope Scope) (Key, string, error) {
	if _, err := s.Accounts(ctx, account); err != nil {
		return Key{}, "", err
	}
	secret, hint := newSecret()
	hash := sha256.Sum256([]byte(secret))
	k := Key{Account: account, Scope: scope, Hint: hint}
	err := s.directory.QueryRow(ctx, insertKeySQL, account, hash[:], hint, scope).Scan(&k.ID, &k.Created)
	if err != nil {
		return k, "", fmt.Errorf("create the key: %w", err)
	}
	return k, secret, nil
}

// Keys lists keys, revoked ones too; account 0 means all.
func (s *Shards) Keys(ctx context.Context, account int64) ([]Key, error) {
	rows, err := s.directory.Query(ctx, listKeysSQL, account)
	if err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (Key, error) {
		var k Key
		err := r.Scan(&k.ID, &k.Account, &k.Scope, &k.Hint, &k.Created, &k.Revoked)
		return k, err
	})
}

// RevokeKey ends a key: every process stops taking it within about a second.
func (s *Shards) RevokeKey(ctx context.Context, id int64) error {
	tag, err := s.directory.Exec(ctx, revokeKeySQL, id)
	if err != nil {
		return fmt.Errorf("revoke the key: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrNoKey
	}
	return nil
}

// keyCache holds the keys in use. A revocation anywhere raises the directory's key version and
// empties it. While the directory is away it goes on answering.
type keyCache struct {
	mu      sync.RWMutex
	version int64
	entries map[[32]byte]Key
}

const keyCacheSize = 100_000

func (c *keyCache) seen(version int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if version != c.version {
		c.version = version
		clear(c.entries)
	}
}

func (c *keyCache) get(hash [32]byte) *Key {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if k, ok := c.entries[hash]; ok {
		return &k
	}
	return nil
}

func (c *keyCache) put(hash [32]byte, k Key, version int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if version != c.version {
		return // revoked meanwhile, perhaps: ask again next time
	}
	if len(c.entries) >= keyCacheSize {
		clear(c.entries)
	}
	c.entries[hash] = k
}

func (c *keyCache) now() int64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.version
}

// FindKey is the key with this text; ErrNoKey when there is none or it is revoked, ErrNoDirectory
// when it is not known here and the directory cannot be asked within a second.
func (s *Shards) FindKey(ctx context.Context, text string) (Key, error) {
	if len(text) < 20 || len(text) > 200 {
		return Key{}, ErrNoKey
	}
	hash := sha256.Sum256([]byte(text))
	if k := s.keys.get(hash); k != nil {
		return *k, nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	version := s.keys.now()
	var k Key
	err := s.directory.QueryRow(ctx, findKeySQL, hash[:]).Scan(&k.ID, &k.Account, &k.Scope, &k.Hint, &k.Created)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return Key{}, ErrNoKey
	case err != nil:
		return Key{}, fmt.Errorf("%w: %w", ErrNoDirectory, err)
	}
	s.keys.put(hash, k, version)
	return k, nil
}

const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// newSecret is a key's text, "pr_" and 32 base62 digits (190 bits), and the hint by which a person
// knows it again.
func newSecret() (secret, hint string) {
	b := make([]byte, 0, 35)
	b = append(b, "pr_"...)
	var random [64]byte
	for len(b) < cap(b) {
		_, _ = rand.Read(random[:]) // never fails: crypto/rand ends the process instead
		for _, r := range random {
			if int(r) < 4*len(alphabet) && len(b) < cap(b) { // no modulo bias
				b = append(b, alphabet[int(r)%len(alphabet)])
			}
		}
	}
	return string(b), string(b[:7]) + "…"
}
