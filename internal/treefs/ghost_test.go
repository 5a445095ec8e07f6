package treefs

import "testing"

// TestWhiteoutsAreNotListed: overlay lists a directory that only one lower has as that lower does, and would show the whiteouts in it.
func TestWhiteoutsAreNotListed(t *testing.T) {
	p, _ := draw(t).file("d/a", "a").whiteout("d/gone").written(true)
	fs := show(t, Options{}, p)
	root := over(t, fs.Dir(0), native(t, "other/n=n"))
	if got := names(t, root+"/d"); got != "a" {
		t.Errorf("listed %q", got)
	}
	if got := names(t, over(t, fs.Dir(0), native(t, "d/gone=g", "d/n=n"))+"/d"); got != "a n" {
		t.Errorf("merged: listed %q", got)
	}
}
