#!/usr/bin/env bash
# run.sh BUILD_DIR [PYTEST-ARGUMENTS...] - the built programs as a user meets them: HTTP, command line, faults.
# Makes BUILD_DIR/e2e-venv when it is missing or older than requirements.txt.
set -euo pipefail
build=$(cd "${1:?run.sh BUILD_DIR}" && pwd)
shift
here=$(cd "$(dirname "$0")" && pwd)
venv=$build/e2e-venv
for program in deeprack deeprack-coordinator deeprack-worker; do
    [ -x "$build/bin/$program" ] || { echo "run.sh: $build/bin/$program is missing: build first" >&2; exit 1; }
done
if ! cmp -s "$here/requirements.txt" "$venv/requirements.txt"; then
    rm -rf "$venv"
    python3 -m venv "$venv" || { echo "run.sh: python3 -m venv failed; on Debian it needs python3-venv" >&2; exit 1; }
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt" ||
        { echo "run.sh: pip could not install tests/e2e/requirements.txt; it needs a package index once" >&2; exit 1; }
    cp "$here/requirements.txt" "$venv/requirements.txt"
fi
exec "$venv/bin/python" -B -m pytest -q -p no:cacheprovider --build "$build" "$here" "$@"
