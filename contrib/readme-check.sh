#!/usr/bin/env bash
# Sees that the README's commands are true: `make run` comes up and prints what to
# try next, each printed line works when pasted, and so does the worked example.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d /tmp/glanced-readme.XXXXXX)
run=
cleanup() {
	if [ -n "$run" ]; then
		kill -TERM "$run" 2>/dev/null || true # make hands it on
		wait "$run" 2>/dev/null || true
	fi
	if mountpoint -q var/mnt; then umount -l var/mnt; fi
	rm -rf "$work"
}
trap cleanup EXIT
[ ! -e var/lock ] || ! mountpoint -q var/mnt || { echo 'a daemon runs on ./var: stop it first' >&2; exit 1; }
rm -rf var

make run >"$work/welcome" 2>"$work/log" &
run=$!
for _ in $(seq 1200); do # it may have to install and to build
	grep -q 'nbdinfo --list' "$work/welcome" && break
	kill -0 "$run" 2>/dev/null || { cat "$work/welcome" "$work/log" >&2; exit 1; }
	sleep 0.5
done

echo '== what make run prints'
sed -n '/glanced is ready/,$p' "$work/welcome" | tee "$work/ready"
sed -n 's/^  //p' "$work/ready" >"$work/pasted"
[ "$(wc -l <"$work/pasted")" -ge 3 ]
bash -euxo pipefail "$work/pasted"

echo '== the worked examples of the README'
sed -n '/^<!-- example -->$/,/^<!-- end -->$/p' README.md | sed -n 's/^    //p' >"$work/example"
[ -s "$work/example" ] || { echo 'the README has no worked example' >&2; exit 1; }
rm -f /tmp/debian.raw
# glance keeps a copy of the schema at home. A guest that does not come up stands still.
HOME=$work timeout 1800 bash -euxo pipefail "$work/example" </dev/null | tee "$work/said"
grep -aq 'demo: .* is up' "$work/said" || { echo 'the guest of the README did not come up' >&2; exit 1; }

make | grep -q 'make test'
echo 'readme: every command works'
