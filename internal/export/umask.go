package export

import (
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// umask is the mask of the user who started the process.
var umask = sync.OnceValue(readUmask)

// TakeUmask makes the mask that the process has now the one that counts for files of the user's, and gives the process
// another for what it makes on its own: what a build makes must not depend on who started it.
func TakeUmask(own int) {
	umask()
	unix.Umask(own)
}

// readUmask reads the process's mask. Asking the kernel by umask(2) would change it for every thread.
func readUmask() os.FileMode {
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
