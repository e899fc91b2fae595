#!/usr/bin/env bash
# Judges wire/src/ws by Autobahn's WebSocket cases, through the example server ws_echo and kosoku from PyPI.
#
#   wire/tests/autobahn/run.sh            all cases but compression (12.*, 13.*), 9.* being limits and performance
#   wire/tests/autobahn/run.sh '9.*'      the cases named
#
# Prints `N passed, N failed`; fails if a case fails or none ran. Makes its own environment under .cache/ once.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
cd "$root"

kosoku=0.1.0
venv=.cache/autobahn-$kosoku
if [ ! -e "$venv/complete" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "kosoku==$kosoku"
    touch "$venv/complete"
fi

cargo build --locked --quiet -p holdfast-wire --example ws_echo
target=$(cargo metadata --no-deps --format-version 1 | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')

# The server's first line names the port it took; reading it is also the wait for it to listen.
coproc SERVER { exec "$target/debug/examples/ws_echo" 127.0.0.1:0; }
server=$SERVER_PID
trap 'kill "$server" 2>/dev/null || true' EXIT
read -r -t 30 line <&"${SERVER[0]}"
address=${line#listening on }

"$venv/bin/python" "$here/judge.py" "$address" "$@"
