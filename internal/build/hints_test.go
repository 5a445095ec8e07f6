package build

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/subrequests/lint"
	"github.com/moby/buildkit/solver/pb"

	"larder/internal/frontend"
	"larder/internal/report"
)

// TestHintsJoinTheCheck puts warnings beside what BuildKit found; what it found stays.
func TestHintsJoinTheCheck(t *testing.T) {
	const (
		strict = "# check=error=true\n"
		stamp  = "FROM a:1\nRUN date > /stamp\n"
	)
	own := lint.Warning{RuleName: "Own", Detail: "own fault", Location: &pb.Location{Ranges: []*pb.Range{{Start: &pb.Position{Line: 1}, End: &pb.Position{Line: 1}}}}}
	for name, c := range map[string]struct {
		call, file string
		found      lint.LintResults
		status     string
		text       []string // in this order
		err        string
	}{
		"nothing":            {"check", "FROM a:1\n", lint.LintResults{}, "0", nil, ""},
		"no check":           {"outline", stamp, lint.LintResults{}, "", nil, ""},
		"one more":           {"check", stamp, lint.LintResults{Warnings: []lint.Warning{own}}, "1", []string{"WARNING: Own", "own fault", "WARNING: CacheTimestamp", "Dockerfile:2", ">>> RUN date"}, ""},
		"as JSON":            {"check,format=json", stamp, lint.LintResults{}, "1", []string{"CacheTimestamp"}, ""},
		"an error":           {"check", strict + stamp, lint.LintResults{}, "1", []string{"CacheTimestamp", "for rules: CacheTimestamp\n"}, "lint violation found for rules: CacheTimestamp"},
		"errors of both":     {"check", strict + stamp, lint.LintResults{Warnings: []lint.Warning{own, own}, Error: &lint.BuildError{Message: violation + "Own"}}, "1", []string{"Own", "CacheTimestamp"}, violation + "CacheTimestamp, Own"},
		"skipped":            {"check", "# check=skip=all;error=true\n" + stamp, lint.LintResults{}, "0", nil, ""},
		"another error":      {"check", strict + stamp, lint.LintResults{Error: &lint.BuildError{Message: "no such image"}}, "1", []string{"CacheTimestamp", "no such image"}, "no such image"},
		"not to be read":     {"check", "FROM a:1\nNONSENSE\n", lint.LintResults{Error: &lint.BuildError{Message: "unknown instruction"}}, "1", []string{"unknown instruction"}, "unknown instruction"},
		"errors are allowed": {"check", stamp, lint.LintResults{}, "1", []string{"CacheTimestamp"}, ""},
	} {
		c.found.Sources = []*pb.SourceInfo{{Filename: "Dockerfile", Data: []byte(c.file)}}
		raw, err := json.Marshal(&c.found)
		if err != nil {
			t.Fatal(err)
		}
		b := &building{req: &Request{Call: c.call}, front: &frontend.Result{Metadata: map[string][]byte{"result.json": raw}}}
		asked := false
		err = b.addHints(t.Context(), func(context.Context) *report.Build { asked = true; return nil })
		if strings.HasPrefix(c.call, "check") != asked {
			t.Errorf("%s: the last build is asked for: %t", name, asked)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		said := b.front.Metadata
		text := string(said["result.txt"])
		for _, want := range c.text {
			_, rest, ok := strings.Cut(text, want)
			if !ok {
				t.Errorf("%s: no %q in\n%s", name, want, said["result.txt"])
			}
			text = rest
		}
		if c.text == nil && text != "" || string(said["result.statuscode"]) != c.status {
			t.Errorf("%s: status %s\n%s", name, said["result.statuscode"], text)
		}
		var got lint.LintResults
		if err := json.Unmarshal(said["result.json"], &got); err != nil {
			t.Fatal(err)
		}
		if msg := got.Error; (msg == nil) != (c.err == "") || msg != nil && msg.Message != c.err {
			t.Errorf("%s: %+v", name, msg)
		}
	}
}

func nothing(context.Context) *report.Build { return nil }

func TestHintsOfWhatIsNoAnswer(t *testing.T) {
	for _, said := range []string{"", "[", "{}"} {
		b := &building{req: &Request{Call: "check"}, front: &frontend.Result{Metadata: map[string][]byte{"result.json": []byte(said)}}}
		if err := b.addHints(t.Context(), nothing); (err == nil) != (said == "{}") {
			t.Errorf("%q: %v", said, err)
		}
	}
	rules := "nonsense"
	b := &building{req: &Request{Call: "check", Args: map[string]string{"BUILDKIT_DOCKERFILE_CHECK": rules}}}
	raw, err := json.Marshal(&lint.LintResults{Sources: []*pb.SourceInfo{{Data: []byte("FROM a\n")}}})
	if err != nil {
		t.Fatal(err)
	}
	b.front = &frontend.Result{Metadata: map[string][]byte{"result.json": raw}}
	if err := b.addHints(t.Context(), nothing); err == nil || !strings.Contains(err.Error(), rules) {
		t.Error(err)
	}
}
