package record

import (
	"bytes"
	"sync"
	"testing"

	"larder/internal/key"
)

func TestHints(t *testing.T) {
	plain, hint := sample("s"), &Record{Key: key.Bytes([]byte("key")), Hint: []byte("x")}
	with := sample("s")
	with.Hint = []byte("x")
	data := &Record{Key: plain.Key, Data: []byte("x")}
	for _, r := range []*Record{plain, with, data, {Key: plain.Key}} {
		if r.OnlyHint() {
			t.Errorf("%+v is taken for a hint", r)
		}
	}
	if !hint.OnlyHint() {
		t.Error("a hint is none")
	}
	if plain.Digest() == with.Digest() || hint.Digest() == data.Digest() {
		t.Error("digests do not tell hints apart")
	}
	from := *hint
	if from.From = "main"; from.Digest() != hint.Digest() {
		t.Error("where a record is from is in its digest")
	}
	s := open(t)
	if _, err := s.Put(hint); err != nil {
		t.Fatal(err)
	}
	if r, ok := s.Get(hint.Key); !ok || !bytes.Equal(r.Hint, hint.Hint) {
		t.Errorf("read back %+v", r)
	}
}

// TestReplaceLeavesNoGap: who reads while a record is replaced finds the old one or the new one.
func TestReplaceLeavesNoGap(t *testing.T) {
	s := open(t)
	if _, err := s.Put(sample("first")); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 200 {
				if _, err := s.Replace(sample("another")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 400 {
		if _, ok := s.Get(sample("").Key); !ok {
			t.Fatal("there is nothing")
		}
	}
	wg.Wait()
}
