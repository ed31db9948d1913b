package dispatch

import (
	"github.com/postrider/postrider/sender"
)

// item is a message in hand.
type item struct {
	m       sender.Message
	content *sender.Content // nil until its turn when the message was claimed by its row
	body    []byte          // the stored form, if it came with the claim
	size    int             // of the stored form, when content is nil
	shard   string
}

// lane holds what waits for one recipient domain. A slow or hanging domain fills its own lane only.
type lane struct {
	waiting []*item
	running int
}

// begin starts a message, or lets it wait for its domain.
func (d *Dispatcher) begin(it *item) {
	domain := sender.Domain(it.m.Recipient.Email)
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.lanes[domain]
	if l == nil {
		l = &lane{}
		d.lanes[domain] = l
	}
	if l.running >= d.cfg.PerDomain || d.closing {
		l.waiting = append(l.waiting, it)
		return
	}
	l.running++
	d.work.Go(func() { d.runLane(domain, l, it) })
}

func (d *Dispatcher) runLane(domain string, l *lane, it *item) {
	for it != nil {
		d.attempt(it)
		it = d.next(domain, l)
	}
}

func (d *Dispatcher) next(domain string, l *lane) *item {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(l.waiting) > 0 && !d.closing {
		it := l.waiting[0]
		l.waiting[0] = nil
		l.waiting = l.waiting[1:]
		return it
	}
	l.running--
	if l.running == 0 && len(l.waiting) == 0 {
		delete(d.lanes, domain)
	}
	return nil
}
