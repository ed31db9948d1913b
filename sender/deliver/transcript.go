package deliver

import (
	"bytes"
	"strconv"
	"strings"
)

// maxTranscript bounds what is kept of a dialogue, in bytes.
const maxTranscript = 4 << 10

// transcript is the dialogue of an attempt: what we said, behind ">", what hosts said, behind "<", and what came of it
// otherwise, behind "*". It holds no content. Its buffer is used again, so that it costs next to nothing for mail that
// is delivered.
type transcript struct {
	b    []byte
	full bool
}

// room says whether a line of n bytes more can be kept. The one that cannot becomes "…", and is the last.
func (t *transcript) room(n int) bool {
	const end = "* …\n"
	if t == nil || t.full {
		return false
	}
	if len(t.b)+n > maxTranscript-len(end) {
		t.full = true
		t.b = append(t.b, end...)
	}
	return !t.full
}

// sent notes command lines as they were written; of AUTH only that it was.
func (t *transcript) sent(lines []byte) {
	for line := range bytes.Lines(lines) {
		line = bytes.TrimRight(line, "\r\n")
		if len(line) > 4 && bytes.EqualFold(line[:5], []byte("AUTH ")) {
			line = line[:4]
		}
		if !t.room(len(line) + 3) {
			return
		}
		t.b = append(append(append(t.b, "> "...), line...), '\n')
	}
}

// heard notes a reply.
func (t *transcript) heard(r *reply) {
	if r.code == 0 {
		return
	}
	rest := r.text
	for more := true; more; {
		var line []byte
		line, rest, more = bytes.Cut(rest, []byte{'\n'})
		if !t.room(len(line) + 7) {
			return
		}
		mark := byte(' ')
		if more {
			mark = '-'
		}
		t.b = append(strconv.AppendInt(append(t.b, "< "...), int64(r.code), 10), mark)
		t.b = append(append(t.b, line...), '\n')
	}
}

// note adds a line of our own.
func (t *transcript) note(text, about string) {
	if t.room(len(text) + len(about) + 3) {
		t.b = append(append(append(append(t.b, "* "...), text...), about...), '\n')
	}
}

func (t *transcript) reset() { t.b, t.full = t.b[:0], false }

// String is the dialogue, safe to show: valid UTF-8 with control characters escaped, lines ending in LF, about 4 KiB.
func (t *transcript) String() string {
	if plain(strings.ReplaceAll(string(t.b), "\n", "")) {
		return string(t.b)
	}
	var b strings.Builder
	for line := range strings.Lines(string(t.b)) {
		b.WriteString(escape(strings.TrimSuffix(line, "\n"), 2*maxTranscript-b.Len()))
		b.WriteByte('\n')
	}
	return b.String()
}
