package image

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"

	"larder/internal/key"
	"larder/internal/registry"
)

// tagFile is where a tag's last target is remembered. Two lines: the reference and the digest.
func (r *Resolver) tagFile(ref registry.Ref) string {
	return filepath.Join(r.opt.Tags, key.Bytes([]byte(ref.String())).Hex()[:32])
}

// recall tells what a tag pointed to when it was last asked for. What cannot be read was never known.
func (r *Resolver) recall(ref registry.Ref) (digest.Digest, bool) {
	if r.opt.Tags == "" {
		return "", false
	}
	b, err := os.ReadFile(r.tagFile(ref))
	if err != nil {
		return "", false
	}
	name, d, ok := strings.Cut(strings.TrimSuffix(string(b), "\n"), "\n")
	if !ok || name != ref.String() || digest.Digest(d).Validate() != nil {
		return "", false
	}
	return digest.Digest(d), true
}

// remember notes what a tag points to. It is a hint: failure costs a request in the next build.
func (r *Resolver) remember(ref registry.Ref, d digest.Digest) {
	if r.opt.Tags == "" || os.MkdirAll(r.opt.Tags, 0o700) != nil {
		return
	}
	f, err := os.CreateTemp(r.opt.Tags, ".new-*")
	if err != nil {
		return
	}
	_, err = f.WriteString(ref.String() + "\n" + d.String() + "\n")
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), r.tagFile(ref))
	}
	if err != nil {
		os.Remove(f.Name())
	}
}
