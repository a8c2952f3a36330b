#!/usr/bin/env bash
# A real disk goes in, in every format and container and through three clients, and
# comes out decoded over NBD, FUSE and HTTP; qemu-img, nbdinfo and cmp are the judges.
#
#   demo.sh [--small]     --small: a disk of a few host folders instead of a Debian root
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$(mktemp -d /tmp/glanced-demo.XXXXXX)
export HOME=$work # glance keeps a copy of the server's schema there
daemon=
cleanup() {
	if [ -n "$daemon" ]; then
		kill -TERM "$daemon" 2>/dev/null || true
		wait "$daemon" 2>/dev/null || true
	fi
	if mountpoint -q "$work/var/mnt"; then umount -l "$work/var/mnt"; fi
	rm -rf "$work"
}
trap cleanup EXIT

step() { printf '\n== %s\n' "$*"; }
die() { echo "demo: $*" >&2; exit 1; }
free_port() { python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'; }

step 'a disk'
contrib/demo/make-disk.sh "$@" "$work/base.raw"
qemu-img info "$work/base.raw"

step 'the same disk in the formats that clouds use'
qemu-img convert -c -O qcow2 "$work/base.raw" "$work/zlib.qcow2"
qemu-img convert -c -O qcow2 -o compression_type=zstd "$work/base.raw" "$work/zstd.qcow2"
qemu-img convert -O qcow2 "$work/base.raw" "$work/plain.qcow2"
qemu-img convert -O vmdk -o subformat=streamOptimized "$work/base.raw" "$work/stream.vmdk"
ls -lh "$work"

step 'and in those of desktops and appliances'
qemu-img convert -O vpc -o force_size=on "$work/base.raw" "$work/disk.vhd"
qemu-img convert -O vhdx "$work/base.raw" "$work/disk.vhdx"
qemu-img convert -O vdi "$work/base.raw" "$work/disk.vdi"
qemu-img convert -O parallels "$work/base.raw" "$work/disk.hdd"
contrib/demo/make-ova.sh "$work/stream.vmdk" "$work/appliance.ova"
zstd -q -1 "$work/base.raw" -o "$work/base.raw.zst"
qemu-img create -q -f qcow2 -b "$work/plain.qcow2" -F qcow2 "$work/overlay.qcow2"
qemu-io -f qcow2 -c 'write -q -P 7 1M 1M' "$work/overlay.qcow2"
qemu-img convert -O raw "$work/overlay.qcow2" "$work/overlay.raw"

step 'the daemon'
http=$(free_port) nbd=$(free_port)
bin/glanced --dir "$work/var" --http "127.0.0.1:$http" --nbd "127.0.0.1:$nbd" 2>"$work/log" &
daemon=$!
for _ in $(seq 100); do
	bin/glancectl --socket "$work/var/control.sock" status >/dev/null 2>&1 && break
	kill -0 "$daemon" 2>/dev/null || { cat "$work/log" >&2; die 'glanced did not start'; }
	sleep 0.1
done
ctl=(bin/glancectl --socket "$work/var/control.sock")
"${ctl[@]}" status
token=$(cat "$work/var/admin.token")
glance=(glance --os-image-url "http://127.0.0.1:$http" --os-auth-token "$token")
openstack=(openstack --os-auth-type admin_token --os-endpoint "http://127.0.0.1:$http/v2" --os-token "$token")

step 'registered with glancectl, glance and openstack'
declare -A id file
create() { # name disk-format file [container-format [property]]
	id[$1]=$("${ctl[@]}" image create --name "$1" --disk-format "$2" --container-format "${4:-bare}" \
		--visibility public --file "$3" --property "${5:-made_by=demo}" --tag demo -f value -c id)
	file[$1]=$3
}
create zlib qcow2 "$work/zlib.qcow2"
create zstd qcow2 "$work/zstd.qcow2"
create stream vmdk "$work/stream.vmdk"
id[glance]=$("${glance[@]}" image-create --name glance --disk-format qcow2 --container-format bare --visibility public \
	--file "$work/plain.qcow2" --progress | tee /dev/stderr | awk '$2 == "id" {print $4}')
file[glance]=$work/plain.qcow2
id[openstack]=$("${openstack[@]}" image create --disk-format raw --container-format bare --public \
	--file "$work/base.raw" openstack -f value -c id)
file[openstack]=$work/base.raw
create vhd vhd "$work/disk.vhd"
create vhdx vhdx "$work/disk.vhdx"
create vdi vdi "$work/disk.vdi"
create ploop ploop "$work/disk.hdd"
create ova vmdk "$work/appliance.ova" ova
create compressed raw "$work/base.raw.zst" compressed
create overlay qcow2 "$work/overlay.qcow2" bare "backing_image=${id[glance]}"
"${ctl[@]}" image list
"${openstack[@]}" image list

step 'the judges'
qemu-img map --output=json "$work/base.raw" >/dev/null
for name in "${!id[@]}"; do
	i=${id[$name]}
	[ -n "$i" ] || die "image $name has no id"
	echo "-- $name $i"
	truth=$work/base.raw
	if [ "$name" = overlay ]; then truth=$work/overlay.raw; fi
	qemu-img compare -f raw -F raw "nbd+unix:///$i?socket=$work/var/nbd.sock" "$truth"
	qemu-img compare -f raw -F raw "nbd://127.0.0.1:$nbd/$i" "$truth"
	qemu-img compare -f raw -F raw "$work/var/mnt/images/$i/disk" "$truth"
	nbdinfo --map "nbd+unix:///$i?socket=$work/var/nbd.sock" | tee "$work/map" | head -5
	grep -q 'hole,zero' "$work/map" || die "the map of $name shows no holes"
	curl -sSf -H "X-Auth-Token: $token" "http://127.0.0.1:$http/v2/images/$i/file" | cmp - "${file[$name]}"
	cmp "$work/var/mnt/images/$i/file" "${file[$name]}"
	[ "$(getfattr --only-values -n user.glance.status "$work/var/mnt/images/$i/disk")" = active ] || die "xattr status of $name"
	[ "$(readlink "$work/var/mnt/by-name/$name")" = "../images/$i" ] || die "by-name/$name"
done
"${glance[@]}" image-download --file "$work/out.qcow2" "${id[zlib]}"
cmp "$work/out.qcow2" "$work/zlib.qcow2"
"${ctl[@]}" image download "${id[stream]}" --file "$work/out.vmdk"
cmp "$work/out.vmdk" "$work/stream.vmdk"
bin/glancectl disk convert "$work/zstd.qcow2" "$work/out.raw"
cmp "$work/out.raw" "$work/base.raw"

step 'downloaded in another format'
for format in qcow2 vmdk; do
	"${ctl[@]}" image download "${id[vhdx]}" --as "$format" --file "$work/as.$format"
	qemu-img check -f "$format" "$work/as.$format"
	qemu-img compare -f "$format" -F raw "$work/as.$format" "$work/base.raw"
	rm "$work/as.$format"
done
bin/glancectl disk check "$work/appliance.ova"

step 'retired: gone from every door'
if "${ctl[@]}" image delete "${id[glance]}"; then die 'an image that another one stands on was deleted'; fi
"${ctl[@]}" image delete "${id[zstd]}"
[ ! -e "$work/var/mnt/images/${id[zstd]}" ] || die 'a deleted image is still in the tree'
if nbdinfo --size "nbd+unix:///${id[zstd]}?socket=$work/var/nbd.sock" 2>/dev/null; then die 'a deleted image is still exported'; fi

step 'a clean end'
kill -TERM "$daemon"
wait "$daemon" || die 'glanced ended with an error'
daemon=
if mountpoint -q "$work/var/mnt"; then die 'the mount is still there'; fi
printf '\ndemo: every judge said identical\n'
