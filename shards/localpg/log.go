package localpg

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
)

const logLimit = 10 << 20 // bytes of the server log, and again of the older one beside it

func (s *Server) logPath() string { return s.cfg.Dir + ".log" }

// trimLog moves what a grown log holds to path.1 and empties it. The server appends, so it writes
// on at the new end; the few lines of between are lost.
func trimLog(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && info.Size() <= logLimit {
		return nil
	}
	if err != nil {
		return err
	}
	from, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	to, err := os.OpenFile(path+".1", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = from.Seek(max(info.Size()-logLimit, 0), io.SeekStart)
	if err == nil {
		_, err = io.Copy(to, io.LimitReader(from, logLimit))
	}
	return errors.Join(err, to.Close(), from.Truncate(0))
}

// reason says why a process ended, from the last 64 KB of its lines in the server log.
func (s *Server) reason(p *process) error {
	f, err := os.Open(s.logPath())
	if err != nil {
		return explain("", p.err)
	}
	defer func() { _ = f.Close() }()
	from := p.logFrom
	if info, err := f.Stat(); err == nil && info.Size() < from {
		from = 0 // it was trimmed since
	}
	var text tail
	if _, err := f.Seek(from, io.SeekStart); err == nil {
		_, _ = io.Copy(&text, io.LimitReader(f, 2*logLimit))
	}
	return fmt.Errorf("%w (log: %s)", explain(text.kept.String(), p.err), s.logPath())
}

// severity finds the lines of the server ("… FATAL:  text") and of initdb ("initdb: error: text").
var severity = regexp.MustCompile(`(?m)^.*?\b(LOG|WARNING|ERROR|error|FATAL|fatal|PANIC): +(.*)$`)

// explain makes one line of what Postgres said and of how it ended.
func explain(text string, ended error) error {
	var why, first string
	for _, m := range severity.FindAllStringSubmatch(text, -1) {
		switch level, said := m[1], m[2]; {
		case level != "LOG" && level != "WARNING" && level != "ERROR":
			why = said
		case first == "" && !strings.HasPrefix(said, "starting PostgreSQL"):
			first = said
		}
	}
	if first != "" && (strings.Contains(why, "contains errors") || strings.Contains(why, "could not create any TCP/IP sockets")) {
		why = first // the last line only says that there was one before
	}
	if why == "" { // no Postgres yet, such as a library that is missing; or killed
		lines := strings.Split(strings.TrimSpace(text), "\n")
		why = fmt.Sprintf("ended with %v; it last said: %s", ended, lines[len(lines)-1])
	}
	for _, a := range advice {
		if strings.Contains(why, a.sign) {
			return fmt.Errorf("%s: %w", why, a.do)
		}
	}
	return errors.New(why)
}

// advice is what to do about the failures that people meet.
var advice = []struct {
	sign string
	do   error
}{
	{"Address already in use", errPort},
	{"No space left on device", errors.New("free some space on the disk of the data folder")},
	{"Read-only file system", errors.New("the data folder must be on a disk that can be written")},
	{"Permission denied", errors.New("the data folder and all in it must belong to the user that Postgres runs as")},
	{"could not map anonymous shared memory", errors.New("there is too little memory: choose smaller shared_buffers")},
	{"pre-existing shared memory block", errors.New("processes of an earlier server still run: stop them")},
}
