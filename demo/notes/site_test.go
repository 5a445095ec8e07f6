package main

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func TestIndexListsPages(t *testing.T) {
	w := httptest.NewRecorder()
	index(w, nil)
	if body := w.Body.String(); !strings.Contains(body, `href="/layers"`) {
		t.Errorf("index: %s", body)
	}
}
