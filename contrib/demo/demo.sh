#!/usr/bin/env bash
# A real disk goes in, in every format and container and through three clients, and
# comes out decoded over NBD, FUSE and HTTP; qemu-img, nbdinfo and cmp are the judges.
# Then a Debian goes into an S3 server, and boots from there.
#
#   demo.sh [--small] [--debian FILE]
#
#     --small         the disk that is checked is a few folders of this machine, not the Debian
#     --debian FILE   a Debian that make-disk.sh has made, instead of making one
set -euo pipefail
cd "$(dirname "$0")/../.."

small='' debian=''
while [ $# -gt 0 ]; do
	case $1 in
	--small) small=yes ;;
	--debian)
		debian=$(realpath -e "${2:?--debian needs a FILE}")
		shift
		;;
	*)
		sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0" >&2
		exit 2
		;;
	esac
	shift
done

work=$(mktemp -d /tmp/glanced-demo.XXXXXX)
home=$HOME
export HOME=$work # glance keeps a copy of the server's schema there
daemon='' gateway=''
stop() { # pid
	[ -n "$1" ] || return 0
	kill -TERM "$1" 2>/dev/null || true
	wait "$1" 2>/dev/null || true
}
cleanup() {
	stop "$daemon"
	stop "$gateway"
	if mountpoint -q "$work/var/mnt"; then umount -l "$work/var/mnt"; fi
	rm -rf "$work"
}
trap cleanup EXIT

step() { printf '\n== %s\n' "$*"; }
die() { echo "demo: $*" >&2; exit 1; }
free_port() { python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'; }

step 'a disk'
if [ -z "$debian" ]; then
	debian=$work/debian.raw
	contrib/demo/make-disk.sh "$debian"
fi
if [ -n "$small" ]; then
	contrib/demo/make-disk.sh --small "$work/base.raw"
else
	cp --sparse=always "$debian" "$work/base.raw"
fi
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

step 'an S3 server'
s3=$(free_port)
mkdir "$work/objects"
HOME=$home GW_ACCESS_KEY=demo GW_SECRET_KEY=demosecret contrib/testbed/versitygw.sh run "$work/objects" "$s3" >"$work/s3.log" 2>&1 &
gateway=$!
for _ in $(seq 100); do
	curl -s -o "$work/answer" "http://127.0.0.1:$s3/" && break
	kill -0 "$gateway" 2>/dev/null || { cat "$work/s3.log" >&2; die 'the S3 server did not start'; }
	sleep 0.1
done

step 'the daemon'
http=$(free_port) nbd=$(free_port)
cat >"$work/glanced.toml" <<-EOF
	data_dir = "$work/var"

	[[stores]]
	id = "local"
	type = "file"
	path = "images"
	default = true

	[[stores]]
	id = "far"
	type = "s3"
	endpoint = "http://127.0.0.1:$s3"
	bucket = "images"
	create_bucket = true
	access_key = "demo"
	secret_key = "demosecret"
EOF
mkdir "$work/var"
bin/glanced --config "$work/glanced.toml" --http "127.0.0.1:$http" --nbd "127.0.0.1:$nbd" 2>"$work/log" &
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

step 'retired: gone from every door, but for what stands on it'
gone() { # id
	[ ! -e "$work/var/mnt/images/$1" ] || die 'a deleted image is still in the tree'
	if nbdinfo --size "nbd+unix:///$1?socket=$work/var/nbd.sock" 2>/dev/null; then die 'a deleted image is still exported'; fi
}
held() { "${ctl[@]}" image held -f value -c id; }
"${ctl[@]}" image delete "${id[glance]}"
gone "${id[glance]}"
qemu-img compare -f raw -F raw "nbd+unix:///${id[overlay]}?socket=$work/var/nbd.sock" "$work/overlay.raw"
[ "$(held)" = "${id[glance]}" ] || die 'the image that another one stands on is not held'
"${ctl[@]}" image delete "${id[overlay]}"
[ -z "$(held)" ] || die 'an image that nothing stands on is still held'
"${ctl[@]}" image delete "${id[zstd]}"
gone "${id[zstd]}"

step 'a Debian in S3 boots from there, with nothing cached'
far=$("${ctl[@]}" image create --name debian --disk-format raw --container-format bare --store far --file "$debian" -f value -c id)
"${ctl[@]}" cache evict "$far" >/dev/null
cached() { "${ctl[@]}" cache stat "$far" -f value -c "$1"; }
[ "$(cached chunks)" = 0 ] || die 'the cache is not empty'
before=$(cached fetched_bytes)
contrib/demo/boot.sh "nbd+unix:///$far?socket=$work/var/nbd.sock"
fetched=$(($(cached fetched_bytes) - before))
echo "read from S3: $((fetched >> 20)) MiB of $(($(stat -c %s "$debian") >> 20)) MiB, of which $(du -m "$debian" | cut -f1) MiB hold files"
[ "$fetched" -gt 0 ] || die 'it booted, but nothing was read from S3'

step 'a clean end'
kill -TERM "$daemon"
wait "$daemon" || die 'glanced ended with an error'
daemon=
if mountpoint -q "$work/var/mnt"; then die 'the mount is still there'; fi
printf '\ndemo: every judge said identical\n'
