package progress

import (
	"context"
	"fmt"
	"os"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"
)

// Modes are the words that --progress takes.
var Modes = []string{"auto", "plain", "tty", "quiet", "none", "rawjson"}

// Show displays the stream's events on out until the stream is closed, and gives the warnings that came by. It goes on
// when the build is interrupted: the end of a build belongs on the screen.
func Show(s *Stream, out *os.File, mode string) (func() []client.VertexWarning, error) {
	if mode == "none" {
		mode = "quiet"
	}
	d, err := progressui.NewDisplay(out, progressui.DisplayMode(mode))
	if err != nil {
		return nil, fmt.Errorf("--progress=%s: %w", mode, err)
	}
	var warnings []client.VertexWarning
	done := make(chan struct{})
	go func() {
		defer close(done)
		warnings, _ = d.UpdateFrom(context.Background(), s.ch)
		for range s.ch { // a display that failed must not stop the build
		}
	}()
	return func() []client.VertexWarning {
		<-done
		return warnings
	}, nil
}
