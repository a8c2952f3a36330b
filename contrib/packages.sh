#!/usr/bin/env bash
# Installs the Debian packages of the named sets that are missing: build, ceph (building with
# stores of type rbd), test, bench, and full (Ceph's gateway, Swift with Keystone).
# Runs apt as root or through sudo, and not at all when nothing is missing.
set -euo pipefail

declare -A sets=(
	[build]="gcc libc6-dev pkg-config libdeflate-dev libisal-dev liblzma-dev libzstd-dev fuse3 qemu-utils libnbd-bin"
	[ceph]="librados-dev librbd-dev"
	[test]="ceph-common ceph-mon ceph-osd bzip2 file nginx-light mount strace util-linux python3 attr curl fio e2fsprogs mmdebstrap python3-libnbd python3-glanceclient python3-openstackclient xz-utils zstd swift-proxy swift-account swift-container swift-object memcached postgresql qemu-system-x86 fdisk grub-common grub-pc-bin keystone uwsgi-core uwsgi-plugin-python3"
	[full]="radosgw python3-keystonemiddleware"
	[bench]="nbdkit qemu-block-extra"
)

missing=()
for set in "$@"; do
	for package in ${sets[$set]:?no package set $set}; do
		if [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
			missing+=("$package")
		fi
	done
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo)
echo "installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -q
"${as_root[@]}" apt-get install -y -q --no-install-recommends "${missing[@]}"
