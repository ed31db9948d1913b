package api

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestOpenAPI holds the description to the calls: each is there, and nothing else is.
func TestOpenAPI(t *testing.T) {
	var doc struct {
		Paths map[string]map[string]any `json:"paths"`
	}
	if err := json.Unmarshal(openapi, &doc); err != nil {
		t.Fatal(err)
	}
	methods := (&API{}).methods()
	for name := range methods {
		if _, ok := doc.Paths["/api/1.0/"+name]["post"]; !ok {
			t.Errorf("%s is not described", name)
		}
	}
	for path := range doc.Paths {
		if name, ok := strings.CutPrefix(path, "/api/1.0/"); ok {
			if _, ok := methods[name]; !ok {
				t.Errorf("%s is described and does not exist", path)
			}
		}
	}
}
