package catalog

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"larder/internal/registry"
	"larder/internal/remote"
	"larder/internal/remote/local"
	remoteregistry "larder/internal/remote/registry"
	"larder/internal/testregistry"
)

// watched is a registry that knows how many requests have reached it.
type watched struct {
	*testregistry.Registry
	arrived atomic.Int64
}

// forget counts from nothing: all requests that were sent have been counted by then, which the registry does when a handler returns.
func (w *watched) forget() {
	for try := 0; int64(w.Counts().Requests) < w.arrived.Load() && try < 1000; try++ {
		time.Sleep(time.Millisecond)
	}
	w.ResetCounts()
	w.arrived.Store(0)
}

// distribution starts a real registry whose answers take their time.
func distribution(t *testing.T, latency time.Duration) (*watched, func() remote.Store) {
	t.Helper()
	reg := new(watched)
	reg.Registry = testregistry.StartWith(t, testregistry.Options{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			reg.arrived.Add(1)
			time.Sleep(latency)
			next.ServeHTTP(w, r)
		})
	}})
	ref, err := registry.ParseRef(reg.Ref("app"))
	if err != nil {
		t.Fatal(err)
	}
	return reg, func() remote.Store {
		client := registry.New(registry.Config{Credentials: func(string) (string, string, error) { return "", "", nil }})
		t.Cleanup(client.Close)
		return remoteregistry.New(client, ref)
	}
}

// TestDistribution does with a real registry what the other tests do in memory, and counts what it costs.
func TestDistribution(t *testing.T) {
	reg, client := distribution(t, 0)
	store := client()
	var names []string
	for i := range 30 {
		names = append(names, fmt.Sprintf("s %dx", i))
	}
	if err := stock(t.Context(), store, names...); err != nil {
		t.Fatal(err)
	}
	saved, err := Save(t.Context(), store, mainScope, steps("s", "x", 31), Options{}) // the last one's blobs are not there
	if err != nil || saved.Records != 30 || len(saved.Missing) != 2 {
		t.Fatalf("%+v, %v", saved, err)
	}
	reg.forget()
	c, err := Load(t.Context(), store, mainScope, Options{})
	if err != nil || len(c.Entries(t.Context())) != 30 {
		t.Fatal(err)
	}
	for try := 0; reg.Counts().Requests == 0 && try < 1000; try++ {
		time.Sleep(time.Millisecond) // a request counts when its handler has returned
	}
	if n := reg.Counts(); n.Requests != 1 || n.Down > 60_000 || n.Down != c.Read() {
		t.Errorf("loading took %+v", n)
	}
	t.Logf("30 records, 60 blobs: %d bytes", c.Read())
	if problems, err := Check(t.Context(), store, c, false); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	list, err := List(t.Context(), store, Options{})
	if err != nil || len(list) != 1 || list[0].Name != mainScope || list[0].Records != 30 || list[0].Blobs != 60 {
		t.Errorf("%+v, %v", list, err)
	}
	if err := Remove(t.Context(), store, mainScope); err != nil {
		t.Fatal(err)
	}
	if list, err := List(t.Context(), store, Options{}); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestDistributionWritersAtOnce is 64 jobs that end at the same moment.
func TestDistributionWritersAtOnce(t *testing.T) { meet(t, 64, 2*time.Millisecond) }

func TestSoakDistributionWritersAtOnce(t *testing.T) {
	if os.Getenv("LARDER_SOAK") == "" {
		meet(t, 8, 2*time.Millisecond)
		return
	}
	for range 5 {
		meet(t, 8, 25*time.Millisecond)
		meet(t, 64, 2*time.Millisecond)
		meet(t, 64, 25*time.Millisecond)
	}
}

func meet(t *testing.T, writers int, latency time.Duration) {
	t.Helper()
	_, client := distribution(t, latency)
	var names []string
	for i := range writers {
		names = append(names, fmt.Sprintf("w%d 0x", i))
	}
	if err := stock(t.Context(), client(), names...); err != nil {
		t.Fatal(err)
	}
	// A machine that is busy with other tests makes every round trip longer.
	c := gather(t, client, mainScope, writers, 1, Options{Limits: Limits{Patience: 2 * time.Minute}})
	t.Log(latency, c)
	if c.wrong > 0 || c.found*100 < c.records*99 {
		t.Error(c)
	}
}

// TestDirectoryWritersAtOnce meets in a directory, whose writes are conditional, as decorated as a build has it; then the directory moves.
func TestDirectoryWritersAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	open := func() remote.Store {
		s, err := local.New(dir)
		if err != nil {
			t.Fatal(err)
		}
		wrapped := remote.Wrap(s, remote.Options{})
		t.Cleanup(func() { wrapped.Close() })
		return wrapped
	}
	var names []string
	for i := range 16 {
		names = append(names, fmt.Sprintf("w%d 0x", i))
	}
	if err := stock(t.Context(), open(), names...); err != nil {
		t.Fatal(err)
	}
	c := gather(t, open, mainScope, 16, 1, Options{Limits: Limits{Patience: 2 * time.Minute}})
	if t.Log(c); c.wrong > 0 || c.found != c.records {
		t.Error(c)
	}
	moved := dir + "-moved"
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	dir = moved
	if _, err := Load(t.Context(), open(), mainScope, Options{}); err != nil {
		t.Error(err)
	}
}
