#!/usr/bin/env bash
# Boots a disk of make-disk.sh from an NBD export, on a local overlay that takes what the
# guest writes. Ends when the guest has said that it is up and has powered off.
#
#   boot.sh NBD-URI     BOOT_TIMEOUT=600: seconds until it is given up
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
qemu-img create -q -f qcow2 -F raw -b "$1" "$work/overlay.qcow2"
# The two delays: while the server is restarted the guest's reads wait, and do not fail.
timeout "${BOOT_TIMEOUT:-600}" qemu-system-x86_64 -accel kvm -accel tcg -smp 2 -m 512 -nic none -no-reboot \
	-display none -monitor none -serial stdio \
	-drive "file=$work/overlay.qcow2,if=virtio,backing.file.reconnect-delay=60,backing.file.open-timeout=60" \
	</dev/null >"$work/serial" || { tail -n 20 "$work/serial" >&2; echo "boot.sh: the machine did not run to its end" >&2; exit 1; }
grep -ao 'demo: .* is up, on [[:graph:]]*' "$work/serial" ||
	{ tail -n 20 "$work/serial" >&2; echo "boot.sh: the guest ended and did not say that it is up" >&2; exit 1; }
