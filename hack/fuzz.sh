#!/bin/sh
# Runs each fuzz target for the given time (go test takes one target at once).
set -eu
time=${1:-1m}

grep -rHoE '^func Fuzz[A-Za-z0-9_]+' --include='*_test.go' cmd internal conformance bench | sort |
	while IFS=: read -r file match; do
		name=${match#func }
		echo "== $name in $(dirname "$file")"
		go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 1s "./$(dirname "$file")" </dev/null || exit 1
	done
