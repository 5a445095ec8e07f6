package e2e

import "testing"

// disordered is a project whose Dockerfile copies everything first.
func disordered(t *testing.T, dockerfile string) *ci {
	t.Helper()
	return newCI(t, "busybox", map[string]string{
		"Dockerfile": "ARG REGISTRY=localhost\n" + dockerfile, "README": "hello\n", "junk": "junk\n",
		"list": "a\nb\n", "src/a": "one\n", "src/b": "two\n", "src/sub/c": "three\n", "tool.sh": "#!/bin/sh\necho tool\n",
		"data/x": "x\n", "data/y": "y\n", ".git/HEAD": "ref: refs/heads/main\n", ".git/objects/00/1": "blob\n",
	})
}

// looking has a step for each way to look at things. What no step looks at counts for none.
const looking = `FROM ${REGISTRY}/busybox AS all
COPY . /app
WORKDIR /app
FROM all AS a
RUN cat list > /installed; test ! -e extra || cat extra >> /installed
FROM all AS b
RUN cat $(cat list | sed s,^,src/,) > bundle
FROM all AS c
RUN echo data/* > /listing; if [ -x tool.sh ]; then ./tool.sh >> /listing; fi
FROM all AS d
RUN chmod -R go-w src/sub && echo done >> src/sub/c && mv data moved && rm -rf junk
FROM ${REGISTRY}/busybox
COPY --from=a /installed /
COPY --from=b /app/bundle /
COPY --from=c /listing /
COPY --from=d /app /app
`

// TestObservedEdits edits a project between two builds on one machine in all the ways that a step can and cannot see: only steps that looked
// at what changed run, and the image is that of a build from nothing.
func TestObservedEdits(t *testing.T) {
	c := disordered(t, looking)
	c.try(t, c.machine(t), []edit{
		{"nothing before", func(*testing.T, *ci) {}, "ran ran ran ran"},
		{"nothing", func(*testing.T, *ci) {}, "exact exact exact exact"},
		{"README", writes("README", "hullo\n"), "observed observed observed observed"},
		{"a source file", writes("src/b", "2\n"), "observed ran observed observed"},
		{"one of the same length", writes("src/b", "3\n"), "observed ran observed observed"},
		{"back", writes("src/b", "2\n"), "exact exact exact exact"},
		{"a commit", shell("echo 012345 > .git/HEAD; mkdir .git/objects/01; echo x > .git/objects/01/2"), "observed observed observed observed"},
		{"contents in a listed directory", writes("data/x", "other\n"), "observed observed observed ran"},
		{"a listing grows", writes("data/z", "z\n"), "observed observed ran ran"},
		{"a file that was looked for appears", writes("extra", "more\n"), "ran observed observed observed"},
		{"and is changed", writes("extra", "less\n"), "ran observed observed observed"},
		{"and goes", shell("rm extra"), "exact exact exact exact"},
		{"an exec bit", shell("chmod +x tool.sh"), "observed observed ran observed"},
		{"a file that is written to", writes("src/sub/c", "3\n"), "observed observed observed ran"},
		{"a file becomes a link", shell("rm src/a; ln -s b src/a"), "observed ran observed observed"},
		{"a file becomes a directory", shell("rm junk; mkdir junk; echo x > junk/x"), "observed observed observed ran"},
		{"a new file that nobody looks at", writes("src/new", "new\n"), "observed observed observed observed"},
		{"a COPY split in two", shell(`sed -i 's,^COPY \. .*,COPY src /app/src\nCOPY . /app,' Dockerfile`), "observed observed observed observed"},
		{"a WORKDIR more", shell(`sed -i 's,^COPY \. .*,&\nWORKDIR /app,' Dockerfile`), "observed observed observed observed"},
		{"another owner", shell(`sed -i 's,^COPY \. ,COPY --chown=33:33 . ,' Dockerfile`), "ran ran ran ran"},
	})
}

// mounting has steps that look at stages and at the context through bind mounts.
const mounting = `FROM ${REGISTRY}/busybox AS made
COPY . /in
RUN mkdir -p /out/lib && cp /in/src/a /out/lib/a && cp /in/README /out/doc && cp /in/list /other
FROM ${REGISTRY}/busybox AS one
COPY --from=made /out /opt
RUN cat /opt/lib/a > /one
FROM ${REGISTRY}/busybox AS three
RUN --mount=type=bind,from=made,source=/out/lib,target=/lib2 --mount=type=bind,source=src,target=/src cat /lib2/a /src/sub/c > /three
FROM ${REGISTRY}/busybox AS two
RUN --mount=type=bind,source=list,target=/the/list sort -r /the/list > /two
FROM ${REGISTRY}/busybox AS v
RUN --mount=type=bind,source=data,target=/data,rw echo new > /data/x && cat /data/x /data/y > /v
FROM ${REGISTRY}/busybox AS vi
RUN --mount=type=bind,target=/ctx test -e /ctx/tool.sh && echo /ctx/data/* > /vi
FROM ${REGISTRY}/busybox
COPY --from=one /one /opt /
COPY --from=two /two /
COPY --from=three /three /
COPY --from=v /v /
COPY --from=vi /vi /
`

// TestObservedMounts is the same for bind mounts, and for what COPY brings from a stage.
func TestObservedMounts(t *testing.T) {
	c := disordered(t, mounting)
	c.try(t, c.machine(t), []edit{ // made, one, three, two, v, vi
		{"nothing before", func(*testing.T, *ci) {}, "ran ran ran ran ran ran"},
		{"nothing of that", writes(".git/HEAD", "other\n"), "observed exact exact exact exact observed"},
		{"what is copied from a stage and not read", writes("README", "hullo\n"), "ran observed exact exact exact observed"},
		{"what is in the stage only", writes("list", "b\na\nc\n"), "ran exact exact ran exact observed"},
		{"what is read of it", writes("src/a", "1\n"), "ran ran ran exact exact observed"},
		{"a file in a bind mount", writes("src/sub/c", "3\n"), "observed exact ran exact exact observed"},
		{"a file in a bind mount that is not read", writes("src/b", "2\n"), "observed exact observed exact exact observed"},
		{"a file that is written to", writes("data/x", "xxx\n"), "observed exact exact exact ran observed"},
		{"a file beside it", writes("data/y", "yy\n"), "observed exact exact exact ran observed"},
		{"a listing of the context", writes("data/w", "w\n"), "observed exact exact exact observed ran"},
	})
}
