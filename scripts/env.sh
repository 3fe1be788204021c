# shellcheck shell=bash
# Source this in bash to get a shell in which `msfc`, pytest and the nodes work:
#   source scripts/env.sh
# scripts/setup.sh must have run before. What its --edge made is used where nothing else was made, or
# with MSFC_EDGE=1.

_msfc_env() {
    local root suffix=''
    root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
    if [[ -n ${MSFC_EDGE:-} || (! -x $root/.venv/bin/python && -x $root/.venv-edge/bin/python) ]]; then
        suffix='-edge'
    fi
    local venv="$root/.venv$suffix"
    if [[ ! -x $venv/bin/python ]]; then
        printf 'There is no %s yet: run  bash %s/scripts/setup.sh%s\n' "$venv" "$root" "${suffix:+ --edge}" >&2
        return 1
    fi

    _msfc_prepend() { # NAME FOLDER: put FOLDER first in the path variable NAME, once
        local name="$1" value=":${!1:-}:"
        value="${value//:$2:/:}"
        value="${value#:}"
        value="${value%:}"
        export "$name=$2${value:+:$value}"
    }

    local ros_prefix
    ros_prefix="$(cat "$venv/msfc-ros-prefix" 2>/dev/null)"
    # ROS's own setup files read variables that may be unset.
    local nounset=0
    [[ $- == *u* ]] && nounset=1
    set +u
    if [[ -n $ros_prefix ]]; then
        # shellcheck disable=SC1091
        [[ -n ${ROS_DISTRO:-} ]] || source "$ros_prefix/setup.bash"
    else
        _msfc_prepend AMENT_PREFIX_PATH "$venv"
        _msfc_prepend CMAKE_PREFIX_PATH "$venv"
    fi
    if [[ -z ${MSFC_ENV_NO_INSTALL:-} && -f $root/install$suffix/local_setup.bash ]]; then
        # shellcheck disable=SC1090,SC1091
        source "$root/install$suffix/local_setup.bash"
    fi
    ((nounset)) && set -u

    _msfc_prepend PATH "$venv/bin"
    export VIRTUAL_ENV="$venv"
    if [[ -z ${MUJOCO_GL:-} && -f $venv/msfc-gl ]]; then
        MUJOCO_GL="$(cat "$venv/msfc-gl")"
        export MUJOCO_GL
    fi
    unset -f _msfc_prepend
    return 0
}
_msfc_env
# Keep the status of the function, but not the function.
eval "unset -f _msfc_env; (exit $?)"
