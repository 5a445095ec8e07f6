package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"
	"github.com/yuin/goldmark"
)

// index lists the pages.
func index(w http.ResponseWriter, _ *http.Request) {
	entries, err := fs.ReadDir(pages, "pages")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprintf(w, "<h1>%s</h1>\n", greeting)
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), ".md")
		fmt.Fprintf(w, "<p><a href=\"/%s\">%s</a></p>\n", name, name)
	}
}

// page renders one page.
func page(w http.ResponseWriter, r *http.Request) {
	text, err := pages.ReadFile("pages/" + chi.URLParam(r, "page") + ".md")
	if err != nil {
		http.NotFound(w, r)
		return
	}
	var html bytes.Buffer
	if err := goldmark.Convert(text, &html); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(html.Bytes())
}
