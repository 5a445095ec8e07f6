package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/testregistry"
)

// everything does each thing that a Client can do, and looks at what comes.
func everything(c *Client, addr string) error {
	ctx := context.Background()
	r, err := ParseRef(addr + "/app:v1")
	if err != nil {
		return err
	}
	layer := bytes.Repeat([]byte("0123456789"), 500)
	up := upload(layer)
	for _, isNew := range []bool{true, false} { // POST and PUT; then HEAD
		up.New = isNew
		if _, err := c.PushBlob(ctx, r, up); err != nil {
			return fmt.Errorf("push a blob: %w", err)
		}
	}
	// Long enough for a connection to break within it.
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[],"annotations":{"a":%q}}`,
		ocispecs.MediaTypeImageManifest, ocispecs.MediaTypeImageConfig, up.Desc.Digest, up.Desc.Size, strings.Repeat("x", 5000))
	if err := c.PushManifest(ctx, r, ocispecs.MediaTypeImageManifest, manifest); err != nil {
		return fmt.Errorf("push a manifest: %w", err)
	}
	desc, err := c.Resolve(ctx, r)
	if err != nil {
		return fmt.Errorf("resolve: %w", err)
	}
	got, b, err := c.Fetch(ctx, r)
	if err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	if want := digest.FromBytes(manifest); desc.Digest != want || got.Digest != want || !bytes.Equal(b, manifest) {
		return fmt.Errorf("the manifest: %w", errOther)
	}
	if err := read(layer)(c.Blob(ctx, r, up.Desc)); err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	if err := read(layer[1000:3000])(c.BlobRange(ctx, r, up.Desc, 1000, 2000)); err != nil {
		return fmt.Errorf("part of a blob: %w", err)
	}
	return nil
}

var errOther = errors.New("other bytes")

// read compares what a stream gives.
func read(want []byte) func(io.ReadCloser, error) error {
	return func(rc io.ReadCloser, err error) error {
		if err != nil {
			return err
		}
		defer rc.Close()
		b, err := io.ReadAll(rc)
		if err == nil && !bytes.Equal(b, want) {
			err = errOther
		}
		return err
	}
}

// TestEachRequestMayFailOnce: what passes by itself is repeated, whichever request it hits and however. Bytes that are not
// what they should be are an error.
func TestEachRequestMayFailOnce(t *testing.T) {
	f := &testregistry.Faults{Stall: time.Millisecond}
	reg := testregistry.StartWith(t, testregistry.Options{Wrap: f.Wrap})
	if err := everything(client(t, Config{}), reg.Addr); err != nil {
		t.Fatal(err)
	}
	calls := f.Calls()
	if len(calls) != 8 {
		t.Fatalf("%d requests: %v", len(calls), calls)
	}
	for _, kind := range testregistry.Kinds() {
		for _, call := range calls {
			ranged := strings.HasSuffix(call.Signature, "(range)") // without a digest to compare
			if !call.Can(kind) || ranged && kind == testregistry.FlippedByte {
				continue
			}
			f.Reset()
			f.FailCall(call, kind)
			err := everything(client(t, Config{}), reg.Addr)
			wrong := kind == testregistry.FlippedByte || kind == testregistry.Stale
			switch {
			case len(f.Fired()) != 1:
				t.Errorf("%s, %s: %s", kind, call, f)
			case err != nil && !wrong:
				t.Errorf("%s: %v", f, err)
			case err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNotFound) && !errors.Is(err, errOther):
				t.Errorf("%s: %v", f, err)
			}
		}
	}
}

// TestClosedWhileSending: which goroutine finds out first that a connection has broken is chance.
func TestClosedWhileSending(t *testing.T) {
	err := &url.Error{Op: "Put", Err: &net.OpError{Op: "readfrom", Err: &net.OpError{Op: "write", Err: net.ErrClosed}}}
	if again, _ := verdict(nil, err, 1); !again {
		t.Errorf("%v counts as lasting", err)
	}
}
