#!/usr/bin/env bash
# Sets everything up, then runs the linter, the type check, the build of the documentation and the tests.
# Arguments go to pytest, for example:  bash scripts/test.sh -k packing -x
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bash "$ROOT/scripts/setup.sh"
# shellcheck disable=SC1091
source "$ROOT/scripts/env.sh"
cd "$ROOT"

echo '[test] ruff'
ruff check
echo '[test] mypy'
mypy
echo '[test] documentation'
bash "$ROOT/scripts/docs.sh"
echo '[test] pytest'
exec python -m pytest "$@"
