// Package dispatch is the delivery job: it holds messages in hand, composes and delivers them, has the ledger
// record how it went, and claims what is due. A sweeper finds by their rows the messages that nobody rang for.
package dispatch

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/postrider/postrider/jobs"
	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/compose"
	"github.com/postrider/postrider/sender/deliver"
	"github.com/postrider/postrider/sender/ledger"
	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/shards"
)

// Config is what the dispatcher needs.
type Config struct {
	Shards  *shards.Shards
	Store   *store.Store
	Ledger  *ledger.Ledger
	Deliver *deliver.Client
	Queue   *jobs.Queue
	// ReturnPath makes the MAIL FROM of a message from a domain; own is what the submission wants it to be under, empty for
	// the domain's choice.
	ReturnPath func(account int64, id sender.ID, domain, own string) string
	// Pool is the pool of source addresses by which an account's mail leaves that asks for one, or for none. Nil: the default.
	Pool func(account int64, asked string) string
	// Unsubscribe makes the link by which a message's recipient unsubscribes; empty for none. Nil: there are none.
	Unsubscribe func(account int64, id sender.ID) string
	// Keys are those that sign an account's mail from a domain; none for mail that goes unsigned. An error puts the mail off.
	// Nil: no mail is signed.
	Keys       func(ctx context.Context, account int64, domain string) ([]compose.Key, error)
	Retry      []time.Duration // waits after each failed attempt; the last one repeats
	PerDomain  int             // messages of one recipient domain under way at once; default 20
	Waiting    int             // messages in hand that wait for one domain; default a tenth of Room
	Room       int             // messages in hand; default 5,000
	RoomBytes  int             // bytes of content in hand; default 128 MiB
	SweepEvery time.Duration   // default 15 s
	Log        *zap.Logger
	Metrics    prometheus.Registerer
}

// Dispatcher delivers messages.
type Dispatcher struct {
	cfg     Config
	metrics *metrics
	clock   *clock
	large   *semaphore.Weighted // bytes that attempts at large messages take

	claims   sync.Map // by shard, *sync.RWMutex: held for reading from a claim's commit until its messages are in held
	alone    alone
	mu       sync.Mutex
	held     map[sender.ID]holding  // in hand
	inHand   map[int64]int          // how many of them, by account
	bulk     int                    // how many of them are bulk
	limit    int                    // of bulk in hand while other mail comes in
	prompt   time.Time              // when other mail last came in hand
	suspect  sender.ID              // the one of them that may end the process; zero for none
	behind   map[string]bool        // shards with another suspect
	asking   bool                   // a claim may bring a suspect
	sated    map[int64]string       // accounts that have enough in hand, and their shards
	hungry   map[string]bool        // shards whose bulk found no room
	cut      map[string][]store.Ref // messages whose attempts were cut off by our stop
	turns    map[string]turn        // by shard: of accounts in bulk
	bytes    int
	lanes    map[string]*lane
	rung     map[string]bool   // shards to ring for
	crowd    map[string][]away // by shard: what its domain has no place for, to be given back
	doubtful map[string]doubts // shards that may hold claims nobody knows of
	closing  bool
	ctx      context.Context // of attempts
	work     sync.WaitGroup
}

// New makes a dispatcher; Run starts it.
func New(cfg Config) *Dispatcher {
	setDefault(&cfg.PerDomain, 20)
	setDefault(&cfg.Room, 5000)
	setDefault(&cfg.RoomBytes, 128<<20)
	setDefault(&cfg.Waiting, max(cfg.Room/10, 1))
	if cfg.SweepEvery == 0 {
		cfg.SweepEvery = 15 * time.Second
	}
	d := &Dispatcher{cfg: cfg, metrics: newMetrics(cfg.Metrics), held: map[sender.ID]holding{}, inHand: map[int64]int{}, lanes: map[string]*lane{},
		rung: map[string]bool{}, crowd: map[string][]away{}, doubtful: map[string]doubts{}, behind: map[string]bool{}, sated: map[int64]string{}, hungry: map[string]bool{}, cut: map[string][]store.Ref{}, alone: alone{running: map[string]bool{}}, turns: map[string]turn{}, ctx: context.Background()}
	d.limit = cfg.Room / 2
	d.clock, d.large = newClock(), semaphore.NewWeighted(int64(cfg.RoomBytes))
	return d
}

func setDefault(v *int, to int) {
	if *v == 0 {
		*v = to
	}
}

// JobDeliver is the kind of job that says: this shard has messages that are due.
const JobDeliver = "deliver"

// Handlers are the kinds of job that the dispatcher does.
func (d *Dispatcher) Handlers() map[string]jobs.Handler {
	return map[string]jobs.Handler{JobDeliver: {Do: d.handle, Concurrency: 16, Timeout: time.Minute}}
}

// drain is how long attempts under way may take to end when the process stops.
const drain = 5 * time.Second

// Run delivers until ctx ends. Then attempts under way get 5 s, and what is still in hand is given back.
func (d *Dispatcher) Run(ctx context.Context) error {
	attempts, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	d.mu.Lock()
	d.ctx = attempts
	d.mu.Unlock()
	var g errgroup.Group
	g.Go(func() error { return d.bells(ctx) })
	g.Go(func() error { return d.giveBack(ctx) })
	g.Go(func() error { return d.sweep(ctx) })
	g.Go(func() error { return d.inherit(ctx) })
	g.Go(func() error { return d.govern(ctx) })
	g.Go(func() error {
		return d.clock.run(ctx, func(shard string) {
			if !d.alone.run("clock "+shard, func() { d.onTime(ctx, shard) }) {
				d.clock.set(shard, quarter) // its server is slow: once more
			}
		})
	})
	g.Go(func() error {
		return d.cfg.Queue.Run(ctx, d.Handlers())
	})
	<-ctx.Done()
	err := g.Wait()
	d.alone.wait() // they were cut off with ctx
	d.stop(cut)
	return err
}

// onTime claims what is due in a shard by our own clock.
func (d *Dispatcher) onTime(ctx context.Context, shard string) {
	switch d.claim(ctx, shard) {
	case drained:
		d.lookAhead(ctx, shard)
	case more, full:
		d.Ring(shard)
	}
}

// claiming is the lock of a shard's claims: one that is stuck must not hold up another's.
func (d *Dispatcher) claiming(shard string) *sync.RWMutex {
	l, _ := d.claims.LoadOrStore(shard, new(sync.RWMutex))
	return l.(*sync.RWMutex)
}

// stop ends the lanes, waits for attempts under way, cuts off what takes too long and gives the rest back.
func (d *Dispatcher) stop(cut func()) {
	d.mu.Lock()
	d.closing = true
	waiting := map[string][]store.Ref{}
	for _, l := range d.lanes {
		for _, it := range l.waiting.all() {
			waiting[it.shard] = append(waiting[it.shard], it.ref())
		}
		l.waiting = turns{}
	}
	d.mu.Unlock()
	done := make(chan struct{})
	go func() { d.work.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(drain):
		cut()
		<-done
	}
	d.mu.Lock()
	for shard, list := range d.crowd {
		for _, a := range list {
			waiting[shard] = append(waiting[shard], a.ref)
		}
	}
	cutOff := d.cut
	d.mu.Unlock()
	d.returnAll(waiting, false)
	d.returnAll(cutOff, true) // what the next start finds as ours would look as if it had ended the process
}

// returnAll gives back claims as we stop. made says that attempts may have been made.
func (d *Dispatcher) returnAll(byShard map[string][]store.Ref, made bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	for shard, refs := range byShard {
		if err := d.cfg.Store.Release(ctx, shard, refs, 0, made); err != nil {
			d.cfg.Log.Warn("claims not given back, the next start frees them", zap.String("shard", shard), zap.Int("messages", len(refs)), zap.Error(err))
		}
	}
}

// Hand takes over messages that were reserved and are now stored.
func (d *Dispatcher) Hand(sub *sender.Submission, messages []sender.Message) {
	shard := d.cfg.Shards.Of(sub.Account).Name
	for i := range messages {
		d.begin(&item{m: messages[i], content: &sub.Content, shard: shard, since: d.since(messages[i].ID)})
	}
}

// Ring says that a shard holds messages that are due and in nobody's hands. Bells of the same shard become one.
func (d *Dispatcher) Ring(shard string) {
	d.mu.Lock()
	d.rung[shard] = true
	d.mu.Unlock()
}

// At says that a shard holds a message that will be due at a time.
func (d *Dispatcher) At(shard string, at time.Time) { d.clock.set(shard, time.Until(at)) }
