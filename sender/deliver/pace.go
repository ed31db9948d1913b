package deliver

import (
	"time"

	"github.com/postrider/postrider/sender"
)

// How a site is treated that has trouble.
const (
	deadAfter   = 3                // attempts in a row that reached nobody, until a site counts as down
	blockAfter  = 10               // refusals in a row that were not for the recipient, until they count as a block
	shutLeast   = 30 * time.Second // how long a site is left alone at first
	shutMost    = 30 * time.Minute // and at most, after doubling
	calm        = 10 * time.Minute // after which trouble is not the same trouble
	patienceMax = 128              // full cohorts before more is tried than was refused
)

// signal is what an attempt says about its site.
type signal int8

const (
	nothing   signal = iota // it was cut off by us, or never came to the site
	well                    // the site did its work, whatever it said of the recipient
	alive                   // it answered, and put the message off
	unwanted                // it answered, and refused the message itself
	crowded                 // it asks for less
	blocked                 // it does not want us at all for now
	unreached               // no host answered
)

// signal is what the result says about the site.
func (r *result) signal() signal {
	switch {
	case r.Reply.Code == 0 && (!r.broken || r.Reply.Enhanced == "4.3.2" || r.Reply.Stage == "starttls"): // cut off by us, or TLS as we ask for it
		return nothing
	case r.class == classPolicy:
		return blocked
	case r.class == classBusy, r.slowed:
		return crowded
	case r.class == classSoft, r.class == classConfig && r.Verdict == sender.OutcomeDeferred:
		return alive
	case r.class == classContent, r.class == classConfig:
		return unwanted
	case r.class == classNone:
		return unreached
	}
	return well
}

// ofRelay is what a signal means that comes from a host which takes the mail for all domains: what it says of a message
// is said of one among many, and if it is away, there is nobody else to make room for.
func (s signal) ofRelay(stage string) signal {
	switch {
	case s == nothing, s == unreached:
		return nothing
	case s == crowded && beforeMail(stage):
		return crowded
	}
	return well
}

// pace decides how many attempts may be at a site at once. The number rises by one when as many attempts as it allows
// went well, and is halved when the site asks for less (as TCP does: RFC 5681). What was refused once is tried again
// only after ever longer. A site that is down or blocks us is shut: nobody goes there, until after a while one attempt
// looks. Pace keeps no clock and no lock.
type pace struct {
	start, most int

	limit    int           // attempts that may be inside
	inside   int           //
	answered bool          // until a site has answered once, one attempt at a time finds out whether it will
	won      int           // attempts that went well since limit was last changed
	ceiling  int           // more than this was refused; 0 for nothing yet
	patience int           // cohorts until more than ceiling is tried
	round    int           // counts the halvings: what began before one does not cause the next
	missed   int           // attempts in a row that reached nobody
	refused  int           // refusals in a row
	shut     time.Time     // until then nobody goes there, and after it one to look; zero for open
	shutFor  time.Duration // the last such time
	opened   time.Time     // when it ended
	looking  bool          // somebody looks
	last     sender.Reply  // what the site said or did last other than taking mail
	lastAt   time.Time
}

func newPace(start, most int) pace {
	return pace{start: min(start, most), most: most, limit: min(start, most), patience: 1}
}

// admission is the answer to an attempt that wants to begin.
type admission int8

const (
	enter    admission = iota + 1
	hold               // until another leaves
	turnAway           // the site is shut
)

// visit is an attempt's time at a site.
type visit struct {
	round int  // of the pace when it began
	looks bool // it was let in to find out whether the site is well again
	held  bool // it has its place among all attempts
}

// admit says whether an attempt may begin. With enter it has begun, and must leave.
func (p *pace) admit(now time.Time) (visit, admission) {
	looks := !p.shut.IsZero()
	switch {
	case looks && (p.looking || now.Before(p.shut)):
		return visit{}, turnAway
	case looks:
		p.looking = true
	case p.inside >= p.limit, p.inside > 0 && !p.answered:
		return visit{}, hold
	}
	p.inside++
	return visit{round: p.round, looks: looks}, enter
}

// left notes what a visit says of the site.
func (p *pace) left(now time.Time, v visit, s signal, said *sender.Reply) {
	p.inside--
	if v.looks {
		p.looking = false
		if s != nothing {
			p.shut, p.opened = time.Time{}, now // and perhaps shut again below
		}
	}
	if s != nothing && s != well {
		p.last, p.lastAt = *said, now
	}
	if s != nothing && s != unreached {
		p.answered, p.missed = true, 0
	}
	if s == well || s == alive {
		p.refused = 0
	}
	switch s {
	case well:
		p.reward()
	case unwanted:
		if p.refused++; p.refused >= blockAfter {
			p.halve(v.round)
			p.close(now)
		}
	case crowded:
		alone := p.limit == 1
		p.crowd(v.round)
		if p.refused++; alone && p.refused >= deadAfter {
			p.close(now)
		}
	case blocked:
		p.halve(v.round)
		p.close(now)
	case unreached:
		p.halve(v.round)
		if p.missed++; p.missed >= deadAfter || v.looks {
			p.close(now)
		}
	}
}

// reward counts an attempt that went well.
func (p *pace) reward() {
	p.won++
	need := p.limit
	if p.ceiling > 0 && p.limit >= p.ceiling {
		need *= p.patience
	}
	if p.won < need || p.limit >= p.most {
		return
	}
	p.won = 0
	p.limit++
	if p.ceiling > 0 && p.limit > p.ceiling+1 { // what was refused once is taken now
		p.ceiling, p.patience = p.limit-1, max(1, p.patience/2)
	}
}

// crowd lets half as many in and remembers how many were too many.
func (p *pace) crowd(round int) {
	if round == p.round {
		if p.ceiling > 0 && p.limit == p.ceiling+1 {
			p.patience = min(2*p.patience, patienceMax)
		}
		p.ceiling = max(1, p.limit-1)
	}
	p.halve(round)
}

// halve lets half as many in, once for all that were inside together.
func (p *pace) halve(round int) {
	p.won = 0
	if round == p.round {
		p.round++
		p.limit = max(1, p.limit/2)
	}
}

// close shuts the site for 30 s, or for twice as long as the last time if that was not long ago.
func (p *pace) close(now time.Time) {
	if !p.shut.IsZero() { // those who were inside together shut it once
		return
	}
	if p.shutFor == 0 || now.Sub(p.opened) > max(2*p.shutFor, calm) {
		p.shutFor = shutLeast / 2
	}
	p.shutFor = min(2*p.shutFor, shutMost)
	p.shut, p.limit, p.won, p.refused = now.Add(p.shutFor), 1, 0, 0
}

// usual says that nothing would be lost if the site was forgotten.
func (p *pace) usual() bool {
	return p.limit == p.start && p.ceiling == 0 && p.missed == 0 && p.refused == 0 && p.shutFor == 0
}
