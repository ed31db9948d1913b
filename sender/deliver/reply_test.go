package deliver

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/postrider/postrider/sender"
)

func TestReplies(t *testing.T) {
	for in, expect := range map[string]sender.Reply{
		"250 2.0.0 Ok: queued\r\n": {Code: 250, Enhanced: "2.0.0", Text: "Ok: queued"},
		"250\r\n":                  {Code: 250},
		"250 ok\n":                 {Code: 250, Text: "ok"},
		"550-5.1.1 no such\r\n550 5.1.1 user here\r\n":     {Code: 550, Enhanced: "5.1.1", Text: "no such user here"},
		"550-5.1.1\r\n550 5.1.1 gone\r\n":                  {Code: 550, Enhanced: "5.1.1", Text: "gone"},
		"421 4.7.28\r\n":                                   {Code: 421, Enhanced: "4.7.28"},
		"554 5.7.1x\r\n":                                   {Code: 554, Text: "5.7.1x"},
		"554 5.7.1234 no\r\n":                              {Code: 554, Text: "5.7.1234 no"},
		"554 3.1.1 no\r\n":                                 {Code: 554, Text: "3.1.1 no"},
		"550 \x1b[31mred\x07 \x7f\r\n":                     {Code: 550, Text: `\x1b[31mred\x07 \x7f`},
		"550 caf\xc3\xa9 caf\xe9\r\n":                      {Code: 550, Text: "café caf\uFFFD"},
		"550 a\xe2\x80\xa8b\xe2\x80\xaec\xc2\x85d\r\n":     {Code: 550, Text: `a\u2028b\u202ec\x85d`},
		"550 a\rb\r\n":                                     {Code: 550, Text: `a\x0db`},
		"450 " + strings.Repeat("é", 1000) + "\r\n":        {Code: 450, Text: strings.Repeat("é", 500)},
		"450 x" + strings.Repeat("é", 1000) + "\r\n":       {Code: 450, Text: "x" + strings.Repeat("é", 499)},
		"450-" + strings.Repeat("x", 1500) + "\r\n450 y\n": {Code: 450, Text: strings.Repeat("x", 1000)},
	} {
		var r reply
		if err := r.read(bufio.NewReader(strings.NewReader(in))); err != nil {
			t.Errorf("%.40q: %v", in, err)
			continue
		}
		if got := r.at("", ""); got != expect {
			t.Errorf("%.40q: %+v, want %+v", in, got, expect)
		}
	}
}

func TestBadReplies(t *testing.T) {
	for _, in := range []string{"\r\n", "25\r\n", "250x\r\n", "150 no\r\n", "650 no\r\n", "2x0 no\r\n", "hello there\r\n", "250-a\r\n251 b\r\n",
		"250 " + strings.Repeat("x", maxLine) + "\r\n", strings.Repeat("x", 10*maxLine), strings.Repeat("250-x\r\n", 100) + "250 x\r\n",
		strings.Repeat("250-"+strings.Repeat("x", 1000)+"\r\n", 70) + "250 x\r\n"} {
		var r reply
		var wrong protocolError
		if err := r.read(bufio.NewReaderSize(strings.NewReader(in), 2*maxLine)); !errors.As(err, &wrong) {
			t.Errorf("%.40q: %v", in, err)
		}
	}
	var r reply
	if err := r.read(bufio.NewReader(strings.NewReader("250-ok\r\n250 o"))); !errors.Is(err, io.EOF) {
		t.Errorf("half a reply: %v", err)
	}
}

func TestExtensions(t *testing.T) {
	for in, expect := range map[string]extensions{
		"mx": {},
		"PIPELINING\nSTARTTLS is not here, the first line is a name": {starttls: true},
		"mx\npipelining\nStartTLS\nsmtputf8\nsize 1000":              {true, true, true, true, 1000},
		"mx\nSIZE":              {size: true},
		"mx\nSIZE lots":         {size: true},
		"mx\nSIZE -5":           {size: true},
		"mx\nXPIPELINING\nAUTH": {},
	} {
		if got := parseExtensions(in); got != expect {
			t.Errorf("%q: %+v", in, got)
		}
	}
}

// FuzzReply holds any bytes against the promises of a reply.
func FuzzReply(f *testing.F) {
	for _, s := range []string{"250 ok\r\n", "250-2.1.5 a\r\n250 2.1.5 b\r\n", "550 \x1b[\xff\r\n", "354\n", "250-x\r\n550 y\r\n", "5.1.1"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var r reply
		if r.read(bufio.NewReaderSize(strings.NewReader(string(in)), 2*maxLine)) != nil {
			return
		}
		got := r.at("dot", "mx.example")
		if got.Code < 200 || got.Code > 599 || len(got.Text) > maxText || !utf8.ValidString(got.Text) || strings.ContainsAny(got.Text, "\r\n\x00\x1b") {
			t.Errorf("%q: %+v", in, got)
		}
		if got.Enhanced != "" {
			var a, b, c int
			if n, err := fmt.Sscanf(got.Enhanced, "%d.%d.%d", &a, &b, &c); n != 3 || err != nil {
				t.Errorf("%q: %q", in, got.Enhanced)
			}
		}
		parseExtensions(string(r.text))
	})
}
