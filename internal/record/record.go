// Package record keeps what steps made: under a step's key, the layers that came out, so that the step need not be run
// again. It knows the local root; the remote catalog builds on the same values.
package record

import (
	"encoding/json"
	"time"

	"larder/internal/key"
)

// Record says what one step made (DESIGN section 2). It is a value: once stored under a key it never changes, and the first
// one stored for a key wins (DESIGN section 3).
type Record struct {
	Key      key.Digest    `json:"key"`
	Name     string        `json:"name"`               // the step as the display shows it
	Outputs  []Output      `json:"outputs,omitempty"`  // one per output of the step
	Created  time.Time     `json:"created"`            // when the step ended, UTC, whole seconds
	Duration time.Duration `json:"duration,omitempty"` // how long it ran, nanoseconds
	// Data is what a record without outputs says: a destination resolution, the digest of a part of a state.
	Data []byte `json:"data,omitempty"`
	// Hint is what a record says that nobody need believe: path sets and lists of their names, what is known of an earlier build for
	// explanations. A wrong one costs look-ups: what it leads to is another record, which is believed or not for itself.
	Hint []byte `json:"hint,omitempty"`
	// With are keys of records that were of use on the way to this one, and will be again when this one is a miss: whoever
	// keeps this record keeps them.
	With []key.Digest `json:"with,omitempty"`
	// From names the remote scope that a local record was copied from; empty for a step that was done here. Who does not
	// read that scope does not believe the record.
	From string `json:"from,omitempty"`
}

// Digest names all that a record says, but for From.
func (r *Record) Digest() key.Digest {
	c := *r
	c.From = ""
	b, _ := json.Marshal(&c) // strings, numbers and digests: cannot fail
	return key.Bytes(b)
}

// Output is one state that a step made: new layers on what it was given.
type Output struct {
	Base   int     `json:"base"` // index of the step's input below the new layers; -1 for none
	Layers []Layer `json:"layers"`
}

// OnlyLayer is what a record of one layer, on nothing, says that a step made.
func OnlyLayer(l Layer) []Output { return []Output{{Base: -1, Layers: []Layer{l}}} }

// OnlyHint tells a record that says nothing which anybody need believe.
func (r *Record) OnlyHint() bool { return len(r.Hint) > 0 && len(r.Outputs) == 0 && len(r.Data) == 0 }

// OnlyLayer gives the layer of a record that names one; false for any other record.
func (r *Record) OnlyLayer() (Layer, bool) {
	if len(r.Outputs) != 1 || len(r.Outputs[0].Layers) != 1 {
		return Layer{}, false
	}
	return r.Outputs[0].Layers[0], true
}

// Layer names a layer that a step made, the bottom one first in its Output.
type Layer struct {
	Identity key.Digest `json:"identity"`
	Pinned   bool       `json:"pinned,omitempty"`
	// Tree names the tree blob that Store.Tree opens, for an observed layer. A pinned one's tree lies with its files.
	Tree key.Digest `json:"tree,omitzero"`
}
