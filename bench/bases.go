package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

var baseLine = regexp.MustCompile(`(?m)^FROM \$\{REGISTRY\}/(\S+)`)

// placeBases makes a new machine with the base images of a contestant's working copy: it builds something else on them, without a
// remote cache. The builder runs then.
func (h *harness) placeBases(ctx context.Context, c *contestant) error {
	dockerfile, err := os.ReadFile(filepath.Join(c.dir, "Dockerfile"))
	if err != nil {
		return err
	}
	dir := filepath.Join(h.scratch, "bases")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), onBases(dockerfile), 0o644); err != nil {
		return err
	}
	if err := c.b.Start(ctx); err != nil {
		return err
	}
	return c.b.Build(ctx, job{dir: dir})
}

// onBases is a Dockerfile with a step on each base image of another one, so that all are unpacked.
func onBases(dockerfile []byte) []byte {
	var names []string
	for _, m := range baseLine.FindAllSubmatch(dockerfile, -1) {
		if name := string(m[1]); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	var steps, copies strings.Builder
	for i, name := range names {
		fmt.Fprintf(&steps, "FROM ${REGISTRY}/%s AS base%d\nRUN echo %s > /based-on\n", name, i, name)
		fmt.Fprintf(&copies, "COPY --from=base%d /based-on /base%d\n", i, i)
	}
	return []byte("ARG REGISTRY=localhost:5055\n" + steps.String() + "FROM scratch\n" + copies.String())
}
