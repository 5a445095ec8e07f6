package inline

import (
	"encoding/base64"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"larder/internal/catalog"
	"larder/internal/key"
	"larder/internal/record"
)

// hinted says: one step that was observed, with a hint of n bytes.
func hinted(n int) *Data {
	exact, seen := recordOf("RUN make", "final"), recordOf("RUN make", "final")
	seen.Key = digestOf("seen")
	set := &record.Record{Key: digestOf("set"), Hint: make([]byte, n)}
	rand.NewChaCha8([32]byte{1}).Read(set.Hint)
	exact.With, seen.With = []key.Digest{seen.Key}, []key.Digest{set.Key}
	return &Data{Records: []*record.Record{exact, seen, set}, Layers: map[key.Digest][]catalog.Blob{digestOf("final"): {copyOf("final")}}}
}

func read(t *testing.T, d *Data) map[key.Digest]*record.Record {
	t.Helper()
	got, _, err := FromConfig(configWith(t, mustMarshal(t, d)))
	if err != nil {
		t.Fatal(err)
	}
	out := map[key.Digest]*record.Record{}
	for _, r := range got.Records {
		out[r.Key] = r
	}
	return out
}

func TestHintsGoAlong(t *testing.T) {
	d := hinted(1000)
	got := read(t, d)
	if len(got) != 3 || got[d.Records[2].Key].Digest() != d.Records[2].Digest() || got[d.Records[0].Key].Digest() != d.Records[0].Digest() {
		t.Errorf("read back %d records", len(got))
	}
	if _, err := hinted(maxHint + 1).Marshal(); err == nil {
		t.Error("a hint without end")
	}
}

// TestHintsGiveWay: what does not go into a config with its hints goes without.
func TestHintsGiveWay(t *testing.T) {
	d := hinted(maxHint)
	for i := range 20 {
		more := *d.Records[2]
		more.Hint = make([]byte, maxHint)
		rand.NewChaCha8([32]byte{2, byte(i)}).Read(more.Hint)
		more.Key = key.Bytes(more.Hint)
		d.Records[1].With = append(d.Records[1].With, more.Key)
		d.Records = append(d.Records, &more)
	}
	got := read(t, d)
	if len(got) != 1 || len(got[digestOf("key of RUN make")].With) != 0 {
		t.Errorf("read back %d records: %+v", len(got), got[digestOf("key of RUN make")])
	}
	if len(d.Records[0].With) != 1 || d.Records[2].Hint == nil {
		t.Error("Marshal changed its input")
	}
}

// TestClampedHasNoHints: what is known of earlier builds must not tell in an image whose bytes depend on its sources only.
func TestClampedHasNoHints(t *testing.T) {
	d, bare := hinted(1000), hinted(1000)
	d.Records[0].Hint = []byte("of a record that is more")
	d.Records[0].With = append(d.Records[0].With, digestOf("pruned"))
	bare.Records = bare.Records[:1]
	bare.Records[0].With = nil
	a, b := mustMarshal(t, d.Clamped(day.Add(-time.Hour))), mustMarshal(t, bare.Clamped(day.Add(-time.Hour)))
	if string(a) != string(b) {
		t.Error("hints tell")
	}
}

// TestNoHintsOfOtherStages: of a stage that is not in the image there are the exact records and nothing of what its commands looked at, nor
// what explains builds.
func TestNoHintsOfOtherStages(t *testing.T) {
	d := hinted(1000)
	exact, seen := recordOf("RUN make secrets", "builder"), recordOf("RUN make secrets", "builder")
	seen.Key = digestOf("seen secrets")
	set := &record.Record{Key: digestOf("secret set"), Hint: []byte("private/key.pem")}
	list := &record.Record{Key: digestOf("secret list"), Hint: []byte("private list")}
	exact.With, seen.With = []key.Digest{seen.Key}, []key.Digest{list.Key, set.Key}
	exact.Hint = []byte("private word")
	explanation := &record.Record{Key: digestOf("explanation"), Hint: []byte("private build")}
	want := read(t, d)
	d.Records = append(d.Records, exact, seen, set, list, explanation)
	text := decoded(t, mustMarshal(t, d))
	if strings.Contains(text, base64.StdEncoding.EncodeToString([]byte("private/key.pem"))) || strings.Contains(text, "make secrets") {
		t.Error(text)
	}
	got := read(t, d)
	if r := got[exact.Key]; r == nil || len(r.With) > 0 || len(r.Hint) > 0 || len(r.Outputs) != 1 {
		t.Errorf("the exact record of the other stage: %+v", r)
	}
	delete(got, exact.Key)
	if len(got) != len(want) {
		t.Errorf("read back %d other records, want %d", len(got), len(want))
	}
	for k, r := range want {
		if got[k] == nil || got[k].Digest() != r.Digest() {
			t.Errorf("of the image's own stage: %+v", got[k])
		}
	}
	if len(exact.With) != 1 || exact.Hint == nil {
		t.Error("Marshal changed its input")
	}
}
