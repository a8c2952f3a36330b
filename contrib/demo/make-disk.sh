#!/bin/bash
# Make a raw disk with a real operating system on it, for demonstrations, tests
# and measurements.
#
#   make-disk.sh OUT.raw [SIZE_MIB]           Debian that boots on a PC with a BIOS; root; default 1024 MiB
#   make-disk.sh --small OUT.raw [SIZE_MIB]   files of this machine instead, no download, no root; default 320 MiB
#   make-disk.sh --usr OUT.raw [SIZE_MIB]     as much of this machine's /usr as fills 9/20 of the disk; default 4096 MiB
#
# Debian is minbase, systemd, a kernel and DEBIAN_PACKAGES, in one ext4 partition; when it
# is up it says so on its serial line and powers off. The others are one ext4 file system
# without a partition table. SUITE=bookworm says which Debian. The mirror, its keys and the way to it (a
# proxy) are this machine's apt configuration; none of it stays on the disk.
# The same sources give the same files and UUIDs; inode change times differ.
set -euo pipefail

SUITE=${SUITE:-bookworm}
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1700000000}
export E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH
readonly GRUB=/usr/lib/grub/i386-pc
readonly UUID=67c0ffee-6c61-6e63-6564-000000000001

fail() { echo "make-disk.sh: $*" >&2; exit 1; }

need() { command -v "$1" >/dev/null || fail "$1 is missing: apt-get install $2"; }

# small_tree DIR MIB FOLDER... copies files of this machine into DIR, at most MIB MiB: the
# first ones by name below each FOLDER, a share for each.
small_tree() {
	local dir=$1 most=$(($2 << 20)) folder size path share total=0
	shift 2
	for folder in "$@"; do
		[ -d "$folder" ] || continue
		# What one folder leaves of its share the later ones may take.
		share=$((total + (most - total) / ($# > 1 ? 2 : 1)))
		while IFS=' ' read -r -d '' size path; do
			((total + size <= share)) || continue
			total=$((total + size))
			printf '%s\0' "$path"
		done < <(find "$folder" -xdev -type f -readable -size -32M -printf '%s %p\0' | LC_ALL=C sort -z -k2)
	done >"$work/list"
	((total >= 16 << 20)) || fail "found only $((total >> 20)) MiB of files on this machine; use the Debian variant"
	tar --create --file=- --absolute-names --transform='s,^/,,' --null --files-from="$work/list" |
		tar --extract --file=- --directory="$dir" --no-same-owner
}

# mirror is the address from which this machine's apt takes SUITE.
mirror() {
	# shellcheck disable=SC2016 # apt-get replaces these
	apt-get indextargets --format '$(ORIGIN) $(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
		awk -v suite="$SUITE" '$1 == "Debian" && $2 == suite && $3 == "main" { print $4; exit }'
}

# debian_tree DIR installs Debian into DIR: a kernel, systemd, and DEBIAN_PACKAGES.
debian_tree() {
	local dir=$1 uri
	[ "$(id -u)" = 0 ] || fail "installing Debian needs root; --small does not"
	[ "$(dpkg --print-architecture)" = amd64 ] || fail "the Debian variant starts by the BIOS of a PC: it needs amd64; --small does not"
	need mmdebstrap mmdebstrap
	need grub-mkimage grub-common
	[ -e "$GRUB/boot.img" ] || fail "$GRUB is missing: apt-get install grub-pc-bin"
	uri=$(mirror)
	if [ -z "$uri" ]; then
		apt-get update -qq
		uri=$(mirror)
	fi
	[ -n "$uri" ] || fail "no apt source of this machine has Debian $SUITE main; set SUITE, or use --small"

	# How apt reaches its sources, in a file and not on a command line: it may
	# hold a password.
	(umask 077 && apt-config dump | { grep -E '^Acquire::https?::[A-Za-z]' || true; } >"$work/apt.conf")
	# The hook's $1 is mmdebstrap's to fill in.
	# shellcheck disable=SC2016
	mmdebstrap --quiet --variant=minbase --dpkgopt=force-unsafe-io --aptopt="$work/apt.conf" \
		--include="systemd-sysv udev initramfs-tools zstd linux-image-cloud-amd64 ${DEBIAN_PACKAGES:-}" \
		--customize-hook='rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap "$1"/etc/apt/sources.list.d/*' \
		--customize-hook=': >"$1"/etc/apt/sources.list' \
		"$SUITE" "$dir" "deb $uri $SUITE main"
	echo demo >"$dir/etc/hostname"
	: >"$dir/etc/machine-id"
	: >"$dir/etc/resolv.conf"
	echo "UUID=$UUID / ext4 defaults 0 1" >"$dir/etc/fstab"
	say_up "$dir"
}

# say_up DIR has the system in DIR say on its serial line that it is up, and end.
say_up() {
	cat >"$1/etc/systemd/system/say-up.service" <<-'EOF'
		[Unit]
		Description=Say that the system is up, and end it
		After=multi-user.target

		[Service]
		Type=oneshot
		ExecStart=/bin/sh -c 'echo "demo: $(. /etc/os-release; echo "$PRETTY_NAME") is up, on $(uname -r)" >/dev/ttyS0'
		ExecStart=/bin/systemctl --no-block poweroff
	EOF
	mkdir -p "$1/etc/systemd/system/multi-user.target.wants"
	ln -s ../say-up.service "$1/etc/systemd/system/multi-user.target.wants/"
}

# boot_sectors DISK writes a partition table and GRUB in front of the file system, whose
# partition begins at 1 MiB.
boot_sectors() {
	printf '%s\n' 'label: dos' 'label-id: 0x67c0ffee' 'start=2048, type=83, bootable' | sfdisk --quiet "$1"
	cat >"$work/grub.cfg" <<-EOF
		linux /vmlinuz root=UUID=$UUID ro console=ttyS0
		initrd /initrd.img
		boot
	EOF
	grub-mkimage --format=i386-pc --directory="$GRUB" --prefix='(hd0,msdos1)/boot/grub' --config="$work/grub.cfg" \
		--output="$work/core.img" biosdisk part_msdos ext2 linux boot
	# What boot.img loads lies in the next sector, unless it is told otherwise.
	dd if="$GRUB/boot.img" of="$1" bs=440 count=1 conv=notrunc status=none
	dd if="$work/core.img" of="$1" bs=512 seek=1 conv=notrunc status=none
}

variant=debian
case ${1:-} in
--small | --usr)
	variant=${1#--}
	shift
	;;
esac
if (($# < 1 || $# > 2)) || [[ $1 == -* ]]; then
	sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0" >&2
	exit 2
fi
out=$1
declare -A sizes=([debian]=1024 [small]=320 [usr]=4096)
size=${2:-${sizes[$variant]}}
[[ $size =~ ^[0-9]+$ ]] && ((size >= 64)) || fail "SIZE_MIB is '$size'; it must be a number, 64 or more"
PATH=$PATH:/usr/sbin:/sbin
need mke2fs e2fsprogs

work=$(mktemp -d)
# --one-file-system: should a bootstrap leave /proc mounted, it is not emptied.
trap 'rm -rf --one-file-system "$work"' EXIT
trap 'exit 130' INT TERM
mkdir -m 755 "$work/tree"
chmod 711 "$work" # mmdebstrap's apt drops to the user _apt

case $variant in
small) small_tree "$work/tree" $((size * 5 / 8)) /usr/share/doc /usr/bin /usr/lib/python3 /usr/lib/"$(uname -m)"-linux-gnu /usr/share/perl /usr/share/locale ;;
usr) small_tree "$work/tree" $((size * 9 / 20)) /usr ;;
debian) debian_tree "$work/tree" ;;
esac

# Times later than SOURCE_DATE_EPOCH are this run's.
find "$work/tree" -newermt "@$SOURCE_DATE_EPOCH" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
rm -f "$out.partial"
truncate --size="${size}M" "$out.partial"
front=0 # MiB before the file system
if [ "$variant" = debian ]; then
	front=1
	boot_sectors "$out.partial"
fi
mke2fs -q -F -t ext4 -L demo -U "$UUID" -E "hash_seed=$UUID,root_owner=0:0,lazy_itable_init=1,offset=$((front << 20))" -d "$work/tree" \
	"$out.partial" $((size - front))M ||
	{ rm -f "$out.partial"; fail "the files did not fit into $size MiB: $(du -sm "$work/tree" | cut -f1) MiB of them"; }
mv "$out.partial" "$out"
echo "$out: $size MiB, $(du -m "$out" | cut -f1) MiB of it in use"
