// Command notes serves Markdown pages as a web site: the project that `make demo` builds.
package main

import (
	"embed"
	"flag"
	"fmt"
	"log"
	"net/http"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
)

//go:embed pages
var pages embed.FS

const greeting = "Hello from the first build."

func main() {
	addr := flag.String("addr", ":8080", "where to listen")
	hello := flag.Bool("hello", false, "print the greeting and exit")
	flag.Parse()
	if *hello {
		fmt.Println(greeting)
		return
	}
	r := chi.NewRouter()
	r.Use(middleware.Logger, middleware.Recoverer)
	r.Get("/", index)
	r.Get("/{page}", page)
	log.Printf("listening on %s", *addr)
	log.Fatal(http.ListenAndServe(*addr, r))
}
