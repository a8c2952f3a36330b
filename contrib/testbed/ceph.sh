#!/usr/bin/env bash
# A Ceph cluster of one monitor and one OSD (in memory) on loopback, without systemd.
#
#   ceph.sh run DIR PORT PORT    serves in the foreground, the monitor at the two ports (v2,
#                                v1), all of it below DIR; DIR/ready is made when it is up. It
#                                stops what it started, by pid, when it is ended with TERM.
#
# Clients: CEPH_CONF=DIR/ceph.conf, as client.admin. Needs the packages ceph-mon,
# ceph-osd and ceph-common. radosgw.sh adds a gateway.
set -euo pipefail
[ "${1:-}" = run ] && [ $# = 4 ] || { sed -n 's/^#//p' "$0" >&2; exit 2; }
dir=$2
export CEPH_CONF=$dir/ceph.conf PATH=/usr/bin:/usr/sbin:/bin:/sbin
mkdir -p "$dir"/{log,run,mon.a,osd.0}
cd "$dir"

pids=()
stop() {
	trap - EXIT TERM INT
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	wait
}
trap stop EXIT
trap 'exit 0' TERM INT

fsid=$(cat /proc/sys/kernel/random/uuid)
cat >ceph.conf <<E2
[global]
fsid = $fsid
mon host = [v2:127.0.0.1:$3,v1:127.0.0.1:$4]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth allow insecure global id reclaim = false
mon warn on pool no redundancy = false
mon allow pool size one = true
mon allow pool delete = true
mon data avail crit = 1
mon data avail warn = 2
mon max pg per osd = 2000
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
run dir = $dir/run
admin socket = $dir/run/\$name.asok
log file = $dir/log/\$name.log
crash dir = $dir/log
keyring = $dir/keyring
[mon.a]
mon data = $dir/mon.a
paxos propose interval = 0.05
paxos min wait = 0.01
[osd]
osd data = $dir/osd.0
keyring = $dir/osd.0.keyring
osd objectstore = memstore
memstore device bytes = 2147483648
osd op num shards = 2
osd op num threads per shard = 1
E2
ceph-authtool --create-keyring keyring --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *' >/dev/null
cp keyring mon.keyring
ceph-authtool mon.keyring --gen-key -n mon. --cap mon 'allow *' >/dev/null
monmaptool --create --clobber --fsid "$fsid" --addv a "[v2:127.0.0.1:$3,v1:127.0.0.1:$4]" monmap >/dev/null
ceph-mon --mkfs -i a --monmap monmap --keyring mon.keyring
ceph-mon -i a -f >log/mon.out 2>&1 </dev/null &
pids+=($!)
until ceph --connect-timeout 5 mon stat >/dev/null 2>&1; do sleep 0.2; done

uuid=$(cat /proc/sys/kernel/random/uuid)
ceph-authtool --create-keyring osd.0.keyring --gen-key -n osd.0 >/dev/null
ceph osd new "$uuid" 0 >/dev/null 2>&1
ceph auth add osd.0 mon 'allow profile osd' mgr 'allow profile osd' osd 'allow *' -i osd.0.keyring >/dev/null 2>&1
ceph-osd -i 0 --mkfs --osd-uuid "$uuid" >log/mkfs 2>&1
ceph-osd -i 0 -f >log/osd.out 2>&1 </dev/null &
pids+=($!)
until ceph osd stat 2>/dev/null | grep -q '1 up'; do sleep 0.2; done
touch ready
wait -n "${pids[@]}" # one that ends by itself ends all
