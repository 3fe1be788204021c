#!/usr/bin/env bash
# Runs a command in the workspace of the image.
set -eo pipefail
# shellcheck disable=SC1091
source /opt/ros/jazzy/setup.bash
# shellcheck disable=SC1091
source /opt/msfc/install/setup.bash
exec "$@"
