package sandbox

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestTwentyThousandMails sends through a pipeline as fast as it goes and looks at what stays in memory.
func TestTwentyThousandMails(t *testing.T) {
	const sent, kept = 22_000, 20_000
	s := start(t, Config{})
	raw := plainMail + strings.Repeat("A line of a mail.\r\n", 20)
	before := heap()
	nc, err := net.Dial("tcp", s.SMTPAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(5 * time.Minute))
	go func() {
		w := bufio.NewWriter(nc)
		io.WriteString(w, "EHLO x\r\n")
		for i := range sent {
			fmt.Fprintf(w, "MAIL FROM:<r-%d@example.com>\r\nRCPT TO:<to-%d@example.org>\r\nDATA\r\n%s.\r\n", i, i, raw)
		}
		io.WriteString(w, "QUIT\r\n")
		w.Flush()
	}()
	accepted := 0
	for scan := bufio.NewScanner(nc); scan.Scan(); {
		if strings.HasPrefix(scan.Text(), "250 2.0.0 OK: queued") {
			accepted++
		}
	}
	if accepted != sent {
		t.Fatalf("%d mails accepted, want %d", accepted, sent)
	}
	if got := getPage(t, s, "/api/v1/search?limit=1&query=from:ann"); got.Total != kept || got.MessagesCount != kept {
		t.Errorf("%d in the inbox, %d found, want %d", got.Total, got.MessagesCount, kept)
	}
	if got := getPage(t, s, "/api/v1/messages?limit=10000"); got.Count != 10_000 || got.Messages[0].Bcc[0].Address != "to-21999@example.org" {
		t.Errorf("%d listed, the first to %v", got.Count, got.Messages[0].Bcc)
	}
	if used := int64(heap()) - int64(before); used > kept*int64(len(raw)+3_000) {
		t.Errorf("%d MiB in use for %d mails of %d bytes", used>>20, kept, len(raw))
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkReceive takes in 2 KB mails over one pipelined connection.
func BenchmarkReceive(b *testing.B) {
	s := start(b, Config{})
	nc, err := net.Dial("tcp", s.SMTPAddr())
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	raw := plainMail + strings.Repeat("A line of a mail that is about two kilobytes large in all.\r\n", 30)
	b.SetBytes(int64(len(raw)))
	go func() {
		w := bufio.NewWriter(nc)
		io.WriteString(w, "EHLO x\r\n")
		for i := range b.N {
			fmt.Fprintf(w, "MAIL FROM:<r-%d@example.com>\r\nRCPT TO:<to-%d@example.org>\r\nDATA\r\n%s.\r\n", i, i, raw)
		}
		io.WriteString(w, "QUIT\r\n")
		w.Flush()
	}()
	if _, err := io.Copy(io.Discard, nc); err != nil {
		b.Fatal(err)
	}
	if got := len(s.inbox.all()); got != min(b.N, defaultCapacity) {
		b.Errorf("%d mails in the inbox after %d", got, b.N)
	}
}
