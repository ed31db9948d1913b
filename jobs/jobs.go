// Package jobs is the bell: it wakes whoever works on a shard, through NATS JetStream, embedded in the process
// or an external cluster. A job carries a kind, a shard and ids, never content. The truth is a row elsewhere, so
// a job may be lost, doubled or out of order, and every handler may run twice; whoever rings may ignore that the
// queue is full or away, because a sweeper rings again from the rows.
package jobs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	// MaxIDs is how many ids a job may carry.
	MaxIDs = 1000
	// MaxRing is how many jobs one call of Ring takes.
	MaxRing = 10_000
	// MaxPayload is the largest entry of the event stream, in bytes.
	MaxPayload = maxMessage - 4<<10

	maxMessage = 1 << 20          // what the server takes, headers included
	maxDelay   = 10 * time.Minute // of a retry; who has to wait for longer has a row that says so
	maxSnooze  = 10 * time.Second
	deadline   = 2 * time.Second // of every call to the server
)

// ErrFull says that the queue has no room: the job stays undone until the sweeper rings again.
var ErrFull = errors.New("the queue is full; it takes jobs again when handlers catch up")

var (
	errAway  = errors.New("no connection to the queue; it comes back by itself when the server does")
	errToken = errors.New("must be 1 to 64 of a-z, 0-9, _ and -")
)

// Job says that there is something to do in a shard. Without ids it is a bell: it says that something is due there,
// and of a kind and shard one waits at most, however often it is rung.
type Job struct {
	Kind  string     // who handles it: 1 to 64 of a-z, 0-9, _ and -
	Shard string     // where: the same alphabet
	IDs   [][16]byte // of what: at most MaxIDs; none means whatever is due
}

// Handler does the jobs of one kind.
type Handler struct {
	// Do does one job. It must return soon after ctx has ended, which happens after Timeout and when Run stops. As
	// long as it runs within Timeout, nobody else gets the job. One that goes on for two thirds of Config.AckWait
	// more has lost it to another, and of its answers only Done still counts. A panic is a retry.
	Do func(ctx context.Context, j Job) Result
	// Concurrency is how many jobs run at once in this process: 1 to 256; default 1.
	Concurrency int
	// Timeout of one job; default 1 minute.
	Timeout time.Duration
}

type verdict int8

const (
	retry verdict = iota // the zero Result, so that a forgotten answer loses nothing
	done
	snooze
	dead
	perItem
)

// Result is how a job ended. The zero Result is a retry at once.
type Result struct {
	verdict verdict
	after   time.Duration
	reason  string
	items   map[[16]byte]Result // of perItem
}

// Done ends the job.
func Done() Result { return Result{verdict: done} }

// Retry has the job run again after a while (at most 10 minutes), here or elsewhere. It counts as a failure: at
// Config.MaxDeliver of them the job is dead.
func Retry(after time.Duration) Result { return Result{verdict: retry, after: after} }

// Snooze says "not now": the job is given back after a while (at most 10 s) as if it were new. Nothing has
// failed and nothing is counted. Until then it occupies its place among the handler's Concurrency, so a
// process that is full takes no further jobs of the kind.
func Snooze(after time.Duration) Result { return Result{verdict: snooze, after: after} }

// PerItem answers for each id of the job on its own, with one of the others; an id left out is retried at once. The
// ids to be retried go on as a smaller job that keeps its count of tries, after the longest of their waits; so do
// those snoozed, but uncounted. The dead ones are given up alone, each with its reason. For a bell it is a retry.
func PerItem(results map[[16]byte]Result) Result { return Result{verdict: perItem, items: results} }

// Dead gives the job up. The reason is stored and logged: it must hold no address and no content.
func Dead(reason string) Result { return Result{verdict: dead, reason: reason} }

var token = regexp.MustCompile(`^[a-z0-9_-]{1,64}$`)

func (j Job) check() error {
	if !token.MatchString(j.Kind) {
		return fmt.Errorf("job kind %q: %w", j.Kind, errToken)
	}
	if !token.MatchString(j.Shard) {
		return fmt.Errorf("job shard %q: %w", j.Shard, errToken)
	}
	if len(j.IDs) > MaxIDs {
		return fmt.Errorf("a job of %d ids: %d at most, make several", len(j.IDs), MaxIDs)
	}
	return nil
}

// subject is where the job waits in the queue. A bell's is the same each time, so that it takes the place of one that
// waits; a job with ids has one of its own, so that nothing takes its place.
func (j Job) subject() string {
	s := "jobs." + j.Kind + "." + j.Shard
	if len(j.IDs) > 0 {
		s += "." + strconv.FormatUint(rand.Uint64(), 36)
	}
	return s
}

// laneOf is the kind and the shard of a subject of ours: of jobs.<kind>.<shard>, jobs.<kind>.<shard>.<any> and
// dead.<kind>.<shard>.
func laneOf(subject string) (kind, shard string) {
	part := append(strings.Split(subject, "."), "", "", "")
	return part[1], part[2]
}

// format is the first byte of every job, so that a later version can tell what an earlier one left behind.
const format = 1

// encode packs the ids; kind and shard are the subject. One byte of format, the number of ids as a uvarint, the ids.
func (j Job) encode() []byte {
	b := make([]byte, 0, 4+16*len(j.IDs))
	b = append(b, format)
	b = binary.AppendUvarint(b, uint64(len(j.IDs)))
	for _, id := range j.IDs {
		b = append(b, id[:]...)
	}
	return b
}

func decodeIDs(b []byte) ([][16]byte, error) {
	if len(b) == 0 || b[0] != format {
		return nil, errors.New("not a job of a format known to this version")
	}
	n, size := binary.Uvarint(b[1:])
	if size <= 0 || n > MaxIDs || uint64(len(b)-1-size) != 16*n {
		return nil, errors.New("a job whose length is not that of its ids")
	}
	b = b[1+size:]
	ids := make([][16]byte, n)
	for i := range ids {
		copy(ids[i][:], b[16*i:])
	}
	return ids, nil
}
