package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/postrider/postrider/sender"
)

// A content's stored form: the byte 1, the length of a JSON head, the head, and then the large parts as
// they are, one after the other: text, html, attachments, images. Large parts inside the JSON would cost
// an escape of every character and base64 of every file.
const contentVersion = 1

type contentHead struct {
	FromEmail   string             `json:"from"`
	FromName    string             `json:"name,omitempty"`
	Subject     string             `json:"subject,omitempty"`
	Text        int                `json:"text"` // lengths in bytes
	HTML        int                `json:"html"`
	Flags       int                `json:"flags,omitempty"`
	Headers     []sender.Header    `json:"headers,omitempty"`
	Files       []contentFile      `json:"files,omitempty"`
	Recipients  []sender.Recipient `json:"to,omitempty"`
	Bcc         string             `json:"bcc,omitempty"`
	ReturnPath  string             `json:"return_path,omitempty"`
	Pool        string             `json:"pool,omitempty"`
	Attachments int                `json:"attachments,omitempty"` // the first so many files; the others are images
}

type contentFile struct {
	Type string `json:"type"`
	Name string `json:"name"`
	Size int    `json:"size"`
}

const (
	flagAutoText = 1 << iota
	flagAutoHTML
	flagPreserve
	flagHidden
	flagUnsubscribe
)

// EncodeContent is the stored form of a content.
func EncodeContent(c *sender.Content) ([]byte, error) {
	h := contentHead{FromEmail: c.From.Email, FromName: c.From.Name, Subject: c.Subject, Text: len(c.Text), HTML: len(c.HTML),
		Headers: c.Headers, Recipients: c.Recipients, Bcc: c.BccAddress, ReturnPath: c.ReturnPathDomain, Pool: c.Pool, Attachments: len(c.Attachments)}
	for flag, on := range map[int]bool{flagAutoText: c.AutoText, flagAutoHTML: c.AutoHTML, flagPreserve: c.PreserveRecipients, flagHidden: c.Hidden,
		flagUnsubscribe: c.Unsubscribe} {
		if on {
			h.Flags |= flag
		}
	}
	size := len(c.Text) + len(c.HTML)
	for _, list := range [][]sender.Attachment{c.Attachments, c.Images} {
		for _, f := range list {
			h.Files = append(h.Files, contentFile{f.Type, f.Name, len(f.Content)})
			size += len(f.Content)
		}
	}
	head, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode the content: %w", err)
	}
	b := make([]byte, 0, 5+len(head)+size)
	b = append(b, contentVersion)
	b = binary.BigEndian.AppendUint32(b, uint32(len(head)))
	b = append(b, head...)
	b = append(b, c.Text...)
	b = append(b, c.HTML...)
	for _, list := range [][]sender.Attachment{c.Attachments, c.Images} {
		for _, f := range list {
			b = append(b, f.Content...)
		}
	}
	return b, nil
}

var errContent = errors.New("a stored content is damaged")

// DecodeContent reads the stored form. Files share b's memory.
func DecodeContent(b []byte) (*sender.Content, error) {
	if len(b) < 5 || b[0] != contentVersion {
		return nil, errContent
	}
	n := int(binary.BigEndian.Uint32(b[1:5]))
	if n > len(b)-5 {
		return nil, errContent
	}
	var h contentHead
	if err := json.Unmarshal(b[5:5+n], &h); err != nil {
		return nil, fmt.Errorf("%w: %w", errContent, err)
	}
	rest := b[5+n:]
	total := h.Text + h.HTML
	for _, f := range h.Files {
		total += f.Size
	}
	if h.Text < 0 || h.HTML < 0 || total != len(rest) || h.Attachments > len(h.Files) {
		return nil, errContent
	}
	c := &sender.Content{From: sender.Address{Email: h.FromEmail, Name: h.FromName}, Subject: h.Subject,
		Text: string(rest[:h.Text]), HTML: string(rest[h.Text : h.Text+h.HTML]),
		AutoText: h.Flags&flagAutoText != 0, AutoHTML: h.Flags&flagAutoHTML != 0, PreserveRecipients: h.Flags&flagPreserve != 0,
		Hidden: h.Flags&flagHidden != 0, Unsubscribe: h.Flags&flagUnsubscribe != 0, Headers: h.Headers, Recipients: h.Recipients, BccAddress: h.Bcc, ReturnPathDomain: h.ReturnPath, Pool: h.Pool}
	rest = rest[h.Text+h.HTML:]
	for i, f := range h.Files {
		file := sender.Attachment{Type: f.Type, Name: f.Name, Content: rest[:f.Size]}
		rest = rest[f.Size:]
		if i < h.Attachments {
			c.Attachments = append(c.Attachments, file)
		} else {
			c.Images = append(c.Images, file)
		}
	}
	return c, nil
}
