package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/postrider/postrider/sender/domains"
	"github.com/postrider/postrider/sender/store"
	"github.com/postrider/postrider/shards"
)

func domainCommand() *cobra.Command {
	return group("domain", "Sending domains: DNS records, checks, signing keys", domainAdd(), domainVouch(), domainShow(), domainList(), domainCheck(), domainRotate(), domainSign())
}

// sendingDomains is what all processes know of domains, from the configuration.
func (c *config) sendingDomains(s *shards.Shards) domains.Config {
	return domains.Config{Shards: s, Store: store.New(s), Secret: c.secret(), Resolvers: c.Delivery.Resolvers, Hostname: c.Hostname, ReturnPathDomain: c.ReturnPathDomain}
}

type domainVerb func(ctx context.Context, d *domains.Domains, account int64) (domains.Domain, error)

// domainLine makes a command about one domain. Without --account it is the domain of the one account that has it, unless
// the command needs to be told.
func domainLine(use, short string, needsAccount bool, args cobra.PositionalArgs, do func(args []string) (domainVerb, error)) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: arguments(args)}
	o := bindOperator(c)
	account, _ := bindKey(c.Flags(), false)
	c.RunE = func(c *cobra.Command, args []string) error {
		verb, err := do(args)
		if err != nil {
			return err
		}
		if *account < 0 || *account == 0 && (needsAccount || c.Flag("account").Changed) {
			return usageError{errors.New("--account ID is needed, a number from 1")}
		}
		return operateDomains(c, o, func(ctx context.Context, s *shards.Shards, d *domains.Domains) error {
			who, err := ownerOf(ctx, s, d, *account, args[0])
			if err != nil {
				return err
			}
			got, err := verb(ctx, d, who)
			if errors.Is(err, domains.ErrNotFound) {
				err = fmt.Errorf("account %d does not have the domain %s: postrider domain add %s --account %d", who, args[0], args[0], who)
			}
			if err != nil {
				return err
			}
			return printDomain(c, o, got)
		})
	}
	return c
}

func operateDomains(c *cobra.Command, o *operatorOptions, fn func(context.Context, *shards.Shards, *domains.Domains) error) error {
	return operate(c, o, func(ctx context.Context, s *shards.Shards) error {
		cfg, err := o.load()
		if err != nil {
			return err
		}
		return fn(ctx, s, domains.New(cfg.sendingDomains(s)))
	})
}

// ownerOf is the account that was named, if there is one, or else the only one that has the domain.
func ownerOf(ctx context.Context, s *shards.Shards, d *domains.Domains, account int64, domain string) (int64, error) {
	if account != 0 {
		if _, err := s.Accounts(ctx, account); err != nil {
			return 0, fmt.Errorf("account %d: %w", account, err)
		}
		return account, nil
	}
	owners, err := d.Owners(ctx, domain)
	switch {
	case err != nil:
		return 0, err
	case len(owners) == 0:
		return 0, fmt.Errorf("no account has the domain %s: postrider domain add %s --account ID", domain, domain)
	case len(owners) > 1:
		return 0, fmt.Errorf("the accounts %v have the domain %s: say which with --account ID", owners, domain)
	}
	return owners[0], nil
}

func domainAdd() *cobra.Command {
	return domainLine("add DOMAIN --account ID", "Give an account a sending domain, and print the DNS records to publish", true, cobra.ExactArgs(1),
		func(args []string) (domainVerb, error) {
			return func(ctx context.Context, d *domains.Domains, account int64) (domains.Domain, error) {
				return d.Add(ctx, account, args[0])
			}, nil
		})
}

func domainVouch() *cobra.Command {
	var ed25519 *bool
	c := domainLine("vouch DOMAIN --account ID [--ed25519]", "Give an account a sending domain by your word alone: nothing is looked up in DNS", true, cobra.ExactArgs(1),
		func(args []string) (domainVerb, error) {
			return func(ctx context.Context, d *domains.Domains, account int64) (domains.Domain, error) {
				if err := d.Vouch(ctx, account, args[0]); err != nil {
					return domains.Domain{}, err
				}
				return d.Sign(ctx, account, args[0], *ed25519)
			}, nil
		})
	c.Long = `Give an account a sending domain that is verified by your word: whoever runs this installation says that the domain
is the account's. No look-up in DNS is made for it, now or later, so nothing notices when a record is missing: receivers
will still look for the DKIM records that are printed. A domain that the account has already is vouched for from now on.
Running processes know of it within a minute.`
	ed25519 = bindEd25519(c.Flags())
	return c
}

func domainShow() *cobra.Command {
	return domainLine("show DOMAIN [--account ID]", "Show a sending domain's records and what the last check found", false, cobra.ExactArgs(1),
		func(args []string) (domainVerb, error) {
			return func(ctx context.Context, d *domains.Domains, account int64) (domains.Domain, error) {
				return d.Show(ctx, account, args[0])
			}, nil
		})
}

func domainCheck() *cobra.Command {
	return domainLine("check DOMAIN [--account ID]", "Look a sending domain's records up now", false, cobra.ExactArgs(1),
		func(args []string) (domainVerb, error) {
			return func(ctx context.Context, d *domains.Domains, account int64) (domains.Domain, error) {
				return d.Check(ctx, account, args[0])
			}, nil
		})
}

func domainRotate() *cobra.Command {
	return domainLine("rotate DOMAIN [--account ID]", "Make a domain's next keys, which sign once their records have been seen for an hour", false, cobra.ExactArgs(1),
		func(args []string) (domainVerb, error) {
			return func(ctx context.Context, d *domains.Domains, account int64) (domains.Domain, error) {
				return d.Rotate(ctx, account, args[0])
			}, nil
		})
}

func domainSign() *cobra.Command {
	return domainLine("sign DOMAIN both|ed25519 [--account ID]", "Choose the keys that sign: both, or the Ed25519 one alone, which is faster and not known to every receiver", false, cobra.ExactArgs(2),
		func(args []string) (domainVerb, error) {
			if args[1] != "both" && args[1] != "ed25519" {
				return nil, usageError{fmt.Errorf("say both or ed25519, not %q", args[1])}
			}
			return func(ctx context.Context, d *domains.Domains, account int64) (domains.Domain, error) {
				return d.Sign(ctx, account, args[0], args[1] == "ed25519")
			}, nil
		})
}

func domainList() *cobra.Command {
	c := &cobra.Command{Use: "list --account ID", Short: "List an account's sending domains", Args: arguments(cobra.NoArgs)}
	o := bindOperator(c)
	account, _ := bindKey(c.Flags(), false)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *account < 1 {
			return usageError{errors.New("--account ID is needed, a number from 1")}
		}
		return operateDomains(c, o, func(ctx context.Context, s *shards.Shards, d *domains.Domains) error {
			if _, err := ownerOf(ctx, s, d, *account, ""); err != nil {
				return err
			}
			list, err := d.List(ctx, *account)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(c, list)
			}
			rows := make([][]string, len(list))
			for i, x := range list {
				rows[i] = []string{x.Name, verifiedText(x), timeText(x.Checked), x.Created.Format(time.DateTime)}
			}
			return printTable(c, []string{"DOMAIN", "VERIFIED", "CHECKED (UTC)", "CREATED (UTC)"}, rows)
		})
	}
	return c
}

func printDomain(c *cobra.Command, o *operatorOptions, d domains.Domain) error {
	if o.json {
		return printJSON(c, d)
	}
	fmt.Fprintf(c.OutOrStdout(), "%s of account %d: verified: %s, checked: %s\n\n", d.Name, d.Account, verifiedText(d), timeText(d.Checked))
	for _, r := range d.Records {
		fmt.Fprintf(c.OutOrStdout(), "%-11s  %-9s  %s  %s\n    %s\n", r.Purpose, r.State, r.Type, r.Name, r.Value)
		if r.Error != "" {
			fmt.Fprintf(c.OutOrStdout(), "    %s\n", r.Error)
		}
	}
	return nil
}

func verifiedText(d domains.Domain) string {
	if d.Verified.IsZero() {
		return "no"
	}
	return "since " + timeText(d.Verified)
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format(time.DateTime)
}
