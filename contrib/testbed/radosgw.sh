#!/usr/bin/env bash
# Ceph's gateway, which speaks S3 and Swift, over TLS.
#
#   radosgw.sh run DIR PORT      serves the cluster of ceph.sh in DIR on 127.0.0.1:PORT in the
#                                foreground; end it by its pid. GW_ACCESS_KEY and GW_SECRET_KEY
#                                are the keys, GW_CERT and GW_KEY files in PEM.
#
# Needs the package radosgw.
set -euo pipefail
[ "${1:-}" = run ] && [ $# = 3 ] || { sed -n 's/^#//p' "$0" >&2; exit 2; }
dir=$2
export CEPH_CONF=$dir/ceph.conf PATH=/usr/bin:/usr/sbin:/bin:/sbin
mkdir -p "$dir/rgw.a"
cd "$dir"
ceph auth get-or-create client.rgw.a mon 'allow rwx' osd 'allow rwx' >>keyring
radosgw-admin user create --uid=test --display-name=test --access-key="$GW_ACCESS_KEY" --secret="$GW_SECRET_KEY" >/dev/null
exec radosgw -n client.rgw.a -f --rgw-data "$dir/rgw.a" --rgw-thread-pool-size 32 --rgw-dns-name 127.0.0.1 \
	--rgw-frontends "beast ssl_endpoint=127.0.0.1:$3 ssl_certificate=$GW_CERT ssl_private_key=$GW_KEY"
