package cachemount

import (
	"testing"
	"time"
)

// A step leaves its directory while another one of the key is being saved, which takes longer than the patience of rest.
func TestXReleaseWhileAnotherIsSaved(t *testing.T) {
	d := newDepot(t)
	m := newMachine(t, d)
	began, goOn := make(chan struct{}, 100), make(chan struct{})
	m.begin = func(string) {
		began <- struct{}{}
		<-goOn
	}
	b := m.build()
	first := acquire(t, b, apart, Private)
	second := acquire(t, b, apart, Private)
	write(t, second.Dir(), files(apart, "second", 3))
	release(t, second)
	<-began
	write(t, first.Dir(), files(apart, "first", 3))
	start := time.Now()
	release(t, first)
	t.Log("release took", time.Since(start))
	if !exists(first.(*saved).restFile()) {
		t.Error("a step that came to its end counts as killed")
	}
	close(goOn)
	b.end()
	t.Log(len(d.restored(apart)), keys(d.restored(apart)))
}

func keys(m map[string]string) (out []string) {
	for k := range m {
		out = append(out, k)
	}
	return out
}
