package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/zap"

	"example.com/ledger/internal/jobs"
)

func TestRoutes(t *testing.T) {
	s := New(zap.NewNop(), nil, jobs.New(zap.NewNop(), 1))
	for _, c := range []struct {
		method, path, body string
		want               int
	}{
		{http.MethodGet, "/metrics", "", http.StatusOK},
		{http.MethodGet, "/nowhere", "", http.StatusNotFound},
		{http.MethodGet, "/entries", "", http.StatusMethodNotAllowed},
		{http.MethodPost, "/entries", "no JSON", http.StatusBadRequest},
	} {
		w := httptest.NewRecorder()
		s.routes().ServeHTTP(w, httptest.NewRequest(c.method, c.path, strings.NewReader(c.body)))
		if w.Code != c.want {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, w.Code, c.want)
		}
	}
}
