// Package docker writes images as docker load reads them, and loads them.
package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/distribution/reference"

	"larder/internal/content"
	"larder/internal/export"
	"larder/internal/fault"
	"larder/internal/image"
)

// Options say how an archive is written.
type Options struct {
	Store   *content.Store // where layers without a Fetch are
	Names   []string       // whole references
	Created time.Time      // of the entry in index.json: SOURCE_DATE_EPOCH, or now
}

// Write writes an archive for docker load: an OCI layout with docker's own manifest.json beside, so that older and newer
// readers find what they look for. An image of several platforms is an error of kind Usage.
func Write(ctx context.Context, w io.Writer, img *image.Image, opt Options) error {
	if len(img.Manifests) != 1 {
		return fault.New(fault.Usage, errors.New("docker load takes images of one platform: build one, or use type=oci"))
	}
	manifest, err := manifestFile(img, opt.Names)
	if err != nil {
		return err
	}
	index, err := export.IndexFile(img.Desc, opt.Names, opt.Created.UTC().Format(time.RFC3339))
	if err != nil {
		return err
	}
	return export.WriteArchive(ctx, w, export.Items(img, opt.Store), manifest, index, export.LayoutFile())
}

func manifestFile(img *image.Image, names []string) (export.Document, error) {
	m := img.Manifests[0]
	entry := struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{Config: export.BlobPath(m.ConfigDesc)}
	for _, l := range m.LayerDescs {
		entry.Layers = append(entry.Layers, export.BlobPath(l))
	}
	for _, n := range names {
		named, err := reference.ParseNormalizedNamed(n)
		if err != nil {
			return export.Document{}, fault.Errorf(fault.Usage, "name %q: %w", n, err)
		}
		entry.RepoTags = append(entry.RepoTags, reference.FamiliarString(reference.TagNameOnly(named)))
	}
	b, err := json.Marshal([]any{entry})
	return export.Document{Name: "manifest.json", Bytes: b}, err
}

// maxSaid bounds what is quoted of docker's output, in bytes.
const maxSaid = 2000

// Load gives an image to the docker engine that the docker command talks to.
func Load(ctx context.Context, img *image.Image, opt Options) error {
	path, err := exec.LookPath("docker")
	if err != nil {
		return fault.New(fault.Machine, errors.New("the docker command is not installed, which loading needs: "+
			"apt-get install docker.io, or write a file with --output type=docker,dest=image.tar"))
	}
	runCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(runCtx, path, "load")
	said := &tail{max: maxSaid}
	cmd.Stdout, cmd.Stderr = said, said
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("docker load: %w", ctx.Err())
		}
		return fault.Errorf(fault.Machine, "docker load: %w", err)
	}
	unwritten := Write(runCtx, in, img, opt)
	gone := errors.Is(unwritten, syscall.EPIPE) // docker stopped reading: what it says counts
	if unwritten != nil && !gone {
		cancel() // half an image must not be taken for a whole one
	}
	in.Close()
	err = cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("docker load: %w", ctx.Err())
	case unwritten != nil && !gone:
		return fmt.Errorf("docker load: %w", unwritten)
	case err != nil:
		return fault.Errorf(fault.Machine, "docker load: %w: %s", err, strings.TrimSpace(said.buf.String()))
	}
	return nil
}

// tail keeps the last bytes that were written.
type tail struct {
	buf bytes.Buffer
	max int
}

func (t *tail) Write(p []byte) (int, error) {
	t.buf.Write(p)
	if over := t.buf.Len() - t.max; over > 0 {
		t.buf.Next(over)
	}
	return len(p), nil
}
