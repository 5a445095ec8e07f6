package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"larder/internal/cacheref"
	"larder/internal/catalog"
	"larder/internal/fault"
	"larder/internal/key"
	"larder/internal/remote"
)

// openStore opens the store of a remote cache. Who gives it closes what it opened.
type openStore func(ctx context.Context, ref cacheref.Ref) (remote.Store, error)

// remoteCache is a remote cache as the commands below "larder cache" see it.
type remoteCache struct {
	ref   cacheref.Ref
	scope string // empty for all
	open  openStore
	opt   catalog.Options
	out   io.Writer
	err   io.Writer // for what is left out
	now   time.Time
}

// names lists the catalogs that are meant. Those that do not count are said on r.err and left out.
func (r *remoteCache) names(ctx context.Context, store remote.Store) ([]catalog.Name, error) {
	if r.scope != "" {
		return []catalog.Name{catalog.NameOf(r.scope)}, nil
	}
	list, err := catalog.List(ctx, store, r.opt)
	if err != nil {
		return nil, err
	}
	var names []catalog.Name
	for _, s := range list {
		if s.Err != nil {
			fmt.Fprintf(r.err, "WARNING: left out: %v\n", s.Err)
			continue
		}
		names = append(names, s.Name)
	}
	return names, nil
}

// load reads a catalog. That there is none is the user's mistake, who named it.
func (r *remoteCache) load(ctx context.Context, store remote.Store, name catalog.Name) (*catalog.Catalog, error) {
	c, err := catalog.Load(ctx, store, name, r.opt)
	if errors.Is(err, catalog.ErrAbsent) {
		return nil, fault.Errorf(fault.Usage, "%w; 'larder cache ls' lists the scopes that there are", err)
	}
	return c, fault.New(fault.Registry, err)
}

// each opens the remote cache and reads the catalogs that are meant, one after another, until do fails.
func (r *remoteCache) each(ctx context.Context, do func(store remote.Store, c *catalog.Catalog) error) error {
	store, err := r.open(ctx, r.ref)
	if err != nil {
		return err
	}
	names, err := r.names(ctx, store)
	if err != nil {
		return err
	}
	for _, name := range names {
		c, err := r.load(ctx, store, name)
		if err != nil {
			return err
		}
		if err := do(store, c); err != nil {
			return err
		}
	}
	return nil
}

// listed is a scope in the JSON of ls.
type listed struct {
	Scope    string     `json:"scope,omitempty"`
	Tag      string     `json:"tag"`
	Records  int        `json:"records"`
	Blobs    int        `json:"blobs"`
	Size     int64      `json:"size"`
	Written  *time.Time `json:"written,omitempty"`
	SignedBy string     `json:"signed_by,omitempty"`
	Problem  string     `json:"problem,omitempty"`
	// CacheMounts are those of the scope.
	CacheMounts []listedMount `json:"cache_mounts,omitempty"`
}

// list prints a line for each scope, and one for each cache mount.
func (r *remoteCache) list(ctx context.Context, asJSON bool) error {
	store, err := r.open(ctx, r.ref)
	if err != nil {
		return err
	}
	list, err := catalog.List(ctx, store, r.opt)
	if err != nil {
		return err
	}
	if asJSON {
		lines := make([]listed, len(list))
		for i, s := range list {
			lines[i] = listed{Scope: s.Name.Scope, Tag: s.Name.Tag, Records: s.Records, Blobs: s.Blobs, Size: s.Bytes, SignedBy: s.SignedBy}
			lines[i].CacheMounts = listMounts(s.Mounts)
			if lines[i].Written = &s.Time; s.Err != nil {
				lines[i].Written, lines[i].Problem = nil, s.Err.Error()
			}
		}
		return printJSON(r.out, lines)
	}
	if len(list) == 0 {
		_, err := fmt.Fprintf(r.out, "Nothing has been written to %s yet\n", r.ref.Text)
		return err
	}
	w := tabwriter.NewWriter(r.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "SCOPE\tRECORDS\tBLOBS\tSIZE\tLAST WRITTEN\tSIGNED BY")
	for _, s := range list {
		if s.Err != nil {
			fmt.Fprintf(w, "%s%s\t-\t-\t-\t-\t-\n", catalog.TagScope, s.Name.Tag)
			continue
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\t%s\n", oneLine(s.Name.Scope), s.Records, s.Blobs, size(s.Bytes), r.ago(s.Time), orDash(s.SignedBy))
	}
	if err := errors.Join(w.Flush(), r.printMounts(list)); err != nil {
		return err
	}
	for _, s := range list {
		if s.Err != nil {
			fmt.Fprintf(r.err, "WARNING: %v\n", s.Err)
		}
	}
	return nil
}

// inspected is a record in the JSON of inspect.
type inspected struct {
	Scope    string           `json:"scope"`
	Key      key.Digest       `json:"key"`
	Name     string           `json:"name,omitempty"`
	Made     *time.Time       `json:"made,omitempty"`
	Used     time.Time        `json:"last_used"`
	Duration time.Duration    `json:"duration,omitempty"` // nanoseconds
	Data     int              `json:"data,omitempty"`     // bytes
	Hint     int              `json:"hint,omitempty"`     // bytes
	Layers   []inspectedLayer `json:"layers,omitempty"`
	Size     int64            `json:"size"` // of its blobs, the smallest copy of each layer
}

type inspectedLayer struct {
	Identity key.Digest            `json:"identity"`
	Copies   []ocispecs.Descriptor `json:"copies,omitempty"`
	Tree     *ocispecs.Descriptor  `json:"tree,omitempty"`
}

// inspect prints a line for each step that is recorded, the most recently used first. Records without a name are about layers and
// destinations; all prints them too.
func (r *remoteCache) inspect(ctx context.Context, all, asJSON bool) error {
	lines, hidden := []inspected{}, 0
	err := r.each(ctx, func(_ remote.Store, c *catalog.Catalog) error {
		for _, e := range c.Entries(ctx) {
			if e.Record.Name == "" && !all && !asJSON {
				hidden++
				continue
			}
			lines = append(lines, inspectEntry(ctx, c, e))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(r.out, lines)
	}
	w := tabwriter.NewWriter(r.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "SCOPE\tSTEP\tMADE\tTOOK\tLAST USED\tLAYERS\tSIZE")
	for _, l := range lines {
		made, took := "-", "-"
		if l.Made != nil {
			made = r.ago(*l.Made)
		}
		if l.Duration > 0 {
			took = l.Duration.Round(time.Millisecond).String()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", oneLine(l.Scope), stepText(l), made, took, r.ago(l.Used), len(l.Layers), size(l.Size))
	}
	if hidden > 0 {
		fmt.Fprintf(w, "and %s about layers, destinations and hints (--verbose)\n", count(hidden, "record"))
	}
	return w.Flush()
}

func inspectEntry(ctx context.Context, c *catalog.Catalog, e catalog.Entry) inspected {
	rec := e.Record
	l := inspected{Scope: c.Name().Scope, Key: rec.Key, Name: rec.Name, Used: e.Used, Duration: rec.Duration, Data: len(rec.Data), Hint: len(rec.Hint)}
	if !rec.Created.IsZero() {
		l.Made = &rec.Created
	}
	for _, o := range rec.Outputs {
		for _, ref := range o.Layers {
			il := inspectedLayer{Identity: ref.Identity}
			smallest := int64(0)
			for _, b := range c.Layer(ctx, ref.Identity) {
				if smallest == 0 || b.Desc.Size < smallest {
					smallest = b.Desc.Size
				}
				il.Copies = append(il.Copies, b.Desc)
			}
			l.Size += smallest
			if !ref.Tree.IsZero() {
				if desc, ok := c.Tree(ctx, ref.Tree); ok {
					il.Tree = &desc
					l.Size += desc.Size
				}
			}
			l.Layers = append(l.Layers, il)
		}
	}
	return l
}

// stepText names a record in a table.
func stepText(l inspected) string {
	switch {
	case l.Name != "":
		return oneLine(l.Name)
	case l.Data > 0:
		return "(a destination) " + l.Key.Hex()[:12]
	case l.Hint > 0:
		return "(a hint) " + l.Key.Hex()[:12]
	}
	return "(a layer) " + l.Key.Hex()[:12]
}

// oneLine makes text that others wrote fit for a table: no control characters, 72 characters at most.
func oneLine(s string) string {
	s = strings.Join(strings.FieldsFunc(s, func(c rune) bool { return c <= ' ' || c == 0x7f || c >= 0x80 && c < 0xa0 }), " ")
	const most = 72
	if chars := []rune(s); len(chars) > most {
		s = strings.TrimRight(string(chars[:most-3]), " ") + "..."
	}
	return s
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// ago says how long ago a time was; the clock of whoever wrote it may be ahead.
func (r *remoteCache) ago(t time.Time) string {
	return units.HumanDuration(max(r.now.Sub(t), 0)) + " ago"
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
