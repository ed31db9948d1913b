package deliver

import (
	"bufio"
	"strings"
	"testing"

	"github.com/postrider/postrider/sender"
)

// classified are replies as hosts really give them, and what they must mean: delivered, deferred, bounced, or
// bounced and suppressed.
var classified = []struct{ stage, reply, expect string }{
	{"dot", "250 2.0.0 Ok: queued as 4VZ", "delivered"},
	{"dot", "250 OK id=1abc-0004-Xy", "delivered"},
	{"dot", "251 2.1.5 will forward", "delivered"},
	// The address is bad.
	{"rcpt", "550-5.1.1 The email account that you tried to reach does not exist. Please try\r\n550 5.1.1 double-checking the recipient's email address", "suppressed"},
	{"rcpt", "550 5.1.1 <spam@example.com>: Recipient address rejected: User unknown in virtual mailbox table", "suppressed"},
	{"rcpt", "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", "suppressed"},
	{"rcpt", "550 5.2.1 The email account that you tried to reach is disabled", "suppressed"},
	{"rcpt", "553 5.1.3 bad destination mailbox address syntax", "suppressed"},
	{"rcpt", "551 5.1.6 user has moved", "suppressed"},
	{"rcpt", "550 5.1.2 bad destination system", "suppressed"},
	{"rcpt", "556 5.1.10 recipient domain has null MX", "suppressed"},
	{"rcpt", "550 No such user here", "suppressed"},
	{"rcpt", "550 Requested action not taken: mailbox unavailable", "suppressed"},
	// It is not the address that is bad.
	{"rcpt", "550 5.7.1 Service unavailable; client host [192.0.2.1] blocked using zen.spamhaus.org", "bounced"},
	{"rcpt", "550 5.7.26 unauthenticated email from example.com is not accepted due to domain's DMARC policy", "bounced"},
	{"rcpt", "550 5.7.515 Access denied, sending domain does not meet the required authentication level", "bounced"},
	{"rcpt", "550 5.1.1 message refused: sender is on a blocklist", "bounced"},
	{"rcpt", "550 blocked by our spam policy", "bounced"},
	{"rcpt", "550 rejected: your reputation is poor", "bounced"},
	{"rcpt", "550 192.0.2.1 is listed at rbl.example.net", "bounced"},
	{"rcpt", "550 relay not permitted", "bounced"},
	{"rcpt", "550 Sender verify failed", "bounced"},
	{"rcpt", "553 5.1.8 sender address rejected: domain not found", "bounced"},
	{"rcpt", "550 5.4.1 recipient address rejected: Access denied", "bounced"},
	{"rcpt", "550 5.6.0 bad content", "bounced"},
	{"rcpt", "550 5.1.0 address rejected", "bounced"},
	{"rcpt", "554 5.1.1 no such user", "bounced"},
	{"rcpt", "550 5.2.1 the user is receiving mail at a rate that prevents additional messages", "bounced"},
	{"mail", "550 5.1.1 no such user", "bounced"},
	{"mail", "530 5.7.0 must issue a STARTTLS command first", "bounced"},
	{"data", "554 5.5.1 no valid recipients", "bounced"},
	{"dot", "554 5.7.1 message looks like spam", "bounced"},
	{"dot", "550 5.1.1 no such user", "bounced"},
	{"dot", "552 5.3.4 message too big", "bounced"},
	{"dot", "552 message size exceeds fixed limit", "bounced"},
	{"rcpt", "552 5.3.4 message too big", "bounced"},
	{"rcpt", "550 4.2.2 the first digit rules", "bounced"},
	// It passes.
	{"rcpt", "552 5.2.2 mailbox full", "deferred"},
	{"rcpt", "550 5.2.2 over quota", "deferred"},
	{"dot", "552 5.2.2 over quota", "deferred"},
	{"rcpt", "550 mailbox is full", "deferred"},
	{"rcpt", "550 user over quota", "deferred"},
	{"dot", "554 user has exceeded the storage quota", "deferred"},
	{"rcpt", "552 too many recipients", "deferred"},
	{"rcpt", "452 4.5.3 too many recipients", "deferred"},
	{"rcpt", "450 4.2.1 the user is receiving mail too quickly", "deferred"},
	{"rcpt", "451 5.1.1 the first digit rules", "deferred"},
	{"mail", "421 4.7.0 [TSS04] messages temporarily deferred due to unexpected volume", "deferred"},
	{"dot", "421 4.7.28 unusual rate of unsolicited mail", "deferred"},
	{"greeting", "554 5.7.1 no SMTP service here", "deferred"},
	{"greeting", "550 5.1.1 what", "deferred"},
	{"helo", "550 5.7.1 access denied", "deferred"},
	{"starttls", "554 5.7.3 unable to initialize security subsystem", "deferred"},
}

func TestClassification(t *testing.T) {
	for _, c := range classified {
		var r reply
		if err := r.read(bufio.NewReader(strings.NewReader(c.reply + "\r\n"))); err != nil {
			t.Fatal(err)
		}
		kept := r.at(c.stage, "")
		verdict, suppress := classify(&kept)
		got := map[sender.Verdict]string{sender.OutcomeDelivered: "delivered", sender.OutcomeDeferred: "deferred", sender.OutcomeBounced: "bounced"}[verdict]
		if suppress {
			got = map[bool]string{true: "suppressed", false: "suppressed without a bounce"}[got == "bounced"]
		}
		if got != c.expect {
			t.Errorf("%s %q: %s, want %s", c.stage, c.reply, got, c.expect)
		}
	}
}
