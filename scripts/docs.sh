#!/usr/bin/env bash
# Builds the documentation as a site in build/site; a warning, such as a link to nowhere, is an error.
# Usage: bash scripts/docs.sh           then open build/site/index.html
#        bash scripts/docs.sh --serve   on http://127.0.0.1:8000, built anew at every change
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bash "$ROOT/scripts/setup.sh"
# shellcheck disable=SC1091
source "$ROOT/scripts/env.sh"
cd "$ROOT"
# What the theme's makers say of the future of MkDocs is not about this site.
export NO_MKDOCS_2_WARNING=1
if [[ ${1:-} == --serve ]]; then
    exec python -m mkdocs serve "${@:2}"
fi
exec python -m mkdocs build --strict "$@"
