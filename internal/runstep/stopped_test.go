package runstep

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"larder/internal/runtime"
)

func TestKilledBySignal(t *testing.T) {
	for code, want := range map[int]bool{0: false, 1: false, 127: false, 128: false, 129: true, 130: true, 137: true, 143: true, 165: true, 166: false, 255: false} {
		if Killed(code) != want {
			t.Errorf("exit code %d: %t", code, !want)
		}
		if code == 0 {
			continue
		}
		err := fmt.Errorf("a step: %w", &ProcessError{Err: &runtime.ExitError{Code: code}})
		if ended(t.Context(), err) == want {
			t.Errorf("exit code %d: a step's mounts are kept: %t", code, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if !ended(t.Context(), nil) || ended(ctx, nil) || ended(t.Context(), errors.New("of the machine")) {
		t.Error("a step that passed ended by itself, one that was stopped or could not run did not")
	}
}

// counted is a context that ends when it was asked for the nth time whether it has.
type counted struct {
	context.Context
	asked *int
	n     int
}

func (c counted) Err() error {
	if *c.asked++; *c.asked >= c.n {
		return context.Canceled
	}
	return nil
}

// TestCopyFile: a file is copied whole, or until the context ends.
func TestCopyFile(t *testing.T) {
	dir := t.TempDir()
	for _, size := range []int64{0, 1, piece - 1, piece, 2*piece + 5} {
		src, err := os.Create(filepath.Join(dir, "src"))
		if err := errors.Join(err, src.Truncate(size)); err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{100, 2} {
			dst, err := os.Create(filepath.Join(dir, "dst"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := src.Seek(0, 0); err != nil {
				t.Fatal(err)
			}
			want, stops := size, n == 2 && size >= piece
			if stops {
				want = piece
			}
			err = copyFile(counted{t.Context(), new(int), n}, dst, src)
			if st, serr := dst.Stat(); serr != nil || st.Size() != want || (err != nil) != stops {
				t.Errorf("%d bytes, asked up to %d times: copied %d, %v", size, n, st.Size(), err)
			}
			dst.Close()
		}
		src.Close()
	}
}

// TestResultsStopped: a copy that is stopped says why, and leaves no part of a file.
func TestResultsStopped(t *testing.T) {
	p := newPlace(t, Options{})
	c := p.open(Command{Step: Step{Op: commandOp("mkdir /r; truncate -s 64M /r/big")}}, p.busybox())
	defer c.Close(true)
	if err := c.Run(t.Context()); err != nil {
		t.Fatalf("%v: %s", err, &p.out)
	}
	stopped := errors.New("stopped")
	ctx, stop := context.WithCancelCause(t.Context())
	stop(stopped)
	for _, w := range []struct {
		ctx  context.Context
		want error
	}{
		{ctx, stopped},
		{counted{ctx, new(int), 5}, stopped},
	} {
		for _, path := range []string{"/r", "/r/big"} {
			dir := t.TempDir()
			if err := c.Copy(w.ctx, path, dir); !errors.Is(err, w.want) {
				t.Errorf("%s: %v", path, err)
			}
			if got := names(t, dir); got != "" {
				t.Errorf("%s: %q is left", path, got)
			}
		}
	}
}
