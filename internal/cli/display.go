package cli

import (
	"fmt"
	"os"

	"larder/internal/fault"
	"larder/internal/progress"
)

type stream = progress.Stream

// lookupEnv is where variables come from.
var lookupEnv = os.LookupEnv

// withDisplay shows the progress of do on standard error.
func withDisplay[T any](e *env, f *buildFlags, do func(*stream) (T, error)) (T, error) {
	mode := f.progress
	if f.quiet || f.check || f.call != "" && f.call != "build" {
		mode = "quiet"
	}
	s := progress.NewStream()
	wait, err := progress.Show(s, e.err, mode)
	if err != nil {
		var none T
		return none, fault.New(fault.Usage, err)
	}
	res, err := do(s)
	s.Close()
	warnings := wait()
	if mode != "quiet" && mode != "none" && mode != "rawjson" && err == nil && len(warnings) > 0 {
		fmt.Fprintf(e.err, "\n%d warning(s) found in the Dockerfile:\n", len(warnings))
		for _, w := range warnings {
			fmt.Fprintf(e.err, " - %s\n", w.Short)
		}
	}
	return res, err
}
