package testregistry

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Faults stands before a registry (Options.Wrap) and makes requests fail, each in a chosen way. Without being told to, it
// only keeps a list of the requests. The registry's own pushes are neither listed nor spoilt. Its methods are safe for
// concurrent use.
type Faults struct {
	// Stall is how long Slow lasts, 50 ms when zero. It is not to be changed while requests run.
	Stall time.Duration

	tags tags

	mu     sync.Mutex
	number int // of the next request
	calls  []*Call
	seen   map[string]int // requests by signature
	once   []order
	rnd    *rand.Rand // nil without Random
	share  float64
	burst  int // requests that the current burst still spoils
	down   bool
	how    int // the status of all answers while it is down, 0 resets
	fired  []Fired
}

// order asks for one failure: of the request with a number, or of the nth with a signature.
type order struct {
	number    int
	signature string
	nth       int
	kind      Kind
}

// Fired is a failure that a client met.
type Fired struct {
	Call Call
	Kind Kind
}

// String is for messages.
func (f Fired) String() string { return f.Call.String() + ": " + f.Kind.String() }

// Reset forgets the orders and the list of requests; numbers begin at 0 again. A registry that is down stays so.
func (f *Faults) Reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.number, f.calls, f.seen = 0, nil, nil
	f.once, f.rnd, f.burst, f.fired = nil, nil, 0, nil
}

// Calls lists the requests since Reset, at most the first 20,000, in the order in which they came. After a build in peace
// it says what can be made to fail.
func (f *Faults) Calls() []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := make([]Call, len(f.calls))
	for i, c := range f.calls {
		list[i] = *c
	}
	return list
}

// Fired lists the failures since Reset; those of a registry that is down are not among them.
func (f *Faults) Fired() []Fired {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.fired)
}

// String says which requests failed and how, for messages.
func (f *Faults) String() string {
	var lines []string
	for _, one := range f.Fired() {
		lines = append(lines, one.String())
	}
	if lines == nil {
		return "no request failed"
	}
	return strings.Join(lines, "\n")
}

// FailOnce makes the request with a number fail, once. Nothing happens where it cannot fail so.
func (f *Faults) FailOnce(number int, kind Kind) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.once = append(f.once, order{number: number, kind: kind})
}

// FailCall makes the same request of another build fail, once: the one with c's Signature and Nth.
func (f *Faults) FailCall(c Call, kind Kind) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.once = append(f.once, order{number: -1, signature: c.Signature, nth: c.Nth, kind: kind})
}

// Random makes each request fail with the probability share in a random way. One failure in four drags the next one to
// four requests along. The seed and the order of the requests decide.
func (f *Faults) Random(seed uint64, share float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rnd, f.share, f.burst = rand.New(rand.NewPCG(seed, 1)), share, 0
}

// Down makes every request fail until Up: the answer is status, or a connection that breaks where it is 0.
func (f *Faults) Down(status int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down, f.how = true, status
}

// Up ends Down.
func (f *Faults) Up() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = false
}

// Wrap is for Options.Wrap.
func (f *Faults) Wrap(next http.Handler) http.Handler {
	next = f.tags.watch(next)
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get(uncounted) != "" {
			next.ServeHTTP(w, req)
			return
		}
		call, d := f.arrive(req)
		entry := Request{Method: req.Method, Status: http.StatusOK}
		cw := &countingWriter{ResponseWriter: w, entry: &entry}
		defer func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			call.status, call.answer = entry.Status, entry.Down
		}()
		if d == nil {
			next.ServeHTTP(cw, req)
			return
		}
		d.spoil(cw, req, next)
	})
}

// arrive gives a request its number and decides about it; nil lets it pass.
func (f *Faults) arrive(req *http.Request) (*Call, *fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := newCall(req)
	if f.seen == nil {
		f.seen = map[string]int{}
	}
	c.Number, c.Nth = f.number, f.seen[c.Signature]
	f.number++
	f.seen[c.Signature]++
	if len(f.calls) < maxLog {
		f.calls = append(f.calls, c)
	}
	if f.down {
		if f.how == 0 {
			return c, &fault{kind: Reset}
		}
		return c, &fault{kind: ServerError, status: f.how}
	}
	for i, o := range f.once {
		if o.number == c.Number || o.number < 0 && o.signature == c.Signature && o.nth == c.Nth {
			f.once = slices.Delete(f.once, i, i+1)
			if !c.Can(o.kind) {
				return c, nil
			}
			return c, f.fault(c, o.kind, 0.5)
		}
	}
	return c, f.draw(c)
}

// draw decides by lot.
func (f *Faults) draw(c *Call) *fault {
	if f.rnd == nil {
		return nil
	}
	at, begins := f.rnd.Float64(), f.rnd.Float64() < f.share
	switch {
	case f.burst > 0:
		f.burst--
	case !begins:
		return nil
	case f.rnd.IntN(4) == 0:
		f.burst = 1 + f.rnd.IntN(4)
	}
	for {
		if k := Kind(f.rnd.IntN(int(kinds))); c.Can(k) {
			return f.fault(c, k, at)
		}
	}
}

func (f *Faults) fault(c *Call, k Kind, at float64) *fault {
	d := &fault{kind: k, at: at, status: http.StatusInternalServerError, stall: f.Stall, tags: &f.tags}
	if d.stall == 0 {
		d.stall = 50 * time.Millisecond
	}
	d.fired = func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.fired = append(f.fired, Fired{Call: *c, Kind: k})
	}
	return d
}
