package api

import (
	"errors"
	"html/template"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/postrider/postrider/sender/domains"
)

// domainPage is what a link in a mailbox leads to. Looking changes nothing, since mail scanners follow links too; the
// button confirms.
var domainPage = template.Must(template.New("domain").Parse(`<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="referrer" content="no-referrer"><title>Sending domain</title><body style="font:16px sans-serif;max-width:36em;margin:3em auto;padding:0 1em">
{{if .Error}}<p>{{.Error}}</p>{{else if .Done}}<p>Confirmed: {{.Domain}} is yours. Mail from it is signed as soon as its key records are found.</p>
{{else}}<p>Somebody asked to send mail from <b>{{.Domain}}</b>. If that was you, confirm it. If not, close this page.</p>
<form method="post"><button style="font:inherit">Yes, this domain is mine</button></form>{{end}}`))

type domainView struct {
	Domain string
	Done   bool
	Error  string
}

// askDomain shows the page.
func (a *API) askDomain(c echo.Context) error {
	name, err := a.cfg.Domains.ReadLink(c.Param("token"))
	return a.showDomain(c, domainView{Domain: name}, err)
}

// confirmDomain is its button.
func (a *API) confirmDomain(c echo.Context) error {
	name, err := a.cfg.Domains.Confirm(c.Request().Context(), c.Param("token"))
	return a.showDomain(c, domainView{Domain: name, Done: true}, err)
}

func (a *API) showDomain(c echo.Context, v domainView, err error) error {
	status := http.StatusOK
	switch {
	case errors.Is(err, domains.ErrLink):
		status, v.Error = http.StatusNotFound, "This link is not valid, or more than three days old."
	case err != nil:
		status, v.Error = http.StatusServiceUnavailable, "This cannot be confirmed just now. Please try again in a few minutes."
	}
	h := c.Response().Header()
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	h.Set(echo.HeaderContentType, echo.MIMETextHTMLCharsetUTF8)
	c.Response().WriteHeader(status)
	return domainPage.Execute(c.Response(), v)
}
