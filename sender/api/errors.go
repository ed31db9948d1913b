package api

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"

	"github.com/labstack/echo/v4"
	"go.uber.org/zap"

	"github.com/postrider/postrider/sender"
)

// wireError is how a kind of error looks to a client of the Mandrill API.
type wireError struct {
	status int
	code   int
	name   string
}

// errorTable has one row for every kind; a test walks it.
var errorTable = map[sender.ErrorKind]wireError{
	sender.KindInternal:          {http.StatusInternalServerError, -100, "GeneralError"},
	sender.KindMalformed:         {http.StatusBadRequest, -1, "ValidationError"},
	sender.KindValidation:        {http.StatusUnprocessableEntity, -2, "ValidationError"},
	sender.KindInvalidKey:        {http.StatusUnauthorized, -1, "Invalid_Key"},
	sender.KindForbidden:         {http.StatusForbidden, -1, "Invalid_Key"},
	sender.KindUnknownMethod:     {http.StatusNotFound, -1, "Unknown_Method"},
	sender.KindUnknownMessage:    {http.StatusNotFound, 11, "Unknown_Message"},
	sender.KindUnknownSubaccount: {http.StatusNotFound, 12, "Unknown_Subaccount"},
	sender.KindUnknownReject:     {http.StatusNotFound, 4, "Invalid_Reject"},
	sender.KindUnknownIP:         {http.StatusNotFound, 13, "Unknown_IP"},
	sender.KindUnknownPool:       {http.StatusNotFound, 15, "Unknown_Pool"},
	sender.KindTooLarge:          {http.StatusRequestEntityTooLarge, -1, "ValidationError"},
	sender.KindTooMany:           {http.StatusTooManyRequests, 429, "RequestLimitExceeded"},
	sender.KindConflict:          {http.StatusConflict, -2, "ValidationError"},
	sender.KindUnavailable:       {http.StatusServiceUnavailable, -2, "ServiceUnavailable"},
}

type errorBody struct {
	Status  string `json:"status"`
	Code    int    `json:"code"`
	Name    string `json:"name"`
	Message string `json:"message"`
}

// fail answers with an error, in the shape of the API that was called. What is no *sender.Error is our fault: it is
// logged and not told.
func (a *API) fail(c echo.Context, err error) error {
	var known *sender.Error
	_ = errors.As(err, &known)
	if known == nil || errorTable[known.Kind].status == 0 {
		known = &sender.Error{Kind: sender.KindInternal}
	}
	e := *known
	switch e.Kind {
	case sender.KindInternal:
		a.cfg.Log.Error("request failed", zap.String("path", c.Path()), zap.Error(err))
		e.Message = "An unknown error occurred processing your request. Please try again later."
	case sender.KindUnavailable:
		a.cfg.Log.Debug("request refused for now", zap.String("path", c.Path()), zap.Error(err))
		drain(c.Request())
	case sender.KindInvalidKey, sender.KindForbidden:
		drain(c.Request())
	}
	if e.RetryAfter > 0 {
		c.Response().Header().Set("Retry-After", strconv.Itoa(e.RetryAfter))
	}
	if ours(c.Request()) {
		return failOurs(c, &e)
	}
	w := errorTable[e.Kind]
	if e.Kind == sender.KindValidation && e.Field != "" {
		e.Message = validationText(&e)
	}
	return c.JSON(w.status, errorBody{"error", w.code, w.name, e.Message})
}

// drain reads what is left of a body, if anything is: a client reads the answer when it has sent its body, and closing
// before that shows it a reset.
func drain(r *http.Request) { _, _ = io.CopyN(io.Discard, r.Body, maxBody) }

// validationText is Mandrill's own form, so that clients which parse it find the field.
func validationText(e *sender.Error) string {
	b, err := json.Marshal(map[string]string{e.Field: e.Message})
	if err != nil {
		return e.Field + ": " + e.Message
	}
	return "Validation error: " + string(b)
}
