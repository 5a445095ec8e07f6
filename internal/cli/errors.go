package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/moby/buildkit/solver/errdefs"
)

// printError says what went wrong: the places in the Dockerfile with the lines around them, then the message.
func printError(w io.Writer, err error) {
	seen := map[string]bool{}
	for _, src := range errdefs.Sources(err) { // the innermost first
		var place strings.Builder
		src.Print(&place)
		if !seen[place.String()] {
			seen[place.String()] = true
			fmt.Fprintf(w, "\n%s", place.String())
		}
	}
	fmt.Fprintf(w, "ERROR: %v\n", err)
}
