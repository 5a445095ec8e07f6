package cli

import (
	"fmt"
	"io"

	"github.com/moby/buildkit/solver/errdefs"
)

// printError says what went wrong: the place in the Dockerfile with the lines around it, then the message.
func printError(w io.Writer, err error) {
	if list := errdefs.Sources(err); len(list) > 0 {
		// The innermost place is where the step stands; outer ones only lead there.
		fmt.Fprintln(w)
		list[len(list)-1].Print(w)
	}
	fmt.Fprintf(w, "ERROR: %v\n", err)
}
