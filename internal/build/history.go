package build

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"larder/internal/key"
	"larder/internal/record"
	"larder/internal/report"
)

// maxRemembered is how large what a remote cache keeps of a build may be, in bytes.
const maxRemembered = 24 << 10

// history is what is known of earlier builds of the same, for the one who explains this one.
type history struct {
	b       *building
	key     key.Digest // in a catalog: machines check out to different places
	project string     // on this machine: of builds of this Dockerfile in this place, a few hex digits
	began   time.Time

	once sync.Once
	last *report.Build
}

func (b *building) openHistory() *history {
	dir := absolute(b.req.Context)
	name := b.req.Dockerfile
	if name == "" {
		name = "Dockerfile"
	} else if rel, err := filepath.Rel(dir, absolute(name)); err == nil {
		name = rel
	}
	if b.req.DockerfileText != nil {
		name = "-"
	}
	of := func(place string) key.Digest {
		h := key.New("larder.history.v1").Str(place).Str(name).Str(b.req.Target)
		for _, p := range b.req.Platforms {
			h.Str(p.OS).Str(p.Architecture).Str(p.Variant)
		}
		return h.Sum()
	}
	return &history{b: b, key: of(within(dir)), project: of(dir).Hex()[:projectDigits], began: time.Now()}
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// projectDigits is how many hex digits of an ID tell what was built, and randomDigits how many follow: builds that begin in the same
// millisecond have IDs of their own.
const (
	projectDigits = 8
	randomDigits  = 4
)

// id makes the ID of a build. IDs sort by time, as far as the clock does.
func (h *history) id() string {
	at := strings.ReplaceAll(h.began.UTC().Format("20060102-150405.000"), ".", "")
	return fmt.Sprintf("%s-%s%0*x", at, h.project, randomDigits, rand.IntN(1<<(4*randomDigits)))
}

// projectOf tells of an ID what was built.
func projectOf(id string) string {
	_, digits, _ := strings.Cut(id, "-")
	_, digits, _ = strings.Cut(digits, "-")
	if len(digits) != projectDigits+randomDigits {
		return ""
	}
	return digits[:projectDigits]
}

// here gives the last build of the same that this machine did; nil for none.
func (h *history) here() *report.Build { return pastOf(h.b.e.root).last(h.project) }

// Last gives the last build of the same that this machine or a remote cache knows; nil for none.
func (h *history) Last(ctx context.Context) *report.Build {
	h.once.Do(func() {
		h.last = h.here()
		for _, rec := range h.b.session.All(ctx, h.key) {
			if rec.From == "" { // of this machine, maybe of another checkout
				continue
			}
			b, err := report.Unmarshal(rec.Hint)
			if err == nil && (h.last == nil || b.Began.After(h.last.Began) && !b.Began.After(h.began)) {
				h.last = b
			}
		}
	})
	return h.last
}

// write keeps what became of the build's steps: for larder explain, and for the next build to compare with. failed is why the build failed.
// That it could not be kept costs an explanation and nothing else.
func (h *history) write(ctx context.Context, failed error) {
	req := h.b.req
	now := &report.Build{
		ID: h.id(), Began: h.began.UTC(), Took: time.Since(h.began),
		Context: req.Context, Dockerfile: req.Dockerfile, Target: req.Target, Steps: h.b.solver.Steps(),
	}
	if failed != nil {
		now.Error = withoutUserinfo(failed.Error())
	}
	if len(now.Steps) == 0 {
		return
	}
	// What did not change is not worth a request: then the build is explained by what this machine knows of the last one.
	changed := slices.ContainsFunc(now.Steps, func(s report.Step) bool {
		return s.How != report.Exact && (s.Type == report.Run || s.Type == report.File)
	})
	last := h.last
	if changed {
		last = h.Last(ctx)
	} else if last == nil {
		last = h.here()
	}
	report.Carry(now, last)
	if err := h.keep(ctx, now, changed); err != nil && ctx.Err() == nil {
		h.b.e.warn("what became of this build's steps is not kept for larder explain: %v", err)
	}
}

// userinfo finds a name and password in a URL; the reference of an image has none.
var userinfo = regexp.MustCompile(`((?:https?|ftps?|ssh|git)://)[^/?#\s"'<>@]*@`)

// withoutUserinfo takes names and passwords out of the URLs in a text.
func withoutUserinfo(text string) string {
	for { // a password may have an @ that nobody escaped
		next := userinfo.ReplaceAllString(text, "$1")
		if next == text {
			return text
		}
		text = next
	}
}

func (h *history) keep(ctx context.Context, now *report.Build, changed bool) error {
	data, err := now.Marshal(maxBuild)
	if err != nil {
		return err
	}
	if err := pastOf(h.b.e.root).put(now.ID, data); err != nil {
		return err
	}
	if !changed {
		return nil
	}
	data, err = now.Marshal(maxRemembered)
	if errors.Is(err, report.ErrLarge) {
		return nil // this machine has it
	}
	if err != nil {
		return err
	}
	rec, err := h.b.session.PutHint(ctx, &record.Record{Key: h.key, Created: now.Began.Truncate(time.Second), Hint: data}, false)
	if err != nil {
		return err
	}
	h.b.session.Used(rec, nil, false)
	return nil
}
