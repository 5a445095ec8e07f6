package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// addSources makes the registry's server answer for what ADD fetches: files below /static/ and the git repository
// /git/repo.git, which is made below dir. The repository has two commits on main, the tag v1 on the first, and the branch
// side; authors and times are fixed, so that commit ids are.
func (r *registry) addSources(ctx context.Context, dir string) error {
	l := newTarLayer().dir("in", 0o750).file("in/archive", 0o604, "fetched and unpacked\n")
	plain, err := l.bytes()
	if err != nil {
		return err
	}
	packed, err := ociForm.compress(plain)
	if err != nil {
		return err
	}
	static := map[string][]byte{"/static/hello.txt": []byte("hello\n"), "/static/t.tar.gz": packed, "/static/noext": []byte("n\n")}
	mux := http.NewServeMux()
	mux.HandleFunc("/static/", func(w http.ResponseWriter, req *http.Request) {
		switch data, ok := static[req.URL.Path]; {
		case ok:
			http.ServeContent(w, req, "", baseTime, bytes.NewReader(data))
		case strings.HasPrefix(req.URL.Path, "/static/redirect"):
			http.Redirect(w, req, "/static/hello.txt", http.StatusFound)
		case strings.HasPrefix(req.URL.Path, "/static/named"):
			w.Header().Set("Content-Disposition", `attachment; filename="from-header.txt"`)
			http.ServeContent(w, req, "", baseTime, bytes.NewReader([]byte("named\n")))
		default:
			http.NotFound(w, req)
		}
	})
	backend, err := makeRepository(ctx, dir)
	if err != nil {
		return fmt.Errorf("git repository: %w", err)
	}
	mux.Handle("/git/", backend)
	r.sources = mux
	return nil
}

// makeRepository makes the repository with git itself and returns the handler that serves it by git's own CGI program.
func makeRepository(ctx context.Context, dir string) (http.Handler, error) {
	tree, root := filepath.Join(dir, "tree"), filepath.Join(dir, "served")
	if err := os.MkdirAll(filepath.Join(tree, "sub"), 0o755); err != nil {
		return nil, err
	}
	git := func(args ...string) error {
		cmd := exec.CommandContext(ctx, "git", append([]string{"-C", tree, "-c", "user.name=A", "-c", "user.email=a@example.org"}, args...)...)
		date := baseTime.Format("2006-01-02T15:04:05Z")
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_AUTHOR_DATE="+date, "GIT_COMMITTER_DATE="+date)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("git %s: %w: %s", args[0], err, out)
		}
		return nil
	}
	for _, step := range []struct {
		file, content string
		mode          os.FileMode
		then          [][]string
	}{
		{"README", "first\n", 0o644, [][]string{{"init", "-q", "-b", "main"}, {"add", "."}, {"commit", "-qm", "first"}, {"tag", "v1"}}},
		{"sub/run.sh", "#!/bin/sh\n", 0o755, [][]string{{"add", "."}, {"commit", "-qm", "second"}, {"checkout", "-qb", "side"}}},
		{"Dockerfile", "FROM scratch\nCOPY README /from-git\n", 0o644, [][]string{{"add", "."}, {"commit", "-qm", "third"}, {"checkout", "-q", "main"},
			{"clone", "-q", "--bare", ".", filepath.Join(root, "repo.git")}}},
	} {
		if err := os.WriteFile(filepath.Join(tree, step.file), []byte(step.content), step.mode); err != nil {
			return nil, err
		}
		for _, args := range step.then {
			if err := git(args...); err != nil {
				return nil, err
			}
		}
	}
	path, err := exec.CommandContext(ctx, "git", "--exec-path").Output()
	if err != nil {
		return nil, err
	}
	return &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(path)), "git-http-backend"), Root: "/git",
		Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1",
			"GIT_CONFIG_KEY_0=uploadpack.allowAnySHA1InWant", "GIT_CONFIG_VALUE_0=true"},
	}, nil
}
