package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"larder/internal/fault"
)

func readRange(c *Client, r Ref, up Upload, off, n int64) ([]byte, error) {
	rc, err := c.BlobRange(context.Background(), r, up.Desc, off, n)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return io.ReadAll(rc)
}

func TestBlobRange(t *testing.T) {
	reg := newHarness(t)
	c := client(t, Config{})
	r := ref(t, reg.Host+"/app:v1")
	b := random(100_000)
	up := upload(b)
	if _, err := c.PushBlob(t.Context(), r, up); err != nil {
		t.Fatal(err)
	}
	reg.Count()
	for _, p := range [][2]int64{{0, 1}, {0, 100_000}, {99_999, 1}, {500, 70_000}} {
		before := c.Stats().BytesDown
		if got, err := readRange(c, r, up, p[0], p[1]); err != nil || !bytes.Equal(got, b[p[0]:p[0]+p[1]]) {
			t.Errorf("%v: %d bytes, %v", p, len(got), err)
		}
		if n := c.Stats().BytesDown - before; n != p[1] {
			t.Errorf("%v: %d bytes travelled", p, n)
		}
	}
	if n := reg.Count(); n != "GET 4" {
		t.Error(n)
	}
	if got, err := readRange(c, r, up, 100_000, 0); err != nil || len(got) != 0 || reg.Count() != "" {
		t.Error(got, err)
	}
	for _, p := range [][2]int64{{0, 100_001}, {-1, 2}, {5, -1}, {100_001, 0}, {1, 1<<63 - 1}} {
		if _, err := readRange(c, r, up, p[0], p[1]); fault.Of(err) != fault.Registry {
			t.Errorf("%v: %v", p, err)
		}
	}
	// One that breaks off is taken up where it stopped.
	var asked []string
	reg.Fault(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		asked = append(asked, req.Header.Get("Range"))
		if len(asked) < 3 {
			w = &cut{ResponseWriter: w, n: 20_000}
		}
		next.ServeHTTP(w, req)
	})
	if got, err := readRange(c, r, up, 1000, 60_000); err != nil || !bytes.Equal(got, b[1000:61_000]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if got := strings.Join(asked, " "); got != "bytes=1000-60999 bytes=21000-60999 bytes=41000-60999" {
		t.Error(got)
	}
}

func TestBlobRangeOfABadServer(t *testing.T) {
	b := random(1000)
	up := upload(b)
	say := func(status int, contentRange string, body []byte) faultFunc {
		return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			if contentRange != "" {
				w.Header().Set("Content-Range", contentRange)
			}
			w.WriteHeader(status)
			w.Write(body)
		}
	}
	for name, tc := range map[string]struct {
		fault faultFunc
		want  error
	}{
		"from elsewhere":    {say(206, "bytes 0-99/1000", b[:100]), ErrDamaged},
		"no place":          {say(206, "", b[100:200]), ErrDamaged},
		"less than asked":   {say(206, "bytes 100-150/1000", b[100:151]), ErrDamaged},
		"other length":      {say(206, "bytes 100-199/1000", b[100:190]), ErrDamaged},
		"absent":            {say(404, "", nil), ErrNotFound},
		"the whole instead": {say(200, "", b), ErrNoRanges},
	} {
		t.Run(name, func(t *testing.T) {
			reg := newHarness(t)
			c := client(t, Config{})
			reg.Fault(tc.fault)
			r := ref(t, reg.Host+"/app")
			if _, err := readRange(c, r, up, 100, 100); !errors.Is(err, tc.want) || fault.Of(err) != fault.Registry {
				t.Error(err)
			}
			if tc.want != ErrNoRanges {
				return
			}
			// It is not asked for a part again, nor for the whole as a part.
			reg.Count()
			if _, err := readRange(c, r, up, 1, 1); !errors.Is(err, ErrNoRanges) || reg.Count() != "" {
				t.Error(err)
			}
			if got, err := readRange(c, r, up, 0, 1000); err != nil || !bytes.Equal(got, b) {
				t.Error(err)
			}
		})
	}
}

func TestBlobRangeBesideARangelessMirror(t *testing.T) {
	mirror, origin := newHarness(t), newHarness(t)
	b := random(1000)
	up := upload(b)
	if _, err := client(t, Config{}).PushBlob(t.Context(), ref(t, origin.Host+"/app"), up); err != nil {
		t.Fatal(err)
	}
	table := Table{}
	entry := table[origin.Host]
	entry.Mirrors = []string{"http://" + mirror.Host}
	table[origin.Host] = entry
	mirror.Fault(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.Write(b) })
	c := client(t, Config{Registries: table})
	origin.Count()
	for range 3 {
		if got, err := readRange(c, ref(t, origin.Host+"/app"), up, 10, 20); err != nil || !bytes.Equal(got, b[10:30]) {
			t.Error(err)
		}
	}
	if m, o := mirror.Count(), origin.Count(); m != "GET 1" || o != "GET 3" {
		t.Errorf("mirror %s, registry %s", m, o)
	}
}

func TestErrorsNameDigests(t *testing.T) {
	reg := newHarness(t)
	c := client(t, Config{})
	r := ref(t, reg.Host+"/app:v1")
	a, b := digest.FromString("a"), digest.FromString("b")
	for name, tc := range map[string]struct {
		body string
		want []digest.Digest
	}{
		"distribution": {fmt.Sprintf(`{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry","detail":"%s"},`+
			`{"code":"MANIFEST_BLOB_UNKNOWN","detail":"%s"}]}`, a, b), []digest.Digest{a, b}},
		"object":  {fmt.Sprintf(`{"errors":[{"code":"BLOB_UNKNOWN","detail":{"Digest":"%s"}},{"code":"BLOB_UNKNOWN","detail":{"Digest":"%s"}}]}`, a, a), []digest.Digest{a}},
		"message": {fmt.Sprintf(`{"errors":[{"code":"X","message":"layers '%s, %s' not found"}]}`, b, a), []digest.Digest{b, a}},
		"none":    {`{"errors":[{"code":"X","message":"sha256:abc"}]}`, nil},
		"rubbish": {string(random(100)), nil},
	} {
		reg.Fault(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.Header().Set("Retry-After", "9")
			w.WriteHeader(400)
			io.WriteString(w, tc.body)
		})
		err := c.PushManifest(t.Context(), r, "application/vnd.oci.image.manifest.v1+json", []byte("{}"))
		var re *Error
		if !errors.As(err, &re) || fmt.Sprint(re.Digests) != fmt.Sprint(tc.want) || re.Passing() || re.RetryAfter().Seconds() != 9 {
			t.Errorf("%s: %+v", name, re)
		}
	}
	if err := (&Error{Status: 503}); !err.Passing() {
		t.Error("503 does not pass")
	}
	_, err := c.Resolve(t.Context(), ref(t, "127.0.0.1:1/a"))
	var re *Error
	if !errors.As(err, &re) || !re.Passing() {
		t.Errorf("a closed port does not pass: %v", err)
	}
}

// TestPushManifestOnce: the caller has to look again before it repeats.
func TestPushManifestOnce(t *testing.T) {
	reg := newHarness(t)
	c := client(t, Config{})
	r := ref(t, reg.Host+"/app:v1")
	b := pushImage(t, c, r, random(10))
	reg.Count()
	reg.Fault(times(1, 502, http.MethodPut))
	err := c.PushManifestOnce(t.Context(), r, "application/vnd.oci.image.manifest.v1+json", b)
	var re *Error
	if !errors.As(err, &re) || re.Status != 502 || reg.Count() != "PUT 1" {
		t.Error(err)
	}
	if err := c.PushManifestOnce(t.Context(), r, "application/vnd.oci.image.manifest.v1+json", b); err != nil {
		t.Error(err)
	}
}

// TestUploadThatBreaksIsNoBadSource: the transport closes the source under its reader; that is not the source's failure.
func TestUploadThatBreaksIsNoBadSource(t *testing.T) {
	reg := newHarness(t)
	c := client(t, Config{})
	breaks := 2
	reg.Fault(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if req.Method == http.MethodPut && breaks > 0 {
			breaks--
			io.CopyN(io.Discard, req.Body, 1000)
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(w, req)
	})
	up := upload(random(5 << 20))
	b, _ := up.Open(t.Context())
	whole, _ := io.ReadAll(b)
	up.Open = func(context.Context) (io.ReadCloser, error) { return &closable{Reader: bytes.NewReader(whole)}, nil }
	if sent, err := c.PushBlob(t.Context(), ref(t, reg.Host+"/app"), up); err != nil || !sent || breaks != 0 {
		t.Error(sent, err)
	}
}
