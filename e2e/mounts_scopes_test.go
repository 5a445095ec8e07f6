package e2e

import (
	"path/filepath"
	"strings"
	"testing"
)

// logged tells what earlier builds wrote into its mount, and adds a line of its own.
var logged = map[string]string{"Dockerfile": `ARG REGISTRY
FROM ${REGISTRY}/busybox
ARG JOB
RUN --mount=type=cache,target=/m echo "log: $(cat /m/log 2>/dev/null | tr '\n' ' ')" && echo $JOB >> /m/log
`}

// log builds with a job's name, on a new machine where root is empty, and gives what the mount had.
func (c *ci) log(t *testing.T, root, job string, flags ...string) string {
	t.Helper()
	flags = append([]string{"-o", "type=cacheonly", "--build-arg", "JOB=" + job}, flags...)
	var b *built
	if root == "" {
		b = c.fresh(t, flags...)
	} else {
		var err error
		if b, err = c.on(t, root, flags...); err != nil {
			t.Fatal(err)
		}
	}
	for _, line := range b.printed() {
		if log, ok := strings.CutPrefix(line, "log:"); ok {
			return strings.TrimSpace(log)
		}
	}
	t.Fatalf("the step did not run:\n%s", b.said)
	return ""
}

// TestMountScopes reads mounts as scopes and flags say: a job that may not write, and a scope of its own, change nothing for others.
func TestMountScopes(t *testing.T) {
	p := newCI(t, "busybox", logged)
	for _, step := range []struct {
		job, want string
		flags     []string
	}{
		{"a", "", nil},
		{"b", "a", nil},
		{"read-only", "a b", []string{"--cache-read-only"}},
		{"read", "a b", []string{"--cache-mounts", "read"}},
		{"off", "", []string{"--cache-mounts", "off"}},
		{"branch", "a b", []string{"--cache-scope", "branch"}},
		{"branch2", "a b branch", []string{"--cache-scope", "branch"}},
		{"leaf", "a b branch branch2", []string{"--cache-scope", "leaf", "--cache-scope-from", "branch"}},
		{"c", "a b", nil},
		{"d", "a b c", nil},
	} {
		if got := p.log(t, "", step.job, step.flags...); got != step.want {
			t.Errorf("%s sees %q, want %q", step.job, got, step.want)
		}
	}
}

// TestMountScopesOneMachine is a machine that keeps its root and builds for several scopes: nothing goes from a mount of one to that of
// another but what catalogs say.
func TestMountScopesOneMachine(t *testing.T) {
	p := newCI(t, "busybox", logged)
	root := filepath.Join(p.work, "kept")
	for _, step := range []struct {
		job, want string
		flags     []string
	}{
		{"a", "", nil},
		{"fork", "a", []string{"--cache-scope", "fork"}},
		{"b", "a", nil},
		{"read-only", "a b", []string{"--cache-read-only", "--cache-scope", "other"}},
		{"c", "a b", nil},
		{"fork2", "a fork", []string{"--cache-scope", "fork"}},
		{"d", "a b c", nil},
	} {
		if got := p.log(t, root, step.job, step.flags...); got != step.want {
			t.Errorf("%s sees %q, want %q", step.job, got, step.want)
		}
	}
	nothingLeft(t, root, root)
}
