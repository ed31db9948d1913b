package shards

import (
	"sync"
	"time"
)

// queue holds what waits for one server. A batch closes when a committer is free, at most the linger
// after its first item; an item that is alone while nobody commits waits for nobody, unless the queue is patient.
type queue[T any] struct {
	cfg    GroupConfig
	mu     sync.Mutex
	filled *sync.Cond
	items  []*entry[T]
	bytes  int
	busy   int // committers at work
	shut   bool
	full   chan struct{} // wakes a lingering committer early
}

func newQueue[T any](cfg GroupConfig) *queue[T] {
	q := &queue[T]{cfg: cfg, full: make(chan struct{}, 1)}
	q.filled = sync.NewCond(&q.mu)
	return q
}

func (q *queue[T]) add(e *entry[T]) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.shut || len(q.items) >= q.cfg.Queue {
		return false
	}
	q.items = append(q.items, e)
	q.bytes += e.bytes
	if len(q.items) == 1 {
		q.filled.Signal()
	}
	if len(q.items) == q.cfg.Max || q.bytes >= q.cfg.MaxBytes {
		select {
		case q.full <- struct{}{}:
		default:
		}
	}
	return true
}

// take waits for a batch; nil when the queue is closed and empty.
func (q *queue[T]) take() []*entry[T] {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		for len(q.items) == 0 {
			if q.shut {
				return nil
			}
			q.filled.Wait()
		}
		if q.company() && q.cfg.Linger > 0 {
			q.linger()
		}
		if batch := q.cut(); len(batch) > 0 {
			q.busy++
			return batch
		}
	}
}

// company says that more items are likely to come within the linger.
func (q *queue[T]) company() bool {
	return !q.shut && (q.cfg.Patient || q.busy > 0 || len(q.items) > 1) && len(q.items) < q.cfg.Max && q.bytes < q.cfg.MaxBytes
}

func (q *queue[T]) linger() {
	q.mu.Unlock()
	t := time.NewTimer(q.cfg.Linger)
	select {
	case <-t.C:
	case <-q.full:
	}
	t.Stop()
	q.mu.Lock()
}

func (q *queue[T]) cut() []*entry[T] {
	n := cut(q.cfg, q.items)
	for _, e := range q.items[:n] {
		q.bytes -= e.bytes
	}
	batch := append([]*entry[T](nil), q.items[:n]...)
	clear(q.items[:n])
	q.items = q.items[n:]
	if len(q.items) > 0 {
		q.filled.Signal()
	}
	return batch
}

// cut is how many of the items go into the next commit.
func cut[T any](cfg GroupConfig, items []*entry[T]) int {
	n, bytes := 0, 0
	for n < len(items) && n < cfg.Max && (n == 0 || bytes+items[n].bytes <= cfg.MaxBytes) {
		bytes += items[n].bytes
		n++
	}
	return n
}

func (q *queue[T]) finished() {
	q.mu.Lock()
	q.busy--
	q.mu.Unlock()
}

func (q *queue[T]) close() {
	q.mu.Lock()
	q.shut = true
	q.filled.Broadcast()
	q.mu.Unlock()
}
