package api

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/postrider/postrider/sender"
)

// take reads the body of a call. Its memory is counted as held until release.
func (a *API) take(r *http.Request, decode func(contentType string, body []byte) (object, error)) (in *call, release func(), err error) {
	raw, release, err := a.read(r)
	if err != nil {
		return nil, release, err
	}
	body, err := decode(r.Header.Get("Content-Type"), raw)
	return &call{body: body, raw: raw, header: r.Header}, release, err
}

// read takes in a body of at most 25 MiB. What is over 64 KiB is counted against a fixed amount of memory, as it
// arrives: a client that is slow holds no more than it has sent.
func (a *API) read(r *http.Request) (body []byte, release func(), err error) {
	var held int64
	release = func() { a.bodies.Release(held) }
	if r.ContentLength > maxBody {
		return nil, release, tooLarge()
	}
	size := r.ContentLength + 1 // one more, so that the end shows without growing
	if size <= 0 || size > smallBody {
		size = smallBody
	}
	body = make([]byte, 0, size)
	for {
		if len(body) == cap(body) {
			more := int64(min(cap(body), maxBody+1-cap(body)))
			if cap(body) >= 1<<20 && r.ContentLength > 0 { // it is in earnest: the rest at once, so that nobody holds half and waits
				more = max(more, r.ContentLength+1-int64(cap(body)))
			}
			if more <= 0 {
				return nil, release, tooLarge()
			}
			if err := a.hold(r.Context(), more); err != nil {
				return nil, release, err
			}
			held += more
			body = append(make([]byte, 0, int64(cap(body))+more), body...)
		}
		n, err := r.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case errors.Is(err, io.EOF):
			return body, release, nil
		case err != nil:
			return nil, release, malformed("the body could not be read to its end")
		}
	}
}

var errBusy = errors.New("too many large requests at once")

// hold waits a little for memory that other large requests have.
func (a *API) hold(ctx context.Context, bytes int64) error {
	ctx, cancel := context.WithTimeout(ctx, bodyWait)
	defer cancel()
	if a.bodies.Acquire(ctx, bytes) != nil {
		return sender.Unavailable(errBusy)
	}
	return nil
}

func tooLarge() error {
	return &sender.Error{Kind: sender.KindTooLarge, Message: "the body is larger than 25 MiB"}
}
