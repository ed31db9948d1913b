package shards

import (
	"crypto/sha256"
	"encoding/binary"
	"strconv"
)

// Buckets is the number of hash buckets, fixed for ever.
const Buckets = 4096

// BucketOf is an account's bucket: the first 12 bits of the SHA-256 of its decimal id. Anyone can
// compute it by hand, and every language has the function.
func BucketOf(account int64) int {
	sum := sha256.Sum256(strconv.AppendInt(nil, account, 10))
	return int(binary.BigEndian.Uint16(sum[:2]) >> 4)
}

// Shard is a logical shard as one version of the map sees it. It is never changed.
type Shard struct {
	Name   string // also its schema, for life
	Epoch  int64
	Fenced bool
	Server *Server
	Days   int // days a partition spans
}

// Map says which shard each account lives in. It is immutable: a new version is a new Map.
type Map struct {
	Version   int64
	shards    []*Shard // by name
	byName    map[string]*Shard
	buckets   [Buckets]*Shard
	overrides map[int64]*Shard
	pauses    map[string]*paused // by kind; empty for none
}

// Of is the shard of an account.
func (m *Map) Of(account int64) *Shard {
	if s, ok := m.overrides[account]; ok {
		return s
	}
	return m.buckets[BucketOf(account)]
}

// Shard finds a shard by name; nil when there is none.
func (m *Map) Shard(name string) *Shard { return m.byName[name] }

// Shards lists all shards by name.
func (m *Map) Shards() []*Shard { return m.shards }

// Servers lists the servers that hold shards, each once.
func (m *Map) Servers() []*Server {
	var out []*Server
	seen := map[*Server]bool{}
	for _, s := range m.shards {
		if !seen[s.Server] {
			seen[s.Server] = true
			out = append(out, s.Server)
		}
	}
	return out
}
