package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"larder/internal/fault"
)

// hanging gives a registry of which a test can make handlers hang: until it ends.
func hanging(t *testing.T) (reg *harness, hang func()) {
	t.Parallel()
	ended := make(chan struct{})
	reg = newHarness(t)
	t.Cleanup(func() { close(ended) }) // before the registry waits for its handlers
	return reg, func() { <-ended }
}

// hasty gives a client with little patience: on a busy machine even what is well may take some tenths of a second.
func hasty(t *testing.T, stall time.Duration) *Client {
	c := client(t, Config{Sleep: func(time.Duration, <-chan struct{}) {}})
	c.stall = stall
	return c
}

// TestUploadThatStops: a peer that does not read on is given up, and asked once more.
func TestUploadThatStops(t *testing.T) {
	reg, hang := hanging(t)
	c := hasty(t, 100*time.Millisecond)
	r := ref(t, reg.Host+"/app:v1")
	up := upload(make([]byte, 30<<20)) // more than the kernel takes
	up.New = true
	var stalls, got atomic.Int64
	reg.Fault(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		switch {
		case req.Method != http.MethodPut:
			next.ServeHTTP(w, req)
		case stalls.Add(-1) >= 0:
			io.ReadFull(req.Body, make([]byte, 1000))
			hang()
		default:
			n, _ := io.Copy(io.Discard, req.Body)
			got.Store(n)
			w.WriteHeader(http.StatusCreated)
		}
	})
	begin := time.Now()
	stalls.Store(1000)
	_, err := c.PushBlob(t.Context(), r, up)
	if n := reg.Count(); !errors.Is(err, ErrStalled) || fault.Of(err) != fault.Registry || !strings.Contains(err.Error(), reg.Host+" hangs") || n != "POST 2, PUT 2" {
		t.Errorf("%s: %v", n, err)
	}
	stalls.Store(1)
	c = hasty(t, 2*time.Second)
	if sent, err := c.PushBlob(t.Context(), r, up); !sent || err != nil || got.Load() != up.Desc.Size {
		t.Errorf("the second time: %t, %d bytes, %v", sent, got.Load(), err)
	}
	if d := time.Since(begin); d > 20*time.Second {
		t.Errorf("it took %v to notice", d)
	}
}

// TestSlowSource: who makes the bytes may take his time, it is the registry that is watched.
func TestSlowSource(t *testing.T) {
	reg, _ := hanging(t)
	c := hasty(t, 500*time.Millisecond)
	b := random(100_000)
	up := upload(b)
	up.Open = func(context.Context) (io.ReadCloser, error) {
		return &slowly{Reader: bytes.NewReader(b), pause: 2 * c.stall, rest: 2}, nil
	}
	if sent, err := c.PushBlob(t.Context(), ref(t, reg.Host+"/app:v1"), up); !sent || err != nil {
		t.Error(sent, err)
	}
}

// TestAnswerThatStops: whatever is being read.
func TestAnswerThatStops(t *testing.T) {
	reg, hang := hanging(t)
	r := ref(t, reg.Host+"/app:v1")
	layer := random(100_000)
	pushImage(t, client(t, Config{}), r, layer)
	c := hasty(t, 100*time.Millisecond)
	desc := upload(layer).Desc
	for name, step := range map[string]struct {
		after int // bytes
		do    func() error
		fine  bool
	}{
		"a manifest":           {50, func() error { _, _, err := c.Fetch(t.Context(), r); return err }, false},
		"a list of tags":       {5, func() error { return c.Tags(t.Context(), r, "", func([]string) bool { return true }) }, false},
		"a blob":               {0, func() error { return read(layer)(c.Blob(t.Context(), r, desc)) }, false},
		"a part":               {0, func() error { return read(layer[10:500])(c.BlobRange(t.Context(), r, desc, 10, 490)) }, false},
		"a blob that is there": {len(layer), func() error { return read(layer)(c.Blob(t.Context(), r, desc)) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			reg.Fault(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				next.ServeHTTP(&hung{ResponseWriter: w, left: step.after, hang: hang}, req)
			})
			defer reg.Fault(nil)
			begin := time.Now()
			if err := step.do(); errors.Is(err, ErrStalled) == step.fine || step.fine && err != nil {
				t.Errorf("%v", err)
			}
			if d := time.Since(begin); d > 10*time.Second {
				t.Errorf("it took %v to notice", d)
			}
		})
	}
}

// hung does not say how long an answer is, and stops after some bytes.
type hung struct {
	http.ResponseWriter
	left int
	hang func()
}

func (h *hung) WriteHeader(status int) {
	h.Header().Del("Content-Length")
	h.ResponseWriter.WriteHeader(status)
}

func (h *hung) Write(p []byte) (int, error) {
	h.Header().Del("Content-Length")
	n, err := h.ResponseWriter.Write(p[:min(len(p), h.left)])
	if h.left -= n; h.left == 0 {
		h.ResponseWriter.(http.Flusher).Flush()
		h.hang()
	}
	return n, err
}
