#!/usr/bin/env bash
# OpenStack Swift on one machine: one replica in a plain folder, large objects of both
# kinds, tokens by tempauth or by Keystone.
#
#   swift.sh run DIR PROXY ACCOUNT CONTAINER OBJECT MEMCACHED [KEYSTONE]
#            serves DIR on these ports of 127.0.0.1 in the foreground; it listens on PROXY
#            when all of it is up, and all of it ends with this process.
#            tempauth: http://127.0.0.1:PROXY/auth/v1.0, user test:tester, key testing;
#            admin:admin, key admin, may read and write every account.
#            With a port for KEYSTONE, tokens are of the one that keystone.sh serves there.
set -euo pipefail
[ "${1:-}" = run ] && [ $# -ge 7 ] || { sed -n 's/^#//p' "$0" >&2; exit 2; }
dir=$2 proxy=$3 account=$4 container=$5 object=$6 memcached=$7 keystone=${8:-}
here=$(cd "$(dirname "$0")" && pwd)
export PATH=/usr/sbin:/usr/bin:/sbin:/bin # Debian's python
user=$(id -un)

mkdir -p "$dir"/{etc,srv/d1,cache}
cd "$dir/etc"
cat >swift.conf <<E
[swift-hash]
swift_hash_path_prefix = glanced
swift_hash_path_suffix = testbed
[storage-policy:0]
name = gold
default = yes
E
python3 - "$account" "$container" "$object" <<'E'
import sys
from swift.common.ring import RingBuilder
for name, port in zip(("account", "container", "object"), sys.argv[1:]):
    ring = RingBuilder(4, 1, 1)
    ring.add_dev({"id": 0, "region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port), "device": "d1", "weight": 1, "meta": ""})
    ring.rebalance()
    ring.get_ring().save(name + ".ring.gz")
E

# A busy machine answers late: with the times that Swift sets, an object would be written
# and its container not be told of it until a daemon that does not run here tells it.
patient="conn_timeout = 30
node_timeout = 60
container_update_timeout = 60"
for s in account:$account container:$container object:$object; do
	cat >"${s%:*}.conf" <<E
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = ${s#*:}
swift_dir = $dir/etc
devices = $dir/srv
recon_cache_path = $dir/cache
mount_check = false
user = $user
workers = 0
log_level = WARNING
$patient
[pipeline:main]
pipeline = ${s%:*}-server
[app:${s%:*}-server]
use = egg:swift#${s%:*}
fallocate_reserve = 0
$patient
E
done
auth=tempauth
[ -z "$keystone" ] || auth="authtoken keystoneauth"
cat >proxy.conf <<E
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = $proxy
swift_dir = $dir/etc
user = $user
workers = 0
log_level = WARNING
[pipeline:main]
pipeline = catch_errors gatekeeper cache listing_formats bulk $auth copy container_quotas account_quotas slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
allow_account_management = true
account_autocreate = true
conn_timeout = 30
node_timeout = 60
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:$memcached
[filter:bulk]
use = egg:swift#bulk
[filter:tempauth]
use = egg:swift#tempauth
user_admin_admin = admin .admin .reseller_admin
user_test_tester = testing .admin
user_test_other = a/key:with@all .admin
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
www_authenticate_uri = http://127.0.0.1:$keystone/v3
auth_url = http://127.0.0.1:$keystone/v3
auth_type = password
project_domain_id = default
user_domain_id = default
project_name = service
username = swift
password = swift-secret
delay_auth_decision = true
memcached_servers = 127.0.0.1:$memcached
[filter:keystoneauth]
use = egg:swift#keystoneauth
operator_roles = admin, member
reseller_admin_role = admin
[filter:copy]
use = egg:swift#copy
[filter:container_quotas]
use = egg:swift#container_quotas
[filter:account_quotas]
use = egg:swift#account_quotas
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
E

# Each one ends when this shell does, however that ends.
setpriv --pdeathsig KILL memcached -u "$user" -l 127.0.0.1 -p "$memcached" -m 64 &
for s in account container object; do
	setpriv --pdeathsig KILL "swift-$s-server" "$dir/etc/$s.conf" -v &
done
servers=4
if [ -n "$keystone" ]; then
	setpriv --pdeathsig KILL bash "$here/keystone.sh" run "$dir/keystone" "$keystone" "$proxy" &
	servers=5
fi
for port in "$memcached" "$account" "$container" "$object" $keystone; do
	until (: >"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
		[ "$(jobs -rp | wc -l)" = $servers ] || { echo "one of the servers has ended" >&2; exit 1; }
		sleep 0.05
	done
done
setpriv --pdeathsig KILL swift-proxy-server "$dir/etc/proxy.conf" -v &
wait -n
echo "one of the servers has ended" >&2
exit 1
