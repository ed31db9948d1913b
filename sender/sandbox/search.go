package sandbox

import (
	"fmt"
	"strings"
)

const (
	maxQuery = 2_000 // bytes
	maxTerms = 50
)

// query is a search: a mail matches when every term is found in it.
type query []term

// term is a text to look for, in lower case, in one field; an empty field means any of from, to and subject.
type term struct{ field, text string }

// parseQuery reads terms like to:ann@example.com subject:"two words" word. Fields are from, to (any
// recipient), cc, bcc, subject and message-id; anything else before a colon belongs to the word.
func parseQuery(s string) (query, error) {
	if len(s) > maxQuery {
		return nil, fmt.Errorf("the query has %d bytes, the limit is %d", len(s), maxQuery)
	}
	var q query
	for rest := strings.TrimSpace(strings.ToLower(s)); rest != ""; rest = strings.TrimSpace(rest) {
		var t term
		if name, after, ok := strings.Cut(rest, ":"); ok && isField(name) {
			t.field, rest = name, strings.TrimLeft(after, " ")
		}
		t.text, rest = cutWord(rest)
		if t.field == "message-id" {
			t.text = strings.Trim(t.text, "<>")
		}
		if q = append(q, t); len(q) > maxTerms {
			return nil, fmt.Errorf("the query has more than %d terms", maxTerms)
		}
	}
	if len(q) == 0 {
		return nil, fmt.Errorf(`the query is empty; write for example query=to:ann@example.com or query=subject:"two words"`)
	}
	return q, nil
}

func isField(name string) bool {
	switch name {
	case "from", "to", "cc", "bcc", "subject", "message-id":
		return true
	}
	return false
}

// cutWord takes one word off s, or a quoted run of words; a quote that is never closed lasts to the end.
func cutWord(s string) (word, rest string) {
	if quoted, ok := strings.CutPrefix(s, `"`); ok {
		word, rest, _ = strings.Cut(quoted, `"`)
		return word, rest
	}
	if i := strings.IndexAny(s, " \t"); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}

func (q query) match(h *head) bool {
	for _, t := range q {
		if !t.match(h) {
			return false
		}
	}
	return true
}

func (t term) match(h *head) bool {
	switch t.field {
	case "from":
		return strings.Contains(h.findFrom, t.text)
	case "to":
		return strings.Contains(h.findTo, t.text)
	case "cc":
		return strings.Contains(h.findCc, t.text)
	case "bcc":
		return strings.Contains(h.findBcc, t.text)
	case "subject":
		return strings.Contains(h.findSubject, t.text)
	case "message-id":
		return strings.Contains(h.findID, t.text)
	}
	return strings.Contains(h.findSubject, t.text) || strings.Contains(h.findFrom, t.text) ||
		strings.Contains(h.findTo, t.text)
}
