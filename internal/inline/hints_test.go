package inline

import (
	"math/rand/v2"
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
