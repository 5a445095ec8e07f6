package testregistry

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// met is what a client met.
type met struct {
	status int
	header http.Header
	body   string
	err    error
	took   time.Duration
}

// try sends a request over a connection of its own, so that net/http repeats nothing.
func try(t *testing.T, method, url, body string) met {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json")
	req.Header.Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
	tr := &http.Transport{DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	start := time.Now()
	res, err := tr.RoundTrip(req)
	if err != nil {
		return met{err: err, took: time.Since(start)}
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return met{res.StatusCode, res.Header, string(b), err, time.Since(start)}
}

func faulty(t *testing.T) (*Faults, *Registry, string) {
	f := &Faults{}
	r := StartWith(t, Options{Wrap: f.Wrap})
	return f, r, "http://" + r.Addr
}

func broken(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrUnexpectedEOF)
}

func TestEachKindOfFaultHitsOnce(t *testing.T) {
	f, r, base := faulty(t)
	text := strings.Repeat("0123456789", 1000)
	d := putBlob(t, r, "app", text)
	blob := base + "/v2/app/blobs/" + d.String()
	first := putManifest(t, r, "app", "v1", d)
	tag := base + "/v2/app/manifests/v1"
	half := func(m met) bool {
		return broken(m.err) && (m.body == "" || strings.HasPrefix(text, m.body) && len(m.body) < len(text))
	}
	flipped := func(m met) bool {
		diff := 0
		for i := range min(len(text), len(m.body)) {
			if text[i] != m.body[i] {
				diff++
			}
		}
		return m.err == nil && m.status == 200 && len(m.body) == len(text) && diff == 1
	}
	good := func(m met) bool { return m.err == nil && m.status == 200 && m.body == text }
	goodHead := func(m met) bool {
		return m.err == nil && m.status == 200 && m.header.Get("Docker-Content-Digest") == d.String()
	}
	answer := func(status int, wait string) func(met) bool {
		return func(m met) bool {
			return m.err == nil && m.status == status && m.header.Get("Retry-After") == wait
		}
	}
	slow := func(ok func(met) bool) func(met) bool {
		return func(m met) bool { return ok(m) && m.took >= 50*time.Millisecond }
	}
	for _, c := range []struct {
		kind        Kind
		method, url string
		bad, good   func(met) bool
	}{
		{Reset, "GET", blob, func(m met) bool { return broken(m.err) && m.status == 0 }, good},
		{Reset, "HEAD", blob, func(m met) bool { return broken(m.err) }, goodHead},
		{LostAnswer, "GET", blob, half, good},
		{LostAnswer, "HEAD", blob, func(m met) bool { return broken(m.err) }, goodHead},
		{TooMany, "GET", blob, answer(429, "0"), good},
		{TooManyWait, "HEAD", blob, answer(429, "1"), goodHead},
		{ServerError, "GET", blob, answer(500, ""), good},
		{Truncated, "GET", blob, func(m met) bool {
			return errors.Is(m.err, io.ErrUnexpectedEOF) && m.body == text[:len(text)/2] && m.header.Get("Content-Length") == "10000"
		}, good},
		{FlippedByte, "GET", blob, flipped, good},
		{FlippedByte, "HEAD", blob, func(m met) bool {
			got := m.header.Get("Docker-Content-Digest")
			return m.status == 200 && got != d.String() && digest.Digest(got).Validate() == nil
		}, goodHead},
		{Slow, "GET", blob, slow(good), good},
		{Slow, "HEAD", blob, slow(goodHead), goodHead},
		{Stale, "GET", tag, answer(404, ""), func(m met) bool { return m.body == first }},
		{Stale, "HEAD", tag, answer(404, ""), func(m met) bool { return m.status == 200 }},
	} {
		name := c.kind.String() + " " + c.method
		f.Reset()
		f.FailOnce(0, c.kind)
		if m := try(t, c.method, c.url, ""); !c.bad(m) {
			t.Errorf("%s: %d, %d bytes, %v", name, m.status, len(m.body), m.err)
		}
		if got := f.Fired(); len(got) != 1 || got[0].Kind != c.kind || got[0].Call.Number != 0 {
			t.Errorf("%s: fired %v", name, got)
		}
		if m := try(t, c.method, c.url, ""); !c.good(m) {
			t.Errorf("after %s: %d, %d bytes, %v", name, m.status, len(m.body), m.err)
		}
	}
}

// TestFaultsOfUploads: what the registry has done in the end decides whether a client may repeat.
func TestFaultsOfUploads(t *testing.T) {
	text := strings.Repeat("x", 300_000)
	d := digest.FromString(text)
	for _, c := range []struct {
		kind   Kind
		stored bool
		bad    func(met) bool
	}{
		{Reset, false, func(m met) bool { return m.err != nil }}, // whatever the goroutine that sends makes of it
		{LostAnswer, true, func(m met) bool { return broken(m.err) }},
		{TooMany, false, func(m met) bool { return m.status == 429 }},
		{TooManyWait, false, func(m met) bool { return m.status == 429 }},
		{ServerError, false, func(m met) bool { return m.status == 500 }},
		{LateError, true, func(m met) bool { return m.status == 500 }},
		{Slow, true, func(m met) bool { return m.status == 201 && m.took >= 50*time.Millisecond }},
	} {
		f, r, base := faulty(t)
		begin := try(t, "POST", base+"/v2/app/blobs/uploads/", "")
		f.FailOnce(1, c.kind)
		if m := try(t, "PUT", begin.header.Get("Location")+"&digest="+d.String(), text); !c.bad(m) {
			t.Errorf("%s: %d, %v", c.kind, m.status, m.err)
		}
		if len(f.Fired()) != 1 {
			t.Errorf("%s: %s", c.kind, f)
		}
		if list, err := r.Blobs(); err != nil || (len(list) == 1) != c.stored {
			t.Errorf("%s: stored %v, %v", c.kind, list, err)
		}
		// The beginning of an upload has an answer to lose, too.
		if c.kind == LostAnswer || c.kind == LateError {
			f.FailOnce(2, c.kind)
			if m := try(t, "POST", base+"/v2/app/blobs/uploads/", ""); !c.bad(m) {
				t.Errorf("%s of a POST: %d, %v", c.kind, m.status, m.err)
			}
		}
	}
}

func TestStaleIsWhatATagPointedToBefore(t *testing.T) {
	f, r, base := faulty(t)
	tag := base + "/v2/app/manifests/v1"
	stale := func(method string) met {
		t.Helper()
		f.Reset()
		f.FailOnce(0, Stale)
		return try(t, method, tag, "")
	}
	a, b := putBlob(t, r, "app", "a"), putBlob(t, r, "app", "b")
	first := putManifest(t, r, "app", "v1", a)
	second := putManifest(t, r, "app", "v1", b)
	putManifest(t, r, "app", "v1", b) // again: no change
	if m := stale("GET"); m.body != first || m.header.Get("Docker-Content-Digest") != digest.FromString(first).String() {
		t.Errorf("%d %s", m.status, m.body)
	}
	if m := stale("HEAD"); m.status != 200 || m.header.Get("Docker-Content-Digest") != digest.FromString(first).String() ||
		m.header.Get("Content-Length") != fmt.Sprint(len(first)) {
		t.Errorf("%d %v", m.status, m.header)
	}
	if m := try(t, "GET", tag, ""); m.body != second {
		t.Errorf("in truth: %d %s", m.status, m.body)
	}
	if m := try(t, "DELETE", base+"/v2/app/manifests/"+digest.FromString(second).String(), ""); m.status != http.StatusAccepted {
		t.Fatalf("delete: %d %s", m.status, m.body)
	}
	if m := try(t, "GET", tag, ""); m.status != 404 {
		t.Errorf("deleted: %d", m.status)
	}
	if m := stale("GET"); m.body != second {
		t.Errorf("stale after deletion: %d %s", m.status, m.body)
	}
	putManifest(t, r, "app", "v1", a)
	if m := stale("GET"); m.status != 404 {
		t.Errorf("stale after writing anew: %d", m.status)
	}
	if m := try(t, "DELETE", tag, ""); m.status != http.StatusAccepted {
		t.Fatalf("delete by tag: %d %s", m.status, m.body)
	}
	if m := stale("GET"); m.body != first {
		t.Errorf("stale after deletion by tag: %d %s", m.status, m.body)
	}
}

func TestCallsAreTheSameForEqualBuilds(t *testing.T) {
	f, r, base := faulty(t)
	var before []string
	for i := range 2 {
		f.Reset()
		putBlob(t, r, "app", "zero")
		d := putBlob(t, r, "app", fmt.Sprint("blob ", i))
		putManifest(t, r, "app", "v1", d)
		try(t, "GET", base+"/v2/app/blobs/"+d.String(), "")
		try(t, "POST", base+"/v2/new/blobs/uploads/?from=app&mount="+d.String(), "")
		r.PushBase(t, "busybox") // not listed
		var list []string
		for _, c := range f.Calls() {
			list = append(list, fmt.Sprintf("%d %s %d", c.Number, c.Signature, c.Nth))
		}
		if i == 0 {
			want := []string{"0 POST /v2/app/blobs/uploads/ 0", "1 PUT /v2/app/blobs/uploads/ID?digest=DIGEST 0",
				"2 POST /v2/app/blobs/uploads/ 1", "3 PUT /v2/app/blobs/uploads/ID?digest=DIGEST 1", "4 PUT /v2/app/manifests/v1 0",
				"5 GET /v2/app/blobs/DIGEST 0", "6 POST /v2/new/blobs/uploads/?from=app&mount=DIGEST 0"}
			if !slices.Equal(list, want) {
				t.Errorf("calls:\n%s", strings.Join(list, "\n"))
			}
			before = list
		} else if !slices.Equal(list, before) {
			t.Errorf("calls of the second time:\n%s", strings.Join(list, "\n"))
		}
	}
	// The second GET of a blob, whatever comes between.
	get := f.Calls()[5]
	if !get.Can(Truncated) || get.Can(Stale) || get.Can(LateError) || f.Calls()[4].Can(FlippedByte) || !f.Calls()[4].Can(LateError) {
		t.Errorf("what can fail: %+v", f.Calls())
	}
	f.Reset()
	get.Nth = 1
	f.FailCall(get, ServerError)
	blob := base + "/v2/app/blobs/" + digest.FromString("zero").String()
	for i, want := range []int{200, 200, 500, 200} {
		method := "GET"
		if i == 1 {
			method = "HEAD"
		}
		if m := try(t, method, blob, ""); m.status != want {
			t.Errorf("%s %d: %d, want %d", method, i, m.status, want)
		}
	}
	if got := f.Fired(); len(got) != 1 || !strings.Contains(got[0].String(), "request 2 (GET /v2/app/blobs/DIGEST, number 1 of its kind): 500") {
		t.Errorf("fired %s", f)
	}
}

func TestWhatCannotFailSoPasses(t *testing.T) {
	f, r, base := faulty(t)
	d := putBlob(t, r, "app", "x")
	for _, kind := range []Kind{Stale, Truncated, LateError} {
		f.Reset()
		f.FailOnce(0, kind)
		if m := try(t, "HEAD", base+"/v2/app/blobs/"+d.String(), ""); m.status != 200 || f.String() != "no request failed" {
			t.Errorf("%s: %d, %s", kind, m.status, f)
		}
	}
}

func TestRandomFaultsAreSeeded(t *testing.T) {
	var first string
	for range 2 {
		f := &Faults{Stall: time.Millisecond}
		r := StartWith(t, Options{Wrap: f.Wrap})
		d := putBlob(t, r, "app", strings.Repeat("x", 1000))
		putManifest(t, r, "app", "v1", d)
		f.Reset()
		f.Random(42, 0.4)
		for i := range 150 {
			switch i % 3 {
			case 0:
				try(t, "GET", "http://"+r.Addr+"/v2/app/blobs/"+d.String(), "")
			case 1:
				try(t, "HEAD", "http://"+r.Addr+"/v2/app/manifests/v1", "")
			default:
				try(t, "POST", "http://"+r.Addr+"/v2/app/blobs/uploads/", "")
			}
		}
		fired := f.Fired()
		seen := map[Kind]bool{}
		runs := 0 // failures that follow each other directly
		for i, one := range fired {
			seen[one.Kind] = true
			if i > 0 && one.Call.Number == fired[i-1].Call.Number+1 {
				runs++
			}
		}
		if len(fired) < 40 || len(fired) > 150 || len(seen) != len(Kinds()) || runs < 8 {
			t.Errorf("%d failures of %d kinds, %d of them in a row", len(fired), len(seen), runs)
		}
		if first == "" {
			first = f.String()
		} else if f.String() != first {
			t.Errorf("one seed:\n%s\nand:\n%s", first, f)
		}
	}
}

func TestDownAndUp(t *testing.T) {
	f, r, base := faulty(t)
	d := putBlob(t, r, "app", "x")
	blob := base + "/v2/app/blobs/" + d.String()
	f.Down(0)
	for range 3 {
		if m := try(t, "GET", blob, ""); !broken(m.err) {
			t.Errorf("down: %d, %v", m.status, m.err)
		}
	}
	f.Down(http.StatusServiceUnavailable)
	if m := try(t, "GET", blob, ""); m.status != http.StatusServiceUnavailable {
		t.Errorf("down with 503: %d, %v", m.status, m.err)
	}
	f.Reset()
	if m := try(t, "GET", blob, ""); m.status != http.StatusServiceUnavailable {
		t.Errorf("a reset is no repair: %d, %v", m.status, m.err)
	}
	f.Up()
	if m := try(t, "GET", blob, ""); m.body != "x" || len(f.Fired()) != 0 {
		t.Errorf("up again: %d, %v, %s", m.status, m.err, f)
	}
}
