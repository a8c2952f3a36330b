#!/usr/bin/env bash
# PostgreSQL on one machine, a cluster of its own.
#
#   postgres.sh run DIR PORT
#            serves DIR on 127.0.0.1:PORT and the socket in DIR in the foreground, until
#            it is told to end by TERM: superuser glance, by password (PG_PASSWORD) over
#            TCP, without one over the socket. Nothing of it survives a power failure.
set -euo pipefail
[ "${1:-}" = run ] && [ $# = 3 ] || { sed -n 's/^#//p' "$0" >&2; exit 2; }
dir=$2 port=$3
bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
as=() # PostgreSQL refuses to run as root
if [ "$(id -u)" = 0 ]; then
	as=(setpriv --reuid=postgres --regid=postgres --clear-groups --)
	chown postgres: "$dir"
fi
cd "$dir"
printf %s "$PG_PASSWORD" >password
chmod 0644 password
# A locale that sorts unlike bytes, as servers have one.
"${as[@]}" "$bin/initdb" -D data -U glance --pwfile=password --auth-host=scram-sha-256 --auth-local=trust \
	--encoding=UTF8 --locale=C.UTF-8 --locale-provider=icu --icu-locale=en-US --no-sync
rm password
"${as[@]}" "$bin/postgres" -D data -k "$dir" -p "$port" -c listen_addresses=127.0.0.1 -c max_connections=300 \
	-c fsync=off -c full_page_writes=off -c shared_buffers=32MB &
pid=$!
trap 'kill -INT $pid' TERM INT # not waiting for who is connected
wait $pid || true
wait $pid || true
