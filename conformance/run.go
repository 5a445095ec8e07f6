package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
)

// A runner builds cases with two builders, some at once, and prints what differs.
type runner struct {
	o                  options
	registry           string
	reference, subject builder
	empty              builder // the subject with nothing but the registry

	mu  sync.Mutex
	out io.Writer
}

// run reports whether every counted case agrees. Cases that wait for a later issue are left out, or, with -all, run and
// shown but not counted.
func (r *runner) run(ctx context.Context, cases []*testCase) (bool, error) {
	var counted, passed, waiting, early int
	var failed, attributes, anew []string
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, r.o.jobs))
	for _, c := range cases {
		if c.skipIssue > 0 {
			if waiting++; !r.o.all {
				continue
			}
		} else {
			counted++
		}
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			diffs, err := r.compare(ctx, c)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			switch {
			case len(diffs) > 0:
				failed = append(failed, c.name)
			case c.skipIssue > 0:
				early++
			default:
				passed++
			}
			if c.attributes {
				attributes = append(attributes, c.name)
			}
			if c.anew {
				anew = append(anew, c.name)
			}
			r.print(c, diffs)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return false, err
	}
	if waiting > 0 {
		fmt.Fprintf(r.out, "%d more wait for a later issue", waiting)
		if r.o.all {
			fmt.Fprintf(r.out, ", %d of them agree already", early)
		}
		fmt.Fprintln(r.out)
	}
	if len(attributes) > 0 {
		fmt.Fprintf(r.out, "user attributes that BuildKit loses and larder keeps: %s\n", strings.Join(attributes, " "))
	}
	if len(anew) > 0 {
		fmt.Fprintf(r.out, "not the very same image, times and all, on an empty machine: %s\n", strings.Join(anew, " "))
	}
	if len(failed) > 0 {
		fmt.Fprintf(r.out, "different: %s\n", strings.Join(failed, " "))
	}
	fmt.Fprintf(r.out, "%d of %d\n", passed, counted)
	return passed == counted && counted > 0, nil
}

func (r *runner) print(c *testCase, diffs []string) {
	switch {
	case len(diffs) == 0 && r.o.verbose:
		fmt.Fprintf(r.out, "ok   %s\n", c.name)
	case len(diffs) > 0:
		fmt.Fprintf(r.out, "DIFF %s\n", c.name)
		for _, d := range diffs {
			fmt.Fprintf(r.out, "     %s\n", strings.ReplaceAll(d, "\n", "\n     "))
		}
	}
}

// compare builds the case with both builders, and twice more with the subject, whose caches, the local one and the remote one, must
// not change the result. What it returns as an error is the comparison's own trouble.
func (r *runner) compare(ctx context.Context, c *testCase) ([]string, error) {
	w := workdir{dir: filepath.Join(r.o.work, "cases", c.name), registry: r.registry}
	if err := w.prepare(c); err != nil {
		return nil, err
	}
	if !r.o.keep {
		defer os.RemoveAll(w.dir)
	}
	var problems []string
	build := func(b builder, file string) ([]*image, error) {
		images, problem, err := r.build(ctx, c, w, b, file)
		if problem != "" {
			problems = append(problems, problem)
		}
		return images, err
	}
	want, err := build(r.reference, "reference.tar")
	if err != nil {
		return nil, err
	}
	if r.o.show {
		r.show(c, want)
	}
	if problems != nil {
		return problems, nil
	}
	got, err := build(r.subject, "subject.tar")
	if err != nil || c.fail != nil {
		return problems, err
	}
	if problems != nil {
		return judge(c, problems), nil
	}
	diffs := &comparison{want: r.reference.name(), got: r.subject.name(), lenient: true}
	diffs.images(want, got)
	c.attributes = diffs.overlooked
	if again := (&comparison{want: "first build", got: "second build"}); !r.o.once {
		warm, err := build(r.subject, "again.tar")
		if err != nil || problems != nil {
			return problems, err
		}
		again.images(got, warm)
		problems = again.diffs
		remote, err := build(r.empty, "remote.tar")
		if err != nil {
			return problems, err
		}
		fresh := &comparison{want: "first build", got: "build on an empty machine"}
		fresh.images(got, remote)
		problems = append(problems, fresh.diffs...)
		if c.anew, err = differ(filepath.Join(w.dir, "subject.tar"), filepath.Join(w.dir, "remote.tar")); err != nil {
			return problems, err
		}
	}
	if r.o.edits > 0 {
		wrong, err := r.edit(ctx, c, w)
		if err != nil {
			return problems, err
		}
		problems = append(problems, wrong...)
	}
	return append(judge(c, diffs.diffs), problems...), nil
}

// judge takes a known fault of BuildKit's into account: then a difference is right, and agreement worth a look.
func judge(c *testCase, diffs []string) []string {
	switch {
	case c.bug == "":
		return diffs
	case len(diffs) == 0:
		return []string{"no difference, though BuildKit is said to be at fault: " + c.bug}
	}
	return nil
}

// build has one builder build the case. problem says what is wrong with its answer, if anything.
func (r *runner) build(ctx context.Context, c *testCase, w workdir, b builder, file string) (images []*image, problem string, err error) {
	dest := filepath.Join(w.dir, file)
	out, buildErr := b.build(ctx, c, w, dest)
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	if r.o.keep {
		if err := os.WriteFile(dest+".log", []byte(out), 0o644); err != nil {
			return nil, "", err
		}
	}
	if c.fail != nil {
		switch {
		case buildErr == nil:
			return nil, b.name() + " built what it must refuse", nil
		case !c.fail.MatchString(out):
			return nil, fmt.Sprintf("%s refuses without a word of %q:\n%s", b.name(), c.fail, r.excerpt(out)), nil
		}
		return nil, "", nil
	}
	if buildErr != nil {
		return nil, fmt.Sprintf("%s does not build it: %v\n%s", b.name(), buildErr, r.excerpt(out)), nil
	}
	images, err = readImages(dest)
	if err != nil {
		return nil, fmt.Sprintf("%s wrote an unsound image: %v", b.name(), err), nil
	}
	return images, "", nil
}

// excerpt is the end of a build's output, all of it with -v.
func (r *runner) excerpt(out string) string {
	const lines = 12
	list := strings.Split(strings.TrimSpace(out), "\n")
	if !r.o.verbose && len(list) > lines {
		list = append([]string{"..."}, list[len(list)-lines:]...)
	}
	return "| " + strings.Join(list, "\n| ")
}

func (r *runner) show(c *testCase, images []*image) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, img := range images {
		fmt.Fprintf(r.out, "== %s %s", c.name, img.listing())
	}
}
