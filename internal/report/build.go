// Package report explains a build: for each step whether it ran or was spared, by what, and why. It is pure: others tell it what
// happened, and store what it says.
package report

import (
	"encoding/hex"
	"fmt"
	"time"

	"larder/internal/key"
	"larder/internal/observation"
	"larder/internal/tree"
)

// How tells what became of a step.
type How string

const (
	Ran      How = "ran"      // its command ran, or its operation was done
	Exact    How = "exact"    // found by the identities of its inputs
	Content  How = "content"  // a file operation, found by what it copies and what it lands on
	Observed How = "observed" // found by what it looks at
	Failed   How = "failed"   // it ran, and failed
	Kept     How = "kept"     // not reached: what an earlier build knew of it, kept for the next one; see Carry
)

// Build is what is known of how a build came about. It is stored, so that the next one can say what changed.
type Build struct {
	ID         string        `json:"id"`
	Began      time.Time     `json:"began"`
	Took       time.Duration `json:"took"` // nanoseconds
	Context    string        `json:"context"`
	Dockerfile string        `json:"dockerfile"`
	Target     string        `json:"target,omitempty"`
	Error      string        `json:"error,omitempty"` // why the build failed
	Steps      []Step        `json:"steps"`           // inputs before what stands on them
}

// Step is one step of a build.
type Step struct {
	Name     string `json:"name"` // as the display shows it: "[builder 3/5] RUN npm ci"
	Platform string `json:"platform,omitempty"`
	File     string `json:"file,omitempty"` // the Dockerfile, and the line in it, 1 for the first
	Line     int    `json:"line,omitempty"`
	Type     Type   `json:"type"`

	How  How           `json:"how"`
	From string        `json:"from,omitempty"`         // the catalog in which it was found; empty for this machine
	Made time.Time     `json:"made,omitzero"`          // when what was found was made
	Took time.Duration `json:"took,omitempty"`         // how long it ran, now or, for one that was spared, when it was made; nanoseconds
	Why  []Cause       `json:"why,omitempty"`          // why it ran, the true cause first; empty for one that was spared
	Not  string        `json:"not_observed,omitempty"` // why its inputs were not observed; empty where they were

	Recipe Recipe  `json:"recipe"`
	Inputs []Input `json:"inputs,omitempty"`
	// Result names what a source gave or a file operation made: of a context and a file operation the identity of a layer, else what
	// BuildKit calls the source, "docker-image://docker.io/library/node:20@sha256:...".
	Result string `json:"result,omitempty"`
	// Tree is the tree blob of what a file operation made, zero where there is none.
	Tree key.Digest `json:"tree,omitzero"`

	// Root is the tree of that where it is at hand; nil in what was stored.
	Root *tree.Node `json:"-"`
}

// Type is what sort of step it is.
type Type string

const (
	Run     Type = "run"
	File    Type = "file"    // COPY, ADD, WORKDIR ...
	Image   Type = "image"   // a base image
	Context Type = "context" // a build context
	Other   Type = "other"
)

// Recipe is a step's own definition, without its inputs. No value of a variable stands in it, only what tells two values apart:
// people put tokens into build arguments (DESIGN invariant 4).
type Recipe struct {
	Args []string          `json:"args,omitempty"`
	Env  map[string]string `json:"env,omitempty"` // a name, and a few hex digits of a digest of its value
	// BuildArgs are the names in Env that an ARG declares, in any order.
	BuildArgs []string `json:"build_args,omitempty"`
	Cwd       string   `json:"cwd,omitempty"`
	User      string   `json:"user,omitempty"`
	Network   string   `json:"network,omitempty"`
	Security  string   `json:"security,omitempty"`
	Mounts    []string `json:"mounts,omitempty"` // "cache /root/.cache", in the order of the step
	Other     string   `json:"other,omitempty"`  // of all else, a few hex digits of a digest
}

// Input is what a step is given at one place: its root file system, a bind mount.
type Input struct {
	Place  string  `json:"place"`            // where the step has it: "/" for the root file system
	Source string  `json:"source,omitempty"` // of a bind mount: the path in what is mounted that is shown, "" for all; layers' trees begin above it
	Groups []Group `json:"groups"`
}

// Group is a run of neighbouring layers of an input.
type Group struct {
	Layers   []Layer `json:"layers"` // the bottom one first
	Observed bool    `json:"observed,omitempty"`
	// Seen is what the step looked at and what that was, of an observed group: of the run that made what counts now. Nil says
	// that it is not known, which is another thing than that the step looked at nothing.
	Seen []Seen `json:"seen,omitzero"`

	// Root is the group as it is served today; nil in what was stored.
	Root *tree.Node `json:"-"`
}

// Layer is a layer of an input.
type Layer struct {
	Identity key.Digest `json:"identity"`
	Step     string     `json:"step,omitempty"`  // the name of the step that made it; empty for one of a base image
	Image    string     `json:"image,omitempty"` // the base image that it belongs to, with its digest: "docker.io/library/node:20@sha256:..."
	Tree     key.Digest `json:"tree,omitzero"`   // its tree blob, where there is one

	// Root is the layer's tree where that is at hand; nil in what was stored.
	Root *tree.Node `json:"-"`
}

// Seen is a look with a few bytes of what was seen, enough to tell two answers apart.
type Seen struct {
	Path  string           `json:"path"`
	Kind  observation.Kind `json:"kind"`
	Value Value            `json:"value"`
}

// Value is the first bytes of a value that observation gave to a look. JSON has it in hex digits.
type Value [8]byte

// MarshalText implements encoding.TextMarshaler.
func (v Value) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, v[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (v *Value) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(v)) {
		return fmt.Errorf("%.40q is no value of a look", text)
	}
	_, err := hex.Decode(v[:], text)
	return err
}

// Cause is one reason why a step ran.
type Cause struct {
	Kind CauseKind `json:"kind"`
	Text string    `json:"text"` // for people: "COPY src/ changed app.py; this step read app.py"
	// Paths are the first files concerned, and More how many there are besides.
	Paths []string `json:"paths,omitempty"`
	More  int      `json:"more,omitempty"`
}

// CauseKind is what sort of reason it is. Programs read it.
type CauseKind string

const (
	New      CauseKind = "new"      // never seen before
	Command  CauseKind = "recipe"   // the command or its options changed
	Variable CauseKind = "variable" // ARG or ENV changed
	Base     CauseKind = "base"     // the base image moved
	Files    CauseKind = "files"    // files that the step looked at changed
	Before   CauseKind = "before"   // an earlier step ran and made something else
	Shape    CauseKind = "shape"    // a step was added, removed or moved before it
	Told     CauseKind = "told"     // --no-cache, --pull, --cache-refresh
	Lost     CauseKind = "lost"     // a result was there and is gone: pruned, damaged
	Again    CauseKind = "again"    // it failed the last time
	Unknown  CauseKind = "unknown"  // seen before, nothing of that is known any more
)
