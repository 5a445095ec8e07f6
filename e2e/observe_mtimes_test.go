package e2e

import (
	"strings"
	"testing"
)

// TestObservedTimes: a tool that goes by times alone, as make does, reads no source that it has an object of. A step is run when one of
// them changes, even where that keeps its size: in a cache mount there is what was made of the old one.
func TestObservedTimes(t *testing.T) {
	for name, dockerfile := range map[string]string{
		"in a cache mount": `FROM ${REGISTRY}/busybox
COPY . /w
RUN --mount=type=cache,target=/c for f in a b; do if [ ! -e /c/$f.o ] || [ /w/src/$f -nt /c/$f.o ]; then cp /w/src/$f /c/$f.o; fi; done; cat /c/a.o /c/b.o > /out
`,
		"in a layer below": `FROM ${REGISTRY}/busybox
RUN mkdir /c && echo a0 > /c/a.o && echo b0 > /c/b.o && touch -d 2001-01-01 /c/*.o
COPY . /w
RUN for f in a b; do if [ /w/src/$f -nt /c/$f.o ]; then cp /w/src/$f /c/$f.o; fi; done; cat /c/a.o /c/b.o > /out
`,
	} {
		t.Run(name, func(t *testing.T) {
			c := disordered(t, dockerfile)
			root := c.machine(t)
			for _, edit := range []func(t *testing.T, c *ci){
				writes("src/a", "a-v1\n"), writes("src/b", "b-v1\n"), writes("src/b", "b-v2\n"), writes("src/a", "a-v3\n"),
			} {
				edit(t, c)
				o := c.observed(t, root)
				if got := o.hows(); !strings.HasSuffix(got, "ran") {
					t.Errorf("after an edit of a file that is only compared by its time: %q", got)
				}
			}
		})
	}
}
