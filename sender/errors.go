package sender

import "fmt"

// ErrorKind is the closed set of reasons a client may be told. Each door has one table
// from kind to its own code; a test walks both.
type ErrorKind int8

// The kinds.
const (
	KindInternal          ErrorKind = iota + 1 // our fault; details are logged, not told
	KindMalformed                              // the request could not be read at all
	KindValidation                             // a field is wrong
	KindInvalidKey                             // no such key
	KindForbidden                              // the key may not do this
	KindUnknownMethod                          // no such call
	KindUnknownMessage                         // no such message
	KindUnknownSubaccount                      // no such subaccount
	KindUnknownReject                          // no such entry of the do-not-send list
	KindUnknownIP                              // no such address that mail is sent from
	KindUnknownPool                            // no such pool of addresses
	KindTooLarge                               // the body is over the limit
	KindTooMany                                // too many calls
	KindConflict                               // idempotency key used with another body
	KindUnavailable                            // cannot be stored now; try again
)

// Error is what a client may read.
type Error struct {
	Kind    ErrorKind
	Field   string // the field at fault, as the client wrote it; empty when none
	Message string
	// RetryAfter is in seconds; 0 for none.
	RetryAfter int
	Err        error // the cause, for the log only
}

// Error is the message with its cause, for logs.
func (e *Error) Error() string {
	if e.Err != nil {
		return e.Message + ": " + e.Err.Error()
	}
	return e.Message
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// Invalid is a validation error that names the field.
func Invalid(field, format string, args ...any) *Error {
	return &Error{Kind: KindValidation, Field: field, Message: fmt.Sprintf(format, args...)}
}

// Unavailable says that nothing was stored and that a retry is welcome.
func Unavailable(err error) *Error {
	return &Error{Kind: KindUnavailable, Message: "Service Temporarily Unavailable", RetryAfter: 2, Err: err}
}
