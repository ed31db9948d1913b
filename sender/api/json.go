package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/postrider/postrider/sender"
)

// The shape of a request is limited before it is decoded: 25 MB of "[[[[…" or of "0,0,0,…" would become half a
// gigabyte of values.
const (
	maxDepth  = 64
	maxValues = 100_000
	maxFields = 10_000 // of a form; url.ParseQuery takes no more
)

func malformed(format string, args ...any) *sender.Error {
	return &sender.Error{Kind: sender.KindMalformed, Message: fmt.Sprintf(format, args...)}
}

// decode reads a request's body: a JSON object whatever the Content-Type says (several SDKs send none or a wrong
// one), or a form such as message[html]=… when it says so and the body is no object.
func decode(contentType string, body []byte) (object, error) {
	trimmed := bytes.TrimLeft(body, " \t\r\n")
	if strings.HasPrefix(contentType, "application/x-www-form-urlencoded") && (len(trimmed) == 0 || trimmed[0] != '{') {
		return decodeForm(body)
	}
	if !utf8.Valid(body) {
		return object{}, malformed("the body is not valid UTF-8")
	}
	if err := scanShape(trimmed); err != nil {
		return object{}, err
	}
	var top map[string]any
	d := json.NewDecoder(bytes.NewReader(trimmed))
	d.UseNumber()
	if err := d.Decode(&top); err != nil {
		return object{}, jsonError(err)
	}
	if rest := bytes.TrimSpace(trimmed[d.InputOffset():]); len(rest) > 0 {
		return object{}, malformed("there is text after the JSON document, at byte %d", d.InputOffset())
	}
	if top == nil {
		return object{}, malformed("the body must be a JSON object")
	}
	return object{fields: top}, nil
}

func jsonError(err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return malformed("the body is not valid JSON: %s at byte %d", syntax, syntax.Offset)
	case errors.As(err, &kind):
		return malformed("the body must be a JSON object, not %s", kind.Value)
	}
	return malformed("the body is not valid JSON: it ends too early")
}

// scanShape counts depth and values without building anything.
func scanShape(b []byte) error {
	depth, values := 0, 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			for i++; i < len(b) && b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			values++
			if depth++; depth > maxDepth {
				return malformed("the JSON is nested deeper than %d levels, at byte %d", maxDepth, i)
			}
		case '}', ']':
			depth--
		case ',', ':':
			values++
		}
		if values > maxValues {
			return malformed("the JSON has more than %d names and values", maxValues)
		}
	}
	return nil
}

// decodeForm reads key=…&message[to][0][email]=… into the same shape as JSON.
func decodeForm(body []byte) (object, error) {
	if bytes.Count(body, []byte("&")) >= maxFields {
		return object{}, malformed("the form has more than %d fields", maxFields)
	}
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return object{}, malformed("the form cannot be read: %s", err)
	}
	top := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(values)) { // in a fixed order: of names that clash the same one wins always
		list := values[name]
		if !utf8.ValidString(name) || !utf8.ValidString(list[len(list)-1]) {
			return object{}, malformed("the form is not valid UTF-8")
		}
		path, err := formPath(name)
		if err != nil {
			return object{}, err
		}
		if len(list) > 1 && path[len(path)-1] == "" {
			for i, v := range list {
				place(top, append(path[:len(path)-1:len(path)-1], fmt.Sprint(i)), v)
			}
			continue
		}
		place(top, path, list[len(list)-1])
	}
	return object{fields: top}, nil
}

func formPath(name string) ([]string, error) {
	head, rest, _ := strings.Cut(name, "[")
	path := []string{head}
	if rest != "" {
		path = append(path, strings.Split(strings.TrimSuffix(rest, "]"), "][")...)
	}
	if len(path) > maxDepth {
		return nil, malformed("the form's field names are nested deeper than %d levels", maxDepth)
	}
	return path, nil
}

// place puts a form value at its path. Numbered parts become a list when they are read.
func place(into map[string]any, path []string, v string) {
	for _, p := range path[:len(path)-1] {
		next, ok := into[p].(map[string]any)
		if !ok {
			next = map[string]any{}
			into[p] = next
		}
		into = next
	}
	into[path[len(path)-1]] = v
}
