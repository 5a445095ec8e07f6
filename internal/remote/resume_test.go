package remote_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"larder/internal/remote"
	"larder/internal/remote/storetest"
)

func TestDownloadsGoOnWhereTheyBroke(t *testing.T) {
	b := storetest.Bytes(1, 3<<20)
	desc := storetest.Describe(b)
	for name, tc := range map[string]struct {
		ranges bool
		calls  string
	}{"by range": {true, "Open 1, OpenRange 4"}, "by reading again": {false, "Open 5, OpenRange 0"}} {
		t.Run(name, func(t *testing.T) {
			m := newMemory()
			m.ranges = tc.ranges
			m.blobs[desc.Digest] = b
			var c clock
			// The end comes as an error, as a silent end, and with the last bytes.
			m.reader = func(op string, n int, b []byte) io.Reader {
				done := 700_000
				if !tc.ranges {
					done *= n
				}
				if done >= len(b) {
					return bytes.NewReader(b)
				}
				switch n % 3 {
				case 0:
					return bytes.NewReader(b[:done])
				case 1:
					return io.MultiReader(bytes.NewReader(b[:done]), &once{errPassing})
				}
				return &atOnce{b: b[:done], err: errPassing}
			}
			s := remote.Verify(remote.Retry(m, c.policy(20*time.Second, time.Minute)))
			got, err := storetest.Read(t.Context(), s, desc)
			if err != nil || !bytes.Equal(got, b) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			if calls := fmt.Sprintf("Open %d, OpenRange %d", m.count("Open"), m.count("OpenRange")); calls != tc.calls {
				t.Error(calls)
			}
			rc, err := s.OpenRange(t.Context(), desc, 100, 2<<20)
			if !tc.ranges {
				if !errors.Is(err, remote.ErrUnsupported) {
					t.Error(err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(rc); err != nil || !bytes.Equal(got, b[100:100+2<<20]) {
				t.Errorf("%d bytes of the range, %v", len(got), err)
			}
		})
	}
}

type atOnce struct {
	b   []byte
	err error
}

func (a *atOnce) Read(p []byte) (int, error) {
	n := copy(p, a.b)
	if a.b = a.b[n:]; len(a.b) == 0 {
		return n, a.err
	}
	return n, nil
}

// TestDripIsNoProgress: a download that gives a byte before it breaks each time ends with its patience.
func TestDripIsNoProgress(t *testing.T) {
	b := storetest.Bytes(1, 3<<20)
	m := newMemory()
	desc := storetest.Describe(b)
	m.blobs[desc.Digest] = b
	var c clock
	m.reader = func(_ string, _ int, b []byte) io.Reader { return &atOnce{b: b[:1], err: errPassing} }
	got, err := storetest.Read(t.Context(), remote.Retry(m, c.policy(20*time.Second, time.Minute)), desc)
	if !errors.Is(err, errPassing) || len(got) > 20 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestDamageIsFetchedAgain(t *testing.T) {
	small, large := storetest.Bytes(1, 5000), storetest.Bytes(2, 2<<20)
	m := newMemory()
	for _, b := range [][]byte{small, large} {
		m.blobs[storetest.Describe(b).Digest] = b
	}
	bad := 2
	m.reader = func(_ string, _ int, b []byte) io.Reader {
		if bad--; bad >= 0 {
			b = bytes.Clone(b)
			b[len(b)/2] ^= 4
		}
		return bytes.NewReader(b)
	}
	var c clock
	s := remote.Wrap(m, remote.Options{Policy: c.policy(time.Minute, time.Minute)})
	if got, err := storetest.Read(t.Context(), s, storetest.Describe(small)); err != nil || !bytes.Equal(got, small) {
		t.Errorf("small: %d bytes, %v", len(got), err)
	}
	// Of a large blob, all but the last bytes are with the caller by then.
	bad = 1
	got, err := storetest.Read(t.Context(), s, storetest.Describe(large))
	if !errors.Is(err, remote.ErrDamaged) || len(got) >= len(large) {
		t.Errorf("large: %d bytes, %v", len(got), err)
	}
	// For ever damaged is damaged, and no outage.
	bad = 1000
	if _, err := storetest.Read(t.Context(), s, storetest.Describe(small)); !errors.Is(err, remote.ErrDamaged) || errors.Is(err, remote.ErrDown) {
		t.Error(err)
	}
	bad = 0
	if got, err := storetest.Read(t.Context(), s, storetest.Describe(large)); err != nil || !bytes.Equal(got, large) {
		t.Errorf("large: %d bytes, %v", len(got), err)
	}
}
