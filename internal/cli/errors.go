package cli

import (
	"fmt"
	"io"
	"strings"

	"larder/internal/frontend"
)

// printError says what went wrong: the places in the Dockerfile with the lines around them, then the message.
func printError(w io.Writer, err error) {
	seen := map[string]bool{}
	failure := frontend.Describe(err)
	for _, p := range failure.Places { // the innermost first
		var place strings.Builder
		p.Print(&place)
		if !seen[place.String()] {
			seen[place.String()] = true
			fmt.Fprintf(w, "\n%s", place.String())
		}
	}
	fmt.Fprintf(w, "ERROR: %s\n", failure.Message)
}
