#!/usr/bin/env bash
# Makes the environment of `make demo` and `make test`, step by step; a step that is done and whose
# requirements have not changed is skipped.
# Usage: tools/setup_env.sh openmmlab|onedl|torch21 VENV
set -euo pipefail
cd "$(dirname "$0")/.."

stack=$1
venv=$2
python=$venv/bin/python
stamps=$venv/.mmse-setup
steps=6

fail() {
    trap - EXIT
    echo "set-up: $1" >&2
    exit 2
}

# step NUMBER NAME TEXT FINGERPRINT: runs the function NAME unless it has finished with the same
# fingerprint before. The stamp is written last, so a step that failed is run again.
step() {
    local number=$1 name=$2 text=$3 fingerprint=$4 start=$SECONDS seconds
    if [[ -f $stamps/$name && $(<"$stamps/$name") == "$fingerprint" ]]; then
        return
    fi
    echo "[$number/$steps] $text"
    trap "echo 'set-up: step $number of $steps has failed; the next run goes on there' >&2" EXIT
    "$name"
    trap - EXIT
    mkdir -p "$stamps"
    echo "$fingerprint" >"$stamps/$name"
    seconds=$((SECONDS - start))
    echo "[$number/$steps] done in $((seconds / 60)) min $((seconds % 60)) s"
}

# pins FILE...: their lines, where the file of the stack does not pin the package itself.
pins() {
    awk -F'==' 'NR == FNR { own[$1]; next } /^[a-z]/ && !($1 in own)' \
        "requirements/$stack.txt" "${@/#/requirements/}"
}

# own NAMES: the stack's pins of packages that the other files pin as well; NAMES is a pattern.
own() {
    grep -E "^($1)==" "requirements/$stack.txt" || true
}

fingerprint_of() {
    sed '/^#/d' "$@" | cksum
}

pip() {
    "$python" -m pip --disable-pip-version-check "$@"
}

has_right_version() {
    "$1" -c "import sys; sys.exit(not (3, 10) <= sys.version_info < $before)" 2>/dev/null
}

environment() {
    local candidate
    if [[ -x $python ]] && ! has_right_version "$python"; then
        fail "$venv has $("$python" --version), but Python $allowed is needed: remove $venv"
    fi
    for candidate in $candidates python3; do
        if has_right_version "$candidate" &&
            "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            "$candidate" -m venv "$venv"
            return
        fi
    done
    fail "Python $allowed with its venv module is needed, but none was found: install it"
}

torch() {
    pip install -r <(pins torch.txt && own torch) -r requirements/build.txt
}

libraries() {
    # Every build of OpenCV unpacks into the same folder, so none may be there before ours.
    pip uninstall -qq -y opencv-python opencv-python-headless
    pip install -r <(pins {libraries,dev,docs,ray}.txt && own "$shared")
    pip install --no-deps -r <(grep -vE "^(torch|torchvision|$shared)==" "requirements/$stack.txt" |
        grep -vxF "$ops")
    "$python" -c 'import triton' 2>/dev/null || pip install --no-deps -r requirements/kernels.txt
}

mmcv_ops() {
    local missing page
    page=$("$python" tools/mmcv_wheel.py "$ops")
    if [[ -n ${MMCV_WHEEL:-} ]]; then
        [[ -n $page ]] || fail "MMCV_WHEEL: there is no compiled $ops for this Python and torch, or \
its index is out of reach: leave MMCV_WHEEL out to compile it here"
        pip install --no-deps --only-binary "${ops%%==*}" --find-links "$page" "$ops"
        "$python" -c 'import mmcv.ops'
        return
    fi
    if [[ -n $page ]]; then
        echo "$page has $ops compiled: stop and run 'make setup MMCV_WHEEL=1' to take it from there," \
            "which saves about $minutes minutes"
    fi
    local install=(pip install --no-deps --no-build-isolation)
    local afresh=(--force-reinstall --no-cache-dir)
    command -v "${CXX:-c++}" >/dev/null || fail 'a C++ compiler is needed for mmcv: install g++'
    missing=$("$python" - <<'EOF'
import os
import sysconfig

import torch
from torch.utils.cpp_extension import CUDA_HOME

if not os.path.isfile(os.path.join(sysconfig.get_path('include'), 'Python.h')):
    print("Python's headers are needed for mmcv: install python3-dev")
elif torch.cuda.is_available() and not CUDA_HOME:
    print(
        f'nvcc is needed for mmcv on this GPU: install the CUDA toolkit {torch.version.cuda}, or '
        "set CUDA_VISIBLE_DEVICES='' to compile for the CPU only"
    )
EOF
    )
    [[ -z $missing ]] || fail "$missing"
    export MMCV_WITH_OPS=1 MAX_JOBS=$jobs
    # Python's own flags, to which these are added, have -g: it takes half of the compiler's time.
    export CPPFLAGS="${CPPFLAGS:-} -g0"
    if [[ -f $stamps/mmcv_ops ]]; then
        "${install[@]}" "${afresh[@]}" "$ops"
    else
        "${install[@]}" "$ops"
    fi
    # pip does not know for which torch it has kept a wheel.
    "$python" -c 'import mmcv.ops' || "${install[@]}" "${afresh[@]}" "$ops"
}

peers() {
    # pip leaves what it finds in a target folder as it is.
    rm -rf "$venv/peers" "$venv/mmdeploy"
    pip install --no-deps --target "$venv/peers" -r <(pins peers.txt && own torchvision)
    pip install --no-deps --target "$venv/mmdeploy" -r requirements/mmdeploy.txt
    "$python" - <<'EOF'
from mmse.benchmark.peers import import_peers

import_peers()
import mmpose
import mmpretrain
import timm
EOF
}

mmse() {
    pip install --no-deps --no-build-isolation -e .
    "$python" -c 'import cv2, mmcv.ops, mmdet.apis, mmseg.apis, mmse'
}

[[ $stack == openmmlab || $stack == onedl || $stack == torch21 ]] ||
    fail "STACK=$stack is unknown: use STACK=openmmlab (the default), STACK=onedl or STACK=torch21"
if [[ $stack == torch21 ]]; then
    # pyenv has only the chosen versions on PATH.
    of_pyenv=$(compgen -G "${PYENV_ROOT:-${HOME:-}/.pyenv}/versions/3.10.*/bin/python" || true)
    candidates="python3.10 ${of_pyenv%%$'\n'*} python3.11" before='(3, 12)' allowed='3.10 or 3.11'
else
    candidates='python3.11 python3.12 python3.10' before='(3, 13)' allowed='3.10 to 3.12'
fi
shared='numpy|opencv-python-headless'
ops=$(grep -E '^(onedl-)?mmcv==' "requirements/$stack.txt")
jobs=${MAX_JOBS:-$(getconf _NPROCESSORS_ONLN)}
minutes=$(((21 + jobs) / jobs))

step 1 environment "making $venv: seconds" "$stack"
step 2 torch 'installing torch: a few minutes' \
    "$(fingerprint_of requirements/{torch,build}.txt) $(own torch)"
step 3 libraries 'installing the pinned packages: about a minute' \
    "$(cd requirements && fingerprint_of "$stack.txt" {libraries,dev,docs,ray,kernels}.txt)"
step 4 mmcv_ops "compiling mmcv's ops: about $minutes minutes on $jobs cores, once" \
    "$ops $(fingerprint_of requirements/torch.txt) $(own torch)"
step 5 peers 'installing timm, mmpretrain, mmpose and mmdeploy for the tests: about a minute' \
    "$(fingerprint_of requirements/{peers,mmdeploy,torch}.txt) $(own torchvision)"
step 6 mmse 'installing mmse: seconds' \
    "$PWD $(fingerprint_of setup.py pyproject.toml mmse/version.py requirements/*.txt)"
echo "set-up: $venv is complete"
