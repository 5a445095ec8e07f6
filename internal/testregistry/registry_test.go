package testregistry

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestCountsWhatClientsMoveAndNothingElse(t *testing.T) {
	r := Start(t)
	r.PushBase(t, "busybox")
	if got := r.Counts(); got != (Counts{}) {
		t.Fatalf("the registry counted its own push: %+v", got)
	}
	body := get(t, r, "/v2/busybox/manifests/latest")
	want := Counts{Requests: 1, Down: int64(len(body))}
	if got := r.Counts(); got != want {
		t.Errorf("counts %+v, want %+v", got, want)
	}
	if !strings.Contains(body, "image.layer") {
		t.Errorf("manifest: %s", body)
	}
	if log := r.Requests(); len(log) != 1 || log[0].Path != "/v2/busybox/manifests/latest" || log[0].Status != http.StatusOK {
		t.Errorf("requests: %+v", log)
	}
	r.ResetCounts()
	res, err := http.Post("http://"+r.Addr+"/v2/busybox/blobs/uploads/", "", strings.NewReader("0123456789"))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if got := r.Counts(); got.Requests != 1 {
		t.Errorf("after a reset and one request: %+v", got)
	}
}

func TestForgetMakesTheNextPushSendEverything(t *testing.T) {
	for name, opt := range map[string]Options{"memory": {}, "disk": {Dir: t.TempDir()}} {
		t.Run(name, func(t *testing.T) {
			r := StartWith(t, opt)
			if err := r.Forget("busybox"); err != nil {
				t.Error("a repository that is not there:", err)
			}
			r.PushBase(t, "busybox")
			if err := r.Forget("busybox"); err != nil {
				t.Fatal(err)
			}
			res, err := http.Get("http://" + r.Addr + "/v2/busybox/manifests/latest")
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != http.StatusNotFound {
				t.Errorf("status %d after Forget", res.StatusCode)
			}
			r.PushBase(t, "busybox")
			get(t, r, "/v2/busybox/manifests/latest")
			if err := r.Forget("../x"); err == nil {
				t.Error("a path upwards was taken for a repository")
			}
		})
	}
}

func TestWrapCanRefuse(t *testing.T) {
	r := StartWith(t, Options{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "not today", http.StatusTooManyRequests)
		})
	}})
	res, err := http.Get("http://" + r.Addr + "/v2/")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusTooManyRequests || r.Counts().Requests != 1 {
		t.Errorf("status %d, counts %+v", res.StatusCode, r.Counts())
	}
}

func get(t *testing.T, r *Registry, path string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.Addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %d %s", path, res.StatusCode, b)
	}
	return string(b)
}
