package dispatch

// turns is a queue in which accounts take turns: one that has much waiting delays another by one message at a time.
type turns struct {
	byAccount map[int64][]*item
	order     []int64 // accounts that have something waiting, the next first
	n         int
}

func (q *turns) add(it *item) {
	if q.byAccount == nil {
		q.byAccount = map[int64][]*item{}
	}
	a := it.m.Account
	if len(q.byAccount[a]) == 0 {
		q.order = append(q.order, a)
	}
	q.byAccount[a] = append(q.byAccount[a], it)
	q.n++
}

// next takes the first message of the first account that may; nil when none may.
func (q *turns) next(may func(account int64) bool) *item {
	for i, a := range q.order {
		if !may(a) {
			continue
		}
		list := q.byAccount[a]
		it := list[0]
		list[0] = nil
		q.order = append(q.order[:i], q.order[i+1:]...)
		if len(list) > 1 {
			q.byAccount[a] = list[1:]
			q.order = append(q.order, a)
		} else {
			delete(q.byAccount, a)
		}
		q.n--
		return it
	}
	return nil
}
