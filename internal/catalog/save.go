package catalog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"larder/internal/fault"
	"larder/internal/key"
	"larder/internal/remote"
)

// Saved says what Save did.
type Saved struct {
	Records  int           // keys of the change that the catalog did not have, or had another record for
	Refused  int           // records and cache mounts of the change that are out of bounds
	Attempts int           // how often it tried to write the document; 0 where there was nothing to write
	Bytes    int64         // sent
	Elapsed  time.Duration // all of it, waiting included
	// Missing are blobs which the change, or the catalog, named and the store did not have. What needs them was left out.
	Missing []digest.Digest
}

// Save adds a change to a scope's catalog. It merges into what is there at that moment and, as most stores cannot write
// conditionally, looks whether others who wrote at the same moment have overwritten it, and writes it again then. An error says what
// was not kept; the catalog is in order in any case.
//
// Save refuses, as a fault of kind Usage, to write what nobody would believe: with keys to verify but none to sign, and over a
// signed catalog without any key.
func Save(ctx context.Context, store remote.Store, name Name, change Change, opt Options) (Saved, error) {
	change, refused := admit(change)
	w := newWriter(store, name, opt)
	w.saved.Refused = refused
	var before state // the newest that did not have the change
	w.edit = func(s state) state {
		c := change
		c.writes = w.writes
		if w.writes >= maxGone {
			c.Gone = nil
		}
		c.Mounts = w.lasting(s, c.Mounts)
		after := merge(s, c, w.missing, w.start)
		if s.differs(after, w.opt.Limits.worth()) {
			before = s
		}
		return after
	}
	after, err := w.run(ctx)
	if err != nil {
		return w.saved, fault.New(fault.Registry, err)
	}
	for _, p := range change.Put {
		e, have := after.records[p.Record.Key]
		old, had := before.records[p.Record.Key]
		if have && (!had || !sameRecord(old.Record, e.Record)) && before.records != nil {
			w.saved.Records++
		}
	}
	return w.saved, nil
}

const (
	// maxGone is how many times a Save takes blobs away that its build did not find: another one may be bringing them back.
	maxGone = 3
	// maxMissing is how often a store may say that blobs are missing before it is not asked any more.
	maxMissing = 6
	// maxDamaged is how often a damaged document is read again before it is taken for lost.
	maxDamaged = 2
	// minAttempts is made whatever Limits.Patience says: the store may be slow rather than busy.
	minAttempts = 8
	// recently is how young a version hints at somebody who is writing right now.
	recently = 5 * time.Second
)

// writer writes one catalog anew until what it has to say holds.
type writer struct {
	store   remote.Store
	name    Name
	opt     Options
	start   time.Time
	edit    func(state) state
	missing map[digest.Digest]bool
	pages   map[string]state // further pages that were read or written, by tag
	made    map[string]bool  // tags of further pages that were written, or found without a name
	expired []string         // tags of further pages that nobody can need any more
	writes  int              // documents that were written
	first   bool             // one of them was the first of the scope
	damaged int              // documents that could not be read
	pace    pace
	saved   Saved
	// replaced are the cache mounts that the catalog held when it was first written.
	replaced map[key.Digest]Mount
}

func newWriter(store remote.Store, name Name, opt Options) *writer {
	opt = opt.withDefaults()
	return &writer{
		store: store, name: name, opt: opt, start: opt.Now().UTC().Truncate(time.Second),
		missing: map[digest.Digest]bool{}, pages: map[string]state{}, made: map[string]bool{},
	}
}

// current is the catalog as it is in the store. A document that does not count holds nothing.
type current struct {
	document
	all   state
	pages []oldPage
}

// run edits, writes, and looks whether it held. It gives what the catalog holds then.
func (w *writer) run(ctx context.Context) (all state, err error) {
	begun := time.Now()
	defer func() { w.saved.Elapsed = time.Since(begun) }()
	var (
		mine     remote.Version // what was written last
		held     int            // how often that was found since
		crowded  bool           // somebody else is writing
		refusals int
	)
	for {
		cur, err := w.read(ctx)
		if err != nil {
			return state{}, err
		}
		next := w.edit(cur.all)
		wrote := w.writes > 0
		untidy := !wrote && !crowded && cur.page != nil && (oversize(cur.state, w.opt.Limits) || w.strays(cur))
		if !cur.all.differs(next, w.opt.Limits.worth()) && !untidy {
			if wrote && cur.version != mine {
				crowded = true
			}
			if held++; !wrote || held >= 2 || !crowded && !w.first {
				w.tidy(ctx)
				return next, nil
			}
			if err := w.pace.settle(ctx); err != nil {
				return state{}, err
			}
			continue
		}
		held = 0
		crowded = crowded || wrote || cur.page != nil && w.opt.Now().Sub(cur.page.Time).Abs() < recently
		// A first version has company as a rule: the other jobs of the pipeline that was just introduced.
		w.first = w.first || cur.page == nil
		if w.saved.Attempts >= minAttempts && time.Since(begun) > w.opt.Limits.Patience {
			return state{}, w.giveUp(cur.all, next, time.Since(begun))
		}
		w.saved.Attempts++
		mine, err = w.write(ctx, cur, next, !crowded)
		var missing *remote.MissingError
		switch {
		case errors.As(err, &missing):
			if refusals++; refusals > maxMissing {
				return state{}, fmt.Errorf("save the catalog of scope %q in %s: %w", w.name.Scope, w.store.Name(), err)
			}
			if err := w.miss(ctx, missing.Digests, next); err != nil {
				return state{}, err
			}
			continue
		case errors.Is(err, remote.ErrConflict):
			crowded = true
			if err := w.pace.yield(ctx); err != nil {
				return state{}, err
			}
			continue
		case err != nil:
			return state{}, fmt.Errorf("save the catalog of scope %q in %s: %w", w.name.Scope, w.store.Name(), err)
		}
		w.writes++
		if w.store.Conditional() {
			w.tidy(ctx)
			return next, nil
		}
		if crowded || w.first {
			err = w.pace.settle(ctx)
		} else {
			err = w.pace.breathe(ctx)
		}
		if err != nil {
			return state{}, err
		}
	}
}

// giveUp says what was lost.
func (w *writer) giveUp(have, want state, after time.Duration) error {
	lost := 0
	for k, e := range want.records {
		if h, ok := have.records[k]; !ok || !sameRecord(h.Record, e.Record) {
			lost++
		}
	}
	what, mounts := fmt.Sprintf("%d records", lost), 0
	for k, m := range want.mounts {
		if h, ok := have.mounts[k]; !ok || !sameMount(h, m) {
			mounts++
		}
	}
	if mounts > 0 {
		what += fmt.Sprintf(" and %d cache mounts", mounts)
	}
	return fmt.Errorf("%s were not kept in the catalog of scope %q in %s: other builds write it all the time (%d attempts in %s). "+
		"Their steps run again; a scope of its own for each of these builds avoids that", what, w.name.Scope, w.store.Name(), w.saved.Attempts, after.Round(time.Millisecond))
}

// read fetches the whole catalog as it is now.
func (w *writer) read(ctx context.Context) (current, error) {
	since := time.Now()
	doc, err := read(ctx, w.store, w.name, w.opt)
	w.pace.took(time.Since(since))
	why := new(untrusted)
	switch {
	case errors.As(err, &why) && why.damaged && w.damaged < maxDamaged:
		w.damaged++ // on its way, perhaps: what is there is not written over for that
		if err := w.pace.breathe(ctx); err != nil {
			return current{}, err
		}
		return w.read(ctx)
	case errors.As(err, &why):
		if err := w.mayReplace(why); err != nil {
			return current{}, err
		}
		return current{document: document{version: doc.version}, all: newState()}, nil
	case errors.Is(err, ErrAbsent):
		return current{document: document{version: remote.Absent}, all: newState()}, nil
	case err != nil:
		return current{}, err
	}
	if err := w.mayWrite(doc.signed); err != nil {
		return current{}, err
	}
	cur := current{document: doc, pages: make([]oldPage, len(doc.page.Pages))}
	states := make([]state, len(cur.pages))
	errs := make([]error, len(cur.pages))
	inParallel(doc.page.Pages, func(i int, ref pageRef) {
		known, have := w.pages[ref.Tag]
		for try := 0; !have && (try == 0 || isLoss(errs[i])) && try <= maxDamaged; try++ {
			known, errs[i] = readPage(ctx, w.store, ref)
		}
		states[i] = known
		cur.pages[i] = oldPage{ref, known}
	})
	for i, err := range errs {
		if err != nil && !isLoss(err) {
			return current{}, fmt.Errorf("read the catalog of scope %q in %s: %w", w.name.Scope, w.store.Name(), err)
		}
		if err == nil {
			w.pages[doc.page.Pages[i].Tag] = states[i]
		}
	}
	cur.all = united(doc.state, states)
	return cur, nil
}
