#!/bin/sh
# Puts two DKIM verifiers of other parents into a folder: dkimpy (Python) and mailauth (Node). Tests use them
# where DKIM_VERIFIERS names that folder; then one that is missing or broken fails the test.
set -eu
dir=${1:?usage: install.sh FOLDER}
mkdir -p "$dir"
[ -x "$dir/python/bin/python" ] || python3 -m venv "$dir/python"
"$dir/python/bin/python" -m pip install --quiet --disable-pip-version-check dkimpy==1.1.8 pynacl==1.6.2
[ -f "$dir/package.json" ] || echo '{"private":true}' >"$dir/package.json"
npm install --prefix "$dir" --silent --no-audit --no-fund mailauth@4.13.3
