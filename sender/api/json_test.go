package api

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/postrider/postrider/sender"
)

const form = "application/x-www-form-urlencoded"

func kind(err error) sender.ErrorKind {
	var e *sender.Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return 0
}

func mustDecode(t *testing.T, contentType, body string) object {
	t.Helper()
	o, err := decode(contentType, []byte(body))
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return o
}

// TestDecodeWhateverTheType has JSON be read under any Content-Type, and a form under its own.
func TestDecodeWhateverTheType(t *testing.T) {
	for _, contentType := range []string{"", "application/json", "application/json; charset=utf-8", "text/plain", "application/octet-stream", form, "nonsense"} {
		for _, body := range []string{`{"key":"k"}`, " \r\n\t{\"key\" : \"k\"}\n"} {
			if k, err := mustDecode(t, contentType, body).text("key"); err != nil || k != "k" {
				t.Errorf("%s as %q: %q, %v", body, contentType, k, err)
			}
		}
	}
	for _, contentType := range []string{form, form + "; charset=UTF-8"} {
		if k, err := mustDecode(t, contentType, "key=k&x=%C3%A4+b").text("key"); err != nil || k != "k" {
			t.Errorf("a form as %q: %q, %v", contentType, k, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for body, says := range map[string]string{
		"": "ends too early", " ": "ends too early", "{": "ends too early", `{"a":`: "ends too early", `{"a":"b`: "ends too early",
		"null": "object", "[]": "object", `"a"`: "object", "1": "object", "true": "object",
		`{"a":1}{"b":2}`: "after the JSON document, at byte 7", `{"a":1} x`: "after the JSON document", `{} []`: "after the JSON document", "{}\x00": "after the JSON document",
		`{"a":1,}`: "not valid JSON", `{'a':1}`: "not valid JSON", `{"a":01}`: "not valid JSON", `{"a":NaN}`: "not valid JSON", `{"a":"\x"}`: "not valid JSON",
		"{\"a\":\"b\n\"}": "not valid JSON", `{a:1}`: "not valid JSON", "key=k": "not valid JSON", "<xml/>": "not valid JSON", "\ufeff{}": "not valid JSON",
		"{\"a\":\"\xff\"}": "UTF-8", "\xff\xfe{": "UTF-8",
	} {
		_, err := decode("application/json", []byte(body))
		if kind(err) != sender.KindMalformed || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want malformed: %s", body, err, says)
		}
	}
	for _, body := range []string{"a=%", "a=%zz", "a;b=c", "a=%FF", "%FF=a"} {
		if _, err := decode(form, []byte(body)); kind(err) != sender.KindMalformed {
			t.Errorf("the form %q: %v", body, err)
		}
	}
}

func TestDecodeLimits(t *testing.T) {
	nested := func(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }
	values := func(n int) string { return `{"a":[` + strings.Repeat("0,", n-3) + `0]}` } // and two brackets, a name
	names := func(n int) string { return "a" + strings.Repeat("[b]", n-1) + "=1" }
	fields := func(n int) string { return strings.Repeat("a=1&", n-1) + "a=1" }
	for _, c := range []struct {
		contentType string
		most        int
		body        func(int) string
	}{{"", maxDepth, nested}, {"", maxValues, values}, {form, maxDepth, names}, {form, maxFields, fields}} {
		if _, err := decode(c.contentType, []byte(c.body(c.most))); err != nil {
			t.Errorf("at the limit of %d: %v", c.most, err)
		}
		if _, err := decode(c.contentType, []byte(c.body(c.most+1))); kind(err) != sender.KindMalformed || !strings.Contains(err.Error(), "than") {
			t.Errorf("over the limit of %d: %v", c.most, err)
		}
	}
	in := `{"a":"` + strings.Repeat(`[{,\"`, maxValues) + `"}` // in a string nothing counts
	if _, err := decode("", []byte(in)); err != nil {
		t.Error(err)
	}
	hostile := strings.Repeat("[", 25<<20)
	if _, err := decode("", []byte(hostile)); kind(err) != sender.KindMalformed {
		t.Error(err)
	}
}

// TestDuplicates has the last of duplicate fields count, whole: objects do not run into each other.
func TestDuplicates(t *testing.T) {
	o := mustDecode(t, "", `{"message":{"html":"1","text":"only here"},"x":[1,2],"message":{"html":"2"},"x":[3]}`)
	if want := map[string]any{"html": "2"}; !reflect.DeepEqual(o.fields["message"], want) {
		t.Errorf("message: %v", o.fields["message"])
	}
	if list, _ := o.texts("x"); !reflect.DeepEqual(list, []string{"3"}) {
		t.Errorf("x: %v", list)
	}
	f := mustDecode(t, form, "key=1&key=2&message[html]=a&message[html]=b")
	m, _ := f.object("message")
	if k, _ := f.text("key"); k != "2" || m.fields["html"] != "b" {
		t.Errorf("of a form: %v", f.fields)
	}
}

func TestForm(t *testing.T) {
	o := mustDecode(t, form, "key=k&async=true&message[html]=%3Cp%3E&message[to][0][email]=a%40b.co&message[to][0][type]=cc&message[to][1][email]=c%40d.co"+
		"&message[tags][]=x&message[tags][]=y&message[headers][X-A]=1&message[metadata][id]=7&message[important]=&message[images]=&empty")
	s, err := readSubmission(o, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := s.Content
	if !s.Async || c.HTML != "<p>" || len(s.Recipients) != 2 || s.Recipients[0].Email != "a@b.co" || s.Recipients[0].Kind != sender.Cc || s.Recipients[1].Email != "c@d.co" ||
		!reflect.DeepEqual(s.Tags, []string{"x", "y"}) || len(c.Headers) != 1 || c.Headers[0] != (sender.Header{Name: "X-A", Value: "1"}) || s.Metadata["id"] != "7" {
		t.Errorf("read as %+v", s)
	}
	one := mustDecode(t, form, "tags[]=x&list[1]=b&list[0]=a&holes[0]=a&holes[2]=c&names[x]=1")
	if list, err := one.texts("tags"); err != nil || !reflect.DeepEqual(list, []string{"x"}) {
		t.Errorf("a list of one: %v, %v", list, err)
	}
	if list, err := one.texts("list"); err != nil || !reflect.DeepEqual(list, []string{"a", "b"}) {
		t.Errorf("a list out of order: %v, %v", list, err)
	}
	for _, name := range []string{"holes", "names"} {
		if list, err := one.texts(name); kind(err) != sender.KindValidation {
			t.Errorf("%s as a list: %v, %v", name, list, err)
		}
	}
}

// TestFormConflict has a field that is a value and an object at once be the same every time.
func TestFormConflict(t *testing.T) {
	first := mustDecode(t, form, "a=1&a[b]=2&a[b][c]=3")
	for range 50 {
		if again := mustDecode(t, form, "a=1&a[b]=2&a[b][c]=3"); !reflect.DeepEqual(first, again) {
			t.Fatalf("%v, then %v", first.fields, again.fields)
		}
	}
}

// FuzzDecode holds every body to one of two ends: an object that can be read through, or a malformed error.
func FuzzDecode(f *testing.F) {
	for _, body := range []string{`{"key":"k","message":{"to":[{"email":"a@b.co"}]}}`, "key=k&message[to][0][email]=a@b.co", "{", "[[[", `{"a":"\ud800"}`,
		"a[[]]=1", "a]=1", "[]=1", "=", "&&", `{"a":1e999}`, `{"":null}`, "{}{}", "\xff", "a[b=1", `{"message":{"to":{"0":{}}}}`, `{"a":"\"`} {
		f.Add("", []byte(body))
		f.Add(form, []byte(body))
	}
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		o, err := decode(contentType, body)
		if err != nil {
			if kind(err) != sender.KindMalformed {
				t.Errorf("%v is not said to be malformed", err)
			}
			return
		}
		if _, err := readSubmission(o, nil); err != nil && kind(err) == 0 {
			t.Errorf("%v is our fault", err)
		}
		if _, err := readMail(o, nil); err != nil && kind(err) == 0 {
			t.Errorf("%v is our fault under /v1", err)
		}
		if _, err := readQuery(o, testTime); err != nil && kind(err) == 0 {
			t.Errorf("%v is our fault", err)
		}
		if fmt.Sprint(o.names()) == "" {
			t.Error("unreadable")
		}
	})
}
