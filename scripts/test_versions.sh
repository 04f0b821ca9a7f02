#!/usr/bin/env bash
# Runs the tests of the model on releases of transformers, each in an environment of its own.
#   scripts/test_versions.sh FOLDER [VERSION ...]     the oldest, 5.19.0 and the newest release by default
# Environments stay in FOLDER, a few hundred MB each besides torch; PYTHON and TORCH as for `make install`.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:?a folder for the environments}
shift
# What setup.cfg promises; 5.19.0, which serving engines pin; what pip takes for the newest.
oldest=$(sed -n 's/^ *transformers>=//p' setup.cfg)
versions=("$@")
[ $# -gt 0 ] || versions=("$oldest" 5.19.0 newest)
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
for version in "${versions[@]}"; do
    environment=$folder/transformers-$version
    [ "$version" = newest ] && release=transformers || release=transformers==$version
    [ -d "$environment" ] || "${PYTHON:-python3}" -m venv "$environment"
    "$environment/bin/pip" install --quiet --disable-pip-version-check --upgrade "${TORCH:-torch==2.13.0}" "$release" '.[test]'
    "$environment/bin/python" -c 'import torch, transformers as t; print("transformers", t.__version__, "torch", torch.__version__)'
    "$environment/bin/python" -m pytest --quiet tests/modeling_mosaic/memories \
        tests/modeling_mosaic/test_{modeling,generation,configuration,hub_form,trainer,warnings}.py \
        tests/modeling_mosaic/test_modeling_v2.py
done
