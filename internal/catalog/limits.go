package catalog

import (
	"time"
)

// Limits bound a catalog. A zero field has the default.
type Limits struct {
	// Age is how long a record is kept that no build uses, and for how long a signature counts; 30 days. Uses are noted once in a
	// quarter of it.
	Age time.Duration
	// Inline is how large a page may be, in compressed bytes, to lie in its document instead of in a blob beside it; 64 KiB.
	Inline int
	// Page is how large the first page should be, in compressed bytes; 26 KiB. With Blobs it decides what a build without
	// changes reads: base64 takes a third more, a blob's descriptor some 165 bytes: 60 kB.
	Page int
	// Blobs is how many blobs the first page should name; 140.
	Blobs int
	// Pages is how many further pages there may be; 8.
	Pages int
	// Patience is how long Save goes on against other writers; 20 s.
	Patience time.Duration
}

// Bounds of what is read, whoever wrote it (DESIGN invariant 9), and of what is written, so that it can be read.
const (
	maxBlob     = 4 << 20 // compressed bytes of a page
	maxFirst    = 2 * firstJSON
	maxFurther  = 2 * pageJSON
	valueJSON   = 24          // bytes of JSON that a value takes on average, at least: what larder writes takes more
	maxHead     = 100_000     // values in a document
	maxDocument = 4 << 20     // a document, as registries bound it
	maxRecords  = 20_000      // in one page
	maxPages    = 16          // further ones
	maxData     = 64 << 10    // Record.Data
	maxHint     = 64 << 10    // Record.Hint
	maxName     = 4 << 10     // Record.Name
	maxOutputs  = 1_000       // of a record, layers of all of them, and keys that a record names
	maxRetired  = 256         // pages
	maxCopies   = 64          // of a layer
	maxMounts   = 500         // cache mounts in one page
	maxSegments = 64          // of a cache mount
	maxNamed    = 450         // blobs that a cache mount names, counted as often as it does; less than pageBlobs
	maxPlatform = 255         // Mount.Platform
	maxCount    = 1 << 62     // what is counted of a cache mount
	maxSequence = 1 << 62     // leaves room for going up
	pageJSON    = 2 << 20     // JSON of a further page that larder writes
	pageBytes   = 256 << 10   // its compressed bytes, about
	pageBlobs   = 500         // blobs that it names
	firstJSON   = 8 << 20     // JSON of a first page that larder writes
	hintFactor  = 3           // how much smaller than Limits say a first page is that has large hints
	hardFactor  = 8           // how far a first page may outgrow Limits while many write
	parallel    = 16          // requests at once
	grace       = time.Hour   // how long a superseded page outlives the document that named it
	raceTime    = time.Minute // how far writers may get ahead of each other
)

func (l Limits) withDefaults() Limits {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	if l.Age <= 0 {
		l.Age = 30 * 24 * time.Hour
	}
	if l.Patience <= 0 {
		l.Patience = 20 * time.Second
	}
	def(&l.Inline, 64<<10)
	def(&l.Page, 26<<10)
	def(&l.Blobs, 140)
	def(&l.Pages, 8)
	l.Pages = min(l.Pages, maxPages)
	return l
}

// Options say whom to believe and how much to keep. The zero value believes every catalog that stands in its own place.
type Options struct {
	Keys   *Keys // nil: neither signed nor checked
	Limits Limits
	Seen   *Seen            // what earlier runs saw, against replays; nil remembers nothing. Not asked about directories
	Now    func() time.Time // nil is time.Now
}

func (o Options) withDefaults() Options {
	o.Limits = o.Limits.withDefaults()
	if o.Keys == nil {
		o.Keys = &Keys{}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}
