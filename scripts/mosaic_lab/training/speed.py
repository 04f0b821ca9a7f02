"""How many operations a training step takes, and how many the machine can do: what MFU is made of."""

import time
from copy import deepcopy

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

# Dense products of 16-bit floats, of TF32 and of float32, in 1e12 operations a second: NVIDIA's data sheets,
# without sparsity, by the whole name of the device, which for a part of one (MIG) is another.
_A100 = (312, 156, 19.5)
PEAKS = {
    "NVIDIA B200": (2250, 1100, 75),
    "NVIDIA H200": (989, 494, 67),
    "NVIDIA H200 NVL": (835, 417, 60),
    "NVIDIA H100 80GB HBM3": (989, 494, 67),
    "NVIDIA H100 NVL": (835, 417, 60),
    "NVIDIA H100 PCIe": (756, 378, 51),
    "NVIDIA A100-SXM4-80GB": _A100,
    "NVIDIA A100-SXM4-40GB": _A100,
    "NVIDIA A100-PCIE-40GB": _A100,
    "NVIDIA A100 80GB PCIe": _A100,
    "NVIDIA L40S": (362, 183, 91.6),
    "NVIDIA L40": (181, 90.5, 90.5),
    "NVIDIA L4": (121, 60, 30.3),
    "NVIDIA GeForce RTX 4090": (165, 82.6, 82.6),
    "NVIDIA GeForce RTX 3090": (71, 35.6, 35.6),
}
# Of the matrices by which a CPU is measured, and for how long at least.
_SIZE, _SECONDS = 1024, 0.2


def count_operations(model: PreTrainedModel, num_tokens: int) -> int | None:
    """Floating-point operations of a training step on one row: the products of its forward and backward pass.

    They are counted by torch's `FlopCounterMode` on a copy of the model without weights (device "meta"), with
    eager attention and nothing recomputed. Thus attention counts with all pairs of tokens, as is usual, those
    that the mask hides too, and neither another implementation of it nor activation checkpointing changes the
    number.

    Args:
        model (`PreTrainedModel`): a causal language model.
        num_tokens (`int`): length of the row.

    Returns:
        `int | None`: additions and multiplications; `None` for a model that cannot run without weights.
    """
    row_BT = torch.zeros(1, num_tokens, dtype=torch.long, device="meta")
    # Without a mask, transformers would look into positions for packed texts.
    inputs = {"input_ids": row_BT, "labels": row_BT, "attention_mask": torch.ones_like(row_BT)}
    try:
        with torch.device("meta"):
            twin = type(model)._from_config(deepcopy(model.config), attn_implementation="eager").eval()
        twin.loss_type = model.loss_type
        with FlopCounterMode(display=False) as counter:
            twin(**inputs, use_cache=False).loss.backward()
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return None
    return counter.get_total_flops()


def find_peak(device: torch.device, dtype: torch.dtype) -> float | None:
    """What one device reaches at most, in floating-point operations per second.

    Args:
        device (`torch.device`): a CUDA device, whose maker says it, or the CPU, where it is measured: the
            fastest of several products of matrices of 1,024 x 1,024, on as many threads as torch has.
        dtype (`torch.dtype`): of the products.

    Returns:
        `float | None`: `None` for devices that are not in the table.
    """
    if device.type == "cpu":
        return _measure_peak(dtype)
    if device.type != "cuda":
        return None
    peaks = PEAKS.get(torch.cuda.get_device_name(device))
    if peaks is None or dtype not in (torch.bfloat16, torch.float16, torch.float32):
        return None
    half, tf32, full = peaks
    is_tf32 = torch.backends.cuda.matmul.fp32_precision == "tf32"
    return 1e12 * (half if dtype.itemsize == 2 else tf32 if is_tf32 else full)


def _measure_peak(dtype: torch.dtype) -> float:
    # No random numbers, which belong to the training.
    left, right = torch.ones(2, _SIZE, _SIZE, dtype=dtype)
    left @ right
    seconds, begin = [], time.perf_counter()
    while not seconds or time.perf_counter() - begin < _SECONDS:
        start = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - start)
    return 2 * _SIZE**3 / min(seconds)
