package export

import (
	"os"
	"strconv"
	"strings"
)

// umask reads the process's mask. Asking the kernel by umask(2) would change it for every thread.
func umask() os.FileMode {
	b, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "Umask:"); ok {
			if n, err := strconv.ParseUint(strings.TrimSpace(v), 8, 12); err == nil {
				return os.FileMode(n)
			}
		}
	}
	return 0o022
}
