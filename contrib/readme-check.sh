#!/usr/bin/env bash
# Sees that the README's commands are true: `make run` comes up and prints what to
# try next, each printed line works when pasted, and so does the worked example.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d /tmp/glanced-readme.XXXXXX)
daemon=
cleanup() {
	if [ -n "$daemon" ]; then
		kill -TERM "$daemon" 2>/dev/null || true
		wait "$daemon" 2>/dev/null || true
	fi
	if mountpoint -q var/mnt; then umount -l var/mnt; fi
	rm -rf "$work"
}
trap cleanup EXIT
[ ! -e var/lock ] || ! mountpoint -q var/mnt || { echo 'a daemon runs on ./var: stop it first' >&2; exit 1; }
rm -rf var

make deps build
bin/glanced --dir ./var >"$work/welcome" 2>"$work/log" &
daemon=$!
for _ in $(seq 100); do
	grep -q 'glanced is ready' "$work/welcome" && break
	kill -0 "$daemon" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
	sleep 0.1
done
sleep 0.2

echo '== what make run prints'
cat "$work/welcome"
sed -n 's/^  //p' "$work/welcome" >"$work/pasted"
[ "$(wc -l <"$work/pasted")" -ge 3 ]
bash -euxo pipefail "$work/pasted"

echo '== the worked example of the README'
sed -n '/^<!-- example -->$/,/^<!-- end -->$/p' README.md | sed -n 's/^    //p' >"$work/example"
[ -s "$work/example" ] || { echo 'the README has no worked example' >&2; exit 1; }
bash -euxo pipefail "$work/example"

make | grep -q 'make test'
echo 'readme: every command works'
