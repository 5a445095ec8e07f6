package build

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/subrequests/lint"

	"larder/internal/fault"
	"larder/internal/hints"
	"larder/internal/key"
	"larder/internal/report"
	"larder/internal/tree"
)

// violation begins the error of BuildKit's check for a Dockerfile that wants warnings to be errors.
const violation = "lint violation found for rules: "

// addHints adds what defeats caching to what BuildKit's check says, as warnings of the same form. last gives what is known of the last build
// of this Dockerfile, nil where nothing is; it may ask a remote cache. It does nothing for a build that is no check.
func (b *building) addHints(ctx context.Context, last func(context.Context) *report.Build) error {
	call, _, _ := strings.Cut(b.req.Call, ",")
	said, ok := b.front.Metadata["result.json"]
	if call != "check" || !ok {
		return nil
	}
	results := new(lint.LintResults)
	if err := json.Unmarshal(said, results); err != nil {
		return fmt.Errorf("what the check found: %w", err)
	}
	if len(results.Sources) == 0 {
		return nil
	}
	req := hints.Request{
		Dockerfile: results.Sources[0].Data, Target: b.req.Target, Args: b.req.Args,
		Contexts: slices.Collect(maps.Keys(b.req.Contexts)), Last: last(ctx), Files: b.storedTree,
	}
	if rules, ok := b.req.Args["BUILDKIT_DOCKERFILE_CHECK"]; ok {
		req.Rules = &rules
	}
	found, err := hints.Check(req)
	if err != nil && results.Error == nil {
		return fault.Errorf(fault.Build, "check what defeats caching: %w", err)
	}
	for _, w := range found.Warnings {
		results.AddWarning(w.Rule, w.Description, w.URL, w.Detail, 0, w.Where)
	}
	if found.Errors && len(results.Warnings) > 0 && (results.Error == nil || strings.HasPrefix(results.Error.Message, violation)) {
		results.Error = &lint.BuildError{Message: violation + strings.Join(broken(results), ", ")}
	}
	return b.answerCheck(results)
}

// storedTree opens a tree of the local root; nil for one that is not there.
func (b *building) storedTree(d key.Digest) *tree.Node {
	n, err := b.e.records.Tree(d)
	if err != nil {
		return nil
	}
	return n
}

// broken lists the rules that have warnings, each once.
func broken(results *lint.LintResults) []string {
	var out []string
	for _, w := range results.Warnings {
		out = append(out, w.RuleName)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// answerCheck makes results the answer of the check.
func (b *building) answerCheck(results *lint.LintResults) error {
	res, err := results.ToResult(nil)
	if err != nil {
		return fmt.Errorf("what the check found: %w", err)
	}
	if results.Error != nil { // which stands in the JSON only
		text := bytes.NewBuffer(res.Metadata["result.txt"])
		if text.Len() > 0 {
			text.WriteByte('\n')
		}
		results.PrintErrorTo(text, nil)
		res.Metadata["result.txt"] = text.Bytes()
	}
	maps.Copy(b.front.Metadata, res.Metadata)
	return nil
}
