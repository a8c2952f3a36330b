#!/usr/bin/env bash
# OpenStack Keystone on one machine, one process over SQLite.
#
#   keystone.sh run DIR PORT [SWIFT]
#            serves DIR on 127.0.0.1:PORT in the foreground, /v3; it listens when all of it
#            is there: user admin (password admin-secret), user swift (swift-secret) and user
#            glance (glance-secret, with the role service too), all admins of project service,
#            and in the catalog the object store of 127.0.0.1:SWIFT, in RegionOne.
#   keystone.sh token DIR USER PROJECT SECONDS
#            makes a token, as that Keystone would, of a user and a project by their ids,
#            that expires in so many seconds, or has, where they are below 0.
set -euo pipefail
usage() { sed -n '2,/^[^#]/s/^#//p' "$0" >&2; exit 2; }
export PATH=/usr/sbin:/usr/bin:/sbin:/bin # Debian's python
if [ "${1:-}" = token ]; then
	[ $# = 5 ] || usage
	exec python3 - "$2/keystone.conf" "${@:3}" <<'E'
import base64, datetime, os, sys
import keystone.conf
from keystone.token import token_formatters
config, user, project, seconds = sys.argv[1:]
keystone.conf.configure()
keystone.conf.CONF(["--config-file", config], project="keystone")
expires = datetime.datetime.utcnow() + datetime.timedelta(seconds=int(seconds))
audit = base64.urlsafe_b64encode(os.urandom(16)).rstrip(b"=").decode()
print(token_formatters.TokenFormatter().create_token(user, expires.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), [audit],
    token_formatters.ProjectScopedPayload, methods=["password"], project_id=project))
E
fi
[ "${1:-}" = run ] && [ $# -ge 3 ] && [ $# -le 4 ] || usage
dir=$2 port=$3 swift=${4:-}
serve() { exec uwsgi --ini "$dir/uwsgi.ini"; }
[ ! -e "$dir/uwsgi.ini" ] || serve # again
mkdir -p "$dir"/{fernet,credential}
cat >"$dir/keystone.conf" <<E
[DEFAULT]
log_file = $dir/keystone.log
public_endpoint = http://127.0.0.1:$port
[database]
connection = sqlite:///$dir/keystone.db?timeout=60
[token]
provider = fernet
[fernet_tokens]
key_repository = $dir/fernet
[fernet_receipts]
key_repository = $dir/fernet
[credential]
key_repository = $dir/credential
[identity]
password_hash_rounds = 4
[cache]
# right because Keystone runs as one process
enabled = true
backend = oslo_cache.dict
E
manage() { keystone-manage --config-file "$dir/keystone.conf" "$@" >/dev/null 2>&1; }
manage db_sync
# Who reads does not wait for who writes.
python3 -c 'import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute("pragma journal_mode=wal")' "$dir/keystone.db"
manage fernet_setup --keystone-user "$(id -un)" --keystone-group "$(id -gn)"
manage credential_setup --keystone-user "$(id -un)" --keystone-group "$(id -gn)"
manage bootstrap --bootstrap-username admin --bootstrap-password admin-secret --bootstrap-project-name service \
	--bootstrap-role-name admin --bootstrap-service-name keystone --bootstrap-region-id RegionOne \
	--bootstrap-public-url "http://127.0.0.1:$port/v3" --bootstrap-internal-url "http://127.0.0.1:$port/v3"
# A role, two users and an endpoint more, by Keystone's own code: no server is needed for
# that yet.
python3 - "$dir/keystone.conf" "$swift" <<'E'
import sys, uuid
import keystone.conf
from keystone.common import sql
from keystone.server import backends
from keystone.common import provider_api
keystone.conf.configure()
keystone.conf.CONF(["--config-file", sys.argv[1]], project="keystone")
sql.initialize()
backends.load_backends()
api = provider_api.ProviderAPIs
project = next(p for p in api.resource_api.list_projects() if p["name"] == "service")
roles = {r["name"]: r["id"] for r in api.role_api.list_roles()}
if "service" not in roles: # later releases have it
    roles["service"] = uuid.uuid4().hex
    api.role_api.create_role(roles["service"], {"id": roles["service"], "name": "service", "domain_id": None, "description": "", "options": {}})
for name in "swift", "glance":
    user = api.identity_api.create_user({"name": name, "domain_id": "default", "password": name + "-secret", "enabled": True})
    for role in ("admin", "service") if name == "glance" else ("admin",):
        api.assignment_api.add_role_to_user_and_project(user["id"], project["id"], roles[role])
if sys.argv[2]:
    service = uuid.uuid4().hex
    api.catalog_api.create_service(service, {"id": service, "type": "object-store", "name": "swift", "enabled": True})
    endpoint = uuid.uuid4().hex
    api.catalog_api.create_endpoint(endpoint, {"id": endpoint, "service_id": service, "interface": "public", "region_id": "RegionOne",
        "url": "http://127.0.0.1:" + sys.argv[2] + "/v1/AUTH_%(project_id)s", "enabled": True})
E
cat >"$dir/uwsgi.new" <<E
[uwsgi]
http-socket = 127.0.0.1:$port
plugins = python3
wsgi-file = /usr/bin/keystone-wsgi-public
pyargv = --config-file $dir/keystone.conf
processes = 1
threads = 6
master = true
lazy-apps = true
no-orphans = true
need-app = true
listen = 100
die-on-term = true
buffer-size = 65535
# http-socket closes each connection without saying so
add-header = Connection: close
E
mv "$dir/uwsgi.new" "$dir/uwsgi.ini" # all of it is there
serve
