#!/bin/bash
# Adapters that geul writes, in Hugging Face's PEFT and in the PyPI package gguf; check_peft_files.py has the checks.
# Exit code 77: skipped, no Python has these packages.
set -u
cd "$(dirname "$0")/../.." || exit 2
build=${GEUL_BUILD:-$PWD/build}
[ -x "$build/geul" ] || { echo "needs $build/geul"; exit 77; }
for python in "${GEUL_PYTHON:-/opt/geul-py/bin/python}" python3; do
    if "$python" -c 'import gguf, numpy, peft, safetensors, torch, transformers' 2>/dev/null; then
        exec "$python" tests/convert/check_peft_files.py --geul "$build/geul"
    fi
done
echo "needs a Python with peft, transformers, torch, safetensors and gguf (GEUL_PYTHON names one)"
exit 77
