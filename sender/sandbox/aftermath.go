package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

const (
	afterDelay   = 200 * time.Millisecond
	afterQueue   = 20_000 // waiting reports, and as many waiting fetches
	reportLanes  = 8
	fetchLanes   = 8
	reportTries  = 8 // with pauses of 0.25, 0.5 … 16 s
	fetchTries   = 3
	firstPause   = 250 * time.Millisecond
	fetchTimeout = 5 * time.Second
	maxFetch     = 1 << 20 // bytes read of an answer
	dialTimeout  = 5 * time.Second
	replyTimeout = 10 * time.Second
)

// errForGood is a failure that trying again does not mend.
var errForGood = errors.New("refused for good")

// aftermath is what happens to a mail after it was accepted: reports to its return path and fetches of its links.
// Both wait in queues of their own, bounded in number and in bytes; what does not fit is dropped with a warning.
type aftermath struct {
	cfg      Config
	client   *http.Client
	reports  chan errand
	fetches  chan errand
	waiting  atomic.Int64 // bytes of the mails in both queues
	noReport sync.Once
}

// errand is one thing to do for one recipient of a mail.
type errand struct {
	kind Kind
	to   string
	mail *letter
	due  time.Time
}

func newAftermath(cfg Config) *aftermath {
	a := &aftermath{
		cfg:     cfg,
		reports: make(chan errand, afterQueue),
		fetches: make(chan errand, afterQueue),
	}
	a.client = &http.Client{
		Timeout:   fetchTimeout,
		Transport: &http.Transport{MaxIdleConnsPerHost: fetchLanes, IdleConnTimeout: 30 * time.Second},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > 1 || !cfg.Fetch(r.URL) {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}
	return a
}

// plan queues what the recipients of m ask for.
func (a *aftermath) plan(m *letter) {
	for _, to := range m.to {
		e := errand{kind: OutcomeOf(to[:max(strings.LastIndexByte(to, '@'), 0)]).Kind, to: to, mail: m, due: m.at.Add(afterDelay)}
		switch e.kind {
		case LateBounce, Complain:
			a.planReport(e)
		case Open, Click:
			a.put(a.fetches, e)
		}
	}
}

func (a *aftermath) planReport(e errand) {
	if a.cfg.Reports == "" {
		a.noReport.Do(func() {
			a.cfg.Log.Warn("sandbox sends no late bounces and no complaints: it was given no address for reports")
		})
		return
	}
	if e.mail.from != "" { // RFC 5321 §4.5.5: nothing is ever reported to the null return path
		a.put(a.reports, e)
	}
}

func (a *aftermath) put(queue chan errand, e errand) {
	size := int64(len(e.mail.raw))
	if a.waiting.Add(size) <= a.cfg.Bytes {
		select {
		case queue <- e:
			return
		default:
		}
	}
	a.waiting.Add(-size)
	a.cfg.Log.Warn("sandbox dropped a report or a fetch: too many are waiting")
}

// run works off both queues until ctx ends.
func (a *aftermath) run(ctx context.Context) error {
	var lanes errgroup.Group
	for range reportLanes {
		lanes.Go(func() error { a.work(ctx, a.reports, reportTries, a.report); return nil })
	}
	for range fetchLanes {
		lanes.Go(func() error { a.work(ctx, a.fetches, fetchTries, a.fetch); return nil })
	}
	err := lanes.Wait()
	a.client.CloseIdleConnections()
	return err
}

func (a *aftermath) work(ctx context.Context, queue chan errand, tries int, do func(context.Context, errand) error) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-queue:
			sleep(ctx, time.Until(e.due))
			a.try(ctx, tries, func() error { return do(ctx, e) })
			a.waiting.Add(-int64(len(e.mail.raw)))
		}
	}
}

// try does it until it works, is refused for good, or was tried often enough.
func (a *aftermath) try(ctx context.Context, tries int, do func() error) {
	pause := firstPause
	for n := 1; ctx.Err() == nil; n++ {
		err := do()
		if err == nil {
			return
		}
		if n == tries || errors.Is(err, errForGood) {
			a.cfg.Log.Warn("sandbox gave up on a report or a fetch", zap.Int("tries", n), zap.Error(err))
			return
		}
		sleep(ctx, pause)
		pause *= 2
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// report sends a DSN or an ARF report to the return path, from the null return path.
func (a *aftermath) report(ctx context.Context, e errand) error {
	dialer := net.Dialer{Timeout: dialTimeout}
	nc, err := dialer.DialContext(ctx, "tcp", a.cfg.Reports)
	if err != nil {
		return fmt.Errorf("connect to the bounce listener: %w", err)
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { nc.Close() })()
	c := smtp.NewClient(nc)
	c.CommandTimeout, c.SubmissionTimeout = replyTimeout, replyTimeout
	err = send(c, a.cfg.Hostname, e)
	var refused *smtp.SMTPError
	if errors.As(err, &refused) && refused.Code >= 500 {
		return fmt.Errorf("%w by the bounce listener with %d", errForGood, refused.Code)
	}
	if errors.As(err, &refused) { // the text of a reply may hold the address
		return fmt.Errorf("bounce listener answered %d", refused.Code)
	}
	return err
}

func send(c *smtp.Client, hostname string, e errand) error {
	if err := c.Hello(hostname); err != nil {
		return err
	}
	if err := c.Mail("", &smtp.MailOptions{UTF8: !isASCII(e.mail.from + e.to)}); err != nil {
		return err
	}
	if err := c.Rcpt(e.mail.from, nil); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(report(e, hostname)); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	_ = c.Quit() // the report is theirs already
	return nil
}

// fetch gets the first allowed image or link of the mail, as its reader's program would.
func (a *aftermath) fetch(ctx context.Context, e errand) error {
	u := a.target(e)
	if u == nil {
		return nil // the mail has nothing to fetch
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return fmt.Errorf("fetch a tracking link: %w", errForGood)
	}
	request.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) Sandbox/1.0")
	response, err := a.client.Do(request)
	var failed *url.Error
	if errors.As(err, &failed) {
		return fmt.Errorf("fetch a tracking link: %w", failed.Err) // without the link, which is a secret
	}
	if err != nil {
		return fmt.Errorf("fetch a tracking link: %w", err)
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, maxFetch))
	if response.StatusCode >= 400 {
		return fmt.Errorf("fetch a tracking link: answered %d", response.StatusCode)
	}
	return nil
}

func (a *aftermath) target(e errand) *url.URL {
	c := e.mail.content()
	if e.kind == Open {
		return a.firstAllowed(links(c.html, "img", "src"))
	}
	if u := a.firstAllowed(links(c.html, "a", "href")); u != nil {
		return u
	}
	return a.firstAllowed(textLinks(c.text))
}

func (a *aftermath) firstAllowed(all iter.Seq[*url.URL]) *url.URL {
	for u := range all {
		if a.cfg.Fetch(u) {
			return u
		}
	}
	return nil
}
