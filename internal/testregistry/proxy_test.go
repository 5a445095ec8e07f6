package testregistry

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func startProxy(t *testing.T, r *Registry, opt ProxyOptions) *Proxy {
	t.Helper()
	p, err := NewProxy(r.Addr, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// fetcher gets URLs one after the other over one connection and says how long each took.
func fetcher(t *testing.T) func(url string) (string, time.Duration, error) {
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	return func(url string) (string, time.Duration, error) {
		start := time.Now()
		res, err := client.Get(url)
		if err != nil {
			return "", 0, err
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		return string(b), time.Since(start), err
	}
}

func TestProxyDelaysRoundTripsNotBytes(t *testing.T) {
	const trip = 100 * time.Millisecond
	r := StartWith(t, Options{Dir: t.TempDir()})
	big := strings.Repeat("0123456789abcdef", 1<<20) // 16 MiB
	d, small := putBlob(t, r, "app", big), putBlob(t, r, "app", "small")
	p := startProxy(t, r, ProxyOptions{RoundTrip: trip})
	fetch := fetcher(t)
	for _, c := range []struct {
		what   string
		digest digest.Digest
		want   string
		trips  int
	}{
		{"connection and request", small, "small", 2},
		{"request", small, "small", 1},
		{"request for 16 MiB", d, big, 1},
	} {
		got, took, err := fetch("http://" + p.Addr + "/v2/app/blobs/" + c.digest.String())
		// The upper bound is generous, for the machine may be busy. Without a pipeline, 16 MiB would take 12 s and more.
		if low := time.Duration(c.trips) * trip; err != nil || got != c.want || took < low || took > low+20*trip {
			t.Errorf("%s: %d bytes in %s, want %d round trips; %v", c.what, len(got), took, c.trips, err)
		}
	}
	if got := p.Traffic(); got.Connections != 1 || got.Down < int64(len(big)) || got.Down > int64(len(big))+10_000 || got.Up < 100 || got.Up > 2000 {
		t.Errorf("traffic %+v", got)
	}
	// Uploads name the proxy, not the server behind it.
	res, err := http.Post("http://"+p.Addr+"/v2/app/blobs/uploads/", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if to := res.Header.Get("Location"); !strings.HasPrefix(to, "http://"+p.Addr+"/") {
		t.Errorf("upload to %s", to)
	}
}

func TestProxyLimitsBandwidthOverAllConnections(t *testing.T) {
	r := Start(t)
	d := putBlob(t, r, "app", strings.Repeat("x", 100_000))
	p := startProxy(t, r, ProxyOptions{Bandwidth: 500_000})
	start := time.Now()
	done := make(chan string)
	for range 3 {
		fetch := fetcher(t)
		go func() {
			text, _, err := fetch("http://" + p.Addr + "/v2/app/blobs/" + d.String())
			done <- fmt.Sprint(len(text), err)
		}()
	}
	for range 3 {
		if got := <-done; got != "100000 <nil>" {
			t.Error(got)
		}
	}
	if took := time.Since(start); took < 600*time.Millisecond || took > 5*time.Second {
		t.Errorf("3 times 100 kB at 500 kB/s took %s", took)
	}
	if n := p.Traffic().Connections; n != 3 {
		t.Errorf("%d connections", n)
	}
}

func TestProxyHandsEndsOn(t *testing.T) {
	f := &Faults{}
	r := StartWith(t, Options{Wrap: f.Wrap})
	d := putBlob(t, r, "app", strings.Repeat("x", 10_000))
	p := startProxy(t, r, ProxyOptions{RoundTrip: 10 * time.Millisecond})
	url := fmt.Sprintf("http://%s/v2/app/blobs/%s", p.Addr, d)
	f.Reset()
	f.FailOnce(0, Reset)
	f.FailOnce(1, Truncated)
	if m := try(t, "GET", url, ""); !broken(m.err) {
		t.Errorf("reset: %d, %v", m.status, m.err)
	}
	if m := try(t, "GET", url, ""); !errors.Is(m.err, io.ErrUnexpectedEOF) || len(m.body) != 5000 {
		t.Errorf("truncated: %d bytes, %v", len(m.body), m.err)
	}
	if m := try(t, "GET", url, ""); m.err != nil || len(m.body) != 10_000 {
		t.Errorf("in peace: %d bytes, %v", len(m.body), m.err)
	}
	// Nobody behind it.
	lost, err := NewProxy("127.0.0.1:1", ProxyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if m := try(t, "GET", "http://"+lost.Addr+"/v2/", ""); !broken(m.err) && !errors.Is(m.err, io.EOF) {
		t.Errorf("no server: %d, %v", m.status, m.err)
	}
	if err := lost.Close(); err != nil {
		t.Error(err)
	}
	if m := try(t, "GET", "http://"+lost.Addr+"/v2/", ""); !errors.Is(m.err, syscall.ECONNREFUSED) {
		t.Errorf("closed: %d, %v", m.status, m.err)
	}
}
