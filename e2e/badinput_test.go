package e2e

import (
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"larder/internal/testregistry"
)

// TestBadInput gives larder what people give it by mistake. Each message names the thing, each exit code is the one of
// the table in the README, nothing stays mounted, and the next build works.
func TestBadInput(t *testing.T) {
	s := newSite(t, small)
	root := filepath.Join(s.work, "root")
	if err := os.Symlink("/etc", filepath.Join(s.dir, "way-out")); err != nil {
		t.Fatal(err)
	}
	const from = "ARG REGISTRY=localhost\nFROM ${REGISTRY}/busybox\n"
	for _, c := range []struct {
		name, dockerfile string
		code             int
		says             []string
	}{
		{"unknown instruction", from + "RUNN true\n", 1, []string{"RUNN", "Dockerfile:3"}},
		{"empty", "", 1, []string{"Dockerfile"}},
		{"unterminated heredoc", from + "RUN <<EOT\ntrue\n", 1, []string{"EOT"}},
		{"unknown stage", from + "COPY --from=nosuch /a /b\n", 4, []string{"nosuch"}}, // so it is taken for an image
		{"unknown user", from + "USER nosuch\nRUN true\n", 1, []string{"nosuch"}},
		{"missing source", from + "COPY no/such /\n", 1, []string{"no/such", "Dockerfile:3"}},
		{"source outside", from + "COPY ../../../../../../etc/shadow /\n", 1, []string{"etc/shadow"}},
		{"source through a link outside", from + "COPY way-out/shadow /\n", 1, []string{"shadow"}},
		{"failed step", from + "RUN echo last words; exit 7\n", 1, []string{"last words", "exit code: 7", "Dockerfile:3", ">>>"}},
		{"no such image", "ARG REGISTRY=localhost\nFROM ${REGISTRY}/nosuch\nRUN true\n", 4, []string{"nosuch"}},
		{"no registry there", "FROM 127.0.0.1:1/app\nRUN true\n", 4, []string{"127.0.0.1:1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.write(t, "Dockerfile", c.dockerfile)
			fails(t, s, root, c.code, c.says...)
			nothingLeft(t, root, root)
		})
	}
	s.write(t, "Dockerfile", small)
	s.build(t, root, filepath.Join(s.work, "out"))
}

// TestBadRegistries pulls from servers that are no good registries.
func TestBadRegistries(t *testing.T) {
	s := newSite(t, small)
	root := filepath.Join(s.work, "root")
	for _, c := range []struct {
		name string
		wrap func(http.Handler) http.Handler
		says string
	}{
		{"refuses", answer(http.StatusUnauthorized, "application/json", `{"errors":[{"code":"UNAUTHORIZED"}]}`), "busybox"},
		{"a web page", answer(http.StatusOK, "text/html", "<html>It works!</html>"), "busybox"},
		{"no manifest", answer(http.StatusOK, "application/vnd.oci.image.manifest.v1+json", "{"), "busybox"},
		{"broken layers", func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") && r.Header.Get("Testregistry-Uncounted") == "" {
					_, _ = io.WriteString(w, "rubbish")
					return
				}
				next.ServeHTTP(w, r)
			})
		}, "busybox"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bad := *s
			if c.name == "broken layers" {
				bad.registry = testregistry.StartWith(t, testregistry.Options{Wrap: c.wrap})
				bad.registry.PushBase(t, "busybox")
			} else {
				bad.registry = testregistry.StartWith(t, testregistry.Options{Wrap: c.wrap})
			}
			fails(t, &bad, root, 4, c.says)
			nothingLeft(t, root, root)
		})
	}
	s.build(t, root, filepath.Join(s.work, "out"))
}

// TestDiskFull gives the local root a file system of a few megabytes.
func TestDiskFull(t *testing.T) {
	s := newSite(t, "ARG REGISTRY=localhost\nFROM ${REGISTRY}/busybox\nRUN dd if=/dev/urandom of=/big bs=1M count=64\n")
	dir := filepath.Join(s.work, "small")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	tool(t, "mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", dir)
	t.Cleanup(func() { tool(t, "umount", dir) })
	root := filepath.Join(dir, "root")
	fails(t, s, root, 1, "No space left on device")
	s.write(t, "Dockerfile", small)
	s.build(t, root, filepath.Join(s.work, "out"))
	s.write(t, "Dockerfile", "ARG REGISTRY=localhost\nFROM ${REGISTRY}/busybox\nCOPY huge /\nRUN true\n")
	s.write(t, "huge", strings.Repeat("no room for this\n", 4<<20))
	t.Setenv("LARDER_OBSERVE", "off") // else the layer need not be written out
	fails(t, s, root, 3, "no space left", "larder cache prune")
	nothingLeft(t, root, root)
}

// fails runs a build that must fail with the exit code and a message that holds the words.
func fails(t *testing.T, s *site, root string, code int, words ...string) {
	t.Helper()
	out, err := s.command(t.Context(), root, filepath.Join(s.work, "failed")).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("want exit code %d, got %v\n%s", code, err, out)
	}
	if exit.ExitCode() != code {
		t.Errorf("exit code %d, want %d\n%s", exit.ExitCode(), code, out)
	}
	for _, w := range words {
		if !strings.Contains(strings.ToLower(string(out)), strings.ToLower(w)) {
			t.Errorf("the message lacks %q:\n%s", w, out)
		}
	}
	if strings.Contains(string(out), "goroutine ") {
		t.Errorf("a panic:\n%s", out)
	}
}

func answer(status int, mediaType, body string) func(http.Handler) http.Handler {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", mediaType)
			w.WriteHeader(status)
			if r.Method != http.MethodHead {
				_, _ = io.WriteString(w, body)
			}
		})
	}
}
