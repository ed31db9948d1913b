package api

import (
	"encoding/json"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/postrider/postrider/sender"
)

// problem is an error in our own API (RFC 9457). Status and meaning of a kind are the same in both APIs.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Field  string `json:"field,omitempty"` // the field or header at fault, as the caller wrote it
}

// problemType is what all problems of a kind have in common.
type problemType struct{ name, title, advice string }

// problemTypes has one row for every kind; a test walks it.
var problemTypes = map[sender.ErrorKind]problemType{
	sender.KindInternal:          {"internal", "Fault inside Postrider", "Nothing is wrong with the request. Try again later; with an Idempotency-Key a send is safe to repeat."},
	sender.KindMalformed:         {"malformed", "Request cannot be read", "Send one JSON object in UTF-8; the detail says where reading stopped."},
	sender.KindValidation:        {"validation", "Field is wrong", "Correct the field that the answer names. Nothing was stored."},
	sender.KindInvalidKey:        {"invalid-key", "No valid key", "Send Authorization: Bearer KEY with a key that exists and is not revoked."},
	sender.KindForbidden:         {"forbidden", "Key does not allow the call", "Use a key with a wider scope."},
	sender.KindUnknownMethod:     {"unknown-call", "No such call", "GET /openapi.json describes all calls."},
	sender.KindUnknownMessage:    {"unknown-message", "No such message", "The account has no message with this id, or it is older than messages are kept."},
	sender.KindUnknownSubaccount: {"unknown-subaccount", "No such subaccount", "Leave the field out, or name a subaccount that exists."},
	sender.KindUnknownReject:     {"unknown-reject", "Address not on the list", "The do-not-send list has no entry for this address: nothing needs to be deleted."},
	sender.KindUnknownIP:         {"unknown-ip", "No such address", "Mail is not sent from this address: [[delivery.sources]] of the configuration file lists all that there are."},
	sender.KindUnknownPool:       {"unknown-pool", "No such pool", "No address belongs to this pool: [[delivery.sources]] of the configuration file says which belongs to which."},
	sender.KindTooLarge:          {"too-large", "Body too large", "A body has at most 25 MiB, attachments in base64 included."},
	sender.KindTooMany:           {"too-many", "Too many calls", "Wait for as many seconds as Retry-After says."},
	sender.KindConflict:          {"conflict", "Conflict", "What is asked for does not fit what has happened since; the detail says what that is."},
	sender.KindUnavailable:       {"unavailable", "Cannot be done now", "Wait for as many seconds as Retry-After says and send the request again: a send with the same Idempotency-Key, so that it cannot happen twice."},
}

// Where a type of problem is explained. The reference is relative because each installation has a name of its own, and
// holds the whole path, as RFC 9457 §3.1.1 asks of a relative one.
const problemPath = "/problems/"

func failOurs(c echo.Context, e *sender.Error) error {
	t, status := problemTypes[e.Kind], errorTable[e.Kind].status
	b, err := json.Marshal(problem{problemPath + t.name, t.title, status, e.Message, e.Field})
	if err != nil {
		return err
	}
	if status == http.StatusUnauthorized {
		c.Response().Header().Set("WWW-Authenticate", `Bearer realm="postrider"`) // RFC 6750 §3
	}
	return c.Blob(status, "application/problem+json", append(b, '\n'))
}

// explain says in words what a type of problem means and what to do about it.
func explain(c echo.Context) error {
	for _, t := range problemTypes {
		if t.name == c.Param("name") {
			return c.String(http.StatusOK, t.title+"\n\n"+t.advice+"\n")
		}
	}
	return echo.ErrNotFound
}
