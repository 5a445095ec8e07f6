package main

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// packArchive writes a tar of everything below src, its root left out, compressed as dest's ending says. Owners, modes,
// links, devices and user.* attributes are kept as they lie on disk.
func packArchive(dest, src string) (err error) {
	f, err := os.Create(dest)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	switch {
	case strings.HasSuffix(dest, ".gz"), strings.HasSuffix(dest, ".tgz"):
		z := gzip.NewWriter(f)
		if err := packTree(z, src); err != nil {
			return err
		}
		return z.Close()
	case strings.HasSuffix(dest, ".zst"):
		z, err := zstd.NewWriter(f)
		if err != nil {
			return err
		}
		if err := packTree(z, src); err != nil {
			return err
		}
		return z.Close()
	case strings.HasSuffix(dest, ".xz"):
		return packThrough(f, src, "xz")
	case strings.HasSuffix(dest, ".bz2"):
		return packThrough(f, src, "bzip2")
	}
	return packTree(f, src)
}

// packThrough compresses with a program: neither format has a writer in the standard library.
func packThrough(w io.Writer, src, program string) error {
	cmd := exec.Command(program, "-c")
	cmd.Stdout = w
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s (on Debian: apt-get install xz-utils bzip2): %w", program, err)
	}
	perr := packTree(in, src)
	in.Close()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w", program, err)
	}
	return perr
}

func packTree(w io.Writer, src string) error {
	tw := tar.NewWriter(w)
	first := map[uint64]string{}
	err := filepath.WalkDir(src, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == src {
			return err
		}
		rel, err := filepath.Rel(src, p)
		if err != nil {
			return err
		}
		return packEntry(tw, p, rel, d, first)
	})
	if err != nil {
		return err
	}
	return tw.Close()
}

func packEntry(tw *tar.Writer, p, rel string, d fs.DirEntry, first map[uint64]string) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	var link string
	if info.Mode()&fs.ModeSymlink != 0 {
		if link, err = os.Readlink(p); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	h.Name, h.Format = rel, tar.FormatPAX
	if info.IsDir() {
		h.Name += "/"
	}
	// The names of this machine's users have no business in an archive of the corpus.
	h.Uname, h.Gname = "", ""
	if err := packAttrs(h, p); err != nil {
		return err
	}
	if info.Mode().IsRegular() {
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		if old, ok := first[st.Ino]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, old, 0
		} else {
			first[st.Ino] = rel
		}
	}
	if err := tw.WriteHeader(h); err != nil || h.Typeflag != tar.TypeReg {
		return err
	}
	f, err := os.Open(p)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(tw, f)
	return err
}

func packAttrs(h *tar.Header, p string) error {
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(p, buf)
	if err != nil {
		return err
	}
	for _, k := range strings.Split(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
		if !strings.HasPrefix(k, "user.") {
			continue
		}
		v := make([]byte, 4096)
		m, err := unix.Lgetxattr(p, k, v)
		if err != nil {
			return err
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[paxXattr+k] = string(v[:m])
	}
	return nil
}
