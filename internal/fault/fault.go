// Package fault says what went wrong in the terms that a caller of the program acts on: the exit code.
package fault

import (
	"context"
	"errors"
	"fmt"
)

// Kind is why a run ended. The numbers are the exit codes (DESIGN section 8).
type Kind int

// The kinds.
const (
	Build       Kind = 1   // the build failed: a step, the Dockerfile, a file that is missing
	Usage       Kind = 2   // the command line or a settings file is wrong
	Machine     Kind = 3   // the machine lacks something: a runtime, a privilege, disk space
	Registry    Kind = 4   // a registry or the network
	Interrupted Kind = 130 // ^C or SIGTERM
)

type fault struct {
	kind Kind
	err  error
}

func (f *fault) Error() string { return f.err.Error() }
func (f *fault) Unwrap() error { return f.err }

// New gives err a kind; nil stays nil. The innermost kind of an error counts: who saw it first knew it best.
func New(kind Kind, err error) error {
	if err == nil {
		return nil
	}
	var f *fault
	if errors.As(err, &f) {
		return err
	}
	return &fault{kind: kind, err: err}
}

// Errorf is fmt.Errorf with a kind.
func Errorf(kind Kind, format string, args ...any) error {
	return New(kind, fmt.Errorf(format, args...))
}

// Of tells the kind of err: what New gave it, Interrupted for a cancelled context, otherwise Build.
func Of(err error) Kind {
	var f *fault
	if errors.As(err, &f) {
		return f.kind
	}
	if errors.Is(err, context.Canceled) {
		return Interrupted
	}
	return Build
}
