"""How many operations a model dispatches, which is what small models pay for in eager mode.

An operation is a call of torch's dispatcher, an `aten::` event of the profiler. Views count as kernels do,
and an operation made of others counts with them: `aten::linear` is itself, `aten::t`, `aten::transpose`,
`aten::as_strided`, `aten::addmm` and what that calls. The number depends on the code, on shapes and on the
releases of torch and transformers, but not on the speed or the load of the machine.
"""

import os
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import PreTrainedModel

from modeling_mosaic.compatibility import CACHE_NAME

# Otherwise the profiler's library prints a line whenever it starts or stops.
os.environ.setdefault("KINETO_LOG_LEVEL", "6")


def count_operations(run: Callable[[], Any]) -> int:
    """Operations that the second call of `run` dispatches, those of backward passes included.

    The first one may also build what later ones reuse.
    """
    run()
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        run()
    return sum(event.count for event in recorded.key_averages() if event.key.startswith("aten::"))


@torch.no_grad()
def count_decoding(model: PreTrainedModel, tokens: torch.Tensor) -> int:
    """Operations of the forward pass of one more token per row, after `(batch, time)` tokens in the cache."""
    outputs = model(input_ids=tokens, use_cache=True, logits_to_keep=1)
    cache = {CACHE_NAME: outputs[CACHE_NAME]}
    return count_operations(lambda: model(input_ids=tokens[:, :1], use_cache=True, **cache))
