package api

import (
	"encoding/json"
	"errors"
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

// fail answers with an error. What is no *sender.Error is our fault: it is logged and not told.
func (a *API) fail(c echo.Context, err error) error {
	var e *sender.Error
	_ = errors.As(err, &e)
	if e == nil || errorTable[e.Kind].status == 0 {
		e = &sender.Error{Kind: sender.KindInternal, Err: err}
	}
	w := errorTable[e.Kind]
	message := e.Message
	switch {
	case e.Kind == sender.KindInternal:
		a.cfg.Log.Error("request failed", zap.String("path", c.Path()), zap.Error(err))
		message = "An unknown error occurred processing your request. Please try again later."
	case e.Kind == sender.KindUnavailable:
		a.cfg.Log.Debug("request refused for now", zap.String("path", c.Path()), zap.Error(err))
	case e.Kind == sender.KindValidation && e.Field != "":
		message = validationText(e)
	}
	if e.RetryAfter > 0 {
		c.Response().Header().Set("Retry-After", strconv.Itoa(e.RetryAfter))
	}
	return c.JSON(w.status, errorBody{"error", w.code, w.name, message})
}

// validationText is Mandrill's own form, so that clients which parse it find the field.
func validationText(e *sender.Error) string {
	b, err := json.Marshal(map[string]string{e.Field: e.Message})
	if err != nil {
		return e.Field + ": " + e.Message
	}
	return "Validation error: " + string(b)
}
