package cache

import (
	"slices"
	"strings"
	"testing"

	"larder/internal/key"
	"larder/internal/layer"
	"larder/internal/record"
)

// TestWhatGoesWithAnImage: with the steps of an image goes what they are found by, and what leads there. Of other stages there are the exact
// records, without names and what leads there.
func TestWhatGoesWithAnImage(t *testing.T) {
	w := newShared(t)
	s := w.begin("")
	// stage makes the records of a step that was found by what it looked at.
	stage := func(name, result string) (exact, seen *record.Record) {
		exact, seen = made(name, result), made("seen "+name, result)
		exact.With = []key.Digest{seen.Key}
		seen.With = []key.Digest{keyOf("list of " + name), keyOf("set of " + name), exact.Key, keyOf("nowhere")}
		for _, r := range []*record.Record{exact, seen} {
			if _, err := s.Put(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		w.put(s, hintOf("list of "+name, listOf("set of "+name)), true)
		w.put(s, hintOf("set of "+name, []byte("looks")), false)
		return exact, seen
	}
	use := func(result bool, records ...*record.Record) {
		for _, r := range records {
			ref, _ := r.OnlyLayer()
			s.Used(r, []*layer.Layer{layer.New(ref.Identity, true, nil, nil)}, result)
		}
	}
	exact, _ := stage("final", "layer") // it was run: what it is found by only helped
	use(true, exact)
	exact, seen := stage("found", "layer")
	use(true, exact, seen)
	exact, _ = stage("builder", "its layer")
	use(false, exact)
	exact, seen = stage("builder found", "its other layer")
	use(false, seen, exact)
	exact, seen = stage("check", "layer") // which made what a step of the image made: nothing, for one
	use(false, seen, exact)
	w.put(s, hintOf("last build", []byte("explanation")), false)

	var got []string
	names := map[key.Digest]string{}
	for _, n := range []string{"final", "found", "builder", "builder found", "check"} {
		for _, k := range []string{n, "seen " + n, "list of " + n, "set of " + n} {
			names[keyOf(k)] = k
		}
	}
	for _, r := range s.Records(t.Context(), func(id key.Digest) bool { return id == keyOf("layer") }) {
		got = append(got, names[r.Key]+": "+r.Name)
	}
	slices.Sort(got)
	want := []string{
		"builder found: ", "builder: ", "check: ", "final: RUN final", "found: RUN found", "list of final: ", "list of found: ",
		"seen final: RUN seen final", "seen found: RUN seen found", "set of final: ", "set of found: ",
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("with the image go\n%s", strings.Join(got, "\n"))
	}
}
