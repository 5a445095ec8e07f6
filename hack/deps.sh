#!/bin/sh
# Installs the Debian packages that tests, demo and benches need, where they are missing.
set -eu

packages='runc crun skopeo buildah docker-registry debootstrap busybox-static ca-certificates git util-linux xz-utils bzip2 sqlite3'

missing=
for p in $packages; do
	status=$(dpkg-query -W -f '${Status}' "$p" 2>/dev/null || true)
	[ "$status" = 'install ok installed' ] || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
	echo "missing packages:$missing" >&2
	echo "install them with: sudo apt-get install$missing" >&2
	exit 1
fi
echo "installing$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list of words
apt-get install -y -qq --no-install-recommends $missing >/dev/null
