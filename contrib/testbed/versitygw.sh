#!/usr/bin/env bash
# versitygw, an S3 server over a folder: multipart uploads, conditions, signatures, TLS.
#
#   versitygw.sh install         builds it, once, into the cache
#   versitygw.sh path            says where in the cache that is
#   versitygw.sh run DIR PORT    serves DIR on 127.0.0.1:PORT in the foreground: the buckets
#                                are DIR's folders; end it by its pid. GW_ACCESS_KEY and
#                                GW_SECRET_KEY are the keys; GW_CERT and GW_KEY (files) make it
#                                https; GW_DOMAIN serves buckets as BUCKET.GW_DOMAIN, too
set -euo pipefail

version=v1.8.0
bin=${GLANCED_TESTBED:-${XDG_CACHE_HOME:-$HOME/.cache}/glanced-testbed}/versitygw-$version

case "${1:-}" in
install)
	if [ ! -x "$bin/versitygw" ]; then
		mkdir -p "$bin"
		# Outside of a module, so that none of its dependencies become ours.
		(cd / && GOFLAGS= GOBIN="$bin" "${GO:-go}" install github.com/versity/versitygw/cmd/versitygw@$version)
	fi
	;;
path)
	echo "$bin/versitygw"
	;;
run)
	[ -x "$bin/versitygw" ] || { echo "versitygw is not installed: make test-deps" >&2; exit 3; }
	tls=()
	[ -z "${GW_CERT:-}" ] || tls=(--cert "$GW_CERT" --key "$GW_KEY")
	export ROOT_ACCESS_KEY=$GW_ACCESS_KEY ROOT_SECRET_KEY=$GW_SECRET_KEY VGW_VIRTUAL_DOMAIN=${GW_DOMAIN:-}
	exec "$bin/versitygw" --port "127.0.0.1:$3" --quiet --keep-alive ${tls[@]+"${tls[@]}"} posix "$2"
	;;
*)
	sed -n 's/^#//p' "$0" >&2
	exit 2
	;;
esac
