package build

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"time"

	"github.com/containerd/platforms"

	"larder/internal/cache"
	"larder/internal/export"
	"larder/internal/export/docker"
	"larder/internal/export/local"
	"larder/internal/export/oci"
	pushto "larder/internal/export/registry"
	"larder/internal/export/tarball"
	"larder/internal/fault"
	"larder/internal/frontend"
	"larder/internal/image"
	"larder/internal/layer"
	"larder/internal/progress"
	"larder/internal/registry"
)

// outputs understands what the request says of outputs. Without any, the image is made but not kept under its name: none of
// its blobs is fetched to have it whole. Neither is it where it is pushed, unless store=true says so.
func (r *Request) outputs() ([]*export.Output, error) {
	list := r.Outputs
	if len(list) == 0 {
		list = []map[string]string{{"type": export.Image, "store": "false"}}
	}
	var out []*export.Output
	for _, fields := range list {
		pushed := fields["type"] == "registry" || fields["type"] == export.Image && fields["push"] != ""
		if _, ok := fields["store"]; pushed && !ok {
			fields = maps.Clone(fields)
			fields["store"] = "false"
		}
		o, err := export.Parse(fields, r.Tags)
		if err != nil {
			return nil, err
		}
		for _, a := range r.Annotations {
			if err := o.Annotations.AddFlag(a); err != nil {
				return nil, fault.Errorf(fault.Usage, "--annotation: %w", err)
			}
		}
		if o.Dest == "-" && r.Stdout == nil {
			return nil, fault.Errorf(fault.Usage, "--output type=%s: say where it goes with dest=PATH; a terminal cannot show it", o.Type)
		}
		out = append(out, o)
	}
	return out, nil
}

// job is one export of a finished build.
type job struct {
	e      *Engine
	out    *export.Output
	req    *Request
	parts  []image.Part
	epoch  *time.Time
	multi  bool
	made   func(*layer.Layer) image.Made
	stream *progress.Stream

	session *cache.Session
}

// export hands the result to each output in turn.
func (b *building) export(ctx context.Context, parts []image.Part) (*Result, error) {
	res := &Result{Metadata: map[string]any{}}
	for _, o := range b.outputs {
		j := &job{
			e: b.e, out: o, req: b.req, parts: parts, epoch: epochOf(o, b.req, b.front), multi: b.front.Multi, stream: b.stream,
			session: b.session,
			made: func(l *layer.Layer) image.Made {
				rec, ok := b.solver.Made(l.Identity)
				if !ok {
					return image.Made{}
				}
				return image.Made{At: rec.Created, By: rec.Name}
			},
		}
		if err := j.run(ctx, res); err != nil {
			return nil, err
		}
	}
	return res, nil
}

func epochOf(o *export.Output, r *Request, front *frontend.Result) *time.Time {
	if o.Epoch != nil {
		return o.Epoch
	}
	for _, f := range front.Outputs {
		if f.Epoch != nil {
			return f.Epoch
		}
	}
	return r.Epoch
}

func (j *job) run(ctx context.Context, res *Result) error {
	switch j.out.Type {
	case export.CacheOnly:
		return nil
	case export.Local, export.Tar:
		return j.files(ctx)
	}
	return j.image(ctx, res)
}

// image assembles the image and brings it where it is wanted.
func (j *job) image(ctx context.Context, res *Result) (err error) {
	line := j.stream.Begin("exporting to image")
	defer func() { line.Done(err) }()
	ctx = progress.With(ctx, line)
	done := line.Status("exporting layers", 0)
	img, err := image.Assemble(ctx, j.parts, image.Options{
		Docker: j.out.DockerTypes, Index: j.multi, Annotations: j.out.Annotations, Epoch: j.epoch,
		Blob: j.blob, Made: j.made, Parallel: max(4, goruntime.NumCPU()), Extra: func(part int, layers []*layer.Blob) (map[string]json.RawMessage, error) {
			return j.inline(ctx, part, layers)
		},
	})
	if err != nil {
		return err
	}
	done(0, true)
	line.Note("image " + img.Desc.Digest.String())
	maps.Copy(res.Metadata, img.Metadata(j.out.Names))
	res.ID = img.Desc.Digest.String()
	if d := img.ConfigDigest(); d != "" {
		res.ID = d.String()
	}
	created := time.Now()
	if j.epoch != nil {
		created = *j.epoch
	}
	switch j.out.Type {
	case export.OCI:
		opt := oci.Options{Store: j.e.blobs, Names: j.out.Names, Created: created}
		if !j.out.AsTar {
			return oci.WriteDir(ctx, j.out.Dest, img, opt)
		}
		return j.write(func(w io.Writer) error { return oci.WriteTar(ctx, w, img, opt) })
	case export.Docker:
		opt := docker.Options{Store: j.e.blobs, Names: j.out.Names, Created: created}
		if j.out.Dest == "" {
			return docker.Load(ctx, img, opt)
		}
		return j.write(func(w io.Writer) error { return docker.Write(ctx, w, img, opt) })
	}
	if len(j.req.Outputs) == 0 && len(j.req.Tags) > 0 {
		line.Note("no output: the result stays in the cache, and nothing has the name " + strings.Join(j.req.Tags, ", ") + "; --push, --load or --output says where it goes")
	}
	if j.out.Store {
		if err := j.e.images().Put(ctx, img, j.out.Names, time.Now()); err != nil {
			return err
		}
	}
	if !j.out.Push {
		return nil
	}
	return j.push(ctx, img, line)
}

func (j *job) push(ctx context.Context, img *image.Image, line *progress.Vertex) error {
	client := j.e.registry
	if j.out.Insecure {
		var hosts []string
		for _, n := range j.out.Names {
			ref, err := registry.ParseRef(n)
			if err != nil {
				return err
			}
			hosts = append(hosts, ref.Host)
		}
		client = j.e.newRegistry(hosts...)
		defer client.Close()
	}
	res, err := pushto.Push(ctx, img, j.out.Names, pushto.Options{
		Client: client, Store: j.e.blobs, ByDigest: j.out.ByDigest, Event: line.Note,
	})
	if err != nil {
		return fault.New(fault.Registry, err)
	}
	line.Note(fmt.Sprintf("pushed %s: %d blobs sent, %d tags moved", strings.Join(j.out.Names, ", "), res.Sent, res.Tags))
	return nil
}

// form is how an output wants layers.
func form(o *export.Output, epoch *time.Time) layer.ExportOptions {
	opt := layer.ExportOptions{Compression: o.Compression, Level: o.Level, ForceCompression: o.Force}
	if !o.KeepTimes {
		opt.Epoch = epoch
	}
	return opt
}

// forms lists in what forms a build's outputs want layers.
func forms(outputs []*export.Output, r *Request, front *frontend.Result) []layer.ExportOptions {
	var list []layer.ExportOptions
	for _, o := range outputs {
		switch o.Type {
		case export.CacheOnly, export.Local, export.Tar:
		default:
			list = append(list, form(o, epochOf(o, r, front)))
		}
	}
	return list
}

// blob gives a layer's blob, once per layer, compression and epoch.
func (j *job) blob(ctx context.Context, l *layer.Layer) (*layer.Blob, error) {
	return j.session.Blob(ctx, l, form(j.out, j.epoch))
}

// files writes the merged file systems.
func (j *job) files(ctx context.Context) (err error) {
	line := j.stream.Begin("exporting files")
	defer func() { line.Done(err) }()
	ctx = progress.With(ctx, line)
	split := len(j.parts) > 1
	if j.out.Split != nil {
		split = *j.out.Split
	}
	var parts []tarball.Part
	for _, p := range j.parts {
		root, err := p.State.Merged(ctx)
		if err != nil {
			return err
		}
		part := tarball.Part{Root: root, Src: p.State.Contents()}
		if split {
			part.Dir = strings.ReplaceAll(platforms.Format(p.Platform), "/", "_")
		}
		parts = append(parts, part)
	}
	if j.out.Type == export.Local {
		var dirs []local.Part
		for _, p := range parts {
			dirs = append(dirs, local.Part(p))
		}
		return local.Write(ctx, j.out.Dest, dirs, local.Options{Epoch: j.epoch, DeleteOthers: j.out.DeleteOthers})
	}
	return j.write(func(w io.Writer) error { return tarball.Write(ctx, w, parts, j.epoch) })
}

// write makes a file of an output, or writes to standard output.
func (j *job) write(do func(w io.Writer) error) error {
	if j.out.Dest == "-" {
		return j.stdout(do)
	}
	f, err := export.CreateFile(j.out.Dest)
	if err != nil {
		return fault.Errorf(fault.Usage, "--output dest=%s: %w", j.out.Dest, err)
	}
	defer f.Abort()
	if err := do(f); err != nil {
		return err
	}
	return f.Commit()
}

// stdout writes an output to standard output, which cannot take anything back: where a layer may turn out to be gone on the
// way, the output is made whole first.
func (j *job) stdout(do func(w io.Writer) error) error {
	if !j.session.Reads() {
		return do(j.req.Stdout)
	}
	f, err := os.CreateTemp(filepath.Join(j.e.root, "tmp"), "output-")
	if err != nil {
		return fault.New(fault.Machine, err)
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return fault.New(fault.Machine, err)
	}
	if err := do(f); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fault.New(fault.Machine, err)
	}
	_, err = io.Copy(j.req.Stdout, f)
	return err
}
