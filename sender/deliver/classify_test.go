package deliver

import (
	"bufio"
	"os"
	"strings"
	"testing"

	"github.com/postrider/postrider/sender"
)

// TestRepliesOfRealHosts reads testdata/replies.txt.
func TestRepliesOfRealHosts(t *testing.T) {
	data, err := os.ReadFile("testdata/replies.txt")
	if err != nil {
		t.Fatal(err)
	}
	seen, n := map[string]int{}, 0
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || line[0] == '#' {
			continue
		}
		want, rest, _ := strings.Cut(line, " ")
		stage, said, _ := strings.Cut(rest, " ")
		kept := parsed(t, stage, said)
		got, verdict := classify(&kept)
		if got.String() != want {
			t.Errorf("%s at %s: %s, want %s", said, stage, got, want)
		}
		if verdict == sender.OutcomeBounced && (kept.Code/100 != 5 || beforeMail(stage)) {
			t.Errorf("%s at %s: bounced", said, stage)
		}
		seen[want]++
		n++
	}
	if n < 200 || len(seen) != 7 {
		t.Errorf("only %d replies, %v", n, seen)
	}
}

func parsed(t *testing.T, stage, said string) sender.Reply {
	t.Helper()
	var r reply
	if err := r.read(bufio.NewReader(strings.NewReader(said + "\r\n"))); err != nil {
		t.Fatalf("%s: %v", said, err)
	}
	return r.at(stage, "")
}

// classified are replies at the edges of the rules, and what they must mean.
var classified = []struct{ stage, reply, expect string }{
	{"rcpt", "550-5.1.1 The email account that you tried to reach does not exist. Please try\r\n550 5.1.1 double-checking the recipient's email address", "recipient"},
	{"rcpt", "550 5.1.1 <spam@example.com>: Recipient address rejected: User unknown in virtual mailbox table", "recipient"},
	{"rcpt", "550 5.1.1 <blocked.policy@relay.spamhaus.example>: Recipient address rejected: User unknown", "recipient"},
	{"rcpt", "551 5.1.6 user has moved", "recipient"},
	{"rcpt", "550 5.1.2 bad destination system", "recipient"},
	{"rcpt", "556 5.1.10 recipient domain has null MX", "recipient"},
	// It is not the address that is bad.
	{"rcpt", "550 5.1.1 message refused: sender is on a blocklist", "policy"},
	{"rcpt", "550 blocked by our spam policy", "content"},
	{"rcpt", "550 rejected: your reputation is poor", "policy"},
	{"rcpt", "550 192.0.2.1 is listed at rbl.example.net", "policy"},
	{"rcpt", "550 5.6.0 bad content", "content"},
	{"rcpt", "550 5.1.0 address rejected", "content"},
	{"rcpt", "554 5.1.1 no such user", "content"},
	{"rcpt", "550 5.4.4 no such user", "content"},
	{"rcpt", "550 5.7.1 no such user", "content"},
	{"mail", "550 5.1.1 no such user", "content"},
	{"dot", "550 5.1.1 no such user", "content"},
	{"dot", "554 5.7.1 message looks like spam", "content"},
	{"rcpt", "550 4.1.1 no such user: the first digit of the code rules", "recipient"},
	{"rcpt", "552 5.3.4 message too big", "content"},
	{"rcpt", "550 4.2.2 the first digit rules", "soft"}, // as 5.2.2 would be
	// It passes.
	{"rcpt", "550 mailbox is full", "soft"},
	{"rcpt", "550 user over quota", "soft"},
	{"dot", "554 user has exceeded the storage quota", "soft"},
	{"rcpt", "552 too many recipients", "soft"},
	{"rcpt", "451 5.1.1 the first digit rules", "soft"},
	{"rcpt", "450 4.5.3 too many recipients", "soft"},
	{"greeting", "550 5.1.1 what", "busy"},
	{"helo", "550 5.7.1 access denied", "busy"},
	{"starttls", "554 5.7.3 unable to initialize security subsystem", "busy"},
}

func TestClassification(t *testing.T) {
	for _, c := range classified {
		kept := parsed(t, c.stage, c.reply)
		if got, _ := classify(&kept); got.String() != c.expect {
			t.Errorf("%s %q: %s, want %s", c.stage, c.reply, got, c.expect)
		}
	}
}

// TestEveryRuleIsNeeded takes the rows out one by one: a reply must then be taken for something else.
func TestEveryRuleIsNeeded(t *testing.T) {
	data, err := os.ReadFile("testdata/replies.txt")
	if err != nil {
		t.Fatal(err)
	}
	used := map[int]bool{}
	try := func(stage, said string) {
		kept := parsed(t, stage, said)
		used[firstRow(&kept)] = true
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 3); len(f) == 3 && line[0] != '#' {
			try(f[1], f[2])
		}
	}
	for _, c := range classified {
		try(c.stage, c.reply)
	}
	for i := range replies {
		if !used[i] {
			t.Errorf("row %d (%+v) decides about no reply of the tests", i, replies[i])
		}
	}
}
