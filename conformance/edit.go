package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// found begins what larder says of a hit that came out otherwise when it was run again (--cache-verify).
const found = "differs from the cache: "

// edit changes files of the case's context, one after the other, and builds after each with the subject, which runs again what its caches have
// for the edited context. A build may fail: an archive that was edited is none any more. A hit that is wrong may not be.
func (r *runner) edit(ctx context.Context, c *testCase, w workdir) (wrong []string, err error) {
	subject, ok := r.subject.(larder)
	if !ok {
		return nil, nil
	}
	subject.verify = true
	var files []string
	err = filepath.WalkDir(w.contextDir(c), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && path != w.dockerfile(c) && !strings.HasSuffix(path, ".dockerignore") {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	files = append(files, filepath.Join(w.contextDir(c), "a-new-file"))
	for i := range min(r.o.edits, len(files)) {
		path := files[len(files)-1-i*max(1, len(files)/r.o.edits)%len(files)]
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return nil, err
		}
		if _, err = f.WriteString("edited\n"); err == nil {
			err = f.Close()
		}
		if err != nil {
			return nil, err
		}
		out, _ := subject.build(ctx, c, w, filepath.Join(w.dir, "edited.tar"))
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for line := range strings.Lines(out) {
			if _, what, ok := strings.Cut(line, found); ok {
				wrong = append(wrong, fmt.Sprintf("after an edit of %s a wrong hit: %s", filepath.Base(path), strings.TrimSpace(what)))
			}
		}
	}
	return wrong, nil
}
