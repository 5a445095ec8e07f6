package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/registry"
	"larder/internal/remote"
	"larder/internal/remote/storetest"
	"larder/internal/testregistry"
)

// partsOf makes a Store send blobs in parts of so many bytes; the fake does not mind small ones.
func partsOf(s *Store, n int) *Store {
	s.part, s.pause = n, time.Millisecond
	return s
}

// visit does everything once that a build and the next one do with a store. An error is what a caller would get; content that is
// wrong is fatal.
func visit(t *testing.T, s remote.Store) error {
	ctx := t.Context()
	small, large := storetest.Bytes(1, 1000), storetest.Bytes(2, 5000)
	for _, b := range [][]byte{small, large} {
		if _, err := s.Put(ctx, storetest.Upload(b)); err != nil {
			return err
		}
	}
	first := storetest.Document("first", storetest.Describe(small), storetest.Describe(large))
	second := storetest.Document("second", storetest.Describe(small))
	v, err := s.PutManifest(ctx, "main", first, remote.Absent)
	if err != nil {
		return err
	}
	if v, err = s.PutManifest(ctx, "main", second, v); err != nil {
		return err
	}
	for name, want := range map[string][]byte{"main": second, digest.FromBytes(first).String(): first} {
		doc, err := s.Manifest(ctx, name)
		if err != nil {
			return err
		}
		if !bytes.Equal(doc.Bytes, want) || name == "main" && doc.Version != v {
			t.Fatalf("another document came for %s", name)
		}
	}
	for _, b := range [][]byte{small, large} {
		got, err := storetest.Read(ctx, s, storetest.Describe(b))
		if err != nil {
			return err
		}
		if !bytes.Equal(got, b) {
			t.Fatal("another blob came")
		}
	}
	return nil
}

// TestEachFaultOnce lets each request of a visit fail once, in each way: the visit succeeds all the same, and nothing of an upload
// that was given up is left.
func TestEachFaultOnce(t *testing.T) {
	start := func(t *testing.T) (*testregistry.Faults, *fake, remote.Store) {
		faults, f := &testregistry.Faults{Stall: time.Millisecond}, &fake{conditions: "honoured"}
		s := partsOf(open(t, f.serve(t, faults.Wrap)), 2000)
		var slept atomic.Int64 // the clock of Retry, which stands still while nobody waits
		return faults, f, remote.Wrap(s, remote.Options{Policy: remote.Policy{
			Sleep: func(_ context.Context, d time.Duration) { slept.Add(int64(d)) },
			Now:   func() time.Time { return time.Unix(0, slept.Load()) },
		}})
	}
	faults, _, s := start(t)
	if err := visit(t, s); err != nil {
		t.Fatal(err)
	}
	calls := faults.Calls()
	fired := 0
	for _, kind := range testregistry.Kinds() {
		if kind == testregistry.Stale { // of a registry's tags only
			continue
		}
		for _, call := range calls {
			if !call.Can(kind) {
				continue
			}
			faults, f, s := start(t)
			faults.FailCall(call, kind)
			if err := visit(t, s); err != nil {
				t.Errorf("%v: %v: %v", call, kind, err)
			}
			fired += len(faults.Fired())
			if n := len(f.uploads); n > 1 || n == 1 && kind != testregistry.LostAnswer && kind != testregistry.FlippedByte && kind != testregistry.LateError {
				t.Errorf("%v: %v: %d uploads are left", call, kind, n)
			}
		}
	}
	if fired < 5*len(calls) {
		t.Errorf("only %d faults in %d requests", fired, len(calls))
	}
}

// TestLostAnswer has the server store a document and break the connection: the writer finds that it was its own.
func TestLostAnswer(t *testing.T) {
	f := &fake{conditions: "honoured"}
	var lose atomic.Bool
	s := open(t, f.serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodPut && strings.HasSuffix(req.URL.Path, "/manifests/main") && lose.CompareAndSwap(true, false) {
				next.ServeHTTP(discard{w}, req)
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(w, req)
		})
	}))
	doc := storetest.Document("mine", storetest.Put(t, s, []byte("{}")))
	lose.Store(true)
	if _, err := s.PutManifest(t.Context(), "main", doc, remote.Absent); err == nil || errors.Is(err, remote.ErrConflict) {
		t.Fatalf("the answer is lost: %v", err)
	}
	v, err := s.PutManifest(t.Context(), "main", doc, remote.Absent)
	if got, gerr := s.Manifest(t.Context(), "main"); err != nil || gerr != nil || got.Version != v {
		t.Errorf("%v, %v", err, gerr)
	}
}

type discard struct{ http.ResponseWriter }

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}

// TestChangedETag has a server give another ETag to the same bytes, as one does after a change of encryption: no conflict.
func TestChangedETag(t *testing.T) {
	s := open(t, (&fake{conditions: "honoured"}).serve(t, nil))
	one := storetest.Document("one", storetest.Put(t, s, []byte("{}")))
	v, err := s.PutManifest(t.Context(), "main", one, remote.Absent)
	if err != nil {
		t.Fatal(err)
	}
	_, sum := split(v)
	two := storetest.Document("two", storetest.Describe([]byte("{}")))
	if _, err := s.PutManifest(t.Context(), "main", two, remote.Version("another-etag "+sum)); err != nil {
		t.Errorf("the same bytes under another ETag: %v", err)
	}
	if _, err := s.PutManifest(t.Context(), "main", one, v); !errors.Is(err, remote.ErrConflict) {
		t.Errorf("other bytes: %v", err)
	}
}

// TestProbe counts what finding out costs, and lets many find out at once.
func TestProbe(t *testing.T) {
	f := &fake{conditions: "honoured"}
	c := f.serve(t, nil)
	for i, most := range []int{3, 2} {
		f.count = map[string]int{}
		s := open(t, c)
		for range 3 {
			if !s.Conditional() {
				t.Error("not conditional")
			}
		}
		if n := f.count["PUT"]; n > most {
			t.Errorf("use %d: %d requests", i, n)
		}
	}
	for _, conditions := range []string{"honoured", "ignored", "refused", "half"} {
		c := (&fake{conditions: conditions}).serve(t, nil)
		var wg sync.WaitGroup
		for range 8 {
			s := open(t, c)
			wg.Go(func() {
				if got := s.Conditional(); got != (conditions == "honoured") {
					t.Errorf("%s: conditional %v", conditions, got)
				}
			})
		}
		wg.Wait()
	}
}

// TestProbeUnanswered asks a server that is down: no is the answer, and it is asked again.
func TestProbeUnanswered(t *testing.T) {
	faults := &testregistry.Faults{}
	s := open(t, (&fake{conditions: "honoured"}).serve(t, faults.Wrap))
	faults.Down(http.StatusServiceUnavailable)
	if s.Conditional() {
		t.Error("nobody said so")
	}
	if _, err := s.PutManifest(t.Context(), "main", storetest.Document("x", storetest.Describe(nil)), remote.Absent); err == nil {
		t.Error("a server that is down took a document")
	}
	faults.Up()
	if !s.Conditional() {
		t.Error("it was not asked again")
	}
}

// TestRenew puts documents that name blobs of several ages.
func TestRenew(t *testing.T) {
	now := time.Now()
	at := now.Add(-48 * time.Hour)
	f := &fake{conditions: "honoured", now: func() time.Time { return at }}
	c := f.serve(t, nil)
	c.Touch = 24 * time.Hour
	s := open(t, c)
	old := storetest.Put(t, s, []byte("old"))
	at = now.Add(-time.Hour)
	young := storetest.Put(t, s, []byte("young"))
	at = now
	if _, err := s.PutManifest(t.Context(), "main", storetest.Document("x", old, young), remote.Absent); err != nil {
		t.Fatal(err)
	}
	date := func(d ocispecs.Descriptor) time.Time {
		key, _ := s.blobKey(d.Digest)
		return f.objects[key].date
	}
	if !date(old).Equal(now) || !date(young).Equal(now.Add(-time.Hour)) {
		t.Errorf("the old one is of %v, the young one of %v", date(old), date(young))
	}
	if got, err := storetest.Read(t.Context(), s, old); err != nil || string(got) != "old" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestRenewReal makes a blob young on the real server, whose dates do not show it.
func TestRenewReal(t *testing.T) {
	s := open(t, bucket(t))
	blob := storetest.Put(t, s, []byte("blob"))
	key, _ := s.blobKey(blob.Digest)
	if err := s.touch(t.Context(), key); err != nil {
		t.Error(err)
	}
	if got, err := storetest.Read(t.Context(), s, blob); err != nil || string(got) != "blob" {
		t.Errorf("%q, %v", got, err)
	}
	if err := s.touch(t.Context(), key+"0"); !errors.Is(err, remote.ErrNotFound) {
		t.Errorf("touch what is not there: %v", err)
	}
}

// TestStall has a server stop in the middle, of a download and of an upload.
func TestStall(t *testing.T) {
	ended := make(chan struct{})
	var hang, bad atomic.Bool
	s := partsOf(open(t, (&fake{}).serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if !hang.Load() {
				next.ServeHTTP(w, req)
				return
			}
			if req.Method == http.MethodGet {
				w.Header().Set("Content-Length", "1000")
				if !bad.Load() { // what minio-go refuses it reads to its end first
					w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
				}
				w.Write(make([]byte, 500))
				w.(http.Flusher).Flush()
			}
			<-ended
		})
	})), 32<<20)
	t.Cleanup(func() { close(ended) })
	small := storetest.Put(t, s, storetest.Bytes(1, 1000))
	hang.Store(true)
	s.transport.stall = 50 * time.Millisecond
	rc, err := s.Open(t.Context(), small)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	begin := time.Now()
	for err == nil {
		_, err = rc.Read(make([]byte, 100))
	}
	if !errors.Is(err, registry.ErrStalled) || errors.Is(err, context.Canceled) {
		t.Errorf("download: %v", err)
	}
	bad.Store(true)
	if _, err := s.Open(t.Context(), small); err == nil {
		t.Error("an answer without a date was taken")
	}
	up := storetest.Upload(storetest.Bytes(2, 30<<20)) // more than the kernel takes
	up.New = true
	if _, err := s.Put(t.Context(), up); !errors.Is(err, registry.ErrStalled) || errors.Is(err, context.Canceled) {
		t.Errorf("upload: %v", err)
	}
	if d := time.Since(begin); d > 20*time.Second {
		t.Errorf("it took %v to notice", d)
	}
}

func TestRetryAfter(t *testing.T) {
	s := open(t, (&fake{}).serve(t, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			answerError(w, http.StatusServiceUnavailable, "SlowDown", "please reduce your request rate")
		})
	}))
	_, err := s.Manifest(t.Context(), "main")
	var asks interface{ RetryAfter() time.Duration }
	if !errors.As(err, &asks) || asks.RetryAfter() <= 6*time.Second || asks.RetryAfter() > 7*time.Second {
		t.Errorf("%v", err)
	}
	if err == nil || !strings.Contains(err.Error(), "503") || !strings.Contains(err.Error(), "reduce your request rate") {
		t.Errorf("%v", err)
	}
}

func TestNoRanges(t *testing.T) {
	s := open(t, (&fake{noRanges: true}).serve(t, nil))
	desc := storetest.Put(t, s, []byte("hello"))
	if _, err := s.OpenRange(t.Context(), desc, 1, 2); !errors.Is(err, remote.ErrUnsupported) {
		t.Errorf("a part: %v", err)
	}
	rc, err := s.OpenRange(t.Context(), desc, 0, 5)
	if got := content(t, rc, err); got != "hello" {
		t.Errorf("all of it: %q", got)
	}
}

// TestRequests counts what operations cost.
func TestRequests(t *testing.T) {
	f := &fake{conditions: "honoured"}
	s := partsOf(open(t, f.serve(t, nil)), 2000)
	s.Conditional()
	count := func(what, want string, op func() error) {
		t.Helper()
		f.count = map[string]int{}
		if err := op(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if got := strings.TrimPrefix(fmt.Sprint(f.count), "map"); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	put := func(n int, isNew bool) func() error {
		return func() error {
			up := storetest.Upload(storetest.Bytes(uint64(n), n))
			up.New = isNew
			_, err := s.Put(t.Context(), up)
			return err
		}
	}
	count("a new blob", "[PUT:1]", put(100, true))
	count("a blob", "[HEAD:1 PUT:1]", put(101, false))
	count("a blob that is there", "[HEAD:1]", put(101, false))
	count("a new blob of three parts", "[POST?:2 PUT?:3]", put(5000, true))
	count("a document", "[HEAD:2 PUT:2]", func() error {
		_, err := s.PutManifest(t.Context(), "main", storetest.Document("x", storetest.Describe(storetest.Bytes(100, 100)), storetest.Describe(storetest.Bytes(101, 101))), remote.Absent)
		return err
	})
	count("reading a document", "[GET:1]", func() error { _, err := s.Manifest(t.Context(), "main"); return err })
	count("names", "[GET?:1]", func() error { _, err := s.Names(t.Context(), ""); return err })
}
