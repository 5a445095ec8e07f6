package remote

import (
	"bytes"
	"context"
	"errors"
	"io"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// progress is how many bytes a download must give after a failure before it has all its patience again.
const progress = 256 << 10

// Open gives a small blob from memory, verified, and a large one as it comes.
func (r *retrying) Open(ctx context.Context, desc ocispecs.Descriptor) (io.ReadCloser, error) {
	if desc.Size >= 0 && desc.Size <= smallBlob {
		var b []byte
		err := r.do(ctx, &r.reads, func(ctx context.Context) error {
			rc, err := r.Store.Open(ctx, desc)
			if err != nil {
				return err
			}
			defer rc.Close()
			b, err = io.ReadAll(Verified(rc, desc))
			return err
		})
		if err != nil {
			return nil, err
		}
		return io.NopCloser(bytes.NewReader(b)), nil
	}
	return r.start(ctx, &download{r: r, ctx: ctx, desc: desc, size: desc.Size, whole: true})
}

// OpenRange gives a part as it comes.
func (r *retrying) OpenRange(ctx context.Context, desc ocispecs.Descriptor, off, n int64) (io.ReadCloser, error) {
	return r.start(ctx, &download{r: r, ctx: ctx, desc: desc, first: off, size: n})
}

func (r *retrying) start(ctx context.Context, d *download) (io.ReadCloser, error) {
	d.trouble = r.begin(&r.reads)
	if err := r.do(ctx, &r.reads, func(context.Context) error { return d.open() }); err != nil {
		return nil, err
	}
	return d, nil
}

// download goes on where it broke off.
type download struct {
	r       *retrying
	ctx     context.Context
	desc    ocispecs.Descriptor
	first   int64 // the byte of the blob that it begins with
	size    int64 // how many it gives
	whole   bool  // begun by Open
	trouble *episode

	rc    io.ReadCloser
	off   int64 // how many it has given
	fresh int64 // of these, since the last failure
	broke error // the last failure, while nothing has been done about it
	err   error
}

// open opens the store's reader at the next byte to give.
func (d *download) open() (err error) {
	if d.whole && d.off == 0 {
		d.rc, err = d.r.Store.Open(d.ctx, d.desc)
		return err
	}
	rc, err := d.r.Store.OpenRange(d.ctx, d.desc, d.first+d.off, d.size-d.off)
	if d.whole && errors.Is(err, ErrUnsupported) {
		if rc, err = d.r.Store.Open(d.ctx, d.desc); err == nil {
			if _, err = io.CopyN(io.Discard, rc, d.off); err != nil {
				rc.Close()
			}
		}
	}
	if err != nil {
		return err
	}
	d.rc = rc
	return nil
}

// Read gives the next bytes.
func (d *download) Read(p []byte) (int, error) {
	if d.err != nil || len(p) == 0 {
		return 0, d.err
	}
	for {
		if d.broke != nil {
			if d.err = d.r.reads.why(); d.err == nil {
				d.err = d.trouble.wait(d.ctx, d.broke)
			}
			if d.err != nil {
				return 0, d.err
			}
			d.broke, d.fresh = nil, 0
		}
		if d.rc == nil {
			if d.broke = d.open(); d.broke != nil {
				continue
			}
		}
		n, err := d.rc.Read(p)
		d.off += int64(n)
		if d.fresh += int64(n); d.fresh >= progress {
			d.trouble.calm()
		}
		switch {
		case err == io.EOF && d.off >= d.size:
			d.r.reads.well(d.r.policy.Now())
			d.err = io.EOF
		case errors.Is(err, ErrDamaged): // what has been given cannot be taken back
			d.err = err
		case err != nil:
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			d.broke = err
			d.shut()
		}
		if n > 0 || d.err != nil {
			return n, d.err
		}
	}
}

func (d *download) shut() {
	if d.rc != nil {
		d.rc.Close()
		d.rc = nil
	}
}

// Close ends the download.
func (d *download) Close() error {
	d.shut()
	if d.err == nil {
		d.err = errors.New("read after close")
	}
	return nil
}
