package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	defaultLimit = 50
	maxLimit     = 10_000
	maxBody      = 4 << 20 // bytes of a request
)

// summary is one mail in a list.
type summary struct {
	ID, MessageID        string
	Read                 bool
	From                 address
	To, Cc, Bcc, ReplyTo []address
	Subject              string
	Created              time.Time // when it was received
	Username             string    // always empty: the MX asks nobody for a name
	Tags                 []string
	Size                 int // bytes, raw
	Attachments          int
	Snippet              string // up to 250 characters of the text
}

// page is a stretch of the inbox, newest first.
type page struct {
	Total          int       `json:"total"`  // mails in the inbox
	Unread         int       `json:"unread"` // unread mails in the inbox
	Count          int       `json:"count"`  // mails in this answer
	MessagesCount  int       `json:"messages_count"`
	MessagesUnread int       `json:"messages_unread"`
	Start          int       `json:"start"`
	Tags           []string  `json:"tags"`
	Messages       []summary `json:"messages"`
}

// detail is one mail with its parts.
type detail struct {
	ID, MessageID        string
	From                 address
	To, Cc, Bcc, ReplyTo []address
	ReturnPath           string
	Subject              string
	ListUnsubscribe      unsubscribe
	Date                 time.Time // of the Date field, or when it was received
	Tags                 []string
	Username             string
	Text, HTML           string
	Size                 int
	Inline, Attachments  []attachment
}

// unsubscribe is what the header says about leaving a list (RFC 2369, RFC 8058).
type unsubscribe struct {
	Header     string
	Links      []string
	Errors     string
	HeaderPost string
}

// api serves the inbox in the shape of Mailpit's API.
type api struct{ inbox *inbox }

func (a *api) routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/v1/messages", a.list)
	mux.HandleFunc("DELETE /api/v1/messages", a.remove)
	mux.HandleFunc("GET /api/v1/search", a.search)
	mux.HandleFunc("DELETE /api/v1/search", a.removeFound)
	mux.HandleFunc("GET /api/v1/message/{id}", a.one(a.message))
	mux.HandleFunc("GET /api/v1/message/{id}/headers", a.one(a.headers))
	mux.HandleFunc("GET /api/v1/message/{id}/raw", a.one(a.raw))
	mux.HandleFunc("GET /api/v1/message/{id}/part/{part}", a.one(a.part))
}

func (a *api) list(w http.ResponseWriter, r *http.Request) {
	all := a.inbox.all()
	answer(w, r, all, all)
}

func (a *api) search(w http.ResponseWriter, r *http.Request) {
	all := a.inbox.all()
	found, err := find(all, r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answer(w, r, all, found)
}

func find(all []*letter, r *http.Request) ([]*letter, error) {
	q, err := parseQuery(r.URL.Query().Get("query"))
	if err != nil {
		return nil, err
	}
	var found []*letter
	for _, m := range all {
		if q.match(m.head()) {
			found = append(found, m)
		}
	}
	return found, nil
}

// answer writes the stretch of found that start and limit ask for.
func answer(w http.ResponseWriter, r *http.Request, all, found []*letter) {
	start, err := count(r, "start", 0)
	limit, err2 := count(r, "limit", defaultLimit)
	if err = errors.Join(err, err2); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p := page{
		Total: len(all), Unread: unread(all), Start: start,
		MessagesCount: len(found), MessagesUnread: unread(found),
		Tags: []string{}, Messages: []summary{},
	}
	found = found[min(start, len(found)):]
	for _, m := range found[:min(limit, maxLimit, len(found))] {
		p.Messages = append(p.Messages, summarize(m))
	}
	p.Count = len(p.Messages)
	writeJSON(w, p)
}

func count(r *http.Request, name string, otherwise int) (int, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s must be a number from 0 on", name)
	}
	return n, nil
}

func unread(mails []*letter) int {
	n := 0
	for _, m := range mails {
		if !m.read.Load() {
			n++
		}
	}
	return n
}

func summarize(m *letter) summary {
	h, g := m.head(), m.look()
	return summary{
		ID: m.id, MessageID: h.messageID, Read: m.read.Load(),
		From: h.from, To: h.to, Cc: h.cc, Bcc: h.bcc, ReplyTo: h.replyTo,
		Subject: h.subject, Created: m.at, Tags: []string{},
		Size: len(m.raw), Attachments: g.attachments, Snippet: g.snippet,
	}
}

// remove forgets the mails whose ids the body lists, or all of them when it lists none.
func (a *api) remove(w http.ResponseWriter, r *http.Request) {
	var body struct{ IDs []string }
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&body)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		http.Error(w, `send no body to delete all, or {"IDs":["…"]} to delete some`, http.StatusBadRequest)
		return
	case len(body.IDs) == 0:
		a.inbox.clear()
	default:
		a.inbox.remove(body.IDs)
	}
	writeOK(w)
}

func (a *api) removeFound(w http.ResponseWriter, r *http.Request) {
	found, err := find(a.inbox.all(), r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	ids := make([]string, len(found))
	for i, m := range found {
		ids[i] = m.id
	}
	a.inbox.remove(ids)
	writeOK(w)
}

// one finds the mail of a request.
func (a *api) one(handle func(http.ResponseWriter, *http.Request, *letter)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		m := a.inbox.find(r.PathValue("id"))
		if m == nil {
			http.Error(w, "no such message; it may have been deleted or pushed out by newer ones", http.StatusNotFound)
			return
		}
		handle(w, r, m)
	}
}

func (a *api) message(w http.ResponseWriter, _ *http.Request, m *letter) {
	m.read.Store(true)
	h, c := m.head(), m.content()
	writeJSON(w, detail{
		ID: m.id, MessageID: h.messageID, From: h.from,
		To: h.to, Cc: h.cc, Bcc: h.bcc, ReplyTo: h.replyTo, ReturnPath: m.from,
		Subject: h.subject, ListUnsubscribe: unsubscribing(m), Date: h.date, Tags: []string{},
		Text: c.text, HTML: c.html, Size: len(m.raw), Inline: c.inline, Attachments: c.attached,
	})
}

func unsubscribing(m *letter) unsubscribe {
	u := unsubscribe{Links: []string{}}
	fields := m.fields()
	u.Header = strings.Join(fields["List-Unsubscribe"], ", ")
	u.HeaderPost = strings.Join(fields["List-Unsubscribe-Post"], ", ")
	for _, link := range strings.Split(u.Header, ",") {
		if link = strings.Trim(link, "<> \t"); link != "" {
			u.Links = append(u.Links, link)
		}
	}
	return u
}

// headers answers all fields by name, decoded.
func (a *api) headers(w http.ResponseWriter, _ *http.Request, m *letter) { writeJSON(w, m.fields()) }

func (a *api) raw(w http.ResponseWriter, r *http.Request, m *letter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if r.URL.Query().Get("dl") == "1" {
		w.Header().Set("Content-Disposition", "attachment; filename="+m.id+".eml")
	}
	w.Write(m.raw)
}

// part answers the bytes of a part, as a download: mail is not to be trusted, and must not run in the inbox.
func (a *api) part(w http.ResponseWriter, r *http.Request, m *letter) {
	f := m.file(r.PathValue("part"))
	if f == nil {
		http.Error(w, "the message has no such part", http.StatusNotFound)
		return
	}
	name := f.FileName
	if name == "" {
		name = "part-" + f.PartID
	}
	kind := f.ContentType
	if _, _, err := mime.ParseMediaType(kind); err != nil {
		kind = "application/octet-stream"
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": name}))
	w.Header().Set("Content-Security-Policy", "sandbox; default-src 'none'")
	w.Header().Set("Content-Length", strconv.Itoa(len(f.bytes)))
	w.Write(f.bytes)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // fails only when the client is gone
}

func writeOK(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "ok")
}
