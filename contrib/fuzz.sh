#!/usr/bin/env bash
# Runs every fuzz target of the module, one after the other, for the given time each.
set -euo pipefail
time=${1:?how long for each target, such as 60s}

count=0
while IFS=: read -r file target; do
	package=./$(dirname "$file")
	echo "== $package $target ($time)"
	go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x "$package"
	count=$((count + 1))
done < <(git ls-files '*_test.go' | xargs grep -oE '^func Fuzz[A-Za-z0-9_]+' /dev/null | sed 's/func //')
[ "$count" -gt 0 ] || { echo 'no fuzz target found' >&2; exit 1; }
echo "$count fuzz targets, no failure"
