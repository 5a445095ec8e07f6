package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
)

// closable fails reads after Close, as a file does.
type closable struct {
	io.Reader
	mu     sync.Mutex
	closed bool
}

func (c *closable) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, errors.New("file already closed")
	}
	return c.Reader.Read(p)
}

func (c *closable) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return nil
}

func allTags(c *Client, r Ref, after string) ([]string, error) {
	var all []string
	err := c.Tags(context.Background(), r, after, func(page []string) bool { all = append(all, page...); return true })
	return all, err
}

func TestTags(t *testing.T) {
	reg := newHarness(t)
	c := client(t, Config{})
	if _, err := allTags(c, ref(t, reg.Host+"/app"), ""); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	layer := random(10)
	for _, tag := range []string{"b", "a", "c"} {
		pushImage(t, c, ref(t, reg.Host+"/app:"+tag), layer)
	}
	for after, want := range map[string]string{"": "a b c", "a": "b c", "aa": "b c", "c": ""} {
		if got, err := allTags(c, ref(t, reg.Host+"/app"), after); err != nil || strings.Join(got, " ") != want {
			t.Errorf("after %q: %q, %v", after, got, err)
		}
	}
}

// TestTagPages: registries page in different ways.
func TestTagPages(t *testing.T) {
	tags := make([]string, 2500)
	for i := range tags {
		tags[i] = fmt.Sprintf("t%05d", i)
	}
	from := func(last string) []string {
		i, found := slices.BinarySearch(tags, last)
		if found {
			i++
		}
		return tags[i:]
	}
	list := func(w http.ResponseWriter, page []string) {
		json.NewEncoder(w).Encode(map[string]any{"name": "app", "tags": page})
	}
	for name, tc := range map[string]struct {
		fault faultFunc
		want  int
		gets  string
	}{
		"link": {func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			rest := from(r.URL.Query().Get("last"))
			page := rest[:min(1000, len(rest))]
			if len(rest) > 1000 {
				w.Header().Set("Link", fmt.Sprintf(`</v2/app/tags/list?last=%s&n=1000>; rel="next"`, page[999]))
			}
			list(w, page)
		}, 2500, "GET 3"},
		"a token and smaller pages": {func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			rest := from(r.URL.Query().Get("next_page"))
			page := rest[:min(600, len(rest))]
			if len(rest) > 600 {
				w.Header().Set("Link", fmt.Sprintf(`<http://inside.example/v2/app/tags/list?next_page=%s>; rel="next"`, url.QueryEscape(page[599])))
			}
			list(w, page)
		}, 2500, "GET 5"},
		"no link": {func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			rest := from(r.URL.Query().Get("last"))
			list(w, rest[:min(1000, len(rest))])
		}, 2500, "GET 3"},
		"all at once": {func(w http.ResponseWriter, r *http.Request, _ http.Handler) { list(w, tags) }, 2500, "GET 1"},
		"the same page for ever": {func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			list(w, tags[:1000])
		}, 2000, "GET 2"},
	} {
		t.Run(name, func(t *testing.T) {
			reg := newHarness(t)
			reg.Fault(tc.fault)
			got, err := allTags(client(t, Config{}), ref(t, reg.Host+"/app"), "")
			if n := reg.Count(); err != nil || len(got) != tc.want || n != tc.gets {
				t.Errorf("%d tags, %s, %v", len(got), n, err)
			}
		})
	}
	reg := newHarness(t)
	c := client(t, Config{})
	reg.Fault(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		w.Header().Set("Link", `</v2/app/tags/list?last=x>; rel="next"`)
		list(w, []string{"x"})
	})
	if got, err := allTags(c, ref(t, reg.Host+"/app"), ""); err == nil || len(got) != maxPages {
		t.Errorf("a list without an end: %d tags, %v", len(got), err)
	}
	reg.Fault(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		io.WriteString(w, "<html>sign in</html>")
	})
	if _, err := allTags(c, ref(t, reg.Host+"/app"), ""); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "web page") {
		t.Error(err)
	}
}

func TestDelete(t *testing.T) {
	reg := newHarness(t)
	c := client(t, Config{})
	ctx := t.Context()
	layer := random(10)
	one, two := ref(t, reg.Host+"/app:one"), ref(t, reg.Host+"/app:two")
	b := pushImage(t, c, one, layer)
	pushImage(t, c, two, layer)
	d := digest.FromBytes(b)
	reg.Count()
	if err := c.DeleteManifest(ctx, one.WithDigest(d)); err != nil || reg.Count() != "DELETE 1" {
		t.Fatal(err)
	}
	for _, r := range []Ref{one, two} { // both tags named it
		if _, err := c.Resolve(ctx, r); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", r, err)
		}
	}
	if err := c.DeleteManifest(ctx, one.WithDigest(d)); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	blob := upload(layer).Desc.Digest
	if err := c.DeleteBlob(ctx, one, blob); err != nil {
		t.Error(err)
	}
	if ok, err := c.HasBlob(ctx, one, blob); ok || err != nil {
		t.Error(ok, err)
	}
	if err := c.DeleteBlob(ctx, one, blob); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	reg.Fault(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(405) })
	var re *Error
	if err := c.DeleteBlob(ctx, one, blob); !errors.As(err, &re) || re.Status != 405 || re.Passing() {
		t.Error(err)
	}
	if err := c.DeleteBlob(ctx, one, "sha256:x"); err == nil {
		t.Error("no digest, no error")
	}
}

// TestFetchOwnPassesMirrorsBy: a mirror may show a tag as it was yesterday.
func TestFetchOwnPassesMirrorsBy(t *testing.T) {
	mirror, origin := newHarness(t), newHarness(t)
	layer := random(10)
	old := pushImage(t, client(t, Config{}), ref(t, mirror.Host+"/app:v1"), layer)
	now := pushImage(t, client(t, Config{}), ref(t, origin.Host+"/app:v1"), random(20))
	table := Table{}
	entry := table[origin.Host]
	entry.Mirrors = []string{"http://" + mirror.Host}
	table[origin.Host] = entry
	c := client(t, Config{Registries: table})
	mirror.Count()
	desc, _, err := c.FetchOwn(t.Context(), ref(t, origin.Host+"/app:v1"))
	if err != nil || desc.Digest != digest.FromBytes(now) || mirror.Count() != "" {
		t.Error(desc.Digest, err)
	}
	if desc, _, err = c.Fetch(t.Context(), ref(t, origin.Host+"/app:v1")); err != nil || desc.Digest != digest.FromBytes(old) {
		t.Error(desc.Digest, err)
	}
	if _, err := allTags(c, ref(t, origin.Host+"/app"), ""); err != nil || mirror.Count() != "GET 1" {
		t.Error(err)
	}
}
