#!/usr/bin/env bash
# Runs the fuzz targets of the module, one after the other, for the given time
# each: all of them, or those whose package and name (./formats/vhd FuzzOpenVHD)
# match a regular expression. Says how many inputs each has run, and which are new.
# FUZZPARALLEL is how many processes run one target (default: as many as there are CPUs).
set -euo pipefail
time=${1:?how long for each target, such as 60s}
filter=${2:-.}

# fuzz runs target $2 of package $1.
fuzz() {
	go test -run '^$' -fuzz "^$2\$" -fuzztime "$time" -fuzzminimizetime 10x \
		${FUZZPARALLEL:+-parallel "$FUZZPARALLEL"} "$1" 2>&1 | tee "$log"
}

# stopped tells whether the last run failed only because its time was over while an
# input was under way, which Go's fuzzer calls a failure now and then. A finding is
# written to a file and named. An input that hangs is met again by the next run.
stopped() { grep -q '^ *context deadline exceeded' "$log" && ! grep -q 'Failing input' "$log"; }

log=$(mktemp)
trap 'rm -f "$log"' EXIT
count=0
while IFS=: read -r file target; do
	package=./$(dirname "$file")
	[[ "$package $target" =~ $filter ]] || continue
	echo "== $package $target ($time)"
	if ! fuzz "$package" "$target"; then
		stopped || exit 1
		fuzz "$package" "$target" || exit 1
	fi
	summary+=("$(printf '%-32s %-24s %s' "$package" "$target" "$(sed -nE 's/^fuzz: elapsed: [^,]*, (execs: [0-9]+).*(new interesting: [0-9]+).*/\1, \2/p' "$log" | tail -n 1)")")
	count=$((count + 1))
done < <(git ls-files '*_test.go' | xargs grep -oE '^func Fuzz[A-Za-z0-9_]+' /dev/null | sed 's/func //')
[ "$count" -gt 0 ] || { echo "no fuzz target matches $filter" >&2; exit 1; }
printf '%s\n' "${summary[@]}" "$count fuzz targets, no failure"
