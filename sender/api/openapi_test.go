package api

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/postrider/postrider/sender"
)

type description struct {
	Paths      map[string]map[string]any `json:"paths"`
	Components struct {
		Schemas map[string]struct {
			Properties map[string]any `json:"properties"`
			Enum       []string       `json:"enum"`
		} `json:"schemas"`
	} `json:"components"`
}

func describe(t *testing.T) description {
	t.Helper()
	var doc description
	if err := json.Unmarshal(openapi, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// TestOpenAPI holds the description to the calls: each is there, and nothing else is.
func TestOpenAPI(t *testing.T) {
	doc, calls := describe(t), map[string]bool{}
	for name := range (&API{}).methods() {
		calls["post /api/1.0/"+name] = true
	}
	for _, r := range (&API{}).routes() {
		calls[strings.ToLower(r.verb)+" "+strings.ReplaceAll(r.path, ":id", "{id}")] = true
	}
	for call := range calls {
		verb, path, _ := strings.Cut(call, " ")
		if _, ok := doc.Paths[path][verb]; !ok {
			t.Errorf("%s is not described", call)
		}
	}
	for path, verbs := range doc.Paths {
		for verb := range verbs {
			api := strings.HasPrefix(path, "/api/") || strings.HasPrefix(path, "/v1/")
			if api && !calls[verb+" "+path] {
				t.Errorf("%s %s is described and does not exist", verb, path)
			}
		}
	}
}

// TestOpenAPIReferences has every reference lead somewhere.
func TestOpenAPIReferences(t *testing.T) {
	var doc map[string]any
	if err := json.Unmarshal(openapi, &doc); err != nil {
		t.Fatal(err)
	}
	seen := 0
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, x := range v {
				walk(x)
			}
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				seen++
				at := doc
				for _, part := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
					at, _ = at[part].(map[string]any)
				}
				if at == nil {
					t.Errorf("%s leads nowhere", ref)
				}
			}
			for _, x := range v {
				walk(x)
			}
		}
	}
	if walk(doc); seen == 0 {
		t.Error("no reference was found")
	}
}

// TestOpenAPIWords holds what is described for /v1 to what is read and said there.
func TestOpenAPIWords(t *testing.T) {
	schemas := describe(t).Components.Schemas
	fields := schemas["Message"].Properties
	if len(fields) < 20 {
		t.Fatalf("%d fields of a message", len(fields))
	}
	for name := range fields {
		if !slices.Contains(mailFields[:], name) {
			t.Errorf("%s is described for a message and refused under /v1", name)
		}
	}
	states := map[string]bool{}
	for s := sender.Queued; s <= sender.Dead; s++ {
		name := s.Name()
		states[name] = true
		if !slices.Contains(schemas["MailState"].Enum, name) {
			t.Errorf("state %s is not described", name)
		}
	}
	if len(states) != len(schemas["MailState"].Enum) {
		t.Errorf("described states %v, said ones %v", schemas["MailState"].Enum, states)
	}
	b, err := json.Marshal(v1Message{Name: "n", Subaccount: "s", Reason: "r", SendAt: testTime, NextAt: testTime})
	if err != nil {
		t.Fatal(err)
	}
	var said map[string]any
	if err := json.Unmarshal(b, &said); err != nil {
		t.Fatal(err)
	}
	for name := range said {
		if _, ok := schemas["MailInfo"].Properties[name]; !ok {
			t.Errorf("%s is said of a message and not described", name)
		}
	}
	if len(said) != len(schemas["MailInfo"].Properties) {
		t.Errorf("%d fields are said of a message, %d described", len(said), len(schemas["MailInfo"].Properties))
	}
}
