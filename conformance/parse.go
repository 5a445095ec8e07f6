package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/txtar"
)

// A testCase is one file of the corpus. It is read-only once the builds begin.
//
// The comment of the txtar archive holds one directive a line, `name: arguments`; lines that start with # say what the
// case is about. Arguments are separated by spaces; one that starts with a double quote is a Go string, for odd names.
//
//	args: --target=x --build-arg A=b     flags for `larder build`, translated for buildctl
//	env: NAME=value                      environment of both builders' clients
//	context: DIR                         the build context, when it is not the archive's root
//	dockerfile: FILE                     the Dockerfile, when it is not Dockerfile
//	fail: REGEXP                         both must refuse, and both say something that matches
//	skip-issue: N                        written ahead of issue N: run with -all, not counted before
//	bug: TEXT                            a difference is expected, and is BuildKit's fault: TEXT says why
//
// and what txtar cannot express, done in the order of the lines (see prepare in workdir.go):
//
//	file: NAME CONTENT     mkdir: NAME          sparse: NAME SIZE      mode: OCTAL NAME...
//	symlink: NAME TARGET   hardlink: NAME OLD   owner: UID:GID NAME... xattr: NAME KEY VALUE
//	fifo: NAME             socket: NAME         device: NAME c|b MAJOR MINOR
//	archive: NAME DIR      a tar of DIR, compressed as NAME's ending says; DIR is usually ../something
//
// Names are relative to the context's root; ../NAME lies beside it, in the case's own directory, which $WORK names in args
// and env. REGISTRY in a file, args or env is replaced by the address of the registry with the base images.
type testCase struct {
	name       string
	args       []string
	env        []string
	context    string
	dockerfile string
	fail       *regexp.Regexp
	skipIssue  int
	bug        string
	attributes bool // found: images differ in user attributes alone, which is BuildKit's fault
	anew       bool // an empty machine with the remote cache made another image, if only in its times
	setup      []directive
	files      []txtar.File
}

type directive struct {
	line int
	name string
	args []string
}

// parseCases reads every case below dir whose name matches run, sorted by name.
func parseCases(dir string, run *regexp.Regexp) ([]*testCase, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("no *.txtar in %s", dir)
	}
	var cases []*testCase
	for _, p := range paths {
		name := strings.TrimSuffix(filepath.Base(p), ".txtar")
		if !run.MatchString(name) {
			continue
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return nil, err
		}
		c, err := parseCase(name, data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		cases = append(cases, c)
	}
	return cases, nil
}

// parseCase reads one case; name is its file without the ending.
func parseCase(name string, data []byte) (*testCase, error) {
	ar := txtar.Parse(data)
	c := &testCase{name: name, dockerfile: "Dockerfile", files: ar.Files}
	for i, line := range strings.Split(string(ar.Comment), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, rest, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("line %d: not a directive: %q", i+1, line)
		}
		if err := c.directive(i+1, key, strings.TrimSpace(rest)); err != nil {
			return nil, fmt.Errorf("line %d: %s: %w", i+1, key, err)
		}
	}
	return c, nil
}

func (c *testCase) directive(line int, key, rest string) error {
	var err error
	switch key {
	case "fail":
		c.fail, err = regexp.Compile(rest)
		return err
	case "bug":
		c.bug = rest
		return nil
	}
	words, err := splitWords(rest)
	if err != nil {
		return err
	}
	if len(words) == 0 {
		return errors.New("no argument")
	}
	switch key {
	case "args":
		c.args = append(c.args, words...)
	case "env":
		c.env = append(c.env, words...)
	case "context":
		c.context = words[0]
	case "dockerfile":
		c.dockerfile = words[0]
	case "skip-issue":
		c.skipIssue, err = strconv.Atoi(words[0])
	default:
		want, ok := setupArgs[key]
		if !ok {
			return errors.New("unknown directive")
		}
		if len(words) < want {
			return fmt.Errorf("%d arguments wanted", want)
		}
		c.setup = append(c.setup, directive{line, key, words})
	}
	return err
}

// splitWords splits at spaces; a word that begins with a double quote is a Go string literal.
func splitWords(s string) ([]string, error) {
	var words []string
	for {
		s = strings.TrimLeft(s, " \t")
		switch {
		case s == "":
			return words, nil
		case s[0] == '"':
			q, err := strconv.QuotedPrefix(s)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s, err)
			}
			w, err := strconv.Unquote(q)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", q, err)
			}
			words, s = append(words, w), s[len(q):]
		default:
			end := strings.IndexAny(s, " \t")
			if end < 0 {
				end = len(s)
			}
			words, s = append(words, s[:end]), s[end:]
		}
	}
}
