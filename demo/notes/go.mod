module example.com/notes

go 1.24

require (
	github.com/go-chi/chi/v5 v5.5.0
	github.com/yuin/goldmark v1.8.7
)
