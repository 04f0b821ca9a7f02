"""A forward pass of a Memory Mosaic, listened to by hooks, and its layers run again, as they are or changed.

The hooks sit on submodules that every saved mosaic has, remote code included, so that any attention
implementation and any precision works, and no `(time, time)` matrix is kept.

Shapes: T tokens, C hidden size, H contextual and P persistent units, D and E their head sizes, V vocabulary.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle
from transformers import DynamicCache, PreTrainedModel

from .anatomy import ContextualPart, PersistentPart, by_unit, layers_of, memory_layers
from .edit import answers_replaced, attending_by, slots_removed

# Tokens whose logits are held at a time.
LOGIT_BLOCK = 128
# Most bytes of the copies of a cache that candidates are tried on.
CANDIDATE_BYTES = 2**27


@dataclass
class LayerTrace:
    """What a layer's memories got, stored, asked and answered; in the model's precision.

    `query_scale_HT` is what a key is multiplied by to ask, 1 in the first model; `leak_H` is what the leaky
    averages of keys lose, in nats a token. Only persistent units with trained pairs have queries.
    """

    keys_HTD: torch.Tensor
    query_scale_HT: torch.Tensor
    leak_H: torch.Tensor
    raw_values_HTD: torch.Tensor
    values_HtD: torch.Tensor
    answers_HTD: torch.Tensor
    queries_PTE: torch.Tensor | None
    persistent_answers_PTE: torch.Tensor


@dataclass
class Trace:
    """A forward pass, as far as each layer can be run again.

    Attributes:
        token_ids (`torch.Tensor` of shape `(time,)`): the text.
        hidden_1TC (`list[torch.Tensor]`): what enters each layer, and last what enters the last norm.
        arguments (`list[dict]`): what else each layer is called with.
        own_positions, own_logits (`torch.Tensor`): the model's own logits at some positions.
    """

    model: PreTrainedModel
    token_ids: torch.Tensor
    hidden_1TC: list[torch.Tensor]
    arguments: list[dict[str, Any]]
    own_positions: torch.Tensor
    own_logits: torch.Tensor

    @property
    def residual_TC(self) -> torch.Tensor:
        """What enters the last norm."""
        return self.hidden_1TC[-1][0]

    def listen(self, layer: int) -> LayerTrace:
        """Runs a layer again, on what entered it, and keeps what its memories do.

        So that only one layer's keys, values and answers are held at a time, for the price of a second pass.
        """
        parts = layers_of(self.model)[layer]
        contextual: list[dict[str, torch.Tensor]] = [{} for _ in parts.contextual]
        persistent: dict[str, torch.Tensor | None] = {"queries_PTE": None}
        with ExitStack() as stack:
            for part, place in zip(parts.contextual, contextual, strict=True):
                for handle in _listen(part, place):
                    stack.callback(handle.remove)
            for handle in _listen_to_persistent(parts.persistent, persistent):
                stack.callback(handle.remove)
            self._run(layer, self.hidden_1TC[layer])
        units = {name: torch.cat([place[name] for place in contextual]) for name in contextual[0]}
        return LayerTrace(**units, **persistent)

    def losses_without(self, layer: int, unit: int, memory: str, answer: torch.Tensor) -> torch.Tensor:
        """Losses `(time,)` with a unit's answers replaced; runs the layers from its own on again."""
        part, number = layers_of(self.model)[layer].find(memory, unit)
        with answers_replaced(part, number, answer):
            return self._losses_from(layer)

    def losses_without_slot(self, layer: int, unit: int, slot: int) -> torch.Tensor:
        """Losses `(time,)` without a slot of a persistent unit; runs the layers from its own on again."""
        with slots_removed(memory_layers(self.model)[layer].persistent_memory, unit, [slot]):
            return self._losses_from(layer)

    def _losses_from(self, layer: int) -> torch.Tensor:
        hidden_1TC = self.hidden_1TC[layer]
        for number in range(layer, len(self.arguments)):
            hidden_1TC = self._run(number, hidden_1TC)
        return token_losses(self.model, hidden_1TC[0], self.token_ids)

    def _run(self, layer: int, hidden_1TC: torch.Tensor) -> torch.Tensor:
        return memory_layers(self.model)[layer](hidden_1TC, **self.arguments[layer])


@torch.no_grad()
def trace(model: PreTrainedModel, token_ids: torch.Tensor, num_own: int = 64) -> Trace:
    """Runs the model over a text, once, and keeps what enters its layers.

    Args:
        model (`PreTrainedModel`): a Memory Mosaic with a language model's head, in eval mode.
        token_ids (`torch.Tensor` of shape `(time,)`): the text.
        num_own (`int`): positions, spread over the text, whose logits are kept to check others against.
    """
    own = torch.linspace(0, len(token_ids) - 1, min(num_own, len(token_ids))).long().unique()
    heard = Trace(model, token_ids, [], [], own, torch.empty(0))

    def enter(module, args, kwargs):
        heard.hidden_1TC.append(args[0])
        heard.arguments.append(kwargs)

    with ExitStack() as stack:
        for layer in memory_layers(model):
            stack.callback(layer.register_forward_pre_hook(enter, with_kwargs=True).remove)
        handle = model.base_model.norm.register_forward_pre_hook(
            lambda module, args: heard.hidden_1TC.append(args[0])
        )
        stack.callback(handle.remove)
        kept = own.to(token_ids.device)
        logits_1nV = model(input_ids=token_ids[None], use_cache=False, logits_to_keep=kept).logits
    heard.own_logits = logits_1nV[0].float()
    return heard


@torch.no_grad()
def residual_of(model: PreTrainedModel, token_ids: torch.Tensor) -> torch.Tensor:
    """What enters the last norm, `(time, hidden)`, in a pass over a text."""
    heard: list[torch.Tensor] = []
    handle = model.base_model.norm.register_forward_pre_hook(lambda module, args: heard.append(args[0][0]))
    try:
        model.base_model(input_ids=token_ids[None], use_cache=False)
    finally:
        handle.remove()
    return heard[0]


def _listen(part: ContextualPart, place: dict[str, torch.Tensor]) -> Iterator[RemovableHandle]:
    """Hooks that put what contextual units do into `place`; gives their handles."""

    def on_keys(module, args, output):
        queries_BHTD, keys_BHTD = part.queries_and_keys(output)
        keys_HTD = place["keys_HTD"] = keys_BHTD[0]
        place["query_scale_HT"] = _scale_between(keys_HTD.float(), queries_BHTD[0].float())

    def on_raw_values(module, args, output):
        place["raw_values_HTD"] = by_unit(output, part.num_heads)
        place["leak_H"] = part.mean_leak(args[0])

    def on_values(module, args, output):
        # Without the dummy slot, which is there where a mask hides it.
        place["values_HtD"] = output[0, :, output.shape[2] - (place["keys_HTD"].shape[1] - 1) :]

    yield part.key_module.register_forward_hook(on_keys)
    yield part.memory.v_proj.register_forward_hook(on_raw_values)
    yield part.memory.peek_norm.register_forward_hook(on_values)
    yield _listen_to_answers(part, place, "answers_HTD")


def _scale_between(keys_HTD: torch.Tensor, queries_HTD: torch.Tensor) -> torch.Tensor:
    """The number `(units, time)` that each key is multiplied by to ask; 1 for a key of zeros."""
    squared_HT = keys_HTD.square().sum(-1)
    product_HT = (keys_HTD * queries_HTD).sum(-1)
    return torch.where(squared_HT > 0, product_HT / squared_HT, 1)


def _listen_to_persistent(part: PersistentPart, place: dict[str, Any]) -> Iterator[RemovableHandle]:
    if part.query_module is not None:
        yield part.query_module.register_forward_hook(
            lambda module, args, output: place.__setitem__("queries_PTE", output[0][0])
        )
    yield _listen_to_answers(part, place, "persistent_answers_PTE")


def _listen_to_answers(part: ContextualPart | PersistentPart, place: dict, name: str) -> RemovableHandle:
    return part.o_proj.register_forward_pre_hook(
        lambda module, args: place.__setitem__(name, by_unit(args[0], part.num_heads))
    )


def logit_blocks(model: PreTrainedModel, residual_TC: torch.Tensor):
    """Pairs of a slice of the tokens and their logits `(block, vocab)` in float32."""
    for start in range(0, len(residual_TC), LOGIT_BLOCK):
        block = slice(start, start + LOGIT_BLOCK)
        yield block, logits_of(model, residual_TC[block])


def logits_of(model: PreTrainedModel, residual_nC: torch.Tensor) -> torch.Tensor:
    """Logits `(n, vocab)` of what enters the last norm, as the model computes them, in float32."""
    return model.lm_head(model.base_model.norm(residual_nC) * model.config.logit_scale).float()


@torch.no_grad()
def token_losses(model: PreTrainedModel, residual_TC: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
    """Loss `(time,)` in nats of predicting the next token at each one; NaN at the last."""
    losses_T = residual_TC.new_full((len(token_ids),), torch.nan, dtype=torch.float32)
    for block, logits_nV in logit_blocks(model, residual_TC[:-1]):
        losses_T[:-1][block] = F.cross_entropy(logits_nV, token_ids[1:][block], reduction="none")
    return losses_T


@torch.no_grad()
def candidate_raw_values(
    model: PreTrainedModel, token_ids: torch.Tensor, positions: list[int], candidates_nK: torch.Tensor
):
    """Raw values that other next tokens would have had, in all layers.

    In the first layer they depend on the token alone; in deeper ones on the whole text before it, so that
    the model takes a step from its cache for each.

    Args:
        positions (`list[int]`): places in the text, rising; candidates follow the token there.
        candidates_nK (`torch.Tensor` of shape `(positions, candidates)`): token ids.

    Yields:
        `torch.Tensor` of shape `(layers, units, candidates, head_dim)`: for each position.
    """
    cache = DynamicCache(config=model.config)
    seen = 0
    # Whatever the model's own: single steps from a cache fail under some.
    with attending_by(model, "sdpa"):
        for position, candidates_K in zip(positions, candidates_nK, strict=True):
            if position >= seen:
                model.base_model(input_ids=token_ids[None, seen : position + 1], cache=cache)
                seen = position + 1
            size = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
            most = max(1, CANDIDATE_BYTES // max(size, 1))
            yield torch.cat([_step_from(model, cache, some_k) for some_k in candidates_K.split(most)], 2)


def _step_from(model: PreTrainedModel, cache: DynamicCache, candidates_k: torch.Tensor) -> torch.Tensor:
    """Raw values `(layers, units, candidates, head_dim)` after one step from a copy of the cache for each."""
    branches = deepcopy(cache)
    branches.reorder_cache(torch.zeros(len(candidates_k), dtype=torch.long, device=candidates_k.device))
    heard: list[list[torch.Tensor]] = []
    with ExitStack() as stack:
        for layer in layers_of(model):
            raw_values: list[torch.Tensor] = []
            heard.append(raw_values)
            for part in layer.contextual:
                handle = part.memory.v_proj.register_forward_hook(
                    lambda module, args, output, part=part, place=raw_values: place.append(
                        by_unit(output, part.num_heads)
                    )
                )
                stack.callback(handle.remove)
        model.base_model(input_ids=candidates_k[:, None], cache=branches)
    return torch.stack([torch.cat(raw_values).float() for raw_values in heard])
