package frontend

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
)

// LocalInput is the definition of a local source without filters, for Request.Inputs: a context that .dockerignore has
// no say in.
func LocalInput(ctx context.Context, name string) (*pb.Definition, error) {
	return marshal(ctx, name, llb.Local(name, llb.SessionID(session), llb.WithCustomName("[internal] load "+name)))
}

// ArchiveInput is the definition of what the archive file has in it that lies in a local source of this name: a context from
// standard input, unpacked as BuildKit unpacks one from a URL.
func ArchiveInput(ctx context.Context, name, file string) (*pb.Definition, error) {
	src := llb.Local(name, llb.SessionID(session), llb.FollowPaths([]string{file}), llb.WithCustomName("[internal] load "+name))
	return marshal(ctx, name, llb.Scratch().File(
		llb.Copy(src, "/"+file, "/", &llb.CopyInfo{AttemptUnpack: true}),
		llb.WithCustomName("[internal] unpack "+name),
	))
}

func marshal(ctx context.Context, name string, st llb.State) (*pb.Definition, error) {
	def, err := st.Marshal(ctx, llb.WithCaps(LLBCaps()))
	if err != nil {
		return nil, fmt.Errorf("describe %s: %w", name, err)
	}
	return def.ToPB(), nil
}

// ArchiveHeader is how many bytes IsArchive wants to see.
const ArchiveHeader = 1024

// IsArchive reports whether data starts as a tar does, plain or compressed (bzip2, gzip, xz, zstd). What does not, and is
// given where a context or a Dockerfile may stand, is a Dockerfile.
func IsArchive(data []byte) bool {
	for _, magic := range []string{"BZh", "\x1f\x8b\x08", "\xfd7zXZ\x00", "\x28\xb5\x2f\xfd"} {
		if bytes.HasPrefix(data, []byte(magic)) {
			return true
		}
	}
	if len(data) >= 8 && binary.LittleEndian.Uint32(data)&^0xf == 0x184d2a50 { // zstd that starts with a skippable frame
		return true
	}
	_, err := tar.NewReader(bytes.NewReader(data)).Next()
	return err == nil
}
