"""Whether the parts of a portable memory, from a file for one, fit together."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from .layout import LAYOUTS
from .tokens import BEGINNING, NO_TOKEN, SOURCE

if TYPE_CHECKING:
    from .portable_memory import MosaicMemory


def check_memory(memory: "MosaicMemory") -> None:
    """Raises a `ValueError` for parts that do not fit together, and for numbers that are not finite."""
    if memory.model_type not in LAYOUTS:
        raise ValueError(f"model_type must be one of {', '.join(LAYOUTS)}, not {memory.model_type!r}")
    if memory.keys.ndim != 4:
        raise ValueError(
            f"keys must have shape (layers, units, pairs, head_dim), not {tuple(memory.keys.shape)}"
        )
    for name, tensor, shape in _list_parts(memory):
        if tensor.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, not {tuple(tensor.shape)}")
        if not tensor.isfinite().all():
            raise ValueError(f"{name} of this memory are NaN or infinite")
    sources = memory.all_tokens()[..., SOURCE]
    if (sources < BEGINNING).any() or (sources >= len(memory.sources)).any():
        raise ValueError(f"tokens are of texts that are not among the {len(memory.sources)} sources")
    if len(set(memory.sources)) < len(memory.sources):
        raise ValueError(f"sources must have different names, not {list(memory.sources)}")
    pairs = memory.window.pairs
    if (pairs < -1).any() or (pairs >= len(memory)).any():
        raise ValueError(f"window.pairs must be numbers of the {len(memory):,} pairs, or -1")
    if (memory.beginning is None) != (not isinstance(memory.beginning_id, int)):
        raise ValueError(f"beginning_id must be the id of the token of beginning, not {memory.beginning_id}")


def _list_parts(memory: "MosaicMemory") -> Iterator[tuple[str, torch.Tensor, tuple[int, ...]]]:
    """The tensors of a memory, with their names in files and the shapes that they must have."""
    num_layers, num_heads, num_pairs, head_dim = memory.keys.shape
    num_columns, token_size = memory.window.pairs.numel(), len(NO_TOKEN)
    yield "keys", memory.keys, memory.keys.shape
    yield "values", memory.values, tuple(memory.keys.shape)
    yield "tokens", memory.tokens, (num_pairs + 1, 2, token_size)
    for name in ("keys", "values"):
        columns = (num_layers, num_heads, num_columns, head_dim)
        yield f"window.{name}", getattr(memory.window, name), columns
    yield "window.tokens", memory.window.tokens, (num_columns, 2, token_size)
    yield "window.pairs", memory.window.pairs, (num_columns,)
    for group, states in (("states", memory.states), ("beginning", memory.beginning or ())):
        for (name, form), state in zip(memory.layout.states.items(), states, strict=bool(states)):
            yield f"{group}.{name}", state, (num_layers, num_heads * (head_dim + form.num_scales))
