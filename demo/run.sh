#!/usr/bin/env bash
# make demo: builds the project in demo/notes with larder, edits a line, builds again, twice more on empty machines that have only
# the registry, runs the tests, and lets skopeo read the image. Then it edits the badly ordered project in demo/greet, and lets larder
# explain what ran. It works on copies, with a local root and a registry of its own, and leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
	echo 'demo: RUN steps need root here; try: sudo make demo' >&2
	exit 3
fi

cache=${LARDER_DEV_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/larder-dev}
mkdir -p "$cache"
work=$(mktemp -d "$cache/demo-XXXXXX")
registry_pid=
finish() {
	if [ -n "$registry_pid" ]; then
		kill "$registry_pid" 2>/dev/null || true
		wait "$registry_pid" 2>/dev/null || true
	fi
	rm -rf "$work"
}
trap finish EXIT

bin/devregistry -addr 127.0.0.1:0 -dir "$work/registry" debian golang >"$work/registry.out" &
registry_pid=$!
registry=
for _ in $(seq 300); do
	registry=$(sed -n 's/^listening on //p' "$work/registry.out")
	[ -n "$registry" ] && break
	kill -0 "$registry_pid" # it says itself why it ended
	sleep 0.1
done
[ -n "$registry" ] || { echo 'demo: the registry did not start in 30 seconds' >&2; exit 1; }

cp -r demo/notes demo/greet "$work"
project=notes
image=$registry/demo/notes:latest

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
report=
build() { # what happened, then flags
	local what=$1 start end
	shift
	say "$what"
	start=$(date +%s%N)
	bin/larder build --root "$work/root" --build-arg "REGISTRY=$registry" -t "$image" "$@" "$work/$project"
	end=$(date +%s%N)
	report+=$(printf '%7d.%02d s  %s' $(((end - start) / 1000000000)) $(((end - start) / 10000000 % 100)) "$what")$'\n'
}

remote=(--push --cache "${image%:*}")
build 'First build, nothing anywhere: pulls the base image, downloads modules, compiles, tests; pushes image and cache' "${remote[@]}"
build 'Again, nothing changed: no step runs, nothing is sent' "${remote[@]}"
sed -i 's/Hello from the first build/Hello from the second build/' "$work/notes/main.go"
build 'One line of main.go changed: only the steps that see it run, with warm caches' "${remote[@]}"
rm -rf "$work/root"
build 'The same on an empty machine, which has only the registry: no step runs, no layer is fetched' "${remote[@]}"
sed -i 's/Hello from the second build/Hello from an empty machine/' "$work/notes/main.go"
rm -rf "$work/root"
build 'One line changed on an empty machine: cache mounts come from the registry, only what changed is compiled' "${remote[@]}"

say 'larder run: the tests, in the build stage, with its cache mounts'
bin/larder run --root "$work/root" --build-arg "REGISTRY=$registry" --cache "${image%:*}" --target build "$work/notes" -- go test ./...

say "Read back with skopeo: $image"
skopeo inspect --tls-verify=false --format '{{.Digest}}  {{len .Layers}} layers  {{.Os}}/{{.Architecture}}' "docker://$image"
skopeo copy --quiet --src-tls-verify=false "docker://$image" "oci:$work/pulled:latest"
mkdir "$work/rootfs"
for blob in "$work"/pulled/blobs/sha256/*; do
	tar -xf "$blob" -C "$work/rootfs" 2>/dev/null || true # config and manifest are no archives
done
hello=$("$work/rootfs/notes" -hello)
echo "the program in it says: $hello"
[ "$hello" = 'Hello from an empty machine.' ] || { echo 'demo: that is not the edited program' >&2; exit 1; }

project=greet
image=$registry/demo/greet:latest
remote=(--push --cache "${image%:*}")
ran() { # how many RUN steps have to have run in the last build
	bin/larder explain --root "$work/root" >"$work/explained"
	local n
	n=$(awk '/^\[/ { run = / RUN / } run && /^    ran / { n++ } END { print n + 0 }' "$work/explained")
	[ "$n" = "$1" ] || { cat "$work/explained"; echo "demo: $n RUN steps ran, not $1" >&2; exit 1; }
}
build 'Another project, whose Dockerfile copies everything before it installs a compiler: the first build' "${remote[@]}"
ran 2
echo 'Whoever is greeted may answer.' >>"$work/greet/README.md"
build 'Its README changed, which no step reads: nothing runs' "${remote[@]}"
ran 0
sed -i 's/Hello from the first build/Hello from the second build/' "$work/greet/greet.c"
rm -rf "$work/root"
build 'greet.c changed, on an empty machine: only cc runs, though COPY stands before apt-get' "${remote[@]}"
ran 1

say 'larder explain'
cat "$work/explained"

say 'Times'
printf '%s' "$report"
