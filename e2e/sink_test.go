package e2e

import (
	"io"

	"github.com/emersion/go-smtp"
)

// dropSession reads a mail whole and hangs up.
type dropSession struct {
	sink *dropSink
	conn *smtp.Conn
}

func (s *dropSession) Mail(string, *smtp.MailOptions) error { return nil }
func (s *dropSession) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (s *dropSession) Reset()                               {}
func (s *dropSession) Logout() error                        { return nil }

func (s *dropSession) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.sink.mu.Lock()
	s.sink.mails = append(s.sink.mails, raw)
	s.sink.mu.Unlock()
	return s.conn.Close()
}
