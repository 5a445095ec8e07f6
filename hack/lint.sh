#!/usr/bin/env bash
# gofmt, vet, staticcheck, and the rules of this repository that a shell can check. Says everything that is wrong.
set -uo pipefail
bad=0
fail() { echo "lint: $*" >&2; bad=1; }

mapfile -t files < <(git ls-files --cached --others --exclude-standard -- '*.go' | while read -r f; do [ -f "$f" ] && echo "$f"; done)

unformatted=$(gofmt -l "${files[@]}")
[ -z "$unformatted" ] || fail "not gofmt'ed:" $unformatted

go vet ./... || fail "go vet"
go tool staticcheck ./... || fail "staticcheck"

for f in "${files[@]}"; do
	n=$(wc -l <"$f")
	[ "$n" -le 400 ] || fail "$f has $n lines: give its parts files of their own (400 at most)"
	case $f in
	*/util/* | */utils/* | */common/* | */helpers/* | */types/* | */manager/*) fail "$f: a package's name says its one job" ;;
	esac
done

markers=$(grep -nE '\b(TODO|FIXME|XXX)\b' "${files[@]}" /dev/null)
[ -z "$markers" ] || fail "unfinished:"$'\n'"$markers"

if command -v shellcheck >/dev/null; then
	shellcheck hack/*.sh demo/*.sh .ci/run || fail "shellcheck"
fi
exit $bad
