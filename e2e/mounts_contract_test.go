package e2e

import (
	"strings"
	"testing"
)

// contracted does to a cache mount what tools do to their directories, in three builds. The first makes it, the second changes what it
// was given, the third only looks.
var contracted = map[string]string{
	"Dockerfile": `ARG REGISTRY
FROM ${REGISTRY}/toolchain
COPY act.sh look.sh /
ARG ROUND
RUN --mount=type=cache,target=/m sh -e /act.sh $ROUND && sh -e /look.sh
`,
	"act.sh": `cd /m
case $1 in
1)
	mkdir -p dir/sub && echo one > dir/sub/file && ln -s sub/file dir/link
	echo linked > a && ln a b
	echo timed > timed && touch -d '2001-02-03 04:05:06.123456789 UTC' timed
	truncate -s 50M sparse && printf x | dd of=sparse bs=1 seek=40M conv=notrunc status=none
	sqlite3 db.sqlite 'pragma journal_mode=wal; create table t(n); insert into t values (1);' >/dev/null
	mkfifo pipe
	echo mode > mode && chown 33:44 mode && chmod 4750 mode
	;;
2)
	mv dir moved && echo two >> moved/sub/file
	echo more >> b
	touch -d '1999-12-31 23:59:59.000000001 UTC' timed
	flock lock sh -c 'flock -n lock true && echo two held the lock; echo locked > lock' 9>lock
	sqlite3 db.sqlite 'insert into t values (2);'
	printf y | dd of=sparse bs=1 seek=10M conv=notrunc status=none
	python3 -c 'import socket; s = socket.socket(socket.AF_UNIX); s.bind("/m/socket"); s.listen(); c = socket.socket(socket.AF_UNIX); c.connect("/m/socket")'
	;;
esac
`,
	"look.sh": `cd /m
for f in dir/sub/file dir/link moved/sub/file moved/link lock; do
	test ! -e $f || echo $f: $(cat $f)
done
echo links: $(cat b) $(stat -c %h a) $(test a -ef b && echo same)
echo times: $(TZ=UTC stat -c %y timed)
echo rows: $(sqlite3 db.sqlite 'select n from t order by n')
echo sparse: $(stat -c %s sparse) $(tr -d '\000' < sparse) $(test $(du -k sparse | cut -f1) -lt 1000 && echo with holes)
echo mode: $(stat -c '%a %u:%g %F' mode pipe)
echo socket: $(test -S socket && echo there || echo gone)
`,
}

// TestMountContract gives steps the directory that a cache mount was when another machine ended: renames, links, times, locks, a database
// and holes are as they were. A socket is gone, as nobody listens.
func TestMountContract(t *testing.T) {
	p := newCI(t, "toolchain", contracted)
	for round, want := range []string{
		`dir/sub/file: one
dir/link: one
links: linked 2 same
times: 2001-02-03 04:05:06.123456789 +0000
rows: 1
sparse: 52428800 x with holes
mode: 4750 33:44 regular file 644 0:0 fifo
socket: gone`,
		`moved/sub/file: one two
moved/link: one two
lock: locked
links: linked more 2 same
times: 1999-12-31 23:59:59.000000001 +0000
rows: 1 2
sparse: 52428800 yx with holes
mode: 4750 33:44 regular file 644 0:0 fifo
socket: there`,
		`moved/sub/file: one two
moved/link: one two
lock: locked
links: linked more 2 same
times: 1999-12-31 23:59:59.000000001 +0000
rows: 1 2
sparse: 52428800 yx with holes
mode: 4750 33:44 regular file 644 0:0 fifo
socket: gone`,
	} {
		b := p.fresh(t, "--build-arg", "ROUND="+string(rune('1'+round)), "-o", "type=cacheonly")
		if got := strings.Join(b.printed(), "\n"); got != want {
			t.Fatalf("round %d:\n%s\n\nwant:\n%s\n\nthe build said:\n%s", round+1, got, want, b.said)
		}
	}
}
