package catalog

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/key"
	"larder/internal/record"
)

// version is of the JSON below. A reader that does not know it takes the catalog for absent, a writer leaves it alone.
const version = 1

// page is what one blob of a catalog says, as JSON. A record, its trees and its layers are in one page. The first page has all
// fields; further ones only hold records and cache mounts, and are believed because the first names their digests.
type page struct {
	Version    int       `json:"version"`
	Repository string    `json:"repository,omitempty"`
	Scope      string    `json:"scope"`
	Sequence   uint64    `json:"sequence,omitempty"` // goes up with every version
	Time       time.Time `json:"time"`               // when it was written, UTC

	Records []entryJSON               `json:"records,omitempty"`
	Trees   map[key.Digest]blobJSON   `json:"trees,omitempty"`
	Layers  map[key.Digest][]copyJSON `json:"layers,omitempty"`
	Mounts  []mountJSON               `json:"mounts,omitempty"` // larders that do not know them pass them over, and write pages without

	Pages   []pageRef    `json:"pages,omitempty"`   // the newest first
	Retired []retirement `json:"retired,omitempty"` // further pages that are no longer named
}

type entryJSON struct {
	Record *record.Record `json:"record"`
	Used   int64          `json:"used"` // Unix seconds
}

type blobJSON struct {
	Type   string        `json:"type"`
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
}

type copyJSON struct {
	Key key.Digest `json:"key"`
	blobJSON
	DiffID digest.Digest `json:"diffID"`
}

// pageRef names a further page: the document that keeps its blobs, and the blob that says it, which readers fetch.
type pageRef struct {
	Tag  string   `json:"tag"`
	Blob blobJSON `json:"blob"`
}

// retirement says since when a further page has not been named. Its tag goes when no writer can be left that read a catalog which
// names it.
type retirement struct {
	Tag   string    `json:"tag"`
	Since time.Time `json:"since"`
}

var (
	compressor = sync.OnceValues(func() (*zstd.Encoder, error) {
		return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1))
	})
	firstDecoder   = sync.OnceValues(func() (*zstd.Decoder, error) { return newDecoder(maxFirst) })
	furtherDecoder = sync.OnceValues(func() (*zstd.Decoder, error) { return newDecoder(maxFurther) })
)

func newDecoder(most uint64) (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderMaxMemory(most), zstd.WithDecoderConcurrency(2))
}

// newPage makes a page that holds s. Equal states give equal bytes.
func newPage(scope string, at time.Time, s state) *page {
	p := &page{Version: version, Scope: scope, Time: at.UTC()}
	for _, e := range s.sorted() {
		p.Records = append(p.Records, entryJSON{e.Record, e.Used.Unix()})
	}
	if len(s.trees) > 0 {
		p.Trees = make(map[key.Digest]blobJSON, len(s.trees))
	}
	for d, desc := range s.trees {
		p.Trees[d] = blobOf(desc)
	}
	if len(s.layers) > 0 {
		p.Layers = make(map[key.Digest][]copyJSON, len(s.layers))
	}
	for id, copies := range s.layers {
		for _, c := range copies {
			p.Layers[id] = append(p.Layers[id], copyJSON{c.Key, blobOf(c.Desc), c.DiffID})
		}
	}
	for _, m := range s.sortedMounts() {
		p.Mounts = append(p.Mounts, jsonOf(m))
	}
	return p
}

func blobOf(desc ocispecs.Descriptor) blobJSON {
	return blobJSON{desc.MediaType, desc.Digest, desc.Size}
}

func (b blobJSON) desc() ocispecs.Descriptor {
	return ocispecs.Descriptor{MediaType: b.Type, Digest: b.Digest, Size: b.Size}
}

func (p *page) encode() ([]byte, error) {
	b, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	enc, err := compressor()
	if err != nil {
		return nil, err
	}
	return enc.EncodeAll(b, nil), nil
}

// decodeFirst reads a first page, whose digest has been compared already, and checks everything that it says against the bounds.
func decodeFirst(b []byte) (*page, error) { return decodePage(b, firstDecoder, maxFirst) }

// decodeFurther does that for a further page. There are maxPages of those at most, so that a whole catalog is bounded too.
func decodeFurther(b []byte) (*page, error) { return decodePage(b, furtherDecoder, maxFurther) }

func decodePage(b []byte, decoder func() (*zstd.Decoder, error), most int) (*page, error) {
	if len(b) > maxBlob {
		return nil, fmt.Errorf("a page of %d bytes", len(b))
	}
	dec, err := decoder()
	if err != nil {
		return nil, err
	}
	plain, err := dec.DecodeAll(b, nil)
	if err != nil {
		return nil, err
	}
	if n := CountJSON(plain); len(plain) > most || n > maxValues(most) {
		return nil, fmt.Errorf("a page of %d values in %d bytes", n, len(plain))
	}
	p := new(page)
	if err := json.Unmarshal(plain, p); err != nil {
		return nil, err
	}
	if p.Version != version {
		return nil, &versionError{p.Version}
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	return p, nil
}

// maxValues is how many values a page may have whose JSON has a bound of most bytes, twice what larder writes: weight sees to it that what is
// written has fewer, and some are left for what only a first page has.
func maxValues(most int) int { return most/2/valueJSON + 4096 }

// versionError says that a catalog was written by another larder.
type versionError struct{ version int }

func (e *versionError) Error() string {
	return fmt.Sprintf("it has format %d, this larder knows %d", e.version, version)
}

func (p *page) check() error {
	if len(p.Records) > maxRecords || len(p.Mounts) > maxMounts || len(p.Pages) > maxPages || len(p.Retired) > maxRetired || p.Sequence > maxSequence {
		return fmt.Errorf("%d records, %d cache mounts, %d pages, sequence %d", len(p.Records), len(p.Mounts), len(p.Pages), p.Sequence)
	}
	for _, e := range p.Records {
		if e.Record == nil || e.Record.Key.IsZero() || e.Record.From != "" || !fits(e.Record) || len(e.Record.Hint) > maxHint {
			return fmt.Errorf("a record out of bounds")
		}
	}
	for _, t := range p.Trees {
		if err := t.check(); err != nil {
			return err
		}
	}
	for _, copies := range p.Layers {
		if len(copies) > maxCopies {
			return fmt.Errorf("a layer with %d copies", len(copies))
		}
		for _, c := range copies {
			if err := c.check(); err != nil {
				return err
			}
			if !isSHA256(c.DiffID) {
				return fmt.Errorf("diff ID %.80q", c.DiffID)
			}
		}
	}
	for _, m := range p.Mounts {
		if err := m.mount().check(); err != nil {
			return err
		}
	}
	for _, r := range p.Pages {
		if err := r.Blob.check(); err != nil {
			return err
		}
		if r.Blob.Size > maxBlob || !isPageTag(r.Tag) {
			return fmt.Errorf("page %.80q of %d bytes", r.Tag, r.Blob.Size)
		}
	}
	for _, r := range p.Retired {
		if !isPageTag(r.Tag) {
			return fmt.Errorf("page %.80q", r.Tag)
		}
	}
	return nil
}

// disown drops tags that are not those of further pages of the catalog under tag. Nobody needs a signature to write any tag down, and
// old pages' tags are removed.
func (p *page) disown(tag string) {
	p.Pages = slices.DeleteFunc(p.Pages, func(r pageRef) bool { return !isPageOf(tag, r.Tag) })
	p.Retired = slices.DeleteFunc(p.Retired, func(r retirement) bool { return !isPageOf(tag, r.Tag) })
}

func isPageTag(tag string) bool { return len(tag) <= maxTag && pageTag.MatchString(tag) }

func isSHA256(d digest.Digest) bool { return d.Validate() == nil && d.Algorithm() == digest.SHA256 }

func (b blobJSON) check() error {
	if !isSHA256(b.Digest) || b.Size < 0 || b.Size > 1<<50 || len(b.Type) > 255 {
		return fmt.Errorf("blob %.80q, %d bytes, %.80q", b.Digest, b.Size, b.Type)
	}
	return nil
}

// fits tells whether a record is within the bounds of what is kept, but for its hint.
func fits(r *record.Record) bool {
	layers := 0
	for range layersOf(r) {
		layers++
	}
	return len(r.Data) <= maxData && len(r.Name) <= maxName && len(r.Outputs) <= maxOutputs && layers <= maxOutputs && len(r.With) <= maxOutputs
}

// state gives what the page holds. A key that stands twice counts once.
func (p *page) state() state {
	s := newState()
	for _, e := range p.Records {
		if _, ok := s.records[e.Record.Key]; !ok {
			s.records[e.Record.Key] = Entry{e.Record, time.Unix(e.Used, 0).UTC()}
		}
	}
	for d, b := range p.Trees {
		s.trees[d] = b.desc()
	}
	for id, copies := range p.Layers {
		for _, c := range copies {
			s.layers[id] = append(s.layers[id], Blob{c.Key, c.desc(), c.DiffID})
		}
	}
	for _, j := range p.Mounts {
		if m := j.mount(); s.mounts[m.Key].Segments == nil {
			s.mounts[m.Key] = m
		}
	}
	return s
}
