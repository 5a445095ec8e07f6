// Command devregistry serves the base images of hack/bases on loopback and takes pushes: the registry of `make demo`
// and of one's own experiments.
//
//	devregistry [-addr 127.0.0.1:5055] [-dir DIR] [-bases DIR] [IMAGE...]
//
// Without names it serves all base images that have been made. It says on standard output where it listens once it
// does, and stops at an interrupt.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"larder/internal/testregistry"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:5055", "where to listen; port 0 takes a free one")
	dir := flag.String("dir", filepath.Join(testregistry.CacheDir(), "registry"), "where contents are kept")
	bases := flag.String("bases", testregistry.BasesDir(), "OCI layouts to serve")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *addr, *dir, *bases, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "devregistry:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, addr, dir, bases string, images []string) (err error) {
	r, err := testregistry.Serve(testregistry.Options{Addr: addr, Dir: dir})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	all := len(images) == 0
	if all {
		images = testregistry.BaseNames()
	}
	for _, name := range images {
		layout := filepath.Join(bases, name)
		if _, err := os.Stat(layout); all && errors.Is(err, os.ErrNotExist) {
			continue
		}
		if _, err := r.PushLayout(ctx, name, layout); err != nil {
			return err
		}
	}
	fmt.Println("listening on", r.Addr)
	<-ctx.Done()
	return nil
}
