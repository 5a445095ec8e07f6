package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"

	"larder/internal/observation"
)

// Bounds of a stored build, each far above what builds have.
const (
	maxDecoded = 32 << 20 // bytes of JSON
	maxObjects = 400_000  // of JSON, nearly all of them looks
	maxValues  = 1_500_000
	maxSteps   = 10_000
	maxLooks   = 300_000
)

// ErrLarge is wrapped by Marshal's error for a build that does not fit into its limit.
var ErrLarge = errors.New("larger than its limit")

// Marshal writes a build as compressed JSON of at most limit bytes. Where that is too little, the looks of the steps that have most
// are left out, then why steps ran.
func (b *Build) Marshal(limit int) ([]byte, error) {
	c := *b
	c.Steps = slices.Clone(b.Steps)
	looks := make([]int, len(c.Steps)) // by step
	total := 0
	for i := range c.Steps {
		c.Steps[i].Inputs = storable(c.Steps[i].Inputs)
		looks[i] = c.Steps[i].looks()
		total += looks[i]
	}
	drop := func(n int) { // at least so many looks
		for n > 0 && total > 0 {
			i := slices.Index(looks, slices.Max(looks))
			c.Steps[i].forget()
			n, total = n-looks[i], total-looks[i]
			looks[i] = 0
		}
	}
	drop(total - maxLooks)
	for {
		out, err := c.marshal()
		switch {
		case err == nil && len(out) <= limit:
			return out, nil
		case err != nil && !errors.Is(err, ErrLarge):
			return nil, err
		case total > 0 && err == nil: // what is left out takes some part of the bytes, as a rule
			drop(max(1, int(float64(total)*float64(len(out)-limit)/float64(len(out)))))
		case total > 0:
			drop(1)
		case slices.ContainsFunc(c.Steps, func(s Step) bool { return s.Why != nil }):
			for i := range c.Steps {
				c.Steps[i].Why = nil
			}
		default:
			return nil, fmt.Errorf("what is known of build %s: %w", b.ID, ErrLarge)
		}
	}
}

func (b *Build) marshal() ([]byte, error) {
	if len(b.Steps) > maxSteps {
		return nil, fmt.Errorf("%d steps: %w", len(b.Steps), ErrLarge)
	}
	text, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	if err := bounded(text); err != nil {
		return nil, err
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	return enc.EncodeAll(text, nil), nil
}

// bounded counts what JSON can make the reader allocate. Text that only looks like an object counts as well.
func bounded(text []byte) error {
	if len(text) > maxDecoded || bytes.Count(text, []byte("{")) > maxObjects || bytes.Count(text, []byte(",")) > maxValues {
		return ErrLarge
	}
	return nil
}

// storable copies inputs. Of a group of which one look is at a name that is no text, which JSON cannot have, it is not known what was looked at.
func storable(inputs []Input) []Input {
	inputs = slices.Clone(inputs)
	for i := range inputs {
		groups := slices.Clone(inputs[i].Groups)
		for j := range groups {
			odd := func(s Seen) bool { return !utf8.ValidString(s.Path) }
			if slices.ContainsFunc(groups[j].Seen, odd) {
				groups[j].Seen = nil
			}
		}
		inputs[i].Groups = groups
	}
	return inputs
}

func (s *Step) looks() int {
	n := 0
	for _, in := range s.Inputs {
		for _, g := range in.Groups {
			n += len(g.Seen)
		}
	}
	return n
}

// forget leaves out what the step looked at.
func (s *Step) forget() {
	for _, in := range s.Inputs {
		for j := range in.Groups {
			in.Groups[j].Seen = nil
		}
	}
}

// Unmarshal reads what Marshal wrote. What is damaged, or larger than builds are, is an error.
func Unmarshal(data []byte) (*Build, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxDecoded), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	text, err := dec.DecodeAll(data, nil)
	if err != nil {
		return nil, err
	}
	return parse(text)
}

// parse reads the JSON of a build.
func parse(text []byte) (*Build, error) {
	if err := bounded(text); err != nil {
		return nil, err
	}
	b := new(Build)
	if err := json.Unmarshal(text, b); err != nil {
		return nil, err
	}
	return b, b.check()
}

// check refuses what could not be worked with.
func (b *Build) check() error {
	if len(b.Steps) > maxSteps {
		return fmt.Errorf("%d steps: %w", len(b.Steps), ErrLarge)
	}
	looks := 0
	for i := range b.Steps {
		for _, in := range b.Steps[i].Inputs {
			for _, g := range in.Groups {
				if looks += len(g.Seen); looks > maxLooks {
					return fmt.Errorf("more than %d looks: %w", maxLooks, ErrLarge)
				}
				for _, s := range g.Seen {
					if err := s.check(); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// every is all kinds of looks.
const every = observation.Entry | observation.List | observation.Content | observation.Whole

func (s Seen) check() error {
	if s.Kind&^every != 0 {
		return fmt.Errorf("kind %d of a look is not known", s.Kind)
	}
	if s.Path == "" {
		return nil
	}
	for name := range strings.SplitSeq(s.Path, "/") {
		if name == "" || name == "." || name == ".." {
			return fmt.Errorf("%.80q is no path of a look", s.Path)
		}
	}
	return nil
}
