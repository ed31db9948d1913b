package sandbox

import (
	"crypto/rand"
	"sync"
	"sync/atomic"
	"time"
)

// letter is one accepted mail: a transaction. Taking it in only keeps the bytes; its header and its parts are read
// when somebody looks, and what a list needs of them is remembered.
type letter struct {
	id   string
	at   time.Time
	from string   // the return path: MAIL FROM without its brackets
	to   []string // the envelope recipients
	raw  []byte   // as received, with CRLF

	read       atomic.Bool
	headOnce   sync.Once
	headValue  head
	glanceOnce sync.Once
	glance     glance
}

// inbox holds the newest mails within its bounds.
type inbox struct {
	capacity int
	limit    int64

	mu    sync.RWMutex
	mails []*letter // oldest first
	byID  map[string]*letter
	bytes int64
}

func newInbox(capacity int, limit int64) *inbox {
	return &inbox{capacity: capacity, limit: limit, byID: map[string]*letter{}}
}

// add takes a mail in and lets the oldest go while there are too many.
func (b *inbox) add(from string, to []string, raw []byte) *letter {
	m := &letter{id: rand.Text(), at: time.Now(), from: from, to: to, raw: raw}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mails = append(b.mails, m)
	b.byID[m.id] = m
	b.bytes += int64(len(raw))
	for len(b.mails) > 1 && (len(b.mails) > b.capacity || b.bytes > b.limit) {
		oldest := b.mails[0]
		b.mails[0] = nil // the slice's array must not keep it alive
		b.mails = b.mails[1:]
		b.forget(oldest)
	}
	return m
}

func (b *inbox) forget(m *letter) {
	delete(b.byID, m.id)
	b.bytes -= int64(len(m.raw))
}

// all returns every mail, newest first.
func (b *inbox) all() []*letter {
	b.mu.RLock()
	defer b.mu.RUnlock()
	newest := make([]*letter, len(b.mails))
	for i, m := range b.mails {
		newest[len(newest)-1-i] = m
	}
	return newest
}

// find returns the mail with that id, or nil. The id "latest" is the newest mail.
func (b *inbox) find(id string) *letter {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if id == "latest" && len(b.mails) > 0 {
		return b.mails[len(b.mails)-1]
	}
	return b.byID[id]
}

// clear forgets every mail.
func (b *inbox) clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mails, b.bytes = nil, 0
	b.byID = map[string]*letter{}
}

// remove forgets the mails with these ids; ids that are not there do no harm.
func (b *inbox) remove(ids []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range ids {
		if m := b.byID[id]; m != nil {
			b.forget(m)
		}
	}
	kept := make([]*letter, 0, len(b.byID))
	for _, m := range b.mails {
		if b.byID[m.id] == m {
			kept = append(kept, m)
		}
	}
	b.mails = kept
}
