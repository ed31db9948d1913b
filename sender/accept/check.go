package accept

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/postrider/postrider/sender"
)

// The limits of a submission. Both doors name them in their answers.
const (
	MaxRecipients  = 1000
	MaxBytes       = 25 << 20 // text, html and files together
	MaxSubject     = 998      // bytes, RFC 5322 §2.1.1
	MaxName        = 256      // bytes of a display name
	MaxHeaders     = 100
	MaxHeaderValue = 8 << 10 // bytes
	MaxTags        = 100
	MaxTag         = 50       // characters
	MaxMetadata    = 10 << 10 // bytes of a message
	MaxFiles       = 500
	MaxFileName    = 255 // bytes
	MaxKey         = 255 // bytes of an idempotency key
	maxHops        = 50  // Received fields (RFC 5321 §6.3)
	MaxAhead       = 366 * 24 * time.Hour
)

// check holds a submission against the limits and refuses what could inject a header. Field names are
// Mandrill's, without the "message." before them.
func check(s *sender.Submission) error {
	if !s.SendAt.After(time.Now()) {
		s.SendAt = time.Time{} // the past is now
	}
	for _, err := range []error{checkTimes(s), checkRecipients(s), checkContent(&s.Content), checkFiles(&s.Content), checkLabels(s), checkKey(s.IdempotencyKey)} {
		if err != nil {
			return err
		}
	}
	return nil
}

func checkTimes(s *sender.Submission) error {
	now := time.Now()
	switch {
	case s.SendAt.After(now.Add(MaxAhead)):
		return sender.Invalid("send_at", "is more than a year ahead")
	case s.ExpiresAt.IsZero():
	case !s.ExpiresAt.After(now):
		return sender.Invalid("expires_at", "is in the past: the mail would never be sent")
	case !s.ExpiresAt.After(s.SendAt):
		return sender.Invalid("expires_at", "is not after send_at: the mail would never be sent")
	case s.ExpiresAt.After(now.Add(MaxAhead)):
		return sender.Invalid("expires_at", "is more than a year ahead")
	}
	return nil
}

func checkRecipients(s *sender.Submission) error {
	switch n := len(s.Recipients); {
	case n == 0:
		return sender.Invalid("to", "at least one recipient is needed")
	case n > MaxRecipients:
		return sender.Invalid("to", "%d recipients are more than the %d that one call may have", n, MaxRecipients)
	}
	for i, r := range s.Recipients {
		if err := line(fmt.Sprintf("to[%d].name", i), r.Name, MaxName); err != nil {
			return err
		}
		if err := line(fmt.Sprintf("to[%d].email", i), r.Email, 1000); err != nil {
			return err
		}
	}
	return nil
}

func checkContent(c *sender.Content) error {
	if c.From.Email != "" {
		if err := line("from_email", c.From.Email, 1000); err != nil {
			return err
		}
		if err := sender.CheckEmail(c.From.Email); err != nil {
			return sender.Invalid("from_email", "the email address is invalid: it %s", err)
		}
	}
	if c.BccAddress != "" {
		if err := sender.CheckEmail(c.BccAddress); err != nil {
			return sender.Invalid("bcc_address", "the email address is invalid: it %s", err)
		}
	}
	if c.ReturnPathDomain != "" && sender.CheckEmail("x@"+c.ReturnPathDomain) != nil {
		return sender.Invalid("return_path_domain", "is not a host name")
	}
	if err := line("from_name", c.From.Name, MaxName); err != nil {
		return err
	}
	if err := line("ip_pool", c.Pool, MaxName); err != nil {
		return err
	}
	if err := line("subject", c.Subject, MaxSubject); err != nil {
		return err
	}
	for field, text := range map[string]string{"text": c.Text, "html": c.HTML} {
		if !utf8.ValidString(text) {
			return sender.Invalid(field, "is not valid UTF-8")
		}
	}
	if len(c.Headers) > MaxHeaders {
		return sender.Invalid("headers", "%d headers are more than the %d that a message may add", len(c.Headers), MaxHeaders)
	}
	hops := 0
	for _, h := range c.Headers {
		if strings.EqualFold(h.Name, "Received") {
			hops++
		}
		if !headerName(h.Name) {
			return sender.Invalid("headers", "%.80q is not a header name (RFC 5322 §2.2: 1 to 76 printable ASCII characters without a colon)", h.Name)
		}
		if err := line("headers."+h.Name, h.Value, MaxHeaderValue); err != nil {
			return err
		}
	}
	if hops >= maxHops {
		return sender.Invalid("headers", "the mail has passed %d hosts: it is in a loop (5.4.6)", hops)
	}
	return nil
}

func headerName(s string) bool {
	if s == "" || len(s) > 76 {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' || s[i] == ':' {
			return false
		}
	}
	return true
}

func checkFiles(c *sender.Content) error {
	total := len(c.Text) + len(c.HTML)
	if len(c.Attachments)+len(c.Images) > MaxFiles {
		return sender.Invalid("attachments", "a message may have at most %d files", MaxFiles)
	}
	for field, list := range map[string][]sender.Attachment{"attachments": c.Attachments, "images": c.Images} {
		for i, f := range list {
			at := fmt.Sprintf("%s[%d]", field, i)
			if err := line(at+".name", f.Name, MaxFileName); err != nil {
				return err
			}
			if err := line(at+".type", f.Type, MaxFileName); err != nil {
				return err
			}
			if field == "images" && !strings.HasPrefix(strings.ToLower(f.Type), "image/") {
				return sender.Invalid(at+".type", "must begin with image/")
			}
			total += len(f.Content)
		}
	}
	if total > MaxBytes {
		return sender.Invalid("attachments", "the message has %d bytes, at most %d are allowed", total, MaxBytes)
	}
	return nil
}

func checkLabels(s *sender.Submission) error {
	for i, t := range s.Tags {
		field := fmt.Sprintf("tags[%d]", i)
		switch {
		case utf8.RuneCountInString(t) > MaxTag:
			return sender.Invalid(field, "has more than %d characters", MaxTag)
		case strings.HasPrefix(t, "_"):
			return sender.Invalid(field, "must not begin with an underscore: those are reserved")
		}
		if err := line(field, t, 4*MaxTag); err != nil {
			return err
		}
		if strings.ContainsRune(t, '\x1f') {
			return sender.Invalid(field, "has a control character")
		}
	}
	if len(s.Tags) > MaxTags {
		return sender.Invalid("tags", "%d tags are more than the %d that a message may have", len(s.Tags), MaxTags)
	}
	if err := line("subaccount", s.Subaccount, MaxName); err != nil {
		return err
	}
	return checkMetadata(s)
}

func checkMetadata(s *sender.Submission) error {
	common, err := metadataSize("metadata", s.Metadata)
	if err != nil {
		return err
	}
	if common > MaxMetadata {
		return sender.Invalid("metadata", "has %d bytes, at most %d are allowed", common, MaxMetadata)
	}
	for i, r := range s.Recipients {
		field := fmt.Sprintf("recipient_metadata[%d]", i)
		own, err := metadataSize(field, r.Metadata)
		if err != nil {
			return err
		}
		if common+own > MaxMetadata { // each message has a copy of both
			return sender.Invalid(field, "has %d bytes with the common metadata, at most %d are allowed", common+own, MaxMetadata)
		}
	}
	return nil
}

func metadataSize(field string, m map[string]string) (size int, err error) {
	for k, v := range m {
		size += len(k) + len(v)
		if strings.ContainsRune(k+v, 0) || !utf8.ValidString(k+v) {
			return 0, sender.Invalid(field, "has a NUL or invalid UTF-8")
		}
	}
	return size, nil
}

func checkKey(key string) error {
	if len(key) > MaxKey {
		return sender.Invalid("Idempotency-Key", "has more than %d bytes", MaxKey)
	}
	return line("Idempotency-Key", key, MaxKey)
}

// line refuses what must not stand in one header line: CR, LF and NUL are never repaired, since a repaired
// value is no longer what the caller meant.
func line(field, s string, limit int) error {
	switch {
	case len(s) > limit:
		return sender.Invalid(field, "has %d bytes, at most %d are allowed", len(s), limit)
	case strings.ContainsAny(s, "\r\n\x00"):
		return sender.Invalid(field, "has a line break or NUL")
	case !utf8.ValidString(s):
		return sender.Invalid(field, "is not valid UTF-8")
	}
	return nil
}
