#!/usr/bin/env bash
# Sets everything up, then shows the pair at work: a simulated robot camera's objects, masked by a
# cloud node to which only compressed features crossed. Pictures and logs go to demo_out/.
#
# Usage: bash scripts/demo.sh [--frames N] [--live] [--json FILE] [--model NAME_OR_DIR] [--codec-rate RATE] ...
#        bash scripts/demo.sh --link 200kbit,loss=5%   with a narrow link, which the edge follows
#        bash scripts/demo.sh --view           in Rerun; --record FILE.rrd for later
#   bash scripts/demo.sh --help  tells all options
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bash "$ROOT/scripts/setup.sh"
# shellcheck disable=SC1091
source "$ROOT/scripts/env.sh"
exec "$ROOT/install/msfc_demo/lib/msfc_demo/demo" "$@"
