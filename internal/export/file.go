package export

import (
	"fmt"
	"os"
	"path/filepath"
)

// File is a file that appears under its name when it is complete and not before. Where the name is something else than a
// file (a pipe, a device), it is written as it goes.
type File struct {
	*os.File
	path string // "" for what is written as it goes
}

// CreateFile begins a file; directories above it are made. Commit or Abort ends it.
func CreateFile(path string) (*File, error) {
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
		if st.IsDir() {
			return nil, fmt.Errorf("%s is a directory, a file is to be written there", path)
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return nil, err
		}
		return &File{File: f}, nil
	} else if err == nil {
		// Through a symlink, the file is written where it leads.
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".")
	if err != nil {
		return nil, err
	}
	return &File{File: f, path: path}, nil
}

// WriteFile writes a whole file by way of CreateFile.
func WriteFile(path string, b []byte) error {
	f, err := CreateFile(path)
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := f.Write(b); err != nil {
		return err
	}
	return f.Commit()
}

// Commit makes the file visible.
func (f *File) Commit() error {
	if f.path == "" {
		return f.Close()
	}
	err := f.Chmod(0o666 &^ umask())
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), f.path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	f.path = ""
	return err
}

// Abort drops the file; after Commit it does nothing.
func (f *File) Abort() {
	if f.path != "" {
		os.Remove(f.Name())
		f.path = ""
	}
	f.Close()
}
