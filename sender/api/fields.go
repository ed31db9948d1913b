package api

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postrider/postrider/sender"
)

// object is a JSON object that remembers where it stands, so that errors name the field as the caller wrote it.
// Its readers are as lenient as the clients in use need: null is absent, numbers pass for strings, numeric
// strings for numbers, {} for an empty list and [] for an empty object.
type object struct {
	path   string
	fields map[string]any
}

func (o object) at(name string) string {
	if o.path == "" {
		return name
	}
	return o.path + "." + name
}

func wrongType(field, want string, v any) *sender.Error {
	return sender.Invalid(field, "must be %s, not %s", want, typeName(v))
}

func typeName(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case json.Number:
		return "a number"
	case bool:
		return "true or false"
	case []any:
		return "a list"
	case map[string]any:
		return "an object"
	}
	return "null"
}

// text reads a string; "" when absent.
func (o object) text(name string) (string, error) { return text(o.at(name), o.fields[name]) }

func text(field string, v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case json.Number:
		return v.String(), nil
	case bool:
		return strconv.FormatBool(v), nil
	}
	return "", wrongType(field, "a string", v)
}

// flag reads a boolean into a place that holds what its absence means.
func (o object) flag(name string, into *bool) error {
	v := o.fields[name]
	switch v := v.(type) {
	case nil:
		return nil
	case bool:
		*into = v
		return nil
	case json.Number:
		if v == "0" || v == "1" {
			*into = v == "1"
			return nil
		}
	case string:
		switch strings.ToLower(v) {
		case "":
			return nil
		case "true", "1", "yes", "on":
			*into = true
			return nil
		case "false", "0", "no", "off":
			*into = false
			return nil
		}
	}
	return wrongType(o.at(name), "true or false", v)
}

// number reads an integer; otherwise when absent.
func (o object) number(name string, otherwise int) (int, error) {
	v := o.fields[name]
	switch v := v.(type) {
	case nil:
		return otherwise, nil
	case json.Number:
		if n, err := v.Int64(); err == nil && n == int64(int(n)) {
			return int(n), nil
		}
		return 0, sender.Invalid(o.at(name), "must be a whole number")
	case string:
		if v == "" {
			return otherwise, nil
		}
		if n, err := strconv.Atoi(v); err == nil {
			return n, nil
		}
	}
	return 0, wrongType(o.at(name), "a number", v)
}

// object reads an object; one without fields when absent.
func (o object) object(name string) (object, error) { return asObject(o.at(name), o.fields[name]) }

func asObject(field string, v any) (object, error) {
	switch v := v.(type) {
	case nil:
		return object{path: field}, nil
	case map[string]any:
		return object{path: field, fields: v}, nil
	case []any:
		if len(v) == 0 {
			return object{path: field}, nil
		}
	}
	return object{}, wrongType(field, "an object", v)
}

// list reads a list; nil when absent.
func (o object) list(name string) ([]any, error) {
	v := o.fields[name]
	switch v := v.(type) {
	case nil:
		return nil, nil
	case []any:
		return v, nil
	case string:
		if v == "" {
			return nil, nil
		}
	case map[string]any:
		return numbered(o.at(name), v)
	}
	return nil, wrongType(o.at(name), "a list", v)
}

// numbered is a form's x[0]=…&x[1]=… as a list.
func numbered(field string, v map[string]any) ([]any, error) {
	out := make([]any, len(v))
	if _, ok := v[""]; ok && len(v) == 1 {
		return []any{v[""]}, nil
	}
	for k, x := range v {
		i, err := strconv.Atoi(k)
		if err != nil || i < 0 || i >= len(v) {
			return nil, wrongType(field, "a list", v)
		}
		out[i] = x
	}
	return out, nil
}

// objects reads a list of objects.
func (o object) objects(name string) ([]object, error) {
	list, err := o.list(name)
	if err != nil {
		return nil, err
	}
	out := make([]object, len(list))
	for i, v := range list {
		field := o.at(name) + "[" + strconv.Itoa(i) + "]"
		if _, ok := v.(map[string]any); !ok {
			return nil, wrongType(field, "an object", v)
		}
		out[i], _ = asObject(field, v)
	}
	return out, nil
}

// texts reads a list of strings.
func (o object) texts(name string) ([]string, error) {
	list, err := o.list(name)
	if err != nil {
		return nil, err
	}
	out := make([]string, 0, len(list))
	for i, v := range list {
		s, err := text(o.at(name)+"["+strconv.Itoa(i)+"]", v)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// flat reads an object of scalars.
func (o object) flat(name string) (map[string]string, error) {
	in, err := o.object(name)
	if err != nil || len(in.fields) == 0 {
		return nil, err
	}
	out := make(map[string]string, len(in.fields))
	for _, k := range in.names() {
		s, err := in.text(k)
		if err != nil {
			return nil, err
		}
		out[k] = s
	}
	return out, nil
}

// names lists the fields in a fixed order.
func (o object) names() []string {
	out := make([]string, 0, len(o.fields))
	for k := range o.fields {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// base64 reads binary content, with or without padding and line breaks.
func (o object) base64(name string) ([]byte, error) {
	s, err := o.text(name)
	if err != nil {
		return nil, err
	}
	if strings.ContainsAny(s, "\r\n ") {
		s = strings.NewReplacer("\r", "", "\n", "", " ", "").Replace(s)
	}
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(s, "="))
	if err != nil {
		return nil, sender.Invalid(o.at(name), "is not valid base64: %s", err)
	}
	return b, nil
}

// moment reads a time, UTC unless it says otherwise; the zero time when absent. dayEnd says that a date alone
// means its end.
func (o object) moment(name string, dayEnd bool) (time.Time, error) {
	s, err := o.text(name)
	if err != nil {
		return time.Time{}, err
	}
	return moment(o.at(name), s, dayEnd)
}

func moment(field, s string, dayEnd bool) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.DateTime, time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05.999999999", "2006-01-02 15:04"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		if dayEnd {
			t = t.AddDate(0, 0, 1)
		}
		return t, nil
	}
	return time.Time{}, sender.Invalid(field, "is not a time: write it as 2026-01-31 13:45:00 (UTC), or as 2026-01-31T13:45:00+01:00 (ISO 8601)")
}

// Unix seconds are from 2001 to 2286: less would be a year or a day written without dashes, more are milliseconds.
const (
	minUnix = 1_000_000_000
	maxUnix = 9_999_999_999
)

// instant reads a time in the forms of moment, or as whole Unix seconds; the zero time when absent. A date alone means its
// beginning.
func (o object) instant(name string) (time.Time, error) {
	s, err := o.text(name)
	if err != nil {
		return time.Time{}, err
	}
	return instant(o.at(name), s)
}

func instant(field, s string) (time.Time, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	switch {
	case err != nil:
		return moment(field, s, false)
	case n < minUnix || n > maxUnix:
		return time.Time{}, sender.Invalid(field, "is not a time in Unix seconds, which have ten digits: %d", n)
	}
	return time.Unix(n, 0).UTC(), nil
}

// only refuses fields that are not among those of a call, by their names: a slip of the pen must not go unseen.
func (o object) only(names ...string) error {
	for _, n := range o.names() {
		if !slices.Contains(names, n) {
			return sender.Invalid(o.at(n), "is not a field of this call: %s", known(names))
		}
	}
	return nil
}

func known(names []string) string {
	if len(names) == 0 {
		return "it has none"
	}
	return "it has " + strings.Join(names, ", ")
}
