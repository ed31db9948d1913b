package track

import (
	"fmt"
	"net/http"
	"strconv"
)

// answer is one of the few things that a link can say. None tells an address, or whose mail it was.
type answer struct {
	name   string // in the metrics
	status int
	title  string
	text   string
	button bool
	retry  int    // seconds; 0 for none
	allow  string // methods, with 405
}

var (
	asked = answer{name: "page", status: http.StatusOK, title: "Unsubscribe", button: true,
		text: "Press the button and you will get no more of these mails at your address."}
	unsubscribed = answer{name: "unsubscribed", status: http.StatusOK, title: "You are unsubscribed",
		text: "You will get no more of these mails. You can close this page."}
	noLink = answer{name: "no_link", status: http.StatusNotFound, title: "Not found",
		text: "There is nothing here. Open the link as it stands in the mail."}
	badToken = answer{name: "bad_token", status: http.StatusNotFound, title: noLink.title, text: noLink.text}
	badBody  = answer{name: "bad_body", status: http.StatusBadRequest, title: "Nothing was changed",
		text: "To unsubscribe, press the button on the page of this link, or send a POST with the form " + oneClickField + "=" + oneClickValue + "."}
	tooLarge = answer{name: "too_large", status: http.StatusRequestEntityTooLarge, title: "Nothing was changed",
		text: "The request is larger than " + strconv.Itoa(maxBody) + " bytes."}
	tooSlow     = answer{name: "too_slow", status: http.StatusRequestTimeout, title: "Nothing was changed", text: "The request took too long. Please try again."}
	wrongMethod = answer{name: "wrong_method", status: http.StatusMethodNotAllowed, title: "Nothing was changed", text: "A link takes GET, HEAD and POST.", allow: "GET, HEAD, POST"}
	tooOften    = answer{name: "too_often", status: http.StatusTooManyRequests, title: "Please wait", text: "This link was used many times in a short while. Please try again in a minute.", retry: 60}
	tryLater    = answer{name: "try_later", status: http.StatusServiceUnavailable, title: "Please try again", text: "You could not be unsubscribed just now. Please try again in a minute.", retry: 60}
	gone        = answer{name: "gone", status: http.StatusGone, title: "This link is too old",
		text: "We do not know any more which mail this was. Use the link in a newer mail, or write to its sender."}
)

const (
	page = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>%[1]s</title>
<style>body { font: 1.1em sans-serif; max-width: 30em; margin: 4em auto; padding: 0 1em } button { font: inherit; padding: .5em 1em }</style>
</head>
<body>
<h1>%[1]s</h1>
<p>%[2]s</p>
%[3]s</body>
</html>
`
	form = `<form method="post"><input type="hidden" name="` + oneClickField + `" value="` + oneClickValue + `"><button type="submit">Unsubscribe</button></form>
`
	policy = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)

// write sends an answer. Nothing of it is kept by a cache, found by a search engine, shown in another's page, or told to
// where its reader goes next.
func (a answer) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Robots-Tag", "noindex, nofollow")
	if a.retry > 0 {
		h.Set("Retry-After", strconv.Itoa(a.retry))
	}
	if a.allow != "" {
		h.Set("Allow", a.allow)
	}
	button := ""
	if a.button {
		button = form
	}
	w.WriteHeader(a.status)
	fmt.Fprintf(w, page, a.title, a.text, button)
}
