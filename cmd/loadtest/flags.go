package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// flags is a command's flag set: help goes to standard output and exits 0, a mistake is one line.
type flags struct{ *flag.FlagSet }

func newFlags(command string) flags {
	f := flags{flag.NewFlagSet("loadtest "+command, flag.ContinueOnError)}
	f.SetOutput(io.Discard)
	return f
}

func (f flags) parse(args []string) error {
	err := f.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Printf("%s\n\n", f.Name())
		f.SetOutput(os.Stdout)
		f.PrintDefaults()
		return err
	case err != nil:
		return fmt.Errorf("%w: %w; %s --help lists the flags", errUsage, err, f.Name())
	case f.NArg() > 0:
		return fmt.Errorf("%w: %q is not a flag; %s --help lists them", errUsage, f.Arg(0), f.Name())
	}
	return nil
}

// report is what both kinds of report can do.
type report interface {
	Print(io.Writer)
	Bad() string
}

// show prints a report, and makes a bad one an error.
func show(r report, asJSON bool) error {
	if asJSON {
		if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
			return err
		}
	} else {
		r.Print(os.Stdout)
	}
	if bad := r.Bad(); bad != "" {
		return errors.New(bad)
	}
	return nil
}

// numbers reads a list like "1,10,50", each above 0.
func numbers(list string) ([]int, error) {
	var all []int
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%w: %q is not a list of numbers above 0, like 1,10,50", errUsage, list)
		}
		all = append(all, n)
	}
	return all, nil
}

func terminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
