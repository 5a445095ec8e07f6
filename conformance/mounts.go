package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// mountsBelow lists the mount points below dir that this process sees. A builder must leave none; and what is mounted
// must not be removed with the working directory, since it may be anybody's.
func mountsBelow(dir string) ([]string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var list []string
	for _, line := range strings.Split(string(data), "\n") {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		// Spaces, tabs, newlines and backslashes are written as octal escapes, which Go's quoting knows too.
		p, err := strconv.Unquote(`"` + strings.ReplaceAll(f[4], `"`, `\"`) + `"`)
		if err != nil {
			return nil, fmt.Errorf("mount point %q: %w", f[4], err)
		}
		if strings.HasPrefix(p, dir+"/") {
			list = append(list, p)
		}
	}
	return list, nil
}

// cleanUp removes the working directory unless something is still mounted there.
func cleanUp(dir string, out io.Writer) error {
	left, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		fmt.Fprintf(out, "%s is kept: still mounted are %s\n", dir, strings.Join(left, " "))
		return errors.New("mounts are left")
	}
	return os.RemoveAll(dir)
}
