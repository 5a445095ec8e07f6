package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"larder/internal/fault"
	"larder/internal/observation"
	"larder/internal/report"
)

// explain runs the command on a local root.
func explain(t *testing.T, root string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	e := &env{out: &out, err: os.Stderr, settings: &settings{}}
	cmd := explainCommand(e, e.withPast)
	cmd.Flags().String("root", root, "")
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	err := cmd.Execute()
	return out.String(), err
}

func TestExplain(t *testing.T) {
	root := t.TempDir()
	if _, err := explain(t, root); err == nil || fault.Of(err) != fault.Build || !strings.Contains(err.Error(), "no build is known here yet") {
		t.Errorf("without a build: %v", err)
	}
	dir := filepath.Join(root, "builds")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	ids := []string{"20260101T100000-aa", "20260101T100000-ab", "20260102T100000-cd"}
	write := func(name string, data []byte, at time.Time) {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(file, data, 0o644), os.Chtimes(file, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	for i, id := range ids {
		b := report.Build{ID: id, Began: time.Now().Add(-time.Hour), Steps: []report.Step{{
			Name: "[2/2] RUN npm ci " + id, Type: report.Run, How: report.Ran, Why: []report.Cause{{Kind: report.New, Text: "never seen before"}},
			Inputs: []report.Input{{Place: "/", Groups: []report.Group{{Observed: true, Seen: []report.Seen{{Path: "app/package.json", Kind: observation.Content}}}}}},
		}}}
		data, err := b.Marshal(1 << 20)
		if err != nil {
			t.Fatal(err)
		}
		write(id+".json.zst", data, time.Now().Add(time.Duration(i)*time.Second))
	}
	write("zz.tmp", nil, time.Now())
	write("zz", nil, time.Now())
	// The clock was ahead when this one was written.
	write("20990101T100000-xx.json.zst", []byte("damage"), time.Now().Add(-time.Hour))
	for _, c := range []struct {
		args string // with blanks between them
		want string
		code fault.Kind // 0 for success
	}{
		{"", "RUN npm ci 20260102T100000-cd\n    ran: never seen before", 0},
		{"20260101T100000-aa", "RUN npm ci 20260101T100000-aa", 0},
		{"20260102", "RUN npm ci 20260102T100000-cd", 0},
		{"--reads npm", "read  /app/package.json", 0},
		{"20260101", "2 builds, say more of it:\n  20260101T100000-aa\n  20260101T100000-ab", fault.Build},
		{"3", `no build "3" is known here; the last one is 20260102T100000-cd`, fault.Build},
		{"2099", "build 20990101T100000-xx cannot be read", fault.Build},
		{"--reads nothing", `has no step "nothing"; its RUN steps:`, fault.Usage},
		{"--reads npm --json", "does not go with --json", fault.Usage},
		{"a b", "takes one build, not 2", fault.Usage},
	} {
		out, err := explain(t, root, strings.Fields(c.args)...)
		if err != nil {
			out = err.Error()
		}
		if (err == nil) != (c.code == 0) || err != nil && fault.Of(err) != c.code || !strings.Contains(out, c.want) {
			t.Errorf("explain %s: %s, %v; want %q", c.args, out, err, c.want)
		}
	}
	out, err := explain(t, root, "--json")
	var b report.Build
	if err != nil || json.Unmarshal([]byte(out), &b) != nil || b.ID != ids[2] || b.Steps[0].Inputs[0].Groups[0].Seen[0].Path != "app/package.json" {
		t.Errorf("--json: %v %s", err, out)
	}
}
