package api

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/sender"
)

var testTime = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// field is a JSON object with one field x, inside "message", so that error paths show.
func field(t *testing.T, value string) object {
	t.Helper()
	m, err := mustDecode(t, "", `{"message":{"x":`+value+`,"null":null}}`).object("message")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// wrong holds an error to the field that it must name.
func wrong(t *testing.T, err error, path string) {
	t.Helper()
	var e *sender.Error
	if !errors.As(err, &e) || e.Kind != sender.KindValidation || e.Field != path || e.Message == "" {
		t.Errorf("%v, want a validation error of %s", err, path)
	}
}

func TestText(t *testing.T) {
	for value, want := range map[string]string{`"a"`: "a", `""`: "", `null`: "", `12`: "12", `1.50`: "1.50", `12345678901234567890`: "12345678901234567890", `1e999`: "1e999",
		`true`: "true", `false`: "false", `"\u00e4\n"`: "ä\n"} {
		if got, err := field(t, value).text("x"); err != nil || got != want {
			t.Errorf("%s: %q, %v", value, got, err)
		}
	}
	for _, value := range []string{`[]`, `{}`, `["a"]`} {
		_, err := field(t, value).text("x")
		wrong(t, err, "message.x")
	}
	if got, err := field(t, "1").text("absent"); err != nil || got != "" {
		t.Errorf("an absent field: %q, %v", got, err)
	}
}

func TestFlag(t *testing.T) {
	for value, want := range map[string]bool{`true`: true, `1`: true, `"true"`: true, `"True"`: true, `"1"`: true, `"yes"`: true, `"on"`: true,
		`false`: false, `0`: false, `"false"`: false, `"FALSE"`: false, `"0"`: false, `"no"`: false, `"off"`: false} {
		got := !want
		if err := field(t, value).flag("x", &got); err != nil || got != want {
			t.Errorf("%s: %v, %v", value, got, err)
		}
	}
	for _, value := range []string{`null`, `""`} { // as absent: the default stays
		for _, otherwise := range []bool{true, false} {
			got := otherwise
			if err := field(t, value).flag("x", &got); err != nil || got != otherwise {
				t.Errorf("%s with default %v: %v, %v", value, otherwise, got, err)
			}
		}
	}
	for _, value := range []string{`2`, `-1`, `"maybe"`, `[]`, `{}`} {
		got := false
		wrong(t, field(t, value).flag("x", &got), "message.x")
	}
}

func TestNumber(t *testing.T) {
	for value, want := range map[string]int{`7`: 7, `"7"`: 7, `-1`: -1, `0`: 0, `null`: 42, `""`: 42} {
		if got, err := field(t, value).number("x", 42); err != nil || got != want {
			t.Errorf("%s: %d, %v", value, got, err)
		}
	}
	for _, value := range []string{`1.5`, `1e3`, `99999999999999999999`, `"a"`, `"1.5"`, `true`, `[]`, `{}`} {
		_, err := field(t, value).number("x", 42)
		wrong(t, err, "message.x")
	}
}

// TestEmptyOfTheOtherKind has {} be an empty list and [] an empty object, as languages with one kind of array write them.
func TestEmptyOfTheOtherKind(t *testing.T) {
	for _, value := range []string{`{}`, `[]`, `null`, `""`} {
		if list, err := field(t, value).list("x"); err != nil || len(list) != 0 {
			t.Errorf("%s as a list: %v, %v", value, list, err)
		}
	}
	for _, value := range []string{`{}`, `[]`, `null`} {
		if o, err := field(t, value).object("x"); err != nil || len(o.fields) != 0 {
			t.Errorf("%s as an object: %v, %v", value, o, err)
		}
	}
	for _, value := range []string{`"a"`, `1`, `true`, `{"a":1}`} {
		_, err := field(t, value).list("x")
		wrong(t, err, "message.x")
	}
	for _, value := range []string{`"a"`, `1`, `true`, `[1]`, `""`} {
		_, err := field(t, value).object("x")
		wrong(t, err, "message.x")
	}
}

func TestLists(t *testing.T) {
	if got, err := field(t, `["a",1,true,null]`).texts("x"); err != nil || !reflect.DeepEqual(got, []string{"a", "1", "true", ""}) {
		t.Errorf("%v, %v", got, err)
	}
	_, err := field(t, `["a",{}]`).texts("x")
	wrong(t, err, "message.x[1]")
	got, err := field(t, `[{"a":1},{}]`).objects("x")
	if err != nil || len(got) != 2 || got[1].at("y") != "message.x[1].y" {
		t.Errorf("%v, %v", got, err)
	}
	for _, value := range []string{`[{},"a"]`, `[{},null]`, `[{},[]]`} {
		_, err := field(t, value).objects("x")
		wrong(t, err, "message.x[1]")
	}
	flat, err := field(t, `{"a":"b","n":1.5,"t":true,"z":null}`).flat("x")
	if err != nil || !reflect.DeepEqual(flat, map[string]string{"a": "b", "n": "1.5", "t": "true", "z": ""}) {
		t.Errorf("%v, %v", flat, err)
	}
	_, err = field(t, `{"a":{"b":1}}`).flat("x")
	wrong(t, err, "message.x.a")
}

func TestBase64(t *testing.T) {
	for value, want := range map[string]string{`"aGk="`: "hi", `"aGk"`: "hi", `"aG\r\nk=\n"`: "hi", `"aG k="`: "hi", `""`: "", `null`: "", `"/+8="`: "\xff\xef"} {
		if got, err := field(t, value).base64("x"); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", value, got, err)
		}
	}
	for _, value := range []string{`"!"`, `"aGk=aGk="`, `"a"`, `"_-8="`, `"ä"`, `{}`} {
		_, err := field(t, value).base64("x")
		wrong(t, err, "message.x")
	}
}

func TestMoment(t *testing.T) {
	at := func(day, hour int) time.Time { return time.Date(2026, 1, day, hour, 0, 0, 0, time.UTC) }
	for value, want := range map[string]time.Time{"2026-01-31 13:00:00": at(31, 13), "2026-01-31T13:00:00Z": at(31, 13), "2026-01-31T13:00:00+02:00": at(31, 11),
		"2026-01-31T13:00:00": at(31, 13), "2026-01-31 13:00": at(31, 13), "2026-01-31 13:00:00.5": at(31, 13).Add(time.Second / 2), "": {}} {
		if got, err := field(t, `"`+value+`"`).moment("x", true); err != nil || !got.Equal(want) || (!want.IsZero() && got.Location() != time.UTC) {
			t.Errorf("%s: %v, %v", value, got, err)
		}
	}
	for end, want := range map[bool]time.Time{false: at(31, 0), true: at(32, 0)} {
		if got, err := field(t, `"2026-01-31"`).moment("x", end); err != nil || !got.Equal(want) {
			t.Errorf("a day, its end %v: %v, %v", end, got, err)
		}
	}
	for _, value := range []string{`"yesterday"`, `"2026-02-30"`, `"31.01.2026"`, `1769860800`, `"2026-01-31 25:00:00"`, `[]`} {
		_, err := field(t, value).moment("x", false)
		wrong(t, err, "message.x")
	}
}

func TestInstant(t *testing.T) {
	for _, value := range []string{`1769860800`, `"1769860800"`, `"2026-01-31 12:00:00"`, `"2026-01-31T13:00:00+01:00"`} {
		if got, err := field(t, value).instant("x"); err != nil || !got.Equal(testTime) {
			t.Errorf("%s: %v, %v", value, got, err)
		}
	}
	for _, value := range []string{`null`, `""`} {
		if got, err := field(t, value).instant("x"); err != nil || !got.IsZero() {
			t.Errorf("%s: %v, %v", value, got, err)
		}
	}
	for _, value := range []string{`0`, `-1`, `2026`, `20260131`, `1769860800000`, `1.7e9`, `1769860800.5`, `"1769860800000000000000"`, `true`, `{}`, `"tomorrow"`} {
		_, err := field(t, value).instant("x")
		wrong(t, err, "message.x")
	}
}

func TestReadQuery(t *testing.T) {
	read := func(body string) object { return mustDecode(t, "", body) }
	for _, body := range []string{`{}`, `{"query":"*"}`, `{"query":" "}`, `{"query":null,"date_from":"","date_to":null,"tags":{},"senders":[],"limit":0}`, `{"limit":-5}`} {
		q, err := readQuery(read(body), testTime)
		if err != nil || len(q.Words)+len(q.Tags)+len(q.Senders) != 0 || q.Limit != searchDefault || !q.To.After(testTime) || q.To.Sub(q.From) != searchDays*24*time.Hour {
			t.Errorf("%s: %+v, %v", body, q, err)
		}
	}
	q, err := readQuery(read(`{"query":" two  words ","date_from":"2026-01-02","date_to":"2026-01-03","tags":["t"],"senders":["s@x.y"],"limit":"5000"}`), testTime)
	if err != nil || !reflect.DeepEqual(q.Words, []string{"two", "words"}) || !reflect.DeepEqual(q.Tags, []string{"t"}) || !reflect.DeepEqual(q.Senders, []string{"s@x.y"}) ||
		q.Limit != searchMost || q.From.Day() != 2 || q.To.Day() != 4 {
		t.Errorf("%+v, %v", q, err)
	}
	list := func(n int) string { return `["` + strings.Repeat(`a","`, n-1) + `a"]` }
	for body, ok := range map[string]bool{
		`{"query":"` + strings.Repeat("a ", searchWords) + `"}`: true, `{"query":"` + strings.Repeat("a ", searchWords+1) + `"}`: false,
		`{"query":"` + strings.Repeat("a", 1000) + `"}`: true, `{"query":"` + strings.Repeat("a", 1001) + `"}`: false,
		`{"tags":` + list(100) + `}`: true, `{"tags":` + list(101) + `}`: false, `{"senders":` + list(101) + `}`: false,
		`{"query":"a\u0000b"}`: false, `{"tags":["\u0000"]}`: false, `{"senders":["a\u0000"]}`: false,
		`{"date_from":"x"}`: false, `{"date_to":"x"}`: false, `{"limit":"x"}`: false, `{"tags":"x"}`: false,
	} {
		if _, err := readQuery(read(body), testTime); (err == nil) != ok || (err != nil && kind(err) != sender.KindValidation) {
			t.Errorf("%.60s: %v", body, err)
		}
	}
}

func TestMessageID(t *testing.T) {
	id := sender.NewID()
	if got, err := messageID(mustDecode(t, "", fmt.Sprintf(`{"id":%q}`, id))); err != nil || got != id {
		t.Errorf("%s, %v", got, err)
	}
	for body, want := range map[string]sender.ErrorKind{`{}`: sender.KindValidation, `{"id":""}`: sender.KindValidation, `{"id":[]}`: sender.KindValidation,
		`{"id":"abc"}`: sender.KindUnknownMessage, `{"id":7}`: sender.KindUnknownMessage, `{"id":"` + strings.Repeat("0", 100_000) + `"}`: sender.KindUnknownMessage} {
		if _, err := messageID(mustDecode(t, "", body)); kind(err) != want || len(err.Error()) > 200 {
			t.Errorf("%.40s: %.300v", body, err)
		}
	}
}
