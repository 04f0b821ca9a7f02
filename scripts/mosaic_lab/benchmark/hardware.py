"""On what, and with what, was it measured."""

import hashlib
import os
import platform
import re
from pathlib import Path
from typing import Any

import torch
import transformers

import modeling_mosaic


def describe_hardware(device: str) -> dict[str, Any]:
    """Name and cores of the processor, threads of torch, name of the GPU if there is one in use."""
    cores = os.cpu_count()
    hardware = {"processor": _processor(), "cores": cores, "threads": torch.get_num_threads()}
    if device == "cuda":
        hardware["gpu"] = torch.cuda.get_device_name()
    hardware["label"] = hardware.get("gpu") or f"{hardware['processor']}, {cores} cores"
    hardware["slug"] = re.sub(r"[^a-z0-9]+", "-", hardware["label"].lower()).strip("-")
    return hardware


def _processor() -> str:
    name = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", information.read_text(), re.MULTILINE)
        name = found.group(1) if found else name
    # Such as "Intel(R) Xeon(R) CPU @ 2.20GHz" and "AMD EPYC 7763 64-Core Processor".
    return " ".join(re.sub(r"\((?:R|TM)\)|\bCPU\b|@.*|\S+-Core\b|\bProcessor\b", "", name).split())


def describe_versions() -> dict[str, str]:
    """Versions of what computes; the mosaic's is a hash of its source."""
    source = hashlib.sha256()
    for path in sorted(Path(modeling_mosaic.__file__).parent.glob("*.py")):
        source.update(path.read_bytes())
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "modeling_mosaic": f"sha256 {source.hexdigest()[:12]}",
        "system": f"{platform.system()} {platform.machine()}",
    }
