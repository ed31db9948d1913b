package dispatch

import "github.com/postrider/postrider/sender"

// turns is a queue in which accounts take turns: one that has much waiting delays another by one message at a time. Bulk
// gets one turn in five while anything else waits.
type turns struct {
	prompt, bulk ring
	passed       int // turns that bulk has waited
	n            int
}

const bulkEvery = 5

func (q *turns) add(it *item) {
	if bulk(it.m.Class) {
		q.bulk.add(it)
	} else {
		q.prompt.add(it)
	}
	q.n++
}

func bulk(c sender.Class) bool { return c == sender.Bulk || c == sender.BulkImportant }

// next takes the first message of the first account that may; nil when none may.
func (q *turns) next(may func(account int64) bool) *item {
	first, second := &q.prompt, &q.bulk
	if q.passed++; q.passed >= bulkEvery {
		first, second = second, first
	}
	it := first.next(may)
	if it == nil {
		it = second.next(may)
	}
	if it == nil {
		return nil
	}
	if bulk(it.m.Class) || len(q.bulk.order) == 0 {
		q.passed = 0
	}
	q.n--
	return it
}

// of is how much an account has waiting.
func (q *turns) of(account int64) int { return q.prompt.of(account) + q.bulk.of(account) }

// all is what waits, in no particular order.
func (q *turns) all() []*item { return append(q.prompt.all(), q.bulk.all()...) }

// ring is the accounts that wait, the next first, and what each has waiting.
type ring struct {
	order []int64
	piles map[int64]*pile
}

// pile is what one account has waiting; important mail goes first.
type pile struct{ important, rest []*item }

func (r *ring) add(it *item) {
	a := it.m.Account
	p := r.piles[a]
	if p == nil {
		if r.piles == nil {
			r.piles = map[int64]*pile{}
		}
		p = &pile{}
		r.piles[a] = p
		r.order = append(r.order, a)
	}
	if it.m.Class == sender.BulkImportant {
		p.important = append(p.important, it)
	} else {
		p.rest = append(p.rest, it)
	}
}

func (r *ring) next(may func(account int64) bool) *item {
	for i, a := range r.order {
		if !may(a) {
			continue
		}
		p := r.piles[a]
		r.order = append(r.order[:i], r.order[i+1:]...)
		list := &p.rest
		if len(p.important) > 0 {
			list = &p.important
		}
		it := (*list)[0]
		(*list)[0] = nil
		*list = (*list)[1:]
		if len(p.important)+len(p.rest) > 0 {
			r.order = append(r.order, a)
		} else {
			delete(r.piles, a)
		}
		return it
	}
	return nil
}

func (r *ring) of(account int64) int {
	if p := r.piles[account]; p != nil {
		return len(p.important) + len(p.rest)
	}
	return 0
}

func (r *ring) all() []*item {
	var out []*item
	for _, p := range r.piles {
		out = append(append(out, p.important...), p.rest...)
	}
	return out
}
