#!/usr/bin/env bash
# Makes everything that the project needs, inside the repository and without root:
#   .venv            Python with the locked libraries (requirements/)
#   build, install   the ROS 2 packages of src/
# With ROS 2 Jazzy sourced it is used; elsewhere ROS 2 comes as Python wheels. Run it again at
# any time: what is up to date is left as it is.
#
# Usage: bash scripts/setup.sh [--detectron2 [SOURCE] | --edge [RUNTIME]]
#   --detectron2 [SOURCE]  also install Detectron2 from SOURCE, a local folder or anything that pip
#                          takes; by default its upstream repository
#   --edge [RUNTIME]       in place of all this only what a robot needs that runs an edge bundle, without
#                          PyTorch, in .venv-edge, build-edge and install-edge. RUNTIME is openvino, by
#                          default, or onnxruntime
# Environment: PYTHON, the interpreter to use (CPython 3.10 to 3.13; by default python3)
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
USAGE='usage: bash scripts/setup.sh [--detectron2 [SOURCE] | --edge [RUNTIME]]'
LOGS="$ROOT/log/setup"
CONSTRICTION_UPSTREAM='git+https://github.com/bamler-lab/constriction.git'
DETECTRON2_UPSTREAM='git+https://github.com/facebookresearch/detectron2.git'

say() { printf '[setup] %s\n' "$*"; }
fail() {
    printf '[setup] error: %s\n' "$1" >&2
    shift
    (($# == 0)) || printf '[setup]        %s\n' "$@" >&2
    exit 1
}

detectron2=''
runtime='' # of an edge; empty for all
while (($#)); do
    case "$1" in
        --detectron2)
            detectron2="$DETECTRON2_UPSTREAM"
            if (($# > 1)) && [[ $2 != --* ]]; then
                detectron2="$2"
                shift
            fi
            ;;
        --edge)
            runtime='openvino'
            if (($# > 1)) && [[ $2 != --* ]]; then
                runtime="$2"
                shift
            fi
            [[ $runtime == openvino || $runtime == onnxruntime ]] ||
                fail "'$runtime' is no runtime of edge bundles: choose openvino or onnxruntime" "$USAGE"
            ;;
        -h | --help)
            sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        *) fail "unknown argument '$1'" "$USAGE" ;;
    esac
    shift
done
[[ -z $runtime || -z $detectron2 ]] ||
    fail 'Detectron2 needs PyTorch, and an edge is without it: --edge and --detectron2 exclude each other' "$USAGE"

suffix="${runtime:+-edge}"
VENV="$ROOT/.venv$suffix"
BUILD="build$suffix"
INSTALL="install$suffix"
if [[ -n $runtime ]]; then
    LOCKS=("$ROOT/requirements/edge.lock" "$ROOT/requirements/ros.lock")
    PACKAGES=(src/msfc_core src/msfc_msgs src/msfc_ros src/msfc_edge launch)
else
    LOCKS=("$ROOT/requirements/base.lock" "$ROOT/requirements/ros.lock")
    PACKAGES=(src launch)
fi

# Run a command with its output in a log file; of it show the lines that tell how far it is.
# logged NAME SED_PROGRAM COMMAND...
logged() {
    local log="$LOGS/$1.log" filter="$2"
    shift 2
    mkdir -p "$LOGS"
    if ! "$@" 2>&1 </dev/null | tee "$log" | sed -u -n "$filter"; then
        tail -n 30 "$log" >&2
        fail "this command failed; its whole output is in ${log#"$ROOT"/}:" "$*"
    fi
}

pip_install() {
    logged "$1" 's/^ *Downloading \([^ ]*\) \(([0-9.]* [MG]B)\).*/[setup]   downloading \1 \2/p;
                 s/^Installing collected packages:.*/[setup]   installing them/p;
                 s/^ *Building wheel for \([^ ]*\).*: started.*/[setup]   compiling \1/p' \
        "$VENV/bin/python" -m pip install --disable-pip-version-check --no-input \
        --progress-bar off "${@:2}"
}

# The runtime as its makers write it.
title() { if [[ $runtime == openvino ]]; then printf OpenVINO; else printf 'ONNX Runtime'; fi; }

# What edge.lock has, with one runtime of the two. Of constriction there are wheels for x86_64 alone.
edge_libraries() {
    local other='onnxruntime' constriction=''
    [[ $runtime != onnxruntime ]] || other='openvino'
    if [[ $(uname -m) != x86_64 ]]; then
        constriction='/^constriction==/d'
        ! command -v cargo >/dev/null ||
            constriction="s,^constriction==\([0-9.]*\).*,constriction @ $CONSTRICTION_UPSTREAM@v\1,"
    fi
    grep -v "^$other" "$ROOT/requirements/edge.lock" | sed "$constriction"
}

# --- what has to be there -------------------------------------------------------------------

ros_prefix=''
if [[ -n ${ROS_DISTRO:-} ]]; then
    [[ $ROS_DISTRO == jazzy ]] || fail "ROS 2 '$ROS_DISTRO' is sourced, but this project is for Jazzy." \
        'Source ROS 2 Jazzy, or run this in a shell in which no ROS 2 is sourced.'
    ros_prefix="$(IFS=:; for p in ${AMENT_PREFIX_PATH:-}; do
        if [[ -d $p/share/rclpy && $p != "$VENV" ]]; then printf '%s' "$p"; break; fi
    done)"
    [[ -n $ros_prefix ]] || fail 'ROS_DISTRO is set, but no rclpy is on AMENT_PREFIX_PATH.' \
        'Source ROS 2 again: source /opt/ros/jazzy/setup.bash'
elif [[ -f /opt/ros/jazzy/setup.bash ]]; then
    say 'note: ROS 2 Jazzy is installed but not sourced, so Python wheels are used in its place;'
    say '      to use it: source /opt/ros/jazzy/setup.bash, then run this again'
fi

[[ -n $ros_prefix || $(uname -m) == x86_64 ]] ||
    fail "ROS 2 comes as Python wheels for x86_64 alone, and this is $(uname -m)." \
        'Install and source ROS 2 Jazzy, then run this again: source /opt/ros/jazzy/setup.bash'

supported() {
    "$1" -c 'import sys; sys.exit(sys.implementation.name != "cpython" or not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
        2>/dev/null
}
python="${PYTHON:-}"
if [[ -n $python ]]; then
    supported "$python" || fail "PYTHON=$python is no CPython 3.10 to 3.13."
else
    for candidate in python3 python3.12 python3.11 python3.13 python3.10; do
        if supported "$candidate"; then
            python="$candidate"
            break
        fi
    done
    [[ -n $python ]] || fail 'no CPython 3.10 to 3.13 was found.' \
        'Install one (Debian, Ubuntu: apt-get install python3 python3-venv python3-dev),' \
        'or name one: PYTHON=/path/to/python3.12 bash scripts/setup.sh'
fi
# A shell with scripts/env.sh finds the one in .venv, which may have to be made anew.
python="$("$python" -c 'import sys; print(sys._base_executable)')"
[[ -z $ros_prefix ]] || "$python" -c 'import rclpy' 2>/dev/null ||
    fail "ROS 2 is sourced, but $python cannot import its rclpy." \
        'Name the interpreter that ROS 2 was built for: PYTHON=/usr/bin/python3 bash scripts/setup.sh'

missing=()
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    missing+=("python's venv module     (Debian, Ubuntu: apt-get install python3-venv)")
"$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))' ||
    missing+=("python's header files    (Debian, Ubuntu: apt-get install python3-dev)")
command -v "${CXX:-c++}" >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null ||
    missing+=('a C++ compiler           (Debian, Ubuntu: apt-get install g++)')
command -v git >/dev/null || missing+=('git                      (Debian, Ubuntu: apt-get install git)')
((${#missing[@]} == 0)) || fail 'these are missing; install them and run this again:' "${missing[@]}"

# --- the virtual environment ----------------------------------------------------------------

# A full disk would end pip after minutes, with half of the libraries there.
check_space() {
    local needed=8 free
    [[ -z $runtime ]] || needed=1
    free="$(df -Pk "$ROOT" | awk 'NR == 2 {print int($4 / 1024 / 1024)}')"
    ((free >= needed)) || fail "the disk of $ROOT has $free GB left, and ${VENV##*/} needs $needed GB." \
        'Make room, then run this again.'
}

version="$("$python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')"
mode="${ros_prefix:-wheels}"
stamp="$(cat "${LOCKS[@]}" "${BASH_SOURCE[0]}" | sha256sum | cut -d' ' -f1) $version $mode${runtime:+ $runtime}"

if [[ ! -f $VENV/msfc-stamp || "$(cat "$VENV/msfc-stamp")" != "$stamp" ]]; then
    kind="$version $mode${runtime:+ $runtime}"
    if [[ -d $VENV && ! -f $VENV/msfc-kind ]]; then
        fail "$VENV was not made by this script; it is left alone." \
            'Move it away or remove it, then run this again.'
    elif [[ -d $VENV && "$(cat "$VENV/msfc-kind")" != "$kind" ]]; then
        say "${VENV##*/} is for another Python, ROS 2 or runtime; making it anew"
        rm -rf "$VENV" "${ROOT:?}/$BUILD" "${ROOT:?}/$INSTALL"
    fi
    rm -f "$VENV/msfc-stamp"
    if [[ ! -x $VENV/bin/pip ]]; then
        check_space
        say "making ${VENV##*/} with CPython $version"
        # Written first: whatever ends this script, the folder is known as its own.
        mkdir -p "$VENV"
        printf '%s' "$kind" >"$VENV/msfc-kind"
        # Beside apt's ROS 2 its Python packages must be visible.
        "$python" -m venv ${ros_prefix:+--system-site-packages} "$VENV"
    fi
    if [[ -n $runtime ]]; then
        say "installing the libraries with $(title), without PyTorch"
        edge_libraries >"$VENV/edge.lock"
        grep -q '^constriction' "$VENV/edge.lock" ||
            say 'note: without Rust no constriction, so no bundle of a learned codec: docs/edge-bundle.md'
        pip_install libraries --no-deps -r "$VENV/edge.lock"
    else
        say 'installing the libraries (about 7 GB with PyTorch; some minutes)'
        pip_install libraries --no-deps -r "$ROOT/requirements/base.lock" \
            -r "$ROOT/requirements/docs.lock"
    fi
    if [[ -z $ros_prefix ]]; then
        say 'installing ROS 2 Jazzy as Python wheels'
        pip_install ros --no-deps -r "$ROOT/requirements/ros.lock"
        # The wheels' CMake files name two folders of the machine that they were built on.
        "$VENV/bin/python" - <<'PYTHON'
import pathlib
import re
import sys
import sysconfig

import numpy

include = sysconfig.get_paths()['include']
for path in pathlib.Path(sys.prefix, 'share').glob('*/cmake/*.cmake'):
    text = path.read_text()
    new = re.sub(r'/opt/python/[^;"]*/numpy/(_core|core)/include', numpy.get_include(), text)
    new = re.sub(r'/opt/python/[^;"/]*/include/python3\.\d+', include, new)
    if new != text:
        path.write_text(new)
PYTHON
    elif ! "$VENV/bin/python" -c 'import colcon_core' 2>/dev/null; then
        say 'installing colcon'
        grep '^colcon-' "$ROOT/requirements/ros.lock" >"$VENV/colcon.lock"
        pip_install colcon -r "$VENV/colcon.lock" -c "${LOCKS[0]}"
    fi
    printf '%s' "$ros_prefix" >"$VENV/msfc-ros-prefix"
    rm -f "$VENV/msfc-gl"
    printf '%s' "$stamp" >"$VENV/msfc-stamp"
fi

# How MuJoCo can draw without a screen here, for scripts/env.sh. Its libraries may come later.
if [[ -z $runtime && ! -f $VENV/msfc-gl ]]; then
    mkdir -p "$LOGS"
    for gl in egl osmesa; do
        if MUJOCO_GL=$gl timeout 120 "$VENV/bin/python" -c '
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco/>")
mujoco.Renderer(model, 32, 32).render()' >"$LOGS/gl-$gl.log" 2>&1; then
            printf '%s' "$gl" >"$VENV/msfc-gl"
            break
        fi
    done
fi
if [[ -z $runtime && ! -f $VENV/msfc-gl ]]; then
    say 'note: MuJoCo finds no way to draw without a screen, so the live simulator will not run here.'
    say '      Debian, Ubuntu: apt-get install libegl1 libgl1-mesa-dri   (or: libosmesa6)'
    say '      Then run this again. The demo clip plays without it.'
fi

if [[ -n $detectron2 ]]; then
    say "installing Detectron2 from $detectron2 (it is compiled; about ten minutes on two cores)"
    [[ ! -d $detectron2 ]] || detectron2="$(cd "$detectron2" && pwd)"
    pip_install detectron2 --no-build-isolation -c "$ROOT/requirements/base.lock" "$detectron2"
fi

# --- the ROS 2 packages ---------------------------------------------------------------------

# Python packages are linked, not copied: what changes inside them needs no new build.
sources() {
    cd "$ROOT"
    find "${PACKAGES[@]}" -type f -not -regex 'src/\([^/]*\)/\1/.*' -not -path 'src/msfc_core/msfc/*' \
        -not -path '*/test/*' -not -path '*/__pycache__/*' | LC_ALL=C sort
    find "${PACKAGES[@]}" colcon.meta -type f \( -name package.xml -o -name setup.py -o -name setup.cfg -o -name pyproject.toml \
        -o -name CMakeLists.txt -o -name '*.msg' -o -name colcon.meta \) -print0 |
        LC_ALL=C sort -z | xargs -0 tail -n +1
}

# What ros.lock has to build packages with: nothing needs it afterwards.
build_tools() {
    grep -o '^[a-z][a-z0-9-]*' "$ROOT/requirements/ros.lock" | sort -u |
        grep -vxF -e lark-parser -f <(grep -o '^[a-z][a-z0-9-]*' "$ROOT/requirements/edge.lock") | grep -v '^ros-'
}

# Leave a robot's environment with what runs there.
shrink() {
    local tools
    mapfile -t tools < <(build_tools)
    "$VENV/bin/python" -m pip uninstall --quiet --yes "${tools[@]}" >"$LOGS/shrink.log" 2>&1
    # A wheel has no links: of a library with three names it holds three copies.
    "$VENV/bin/python" - <<'PYTHON'
import hashlib
import pathlib
import sys

found = {}
paths = pathlib.Path(sys.prefix, 'lib').glob('*.so*')
for path in sorted(paths, key=lambda path: (-len(path.name), path.name)):
    if path.is_file() and not path.is_symlink():
        first = found.setdefault(hashlib.sha256(path.read_bytes()).digest(), path)
        if first != path and first.name.startswith(path.name):
            path.unlink()
            path.symlink_to(first.name)
PYTHON
}

build_stamp="$stamp $(sources | sha256sum | cut -d' ' -f1)"
if [[ ! -f $ROOT/$INSTALL/msfc-stamp || "$(cat "$ROOT/$INSTALL/msfc-stamp")" != "$build_stamp" ]]; then
    say 'building the ROS 2 packages'
    # shellcheck disable=SC1091
    MSFC_EDGE="${runtime:+1}" MSFC_ENV_NO_INSTALL=1 source "$ROOT/scripts/env.sh"
    cd "$ROOT"
    if [[ -z $ros_prefix ]]; then
        export CMAKE_GENERATOR=Ninja
        "$VENV/bin/python" -c 'import colcon_core' 2>/dev/null ||
            pip_install tools --no-deps -r "$ROOT/requirements/ros.lock"
    fi
    # Links to files that are no more would otherwise stay.
    for package in src/*/setup.py; do
        package="$(basename "$(dirname "$package")")"
        rm -rf "${BUILD:?}/$package" "${INSTALL:?}/$package"
    done
    rm -rf "$BUILD/msfc" "$INSTALL/msfc"
    PYTHONWARNINGS=ignore logged colcon 's/^\(Starting\|Finished\|Failed\).*/[setup]   &/p' \
        "$VENV/bin/python" -m colcon --log-base log build --base-paths "${PACKAGES[@]}" --symlink-install \
        --build-base "$BUILD" --install-base "$INSTALL" \
        --executor sequential --event-handlers console_direct- console_stderr- \
        --cmake-args "-DPython3_EXECUTABLE=$VENV/bin/python" "-DPYTHON_EXECUTABLE=$VENV/bin/python"
    [[ -z $runtime || -n $ros_prefix ]] || shrink
    printf '%s' "$build_stamp" >"$INSTALL/msfc-stamp"
fi
if [[ -n $runtime ]]; then
    with='with ROS 2'
    [[ -z $ros_prefix ]] || with="beside $ros_prefix"
    cd "$ROOT"
    say "${VENV##*/} takes $(du -sm "$VENV" | cut -f1) MB $with and $(title)," \
        "$BUILD and $INSTALL $(du -cm -s "$BUILD" "$INSTALL" | tail -n 1 | cut -f1) MB"
    say 'ready: MSFC_EDGE=1 source scripts/env.sh'
else
    say 'ready: source scripts/env.sh'
fi
