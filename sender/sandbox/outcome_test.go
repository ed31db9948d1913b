package sandbox

import (
	"fmt"
	"testing"
	"time"
)

func TestOutcomeOf(t *testing.T) {
	tests := map[string]Outcome{
		"ann":                           {},
		"":                              {},
		"bounce":                        {Kind: Bounce},
		"Bounce+tag+more":               {Kind: Bounce},
		"bounce-x":                      {},
		"x+bounce":                      {},
		"reject":                        {Kind: Reject},
		"hang":                          {Kind: Hang},
		"drop+1":                        {Kind: Drop},
		"late-bounce":                   {Kind: LateBounce},
		"complain":                      {Kind: Complain},
		"open":                          {Kind: Open},
		"click":                         {Kind: Click},
		"defer-3":                       {Kind: Defer, Times: 3},
		"DEFER-3+x":                     {Kind: Defer, Times: 3},
		"defer-0":                       {},
		"defer-":                        {},
		"defer":                         {},
		"defer--1":                      {},
		"defer-1x":                      {},
		"defer-100":                     {Kind: Defer, Times: 99},
		"slow-1500":                     {Kind: Slow, Wait: 1500 * time.Millisecond},
		"slow-600001":                   {Kind: Slow, Wait: 10 * time.Minute},
		"slow-99999999999999999999":     {Kind: Slow, Wait: 10 * time.Minute},
		"slow-9999999999999999999x":     {},
		"slow-x":                        {},
		"slow-99999999999999999999999x": {},
	}
	for local, want := range tests {
		if got := OutcomeOf(local); got != want {
			t.Errorf("%q: %+v, want %+v", local, got, want)
		}
	}
}

func TestAttemptsAreBounded(t *testing.T) {
	a := newAttempts(100)
	for i := range 1_000 {
		if n := a.next(fmt.Sprintf("r-%d@example.com", i), "to@example.org"); n != 1 {
			t.Fatalf("attempt %d at first", n)
		}
	}
	if n := len(a.young) + len(a.old); n > 200 {
		t.Errorf("%d messages remembered, want at most 200", n)
	}
	if n := a.next("R-999@example.com", "TO@example.org"); n != 2 {
		t.Errorf("attempt %d, want 2: the newest must be remembered", n)
	}
	if n := a.next("r-850@example.com", "to@example.org"); n != 2 {
		t.Errorf("attempt %d, want 2: the old half must still count", n)
	}
}
