#!/usr/bin/env bash
# Sets everything up, renders the tabletop data set and makes the paper's tables and figures on it,
# behind the shipped detector: some hours on two cores. The same command resumes an interrupted run.
# Data goes to datasets/, tables and plots to runs/reproduction/.
#
# Usage: bash scripts/reproduce.sh [--quick] [OPTION of msfc reproduce] ...
#   --quick  a few images and iterations: does it work, in minutes
# For COCO, OpenImages and data of your own: docs/reproduction.md
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit 0
fi
bash "$ROOT/scripts/setup.sh"
# shellcheck disable=SC1091
source "$ROOT/scripts/env.sh"
cd "$ROOT"

data=datasets/tabletop
counts=()
if [[ " $* " == *' --quick '* ]]; then
    # Apart, since it must not be taken for the real thing.
    data=datasets/tabletop_quick
    counts=(--train 24 --val 4 --test 8 --empty-train 0 --empty-val 0)
fi
msfc data tabletop "$data" "${counts[@]}"
exec msfc reproduce experiments/tabletop_sweep.yaml --data "$data" --output runs/reproduction \
    --detector tabletop_detector --model tabletop_msfc "$@"
