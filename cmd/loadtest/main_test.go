package main

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/postrider/postrider/loadtest"
)

func TestExitCodes(t *testing.T) {
	for want, lines := range map[int][][]string{
		0: {{"--help"}, {"send", "--help"}, {"sink", "-h"}, {"bench", "--help"}, {"bench", "--signed=false", "--help"}, {"schedule", "--help"}, {"fairness", "--help"}},
		1: {{"send", "--smtp", "127.0.0.1:1"}, {"send", "--ready-file", "/no/such"}, {"sink", "--addr", "no port"},
			{"schedule", "--due", "0"}, {"fairness", "--seconds", "0"}},
		2: {{}, {"frob"}, {"send"}, {"send", "--bogus"}, {"send", "extra"}, {"send", "--api", "http://127.0.0.1:1"},
			{"send", "--over", "pigeon", "--api", "x"}, {"send", "--over", "smtp", "--api", "x"}, {"send", "--smtp", "x:1", "--pid", "a"},
			{"send", "--api", "x", "--accounts", "3"}, {"bench", "-n", "1,2"}, {"bench", "--connections", "0"}, {"schedule", "extra"}, {"fairness", "--bogus"}},
	} {
		for _, args := range lines {
			if got := exitCode(dispatch(t.Context(), args)); got != want {
				t.Errorf("loadtest %q: exit %d, want %d", args, got, want)
			}
		}
	}
}

func TestReadyFileFillsInWhatFlagsLeaveOpen(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ready.json")
	if err := os.WriteFile(file, []byte(`{"pid":7,"config":"c","api":"http://h:1","smtp":"h:2","key":"k"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	resolve := func(args ...string) loadtest.Load {
		t.Helper()
		s, err := parseSend(append(args, "--ready-file", file))
		if err == nil {
			err = s.resolve(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		return s.load
	}
	l := resolve()
	if l.API != "http://h:1" || l.SMTP != "" || l.Count != 1000 || l.Connections != 10 || !slices.Equal(l.Keys, []string{"k"}) || !slices.Equal(l.Meter.PIDs, []int{7}) {
		t.Errorf("%+v", l)
	}
	l = resolve("--over", "smtp", "--pass", "p", "--pid", "8,9", "--rate", "5", "--duration", "1s")
	if l.SMTP != "h:2" || l.Keys[0] != "p" || !slices.Equal(l.Meter.PIDs, []int{8, 9}) || l.Connections != 50 || l.Count != 0 {
		t.Errorf("%+v", l)
	}
}

func TestHelpIsNotAnError(t *testing.T) {
	if err := newFlags("x").parse([]string{"-h"}); !errors.Is(err, flag.ErrHelp) {
		t.Error(err)
	}
}
