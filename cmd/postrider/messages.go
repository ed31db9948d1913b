package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postrider/postrider/sender"
	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/shards"
)

func messagesCommand() *cobra.Command {
	return group("messages", "Messages: what happened to one", messagesTimeline(), messagesWhy())
}

// timelineEntry is one step of a message's life.
type timelineEntry struct {
	At      time.Time `json:"at"`
	Kind    string    `json:"kind"`
	Attempt int       `json:"attempt,omitempty"`
	Code    int       `json:"code,omitempty"`
	Status  string    `json:"enhanced,omitempty"`
	Stage   string    `json:"stage,omitempty"`
	Host    string    `json:"host,omitempty"`
	Text    string    `json:"text,omitempty"`
	Dialog  string    `json:"transcript,omitempty"`
}

type timelineAnswer struct {
	ID      string          `json:"id"`
	Account int64           `json:"account"`
	State   string          `json:"state"`
	Why     string          `json:"why"`
	Entries []timelineEntry `json:"entries"`
}

func messagesTimeline() *cobra.Command {
	c := &cobra.Command{Use: "timeline ID", Short: "Every attempt at a message, and what came after", Args: arguments(cobra.ExactArgs(1))}
	o := bindOperator(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		return withMessage(c, o, args[0], func(f *store.Found, events []sender.Event) error {
			a := timeline(f, events)
			if o.json {
				return printJSON(c, a)
			}
			rows := make([][]string, len(a.Entries))
			for i, e := range a.Entries {
				attempt, reply := "", strings.Join(strings.Fields(strings.Join([]string{e.Host, digits(e.Code), e.Status, e.Text}, " ")), " ")
				if e.Attempt > 0 {
					attempt = strconv.Itoa(e.Attempt)
				}
				rows[i] = []string{e.At.Format("2006-01-02 15:04:05.000"), e.Kind, attempt, e.Stage, reply}
			}
			if err := printTable(c, []string{"AT (UTC)", "WHAT", "ATTEMPT", "STAGE", "REPLY"}, rows); err != nil {
				return err
			}
			for _, e := range a.Entries {
				if e.Dialog == "" {
					continue
				}
				if _, err := fmt.Fprintf(c.OutOrStdout(), "\nattempt %d:\n%s\n", e.Attempt, indent(e.Dialog)); err != nil {
					return err
				}
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "\n%s: %s\n", a.State, a.Why)
			return err
		})
	}
	return c
}

func messagesWhy() *cobra.Command {
	c := &cobra.Command{Use: "why ID", Short: "What a message waits for, or how it ended", Args: arguments(cobra.ExactArgs(1))}
	o := bindOperator(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		return withMessage(c, o, args[0], func(f *store.Found, _ []sender.Event) error {
			if o.json {
				return printJSON(c, map[string]string{"id": f.ID.String(), "why": f.Why()})
			}
			_, err := fmt.Fprintln(c.OutOrStdout(), f.Why())
			return err
		})
	}
	return c
}

func timeline(f *store.Found, events []sender.Event) timelineAnswer {
	a := timelineAnswer{ID: f.ID.String(), Account: f.Account, State: f.State.Name(), Why: f.Why(),
		Entries: []timelineEntry{{At: f.ID.Time(), Kind: "accepted"}}}
	for _, e := range events {
		a.Entries = append(a.Entries, timelineEntry{At: e.At.UTC(), Kind: e.Kind.Name(), Attempt: e.Attempt, Code: e.Reply.Code, Status: e.Reply.Enhanced,
			Stage: e.Reply.Stage, Host: e.Reply.Host, Text: e.Reply.Text, Dialog: e.Transcript})
	}
	return a
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ")
}

// digits is a number, or nothing for 0.
func digits(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// withMessage finds a message by its id alone, in whatever shard it is.
func withMessage(c *cobra.Command, o *operatorOptions, text string, fn func(*store.Found, []sender.Event) error) error {
	id, err := sender.ParseID(text)
	if err != nil {
		return usageError{fmt.Errorf("%.100q is no message id: %w", text, err)}
	}
	return operate(c, o, func(ctx context.Context, s *shards.Shards) error {
		st, silent := store.New(s), []string(nil)
		for _, sh := range s.Map().Shards() {
			account, err := st.Find(ctx, sh.Name, id)
			if errors.Is(err, store.ErrNotFound) {
				continue
			}
			if err != nil {
				silent = append(silent, sh.Name)
				continue
			}
			f, events, err := st.Info(ctx, account, id)
			if err != nil {
				return err
			}
			return fn(&f, events)
		}
		if len(silent) > 0 {
			return fmt.Errorf("no shard that answered has message %s; these did not answer: %s", id, strings.Join(silent, ", "))
		}
		return fmt.Errorf("no message has the id %s", id)
	})
}
