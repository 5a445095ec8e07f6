package cli

import (
	"github.com/docker/go-units"
	"github.com/spf13/pflag"

	"larder/internal/build"
)

// mountFlags are the flags about cache mounts.
type mountFlags struct {
	mode    string
	exclude []string
	keep    int
	size    string
	auto    bool
}

func (f *mountFlags) register(fl *pflag.FlagSet) {
	fl.StringVar(&f.mode, "cache-mounts", "readwrite", "What remote caches do for cache mounts: readwrite restores and saves them, read only restores, off neither")
	fl.StringArrayVar(&f.exclude, "cache-mount-exclude", nil, "Never save files of cache mounts that match this pattern (as in .dockerignore), beside those that tools keep credentials in")
	fl.IntVar(&f.keep, "cache-mount-keep", 30, "Drop files from cache mounts that the last N builds with the mount did not use; 0 for never")
	fl.StringVar(&f.size, "cache-mount-size", "8g", "Drop what was used least from cache mounts larger than this; 0 for no bound")
	fl.BoolVar(&f.auto, "auto-mounts", false, "Give RUN steps the cache mounts that the package managers in their commands can use")
}

func (f *mountFlags) request(r *build.Request) error {
	m := &r.Mounts
	switch f.mode {
	case "readwrite":
		m.Restore, m.Save = true, true
	case "read":
		m.Restore = true
	case "off":
	default:
		return usage("--cache-mounts %s: readwrite, read and off are known", f.mode)
	}
	m.Exclude = f.exclude
	if f.keep < 0 {
		return usage("--cache-mount-keep %d: a number of builds is expected", f.keep)
	}
	m.Keep = f.keep
	size, err := units.RAMInBytes(f.size)
	if err != nil || size < 0 {
		return usage("--cache-mount-size %s: a size such as 500m is expected", f.size)
	}
	m.Size = size
	r.AutoMounts = f.auto
	return nil
}
