"""What the two Memory Mosaics are made of, for recording and editing: the one place that tells them apart.

Contextual units of a layer are numbered as eager attention returns their weights: in the second model the
short-term units first, then the long-term ones. A persistent unit is what has a part of its own in the output
projection: units with trained pairs in the first model; in the second one the whole of a layer's feed-forward
network, whose answer is what its last projection takes.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from ..memory_norms import SCALAR_GAIN
from .pairs import UnitKind


class ContextualPart:
    """Contextual units of one kind in a layer, and the module that computes them.

    Attributes:
        memory (`nn.Module`): what attends, with the submodules `v_proj`, `peek_norm` and `o_proj`.
        kind (`UnitKind`): which pairs its queries see.
        key_module (`nn.Module`): what makes keys, and queries from them.
        is_window (`bool`): whether it gets the latest slots alone, and not all of them.
    """

    is_window = False

    def __init__(self, memory: nn.Module, kind: UnitKind, key_module: nn.Module):
        self.memory, self.kind, self.key_module = memory, kind, key_module
        self.num_heads, self.o_proj = memory.num_heads, memory.o_proj
        self.head_dim = memory.o_proj.in_features // memory.num_heads

    def queries_and_keys(self, output: tuple) -> tuple[torch.Tensor, torch.Tensor]:
        """Both `(batch, heads, time, head_dim)`, from what `key_module` returns."""
        raise NotImplementedError

    def mean_leak(self, hidden_nC: torch.Tensor) -> torch.Tensor:
        """What the leaky averages of keys lose, `(units,)`, in nats a token; a mean over the text."""
        raise NotImplementedError

    def without_empty(self, masks: dict) -> dict:
        """The masks without the note which queries find the memory empty, as pairs may be added to it."""
        raise NotImplementedError

    def value_scalars(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix c and length alpha of the values, `(units,)`."""
        norm = self.memory.peek_norm
        return tuple(x_H11.flatten() for x_H11 in norm.derive(norm.mix.float(), norm.log_scale.float()))

    def raw_values(self, hidden_nC: torch.Tensor) -> torch.Tensor:
        """Raw values `(units, n, head_dim)`."""
        return by_unit(self.memory.v_proj(hidden_nC), self.num_heads)


class _MosaicPart(ContextualPart):
    """The contextual units of the first model: a key asks as it is stored."""

    def queries_and_keys(self, output):
        return output[0], output[0]

    def mean_leak(self, hidden_nC):
        return SCALAR_GAIN * self.key_module.leaky_norm.leak.float().abs()

    def without_empty(self, masks):
        return {**masks, "recall": torch.ones_like(masks["recall"])}


class _MosaicV2Part(ContextualPart):
    """Short-term or long-term units of the second model: a query is a key times beta(n)."""

    @property
    def is_window(self):
        return self.memory.name == "short"

    def queries_and_keys(self, output):
        return output[0], output[1]

    def mean_leak(self, hidden_nC):
        return self.memory.leak_proj(hidden_nC).float().abs().mean(0)

    def without_empty(self, masks):
        name = f"{self.memory.name}_empty"
        return {**masks, name: torch.zeros_like(masks[name])}


@dataclass(frozen=True)
class PersistentPart:
    """A layer's persistent units.

    Attributes:
        num_heads (`int`): how many there are.
        o_proj (`nn.Linear`): what takes their answers, side by side.
        num_slots (`int`): trained pairs of each, in all banks; 0 where there are none.
        query_module (`nn.Module`, *optional*): what makes their queries; `None` without trained pairs.
    """

    num_heads: int
    o_proj: nn.Linear
    num_slots: int = 0
    query_module: nn.Module | None = None


@dataclass(frozen=True)
class LayerParts:
    """The memories of a layer; `block` is the layer."""

    block: nn.Module
    contextual: list[ContextualPart]
    persistent: PersistentPart

    @property
    def kinds(self) -> list[UnitKind]:
        """The kind of each contextual unit."""
        return [part.kind for part in self.contextual for _ in range(part.num_heads)]

    def count(self, memory: str) -> int:
        """How many units there are, "contextual" or "persistent" ones."""
        return sum(part.num_heads for part in self._parts(memory))

    def find(self, memory: str, unit: int) -> tuple[ContextualPart | PersistentPart, int]:
        """The part of a unit, and its number there."""
        for part in self._parts(memory):
            if unit < part.num_heads:
                return part, unit
            unit -= part.num_heads
        raise IndexError(unit)

    def _parts(self, memory: str) -> list:
        return self.contextual if memory == "contextual" else [self.persistent]


def by_unit(states: torch.Tensor, num_units: int) -> torch.Tensor:
    """`(..., time, units * size)` of one row to `(units, time, size)`."""
    return states.reshape(-1, num_units, states.shape[-1] // num_units).transpose(0, 1)


def memory_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The layers of a Memory Mosaic, remote code included.

    Raises:
        ValueError: for another model.
    """
    if getattr(model.config, "model_type", None) not in _PARTS:
        raise ValueError(f"model must be a Memory Mosaic, not {type(model).__name__}")
    return model.base_model.layers


def layers_of(model: PreTrainedModel) -> list[LayerParts]:
    """The memories of all layers; raises as [`memory_layers`]."""
    blocks = memory_layers(model)
    return [LayerParts(block, *_PARTS[model.config.model_type](block, model.config)) for block in blocks]


def _parts_of_mosaic(block: nn.Module, config) -> tuple[list[ContextualPart], PersistentPart]:
    contextual, persistent = block.contextual_memory, block.persistent_memory
    part = _MosaicPart(contextual, UnitKind("contextual"), contextual.key_extractor)
    num_slots = config.num_persistent_banks * config.persistent_memory_size
    return [part], PersistentPart(
        persistent.num_heads, persistent.o_proj, num_slots, persistent.key_extractor
    )


def _parts_of_mosaic_v2(block: nn.Module, config) -> tuple[list[ContextualPart], PersistentPart]:
    short, long = block.contextual_memory.short_memory, block.contextual_memory.long_memory
    parts = [_MosaicV2Part(short, UnitKind("short", oldest=config.short_memory_size), short.key_norm)]
    if long is not None:
        parts.append(_MosaicV2Part(long, UnitKind("long", config.long_memory_delay), long.key_norm))
    return parts, PersistentPart(1, block.persistent_memory.down_proj)


_PARTS = {"mosaic": _parts_of_mosaic, "mosaic_v2": _parts_of_mosaic_v2}
