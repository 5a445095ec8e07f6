package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"larder/internal/fault"
)

// Runtime is a container runtime that was found to work.
type Runtime struct {
	Name    string // "runc" or "crun"
	Path    string // absolute
	Version string // as it says of itself
}

// known are the runtimes that are tested, in the order in which they are looked for.
var known = []string{"runc", "crun"}

// Find looks for a runtime: want is "runc", "crun", a path to either, or empty for any. An error is of kind
// fault.Machine and says what to install.
func Find(ctx context.Context, want string) (Runtime, error) {
	names := known
	if want != "" {
		names = []string{want}
	}
	var why []error
	for _, name := range names {
		rt, err := probe(ctx, name)
		if err == nil {
			return rt, nil
		}
		if !errors.Is(err, exec.ErrNotFound) {
			why = append(why, err)
		}
	}
	if len(why) > 0 {
		return Runtime{}, fault.New(fault.Machine, errors.Join(why...))
	}
	if want != "" {
		return Runtime{}, fault.New(fault.Machine, fmt.Errorf("container runtime %s is not installed: apt-get install %s", want, filepath.Base(want)))
	}
	return Runtime{}, fault.New(fault.Machine, errors.New("a RUN step needs a container runtime, and neither runc nor crun is installed: apt-get install runc"))
}

// probe finds a runtime and asks for its version, which shows that it can be started at all.
func probe(ctx context.Context, name string) (Runtime, error) {
	path, err := lookPath(name)
	if err != nil {
		return Runtime{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return Runtime{}, fmt.Errorf("container runtime %s does not start: %w", path, err)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	kind, version, ok := strings.Cut(first, " version ")
	if !ok || kind != "runc" && kind != "crun" {
		return Runtime{}, fmt.Errorf("container runtime %s is neither runc nor crun: it calls itself %.80q", path, first)
	}
	return Runtime{Name: kind, Path: path, Version: strings.TrimSpace(version)}, nil
}

// lookPath is exec.LookPath that also looks where a user's PATH does not lead and distributions put runc.
func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return filepath.Abs(path)
	}
	if strings.Contains(name, "/") {
		return "", err
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		path := filepath.Join(dir, name)
		if fi, err := os.Stat(path); err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", err
}
