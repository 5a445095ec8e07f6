package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/testregistry"
)

const password = "s3cret-of-joe"

func joe(string) (string, string, error) { return "joe", password, nil }

func startGuard(t *testing.T, opt testregistry.GuardOptions) *testregistry.Guard {
	t.Helper()
	opt.User, opt.Password = "joe", password
	g, err := testregistry.NewGuard(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

// slowly gives bytes over a time that outlasts a token.
type slowly struct {
	io.Reader
	pause time.Duration
	rest  int // pauses
}

func (s *slowly) Read(p []byte) (int, error) {
	if s.rest > 0 {
		s.rest--
		time.Sleep(s.pause)
	}
	return s.Reader.Read(p[:min(len(p), 30_000)])
}

func (s *slowly) Close() error { return nil }

// TestTokensExpireWhileBlobsTravel pushes and pulls for three seconds with tokens of half a second: uploads and downloads last
// longer than a token, and downloads break off within.
func TestTokensExpireWhileBlobsTravel(t *testing.T) {
	t.Parallel()
	g := startGuard(t, testregistry.GuardOptions{Lifetime: 500 * time.Millisecond})
	f := &testregistry.Faults{}
	reg := testregistry.StartWith(t, testregistry.Options{Wrap: func(next http.Handler) http.Handler { return f.Wrap(g.Wrap(next)) }})
	c := client(t, Config{Credentials: joe})
	end := time.Now().Add(3 * time.Second)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var work sync.WaitGroup
	for w := range 3 {
		work.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(w)))
			for n := 0; time.Now().Before(end); n++ {
				name := fmt.Sprintf("%s/app:w%d-%d", reg.Addr, w, n)
				if err := roundTrip(c, f, rnd, name); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
	work.Wait()
	// On a busy machine little happens in three seconds.
	if got := g.Counts(); got.Tokens < 5 || got.Expired < 3 || got.Denied != 0 {
		t.Errorf("%+v", got)
	}
}

// roundTrip pushes an image of one layer slowly, and pulls it slowly over a connection that breaks.
func roundTrip(c *Client, f *testregistry.Faults, rnd *rand.Rand, name string) error {
	ctx := context.Background()
	r, err := ParseRef(name)
	if err != nil {
		return err
	}
	layer := make([]byte, 200_000)
	for i := range layer {
		layer[i] = byte(rnd.Uint32())
	}
	up := upload(layer)
	up.New = true
	up.Open = func(context.Context) (io.ReadCloser, error) {
		return &slowly{Reader: bytes.NewReader(layer), pause: 100 * time.Millisecond, rest: 6}, nil
	}
	if _, err := c.PushBlob(ctx, r, up); err != nil {
		return fmt.Errorf("push the layer: %w", err)
	}
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[]}`,
		ocispecs.MediaTypeImageManifest, ocispecs.MediaTypeImageConfig, up.Desc.Digest, up.Desc.Size)
	if err := c.PushManifest(ctx, r, ocispecs.MediaTypeImageManifest, manifest); err != nil {
		return err
	}
	time.Sleep(time.Duration(rnd.IntN(400)) * time.Millisecond)
	desc, err := c.Resolve(ctx, r)
	if err != nil {
		return err
	}
	if desc.Digest != digest.FromBytes(manifest) {
		return fmt.Errorf("the tag points to %s", desc.Digest)
	}
	f.FailCall(nextDownload(f), testregistry.Truncated)
	rc, err := c.Blob(ctx, r, up.Desc)
	if err != nil {
		return err
	}
	defer rc.Close()
	got, err := io.ReadAll(&slowly{Reader: rc, pause: 100 * time.Millisecond, rest: 6})
	if err == nil && !bytes.Equal(got, layer) {
		err = errors.New("other bytes")
	}
	return err
}

// nextDownload is the next request for a whole blob, whoever makes it.
func nextDownload(f *testregistry.Faults) testregistry.Call {
	c := testregistry.Call{Signature: "GET /v2/app/blobs/DIGEST"}
	for _, old := range f.Calls() {
		if old.Signature == c.Signature {
			c.Nth++
		}
	}
	return c
}

// TestSaidLifetimesSpareRequests: a client that knows when its token ends does not ask in vain.
func TestSaidLifetimesSpareRequests(t *testing.T) {
	t.Parallel()
	g := startGuard(t, testregistry.GuardOptions{Lifetime: time.Second})
	reg := testregistry.StartWith(t, testregistry.Options{Wrap: g.Wrap})
	c := client(t, Config{Credentials: joe})
	r := ref(t, reg.Addr+"/app:v1")
	pushImage(t, c, r, random(1000))
	asked, start := 0, time.Now()
	for ; g.Counts().Tokens < 3 && time.Since(start) < 30*time.Second; asked++ {
		if _, err := c.Resolve(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	// The first round of a signature costs one request; a token may end on its way, once per lifetime at most.
	if got := g.Counts(); got.Tokens < 3 || got.Tokens > 6 || got.Expired > 2 {
		t.Errorf("%d requests: %+v", asked, got)
	}
}

// TestCredentialsStayAtTheirOrigin: blobs and uploads lie at a second origin (same address, other port).
func TestCredentialsStayAtTheirOrigin(t *testing.T) {
	g := startGuard(t, testregistry.GuardOptions{})
	e, err := testregistry.NewElsewhere(true)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	reg := testregistry.StartWith(t, testregistry.Options{Wrap: func(next http.Handler) http.Handler { return g.Wrap(e.Wrap(next)) }})
	c := client(t, Config{Credentials: joe})
	r := ref(t, reg.Addr+"/app:v1")
	layer := random(100_000)
	pushImage(t, c, r, layer) // HEAD, POST, PUT
	if ok, err := c.HasBlob(t.Context(), r, digest.FromBytes(layer)); !ok || err != nil {
		t.Error(ok, err)
	}
	read := func(rc io.ReadCloser, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer rc.Close()
		b, err := io.ReadAll(rc)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if got := read(c.Blob(t.Context(), r, upload(layer).Desc)); !bytes.Equal(got, layer) {
		t.Errorf("%d bytes", len(got))
	}
	if got := read(c.BlobRange(t.Context(), r, upload(layer).Desc, 10, 20)); !bytes.Equal(got, layer[10:30]) {
		t.Errorf("%d bytes", len(got))
	}
	seen := map[string]int{}
	for _, one := range e.Requests() {
		seen[strings.TrimSpace(one.Method+" "+one.Range)]++
	}
	// A HEAD for each blob before it is pushed and one after.
	if want := map[string]int{"HEAD": 3, "PUT": 2, "GET": 1, "GET bytes=10-29": 1}; fmt.Sprint(seen) != fmt.Sprint(want) {
		t.Errorf("elsewhere saw %v, want %v", seen, want)
	}
	if got := e.Leaks(); len(got) != 0 {
		t.Errorf("credentials went elsewhere:\n%s", strings.Join(got, "\n"))
	}
}

// spy notes what comes that looks like a credential.
type spy struct {
	*httptest.Server
	asked atomic.Int32

	mu    sync.Mutex
	found []string
}

func newSpy(t *testing.T, secure bool, answer http.HandlerFunc) *spy {
	s := &spy{}
	h := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		s.asked.Add(1)
		body, _ := io.ReadAll(req.Body)
		s.mu.Lock()
		for _, name := range []string{"Authorization", "Cookie", "Referer"} {
			if v := req.Header.Get(name); v != "" {
				s.found = append(s.found, req.Method+" with "+name+": "+v)
			}
		}
		if bytes.Contains(body, []byte(url.QueryEscape(password))) {
			s.found = append(s.found, req.Method+" with the password in its body")
		}
		s.mu.Unlock()
		answer(w, req)
	})
	if secure {
		s.Server = httptest.NewTLSServer(h)
	} else {
		s.Server = httptest.NewServer(h)
	}
	t.Cleanup(s.Close)
	return s
}

func (s *spy) check(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked.Load() == 0 {
		t.Error("nothing came there")
	}
	for _, one := range s.found {
		t.Errorf("credentials went elsewhere: %s", one)
	}
}

// TestRedirectsCarryNothing goes through the ways to be sent to another origin: another port, another host name, TLS, two
// hops, an answer to a PUT.
func TestRedirectsCarryNothing(t *testing.T) {
	layer := random(1000)
	give := func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodPut {
			w.WriteHeader(http.StatusCreated)
			return
		}
		w.Write(layer)
	}
	var last atomic.Pointer[spy]
	hop := func(w http.ResponseWriter, req *http.Request) {
		http.Redirect(w, req, last.Load().URL+"/blob?X-Signature=topsecret", http.StatusTemporaryRedirect)
	}
	demand := func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="x"`, last.Load().URL))
		w.WriteHeader(http.StatusUnauthorized)
	}
	for name, c := range map[string]struct {
		secure bool
		host   string // in the place of 127.0.0.1
		answer http.HandlerFunc
		lost   bool // the bytes cannot be had
	}{
		"other port":  {answer: give},
		"other name":  {host: "localhost", answer: give},
		"TLS":         {secure: true, answer: give},
		"two hops":    {answer: hop},
		"wants token": {answer: demand, lost: true},
	} {
		t.Run(name, func(t *testing.T) {
			to := newSpy(t, c.secure, c.answer)
			end := newSpy(t, false, give)
			last.Store(end)
			target := to.URL
			if c.host != "" {
				target = strings.Replace(target, "127.0.0.1", c.host, 1)
			}
			g := startGuard(t, testregistry.GuardOptions{})
			put := false // the PUT itself is answered with a redirect
			reg := testregistry.StartWith(t, testregistry.Options{Wrap: func(next http.Handler) http.Handler {
				return g.Wrap(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
					upload := strings.Contains(req.URL.Path, "/blobs/uploads/")
					switch {
					case req.Method == http.MethodPost && !put:
						w.Header().Set("Location", target+"/upload?X-Signature=topsecret")
						w.WriteHeader(http.StatusAccepted)
					case req.Method == http.MethodPut && upload, !upload && strings.Contains(req.URL.Path, "/blobs/"):
						http.Redirect(w, req, target+"/blob?X-Signature=topsecret", http.StatusTemporaryRedirect)
					default:
						next.ServeHTTP(w, req)
					}
				}))
			}})
			client := client(t, Config{Credentials: joe, Insecure: []string{reg.Addr}}) // no certificate is checked
			r := ref(t, reg.Addr+"/app:v1")
			rc, err := client.Blob(t.Context(), r, upload(layer).Desc)
			if err == nil {
				_, err = io.ReadAll(rc)
				rc.Close()
			}
			if (err != nil) != c.lost {
				t.Errorf("download: %v", err)
			}
			if err != nil && (strings.Contains(err.Error(), "topsecret") || strings.Contains(err.Error(), password)) {
				t.Errorf("the error tells a secret: %v", err)
			}
			up := upload(layer)
			up.New = true
			for range 2 {
				if _, err := client.PushBlob(t.Context(), r, up); (err != nil) != c.lost {
					t.Errorf("upload: %v", err)
				}
				put = true
			}
			to.check(t)
			if name == "two hops" {
				end.check(t)
			} else if end.asked.Load() != 0 {
				t.Errorf("%d requests to a token server of the other origin", end.asked.Load())
			}
		})
	}
}

// TestTokenServersSendNobodyOn: a password in a form would travel with a redirect, basic authentication to another port.
func TestTokenServersSendNobodyOn(t *testing.T) {
	for name, c := range map[string]struct {
		status  int
		post    bool // the token server takes forms
		refused bool // to follow; a 303 takes neither body nor header along
	}{
		"307 of a form": {http.StatusTemporaryRedirect, true, true},
		"308 of a form": {http.StatusPermanentRedirect, true, true},
		"303 of a form": {http.StatusSeeOther, true, false},
		"307 of a GET":  {http.StatusTemporaryRedirect, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			to := newSpy(t, false, func(w http.ResponseWriter, _ *http.Request) {
				io.WriteString(w, `{"token":"anonymous","access_token":"anonymous"}`)
			})
			tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if req.Method == http.MethodPost && !c.post {
					w.WriteHeader(http.StatusNotFound)
					return
				}
				http.Redirect(w, req, to.URL+"/token", c.status)
			}))
			defer tokens.Close()
			reg := newHarness(t)
			reg.Fault(func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="x"`, tokens.URL))
				w.WriteHeader(http.StatusUnauthorized)
			})
			_, err := client(t, Config{Credentials: joe}).Resolve(t.Context(), ref(t, reg.Host+"/app:v1"))
			if err == nil || strings.Contains(err.Error(), password) || c.refused && !strings.Contains(err.Error(), "credentials must not go") {
				t.Error(err)
			}
			to.mu.Lock()
			defer to.mu.Unlock()
			for _, one := range to.found {
				t.Errorf("credentials went elsewhere: %s", one)
			}
		})
	}
}
