package registry

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/registry"
	"larder/internal/remote"
)

// translate marks a client's error with what package remote calls it.
func translate(err error) error {
	var re *registry.Error
	switch {
	case err == nil, errors.Is(err, remote.ErrFinal):
		return err
	case errors.Is(err, registry.ErrNotFound):
		return remote.Mark(err, remote.ErrNotFound)
	case errors.Is(err, registry.ErrDenied):
		return remote.Mark(err, remote.ErrDenied)
	case errors.Is(err, registry.ErrNoRanges):
		return remote.Mark(err, remote.ErrUnsupported)
	case errors.Is(err, registry.ErrDamaged):
		return remote.Mark(err, remote.ErrDamaged)
	case errors.As(err, &re) && re.Status == http.StatusRequestedRangeNotSatisfiable:
		return remote.Mark(err, remote.ErrDamaged) // the blob there is shorter than its descriptor says
	case errors.As(err, &re) && !re.Passing():
		return remote.Mark(err, remote.ErrFinal)
	}
	return err
}

// gone is translate for a deletion, where nothing to delete is no error.
func gone(err error) error {
	var re *registry.Error
	switch {
	case errors.Is(err, registry.ErrNotFound):
		return nil
	case errors.As(err, &re) && (re.Status == http.StatusMethodNotAllowed || re.Status == http.StatusNotImplemented || re.Code == "UNSUPPORTED"):
		return remote.Mark(err, remote.ErrUnsupported)
	}
	return translate(err)
}

// refusal is translate for the PUT of a manifest that names blobs.
func refusal(err error, ref registry.Ref, blobs []ocispecs.Descriptor) error {
	var re *registry.Error
	if !errors.As(err, &re) || re.Status/100 != 4 || re.Passing() {
		return translate(err)
	}
	if immutable(re) {
		return remote.Mark(err, remote.ErrImmutable)
	}
	if lacking(re) {
		var missing []digest.Digest
		for _, d := range re.Digests {
			if slices.ContainsFunc(blobs, func(b ocispecs.Descriptor) bool { return b.Digest == d }) {
				missing = append(missing, d)
			}
		}
		return &refused{error: err, missing: &remote.MissingError{Digests: missing}}
	}
	return translate(err)
}

// refused is a registry's complaint about blobs that it does not have.
type refused struct {
	error
	missing *remote.MissingError
}

func (r *refused) Unwrap() []error { return []error{r.error, r.missing} }

// immutable recognises a repository in which tags cannot be written twice. Registries agree neither on a status nor on a code:
//
//   - ECR: 400, TAG_INVALID, "... already exists in the ... repository and cannot be overwritten because the repository is immutable."
//   - Harbor: 412, "... configured as immutable."
//   - Quay: "tag is immutable and cannot be overwritten"
//   - Docker Trusted Registry: "tag=... cannot be overwritten because ... is an immutable repository"
//   - GitLab: 403 for a tag that is protected, and immutable tags
//   - Nexus: 400, "... does not allow updating assets ..."
func immutable(re *registry.Error) bool {
	said := strings.ToLower(re.Code + " " + re.Message)
	for _, w := range []string{"immutable", "imagetagalreadyexists", "be overwritten", "not allow updating"} {
		if strings.Contains(said, w) {
			return true
		}
	}
	return strings.Contains(said, "protected") && strings.Contains(said, "tag")
}

// lacking recognises the answer to a manifest whose blobs are not all there.
func lacking(re *registry.Error) bool {
	switch re.Code {
	case "MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN":
		return true
	case "NAME_UNKNOWN", "UNAUTHORIZED", "DENIED":
		return false
	}
	// ECR: "One or more layers of the manifest could not be found: ..."; Quay: MANIFEST_INVALID about a blob.
	said := strings.ToLower(re.Message)
	about := strings.Contains(said, "blob") || strings.Contains(said, "layer") || strings.Contains(said, "config")
	return about && (strings.Contains(said, "not be found") || strings.Contains(said, "not found") || strings.Contains(said, "unknown") ||
		strings.Contains(said, "missing") || strings.Contains(said, "not exist"))
}

// reader gives a download whose errors are translated.
func reader(rc io.ReadCloser, err error) (io.ReadCloser, error) {
	if err != nil {
		return nil, translate(err)
	}
	return &translated{rc}, nil
}

type translated struct{ io.ReadCloser }

func (t *translated) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = translate(err)
	}
	return n, err
}
