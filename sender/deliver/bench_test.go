package deliver

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postrider/postrider/sender"
)

// TestMain runs as the benchmark's mail host when it is started for that.
func TestMain(m *testing.M) {
	if os.Getenv("DELIVER_TEST_SINK") != "" {
		runSink()
		return
	}
	os.Exit(m.Run())
}

// runSink takes all mail as cheaply as it can, until its standard input ends.
func runSink() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(ln.Addr())
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go sink(conn)
		}
	}()
	_, _ = bufio.NewReader(os.Stdin).WriteTo(discard{})
}

func sink(conn net.Conn) {
	_, _ = conn.Write([]byte("220 sink\r\n"))
	buf := make([]byte, 64<<10)
	held := 0
	for {
		n, err := conn.Read(buf[held:])
		if err != nil {
			return
		}
		got := buf[:held+n]
		held = 0
		switch {
		case bytes.HasPrefix(got, []byte("EHLO")):
			_, err = conn.Write([]byte("250-sink\r\n250-PIPELINING\r\n250 SIZE 10000000\r\n"))
		case bytes.HasSuffix(got, []byte("DATA\r\n")):
			_, err = conn.Write([]byte("250 2.1.0 ok\r\n250 2.1.5 ok\r\n354 go on\r\n"))
		case bytes.HasSuffix(got, []byte("\r\n.\r\n")):
			_, err = conn.Write([]byte("250 2.0.0 queued as 4f2d8a\r\n"))
		default:
			held = copy(buf, got[max(0, len(got)-8):])
		}
		if err != nil {
			return
		}
	}
}

// BenchmarkDeliver sends over kept connections to a host in another process. cpu-µs/op is this process alone.
func BenchmarkDeliver(b *testing.B) {
	for _, size := range []int{2 << 10, 20 << 10} {
		for _, at := range []int{1, 20} {
			b.Run(fmt.Sprintf("%dKB/%d-connections", size>>10, at), func(b *testing.B) { benchmark(b, size, at) })
		}
	}
}

func benchmark(b *testing.B, size, at int) {
	c, err := New(Config{Hostname: "out.example.org", Route: sinkProcess(b), PerSite: at})
	if err != nil {
		b.Fatal(err)
	}
	line := strings.Repeat("x", 74) + "\r\n"
	body := []byte(strings.Repeat(line, size/len(line)) + ".\r\n")
	e := Envelope{From: "b.1@bounces.example.org", To: "someone@example.com", Data: body, Size: len(body) - 3}
	b.ReportAllocs()
	b.SetParallelism((at + 1) / 2)
	b.ResetTimer()
	cpu, calls := cpuTime(), systemCalls()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if out := c.Deliver(b.Context(), e); out.Verdict != sender.OutcomeDelivered {
				b.Errorf("%+v", out)
				return
			}
		}
	})
	b.ReportMetric(float64((cpuTime()-cpu).Nanoseconds())/1000/float64(b.N), "cpu-µs/op")
	b.ReportMetric(float64(systemCalls()-calls)/float64(b.N), "reads+writes/op")
	quit(c.pool.close())
}

func sinkProcess(b *testing.B) string {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "DELIVER_TEST_SINK=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = stdin.Close(); _ = cmd.Wait() })
	addr, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(addr)
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// systemCalls counts reads and writes of this process, where the system tells.
func systemCalls() (n int) {
	data, _ := os.ReadFile("/proc/self/io")
	for line := range strings.Lines(string(data)) {
		var k int
		if _, err := fmt.Sscanf(line, "syscr: %d", &k); err == nil {
			n += k
		}
		if _, err := fmt.Sscanf(line, "syscw: %d", &k); err == nil {
			n += k
		}
	}
	return n
}

// BenchmarkClassify sorts refusals: what a list full of bad addresses, and a block, cost.
func BenchmarkClassify(b *testing.B) {
	for name, r := range map[string]sender.Reply{
		"recipient": {Code: 550, Enhanced: "5.1.1", Stage: "rcpt", Text: "<user@example.com>: Recipient address rejected: User unknown in virtual mailbox table"},
		"policy":    {Code: 421, Enhanced: "4.7.0", Stage: "mail", Text: "[TSS04] Messages from 192.0.2.25 temporarily deferred due to unexpected volume or user complaints - 4.16.55.1"},
		"content":   {Code: 550, Enhanced: "5.7.1", Stage: "dot", Text: "The user or domain that you are sending to (or from) has a policy that prohibited the mail that you sent."},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				classify(&r)
			}
		})
	}
}
