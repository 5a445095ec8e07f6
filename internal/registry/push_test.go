package registry

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// busy answers requests of a method with 429 and a Retry-After; the first n of them.
func busy(n int64, method, after string) faultFunc {
	var asked atomic.Int64
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method != method || asked.Add(1) > n {
			next.ServeHTTP(w, r)
			return
		}
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Retry-After", after)
		w.WriteHeader(http.StatusTooManyRequests)
	}
}

// TestUploadsWait: an upload waits as long as the registry asks, and leaves the waiting to its caller where that is long.
func TestUploadsWait(t *testing.T) {
	for name, c := range map[string]struct {
		fault  faultFunc
		mount  bool
		asked  string
		asks   time.Duration   // what the error says of waiting
		waited []time.Duration // at least, one after the other
	}{
		"a long pause before it begins": {busy(1000, http.MethodPost, "60"), false, "POST 1", time.Minute, nil},
		"a long pause before a mount":   {busy(1000, http.MethodPost, "60"), true, "POST 1", time.Minute, nil},
		"a long pause before the bytes": {busy(1000, http.MethodPut, "60"), false, "POST 1, PUT 1", time.Minute, nil},
		"a short pause before it begins": {busy(1, http.MethodPost, "7"), false, "POST 2, PUT 1", 0,
			[]time.Duration{7 * time.Second}},
		"a short pause before the bytes": {busy(1, http.MethodPut, "7"), false, "POST 2, PUT 2", 0,
			[]time.Duration{7 * time.Second}},
		"no end of short pauses": {busy(1000, http.MethodPost, "7"), false, "POST 5", 7 * time.Second,
			slices.Repeat([]time.Duration{7 * time.Second}, 4)},
		"a brownout": {times(1000, http.StatusServiceUnavailable, http.MethodPost), false, "POST 5", 0,
			[]time.Duration{200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond, 1600 * time.Millisecond}},
	} {
		t.Run(name, func(t *testing.T) {
			reg := newHarness(t)
			reg.Fault(c.fault)
			var waits []time.Duration
			client := client(t, Config{Sleep: func(d time.Duration, _ <-chan struct{}) { waits = append(waits, d) }})
			up := upload(random(1000))
			up.New = true
			if c.mount {
				up.Origin = []string{reg.Host + "/base"}
			}
			_, err := client.PushBlob(t.Context(), ref(t, reg.Host+"/app:v1"), up)
			if n := reg.Count(); n != c.asked {
				t.Errorf("%s instead of %s", n, c.asked)
			}
			var re *Error
			if errors.As(err, &re) && re.RetryAfter() != c.asks || err == nil && c.asks != 0 || err != nil && re == nil {
				t.Errorf("%v", err)
			}
			if !slices.EqualFunc(waits, c.waited, func(got, least time.Duration) bool { return got >= least && got < 2*least }) {
				t.Errorf("waited %v instead of %v", waits, c.waited)
			}
		})
	}
}
