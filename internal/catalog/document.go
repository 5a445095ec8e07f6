package catalog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/remote"
)

// Types of what a catalog is made of. The document is an OCI image manifest; registries look at nothing else in it.
const (
	ArtifactType  = "application/vnd.larder.catalog.v1+json"
	pageMediaType = "application/vnd.larder.catalog.v1+zstd"
)

// Annotations of a signed document.
const (
	annotationSignature = "dev.larder.signature"
	annotationKey       = "dev.larder.key"
)

// document is a catalog's first page as it was read, with what is known of its trustworthiness.
type document struct {
	page    *page
	state   state
	version remote.Version
	bytes   int64  // read for it
	signed  bool   // somebody signed it
	by      string // the trusted key that did; "" for none, or where nobody asks
}

// makeDocument makes the manifest that keeps a page and its blobs. blob is the encoded page; keys, where set, sign it.
func makeDocument(blob []byte, names []ocispecs.Descriptor, inline int, keys *Keys) (manifest []byte, config ocispecs.Descriptor, err error) {
	config = ocispecs.Descriptor{MediaType: pageMediaType, Digest: digest.FromBytes(blob), Size: int64(len(blob))}
	m := ocispecs.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispecs.MediaTypeImageManifest,
		ArtifactType: ArtifactType,
		Config:       config,
		Layers:       names,
	}
	if len(names) == 0 {
		m.Layers = []ocispecs.Descriptor{config} // some registries take no manifest without layers
	}
	if len(blob) <= inline {
		m.Config.Data = blob
	}
	if keys != nil && keys.Sign != nil {
		m.Annotations = map[string]string{}
		m.Annotations[annotationSignature], m.Annotations[annotationKey] = keys.sign(config.Digest)
	}
	manifest, err = json.Marshal(&m)
	if err == nil && len(manifest) > maxDocument {
		err = fmt.Errorf("a document of %d bytes", len(manifest))
	}
	return manifest, config, err
}

// untrusted says why a document does not count. Its error wraps ErrAbsent.
type untrusted struct {
	why     string
	damaged bool // or gone: another reading may find it well
	newer   bool // of a larder that knows more than this one
	signed  bool // by somebody
	held    kind // what is there
	// elsewhere says that it counts in another place: for another scope, or in another repository.
	elsewhere bool
	replay    bool // it counted once
}

func (e *untrusted) Error() string { return e.why }
func (e *untrusted) Unwrap() error { return ErrAbsent }

// read fetches a scope's document and says whether it counts: an error wraps ErrAbsent (as *untrusted where something is there, then
// the document has the version that it was read with), or is the store's.
func read(ctx context.Context, store remote.Store, name Name, opt Options) (document, error) {
	what := fmt.Sprintf("the catalog of scope %q in %s", name.Scope, store.Name())
	return readTag(ctx, store, name.Tag, what, opt, func(scope string) bool { return scope == scopeName(name) })
}

// readTag does that for a tag. what names it in errors, right tells whether the scope that it says is the one that is meant.
func readTag(ctx context.Context, store remote.Store, tag, what string, opt Options, right func(scope string) bool) (document, error) {
	raw, err := store.Manifest(ctx, tag)
	if errors.Is(err, remote.ErrNotFound) {
		return document{}, remote.Mark(fmt.Errorf("%s: %w has been written yet", what, ErrAbsent), remote.ErrNotFound)
	}
	if err != nil && !errors.Is(err, remote.ErrDamaged) {
		return document{}, fmt.Errorf("read %s: %w", what, err)
	}
	doc := document{version: raw.Version, bytes: int64(len(raw.Bytes))}
	var held kind
	reject := func(format string, args ...any) *untrusted {
		why := fmt.Sprintf(format, args...)
		return &untrusted{why: what + " does not count: " + why, signed: doc.signed, held: held}
	}
	damage := func(what string) *untrusted {
		u := reject("%s", what)
		u.damaged = true
		return u
	}
	if err != nil {
		doc.version = remote.Any // nobody can say which
		return doc, damage("it is damaged")
	}
	var m head
	m, held = parse(raw.Bytes)
	switch {
	case held == buildKit:
		return doc, reject("it is a cache that BuildKit wrote")
	case held == other:
		return doc, reject("it is an image, or something else that larder did not write")
	case held == broken, m.Config.MediaType != pageMediaType, !isSHA256(m.Config.Digest), m.Config.Size < 0, m.Config.Size > maxBlob:
		return doc, damage("it is damaged")
	}
	signature := m.Annotations[annotationSignature]
	doc.signed = signature != ""
	if len(opt.Keys.trusted()) > 0 {
		if !doc.signed {
			return doc, reject("it is not signed")
		}
		if doc.by = opt.Keys.signer(m.Config.Digest, signature); doc.by == "" {
			return doc, reject("it is signed by nobody who is trusted (key %.40q)", m.Annotations[annotationKey])
		}
	}
	blob := m.Config.Data
	if int64(len(blob)) != m.Config.Size || digest.FromBytes(blob) != m.Config.Digest {
		m.Config.Data = nil
		if blob, err = Fetch(ctx, store, m.Config, maxBlob); isLoss(err) {
			return doc, damage("its page is gone or damaged")
		} else if err != nil {
			return doc, fmt.Errorf("read %s: %w", what, err)
		}
		doc.bytes += int64(len(blob))
	}
	p, err := decodeFirst(blob)
	if v := new(versionError); errors.As(err, &v) {
		u := reject("%v", v)
		u.newer = v.version > version
		return doc, u
	}
	if err != nil {
		return doc, damage("it is damaged")
	}
	now := sighting{p.Sequence, p.Time}
	misplaced := func(where string) *untrusted {
		u := reject("it was written for %s", where)
		u.elsewhere = true
		return u
	}
	switch {
	case !right(p.Scope):
		return doc, misplaced(fmt.Sprintf("scope %.200q", p.Scope))
	case p.Repository != repository(store):
		return doc, misplaced(fmt.Sprintf("%.200q", p.Repository))
	case doc.by != "" && p.Time.Before(opt.Now().Add(-opt.Limits.Age)):
		return doc, reject("its signature is of %s, which is too old", p.Time.Format(time.DateOnly))
	case doc.by != "" && now.older(opt.memory(store).last(p.Repository, p.Scope)):
		u := reject("a newer one has been here: this one was put back")
		u.replay = true
		return doc, u
	}
	if doc.by != "" {
		opt.memory(store).note(p.Repository, p.Scope, now)
	}
	p.disown(tag)
	doc.page, doc.state = p, p.state()
	return doc, nil
}

// scopeName is a scope as JSON keeps it.
func scopeName(name Name) string { return strings.ToValidUTF8(name.Scope, "\uFFFD") }

// repository is what a catalog is bound to. A directory may be moved: CI systems restore it under any path.
func repository(store remote.Store) string {
	if isDirectory(store) {
		return "local"
	}
	return store.Name()
}

func isDirectory(store remote.Store) bool { return strings.HasPrefix(store.Name(), "local:") }

// memory is what earlier runs saw in a store.
func (o Options) memory(store remote.Store) *Seen {
	if isDirectory(store) {
		return nil
	}
	return o.Seen
}

// isLoss tells errors that say that a blob is not there as it should be from those of a store that does not answer.
func isLoss(err error) bool {
	return errors.Is(err, remote.ErrNotFound) || errors.Is(err, remote.ErrDamaged)
}

// Fetch reads a blob of at most so many bytes, and compares its digest. A longer one, and other bytes, are remote.ErrDamaged.
func Fetch(ctx context.Context, store remote.Store, desc ocispecs.Descriptor, most int64) ([]byte, error) {
	if desc.Size > most {
		return nil, fmt.Errorf("blob %s of %d bytes: %w", desc.Digest, desc.Size, remote.ErrDamaged)
	}
	var b bytes.Buffer
	if err := copyBlob(ctx, store, desc, &b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// copyBlob reads a blob into w and compares its size and digest.
func copyBlob(ctx context.Context, store remote.Store, desc ocispecs.Descriptor, w io.Writer) error {
	r, err := store.Open(ctx, desc)
	if err != nil {
		return err
	}
	defer r.Close()
	v := desc.Digest.Verifier()
	n, err := io.Copy(io.MultiWriter(v, w), io.LimitReader(r, desc.Size+1))
	if err != nil {
		return err
	}
	if n != desc.Size || !v.Verified() {
		return fmt.Errorf("blob %s: %w", desc.Digest, remote.ErrDamaged)
	}
	return nil
}

// readPage fetches a further page, which the first one vouches for.
func readPage(ctx context.Context, store remote.Store, ref pageRef) (state, error) {
	b, err := Fetch(ctx, store, ref.Blob.desc(), maxBlob)
	if err != nil {
		return state{}, err
	}
	p, err := decodeFurther(b)
	if err != nil {
		return state{}, fmt.Errorf("page %s: %w: %w", ref.Tag, err, remote.ErrDamaged)
	}
	return p.state(), nil
}
