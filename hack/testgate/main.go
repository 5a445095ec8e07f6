// Command testgate reads `go test -json` and decides what CI thinks of it: it fails on a failed test, on a skipped
// one that no line of the -allow file names, and when no test ran at all. It prints the output of failed tests, and
// closes with go test's ordinary line for each package.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

// event is what test2json writes.
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Output     string
	Elapsed    float64
}

type testName struct{ pkg, test string }

// result collects a run.
type result struct {
	packages []string            // in order of their ends
	status   map[string]string   // package -> its closing line
	output   map[testName]string // of tests that are still running, failed or skipped
	failed   []testName
	skipped  []testName
	passed   int
	broken   bool // a package failed, with or without a failed test
}

func main() {
	allowFile := flag.String("allow", "", "list of tests that may be skipped: lines of package, test, # reason")
	flag.Parse()
	allowed, err := readAllowed(*allowFile)
	if err == nil {
		err = gate(os.Stdin, os.Stdout, allowed)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testgate:", err)
		os.Exit(1)
	}
}

func gate(in io.Reader, out io.Writer, allowed map[testName]bool) error {
	r := result{status: map[string]string{}, output: map[testName]string{}}
	if err := r.read(in, out); err != nil {
		return err
	}
	for _, t := range r.failed {
		fmt.Fprintf(out, "\n%s %s\n%s", t.pkg, t.test, r.output[t])
	}
	var unexpected []testName
	for _, t := range r.skipped {
		if !allowed[t] {
			unexpected = append(unexpected, t)
			fmt.Fprintf(out, "\n%s %s was skipped, and .ci/allowed-skips does not name it:\n%s", t.pkg, t.test, r.output[t])
		}
	}
	fmt.Fprintln(out)
	for _, p := range r.packages {
		fmt.Fprint(out, r.status[p])
	}
	switch {
	case len(r.failed) > 0 || r.broken:
		return fmt.Errorf("%d tests failed", len(r.failed))
	case len(unexpected) > 0:
		return fmt.Errorf("%d tests were skipped", len(unexpected))
	case r.passed == 0:
		return fmt.Errorf("no test ran")
	}
	fmt.Fprintf(out, "%d passed, 0 failed, %d skipped\n", r.passed, len(r.skipped))
	return nil
}

func (r *result) read(in io.Reader, out io.Writer) error {
	s := bufio.NewScanner(in)
	s.Buffer(nil, 4<<20)
	for s.Scan() {
		var e event
		if json.Unmarshal(s.Bytes(), &e) != nil {
			fmt.Fprintf(out, "%s\n", s.Bytes()) // a word of the go command itself
			continue
		}
		r.add(e, out)
	}
	return s.Err()
}

func (r *result) add(e event, out io.Writer) {
	t := testName{e.Package, e.Test}
	switch {
	case e.Action == "build-output":
		fmt.Fprint(out, e.Output)
	case e.Action == "build-fail":
		r.broken = true
	case e.Action == "output" && e.Test == "":
		if closing(e.Output) {
			r.status[e.Package] = e.Output
		} else if e.Output != "PASS\n" {
			r.output[t] += e.Output
		}
	case e.Action == "output":
		r.output[t] += e.Output
	case e.Test == "" && (e.Action == "pass" || e.Action == "fail" || e.Action == "skip"):
		r.packages = append(r.packages, e.Package)
		if e.Action == "fail" {
			r.broken = true
			fmt.Fprint(out, r.output[t]) // a panic or a timeout belongs to no test
		}
	case e.Action == "pass":
		r.passed++
		delete(r.output, t)
	case e.Action == "fail":
		r.failed = append(r.failed, t)
	case e.Action == "skip":
		r.skipped = append(r.skipped, t)
	}
}

// closing tells go test's line about a whole package from other output.
func closing(line string) bool {
	for _, start := range []string{"ok  \t", "FAIL\t", "?   \t", "\t"} {
		if strings.HasPrefix(line, start) {
			return true
		}
	}
	return false
}

// readAllowed reads the list of tests that may be skipped.
func readAllowed(path string) (map[testName]bool, error) {
	allowed := map[testName]bool{}
	if path == "" {
		return allowed, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for i, line := range strings.Split(string(b), "\n") {
		entry, reason, _ := strings.Cut(line, "#")
		f := strings.Fields(entry)
		if len(f) == 0 {
			continue
		}
		if len(f) != 2 || strings.TrimSpace(reason) == "" {
			return nil, fmt.Errorf("%s:%d: want package, test, # reason", path, i+1)
		}
		allowed[testName{f[0], f[1]}] = true
	}
	return allowed, nil
}
