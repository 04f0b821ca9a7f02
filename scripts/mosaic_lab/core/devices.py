"""Devices and precisions that options name, checked alike for all programs."""

import torch

from mosaic_lab.core.errors import InputError

DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")


def find_device(name: str | None) -> torch.device:
    """The device `name`: cpu, cuda, cuda:1, mps, ...; by default the accelerator if there is one.

    Raises:
        InputError: if there is no such device in this machine.
    """
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name is None:
        return found or torch.device("cpu")
    available = ["cpu"]
    if found is not None:
        available += [
            found.type,
            *(f"{found.type}:{index}" for index in range(torch.accelerator.device_count())),
        ]
    if name not in available:
        raise InputError(f"device {name}: not in this machine, which has {', '.join(available)}")
    return torch.device(name)


def check_dtype(name: str) -> None:
    """Refuses precisions that models do not compute in.

    Raises:
        InputError: that names the option and the value.
    """
    if name not in DTYPES:
        raise InputError(f"dtype must be one of {', '.join(DTYPES)}, not {name}")
