package compose

import (
	"strings"
	"testing"

	"github.com/postrider/postrider/sender"
)

func BenchmarkSign2KB(b *testing.B) {
	mail := mustMessage(b, mailOf(sender.Content{Subject: "Your receipt", Text: strings.Repeat("The quick brown fox jumps over the lazy dog again and again.\n", 33)}))
	keys := testKeys(b)
	for _, tt := range []struct {
		name string
		keys []Key
	}{{"rsa and ed25519", keys}, {"rsa", keys[:1]}, {"ed25519", keys[1:]}} {
		b.Run(tt.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Sign(mail, tt.keys, testTime); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSignReading2KB is what signing costs without the keys' own work.
func BenchmarkSignReading2KB(b *testing.B) {
	mail := mustMessage(b, mailOf(sender.Content{Subject: "Your receipt", Text: strings.Repeat("The quick brown fox jumps over the lazy dog again and again.\n", 33)}))
	header, body, _ := strings.Cut(string(mail), "\r\n\r\n")
	b.ReportAllocs()
	for b.Loop() {
		var s signing
		if s.readHeader([]byte(header+"\r\n")) != nil || s.readBody([]byte(body)) != nil {
			b.Fatal("not read")
		}
	}
}

func BenchmarkSignBody1MB(b *testing.B) {
	mail := mustMessage(b, mailOf(sender.Content{Text: "x", Attachments: []sender.Attachment{{Name: "a.pdf", Content: make([]byte, 1<<20)}}}))
	b.SetBytes(int64(len(mail)))
	b.ReportAllocs()
	for b.Loop() {
		var s signing
		if err := s.readBody(mail); err != nil {
			b.Fatal(err)
		}
	}
}
