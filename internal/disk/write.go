package disk

import (
	"bytes"
	"os"

	"golang.org/x/sys/unix"
)

// WriteFull writes all of p at an offset.
func WriteFull(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("write", err)
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// Hole is the multiple of bytes at which WriteSparse begins to leave something out.
const Hole = 32 << 10

var zeros [Hole]byte

// WriteSparse writes p but for blocks of zeros, which stay holes; the caller sees to the file's size. Blocks begin at multiples
// of Hole in the file, wherever off is; the first and the last may be shorter.
func WriteSparse(fd int, p []byte, off int64) error {
	start := 0
	for at := 0; at < len(p); {
		end := min(at+Hole-int((off+int64(at))%Hole), len(p))
		if bytes.Equal(p[at:end], zeros[:end-at]) {
			if err := WriteFull(fd, p[start:at], off+int64(start)); err != nil {
				return err
			}
			start = end
		}
		at = end
	}
	return WriteFull(fd, p[start:], off+int64(start))
}
