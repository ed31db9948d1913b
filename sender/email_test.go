package sender

import (
	"errors"
	"strings"
	"testing"
)

func TestCheckEmailTakes(t *testing.T) {
	for _, s := range []string{
		"a@b.co", "first.last@example.com", "a+tag@example.com", "!#$%&'*+-/=?^_`{|}~@example.com", "A@EXAMPLE.COM", "a@1.example", "a@1.2.3.4a",
		"jörg@example.com", "用户@例子.广告", "a@xn--fsqu00a.xn--0zwm56d", "a@bücher.example", "a@b-c.d-e.example",
		strings.Repeat("a", 64) + "@example.com",
		strings.Repeat("ä", 32) + "@example.com", // 64 bytes, 32 characters
		"a@" + strings.Repeat("b", 63) + ".com",
		at254(),
	} {
		if err := CheckEmail(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// at254 is a valid address of 254 bytes, the most that a path can carry.
func at254() string {
	return strings.Repeat("a", 64) + "@" + strings.Repeat(strings.Repeat("b", 62)+".", 3)[:185] + ".com"
}

func TestCheckEmailRefuses(t *testing.T) {
	for s, want := range map[string]error{
		"": errNoAt, "a": errNoAt, "a.example.com": errNoAt,
		"@example.com": errLocal, ".a@b.co": errLocal, "a.@b.co": errLocal, "a..b@b.co": errLocal,
		"a b@b.co": errLocal, "a@b@c.co": errLocal, "a,b@c.co": errLocal, "a:b@c.co": errLocal, "a;b@c.co": errLocal, "<a@c.co": errLocal,
		strings.Repeat("a", 65) + "@example.com": errLocal, strings.Repeat("ä", 32) + "a@example.com": errLocal,
		`"a"@b.co`: errLocal, `"a b"@b.co`: errLocal, `"a@b"@b.co`: errLocal, `""@b.co`: errLocal, `a\@b@c.co`: errLocal, `(c)a@b.co`: errLocal,
		"a\x00@b.co": errLocal, "a\t@b.co": errLocal, "a\x7f@b.co": errLocal, "a\u0085@b.co": errLocal, "a\u2028@b.co": errLocal, "\ufeffa@b.co": errLocal,
		"a@": errDomain, "a@.com": errDomain, "a@b..com": errDomain, "a@b.com.": errDomain, "a@-b.com": errDomain, "a@b-.com": errDomain,
		"a@b_c.com": errDomain, "a@b c.com": errDomain, "a@b.com ": errDomain, "a@" + strings.Repeat("b", 64) + ".com": errDomain,
		"a@b。com": errDomain, "a@b．com": errDomain, "a@b｡com": errDomain, // dots to IDNA, which would change the domain
		"a@1.2.3.4": errDomain, "a@example.123": errDomain,
		"a@[1.2.3.4]": errBadLiteral, "a@[IPv6:::1]": errBadLiteral, "a@[": errBadLiteral,
		"a@localhost": errNoDot, "a@com": errNoDot,
		"a\xff@b.co": errNotUTF8, "a@b\xc3.co": errNotUTF8, "a@b.co\xed\xa0\x80": errNotUTF8,
		"a" + at254(): errTooLong, strings.Repeat("x", 1<<20): errTooLong,
	} {
		if err := CheckEmail(s); !errors.Is(err, want) {
			t.Errorf("%.80q: %v, want %v", s, err, want)
		}
	}
}

// TestCheckEmailSmuggling puts what would end or extend an SMTP command or a header everywhere into a good address.
func TestCheckEmailSmuggling(t *testing.T) {
	const good = "first.last@mail.example.com"
	for _, bad := range []string{"\r", "\n", "\r\n", "\r\nRCPT TO:<x@y.z>", "\x00", " ", "> SIZE=1", "> NOTIFY=NEVER", "<", ">", "\"", "\\", ",", ";", ":", "(", ")", "[", "]", "\u2029", "\x1b[2J"} {
		for i := range len(good) + 1 {
			if s := good[:i] + bad + good[i:]; CheckEmail(s) == nil {
				t.Errorf("%q passes", s)
			}
		}
	}
}

func TestDomain(t *testing.T) {
	for email, want := range map[string]string{"a@Example.COM": "example.com", "a@BÜCHER.example": "bücher.example"} {
		if got := Domain(email); got != want {
			t.Errorf("%s: %s, want %s", email, got, want)
		}
	}
}

// FuzzCheckEmail holds what passes to what everything behind it relies on.
func FuzzCheckEmail(f *testing.F) {
	for _, s := range []string{"a@b.co", `"a"@b.co`, "a@[::1]", at254(), "ä@ö.ü", "a\r\n@b.co"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if CheckEmail(s) != nil {
			return
		}
		if len(s) > 254 || strings.Count(s, "@") != 1 || strings.ContainsAny(s, "\r\n\x00 <>\"\\,;:()[]") {
			t.Errorf("%q passes", s)
		}
		if Domain(s) == "" {
			t.Errorf("%q has no domain", s)
		}
	})
}
