"""Memories changed while a model runs: pairs deleted and added, answers of units replaced.

Deleting a token is four different things, never to be confused:

1. pair i of one unit, everything else frozen: `measures.leave_one_out`, a closed form;
2. pair i of one unit, and what follows from it: [`delete_from_unit`];
3. pair i of all units of all layers: [`delete_everywhere`];
4. the token out of the text: [`delete_from_text`].

What (4) changes beyond (3) had been passed on to later tokens by other ways than the pair.

The second model's bandwidth beta(n) grows with the number n of pairs that a query sees. Only (4) changes n:
the others hide pairs from queries that stay as they were, so that (2) begins with the answer of (1). Added
pairs do not count either.

Shapes: B batch, T new tokens, S slots, H units, D head size, n added pairs. Pair i is the i-th token's key
and the value that peeks at the token after it; in batches, padding counts.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from ..memory_norms import SCALAR_GAIN
from ..memory_state import slots_in_front
from .anatomy import ContextualPart, LayerParts, PersistentPart, layers_of

# Its name among the attention implementations.
EDITED = "mosaic_edited"


@dataclass
class _PartEdit:
    """What is changed in contextual memories of one kind, by unit; a window has the latest slots alone."""

    is_window: bool
    deleted: dict[int, set[int]] = field(default_factory=dict)
    added: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = field(default_factory=dict)

    def hide_deleted(self, visible_BHTS: torch.Tensor, first_slot: int) -> torch.Tensor:
        """The mask without the slots of deleted pairs; the first column is `first_slot`.

        Slot i + 1 holds pair i.
        """
        hidden_HS = visible_BHTS.new_zeros(visible_BHTS.shape[1], visible_BHTS.shape[3])
        for unit, pairs in self.deleted.items():
            columns = [pair + 1 - first_slot for pair in pairs]
            hidden_HS[unit, [column for column in columns if 0 <= column < hidden_HS.shape[1]]] = True
        return visible_BHTS & ~hidden_HS[:, None]

    def stack_added(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Added keys and values `(units, n, head_dim)`, and which of them are there, `(units, n)`."""
        units, size = like.shape[1], like.shape[3]
        most = max(map(len, self.added.values()), default=0)
        key_HnD, value_HnD = like.new_zeros(2, units, most, size)
        is_there_Hn = torch.zeros(units, most, dtype=torch.bool, device=like.device)
        for unit, pairs in self.added.items():
            for number, (key_D, value_D) in enumerate(pairs):
                key_HnD[unit, number], value_HnD[unit, number] = key_D, value_D
                is_there_Hn[unit, number] = True
        return key_HnD, value_HnD, is_there_Hn


# The edit of each memory that is being edited.
_EDITS: WeakKeyDictionary[nn.Module, _PartEdit] = WeakKeyDictionary()


def _attend_edited(
    module, query, key, value, attention_mask, scaling=1.0, dropout=0.0, num_slots=0, **kwargs
):
    """Attention by sdpa over the pairs that an edit leaves and adds; 0 for queries that see none.

    `num_slots` is how many slots there are so far, of which a window holds the latest.
    """
    batch, units, time, _ = query.shape
    visible_BHTS = attention_mask.expand(batch, units, time, -1)
    edit = _EDITS.get(module)
    if edit is not None:
        visible_BHTS = edit.hide_deleted(visible_BHTS, num_slots - key.shape[2] if edit.is_window else 0)
        key_HnD, value_HnD, is_there_Hn = edit.stack_added(key)
        key = torch.cat([key, key_HnD.expand(batch, -1, -1, -1)], 2)
        value = torch.cat([value, value_HnD.expand(batch, -1, -1, -1)], 2)
        there_BHTn = is_there_Hn[:, None].expand(batch, -1, time, -1)
        visible_BHTS = torch.cat([visible_BHTS, there_BHTn], 3)
    answer_BHTD = F.scaled_dot_product_attention(
        query, key, value, attn_mask=visible_BHTS, dropout_p=dropout, scale=scaling
    )
    answer_BHTD = answer_BHTD.masked_fill(~visible_BHTS.any(-1, keepdim=True), 0)
    return answer_BHTD.transpose(1, 2).contiguous(), None


AttentionInterface.register(EDITED, _attend_edited)
AttentionMaskInterface.register(EDITED, sdpa_mask)


@dataclass(frozen=True)
class _Replacement:
    memory: str
    layer: int
    unit: int
    answer: torch.Tensor | None


@dataclass(frozen=True)
class _Removal:
    layer: int
    unit: int
    slots: list[int]


class MemoryEdit:
    """Changes to a model's memories, applied while it runs: forward passes and `generate()`, cached or not.

    Pairs are left out of, or added to, the average of each query that comes after them, in any attention
    implementation: the edited one computes by sdpa. Methods return the edit, so that changes chain.

    ```python
    >>> with MemoryEdit().delete(layer=1, unit=0, pairs=[17]).applied(model):
    ...     model.generate(**inputs)
    ```
    """

    def __init__(self):
        self._deletions: list[tuple[list[int] | None, list[int] | None, set[int]]] = []
        self._additions: list[tuple[list[int] | None, list[int] | None, torch.Tensor, torch.Tensor]] = []
        self._replacements: list[_Replacement] = []
        self._removals: list[_Removal] = []

    def delete(
        self,
        *,
        pairs: Iterable[int],
        layer: int | Sequence[int] | None = None,
        unit: int | Sequence[int] | None = None,
    ) -> "MemoryEdit":
        """Forgets pairs.

        Args:
            pairs (`Iterable[int]`): their numbers; pair i is the i-th token of the text and what came next.
            layer, unit (`int` or `Sequence[int]`, *optional*): of which units; all of them if `None`.

        Raises:
            ValueError: for a pair that is no number from 0 on.
        """
        pairs = set(pairs)
        for pair in pairs:
            if not isinstance(pair, int) or pair < 0:
                raise ValueError(f"pairs must be numbers from 0 on, not {pair!r}")
        self._deletions.append((_as_list(layer), _as_list(unit), pairs))
        return self

    def add(
        self,
        *,
        key: torch.Tensor,
        value: torch.Tensor,
        layer: int | Sequence[int] | None = None,
        unit: int | Sequence[int] | None = None,
    ) -> "MemoryEdit":
        """Remembers a pair from the first token on, as if it stood in front of the text.

        Args:
            key, value (`torch.Tensor` of shape `(head_dim,)`): the pair.
            layer, unit: as for [`delete`].
        """
        self._additions.append((_as_list(layer), _as_list(unit), key.detach(), value.detach()))
        return self

    def ablate(
        self, *, layer: int, unit: int, answer: torch.Tensor | None = None, memory: str = "contextual"
    ) -> "MemoryEdit":
        """Replaces the answers of a unit.

        Args:
            layer, unit (`int`): which one.
            answer (`torch.Tensor`, *optional*): instead of each answer: zero if `None` (zero ablation), one
                vector `(head_dim,)` such as the mean answer (mean ablation), or one for each token, `(batch *
                time, head_dim)`, such as another text's (resampling).
            memory (`str`): "contextual" or "persistent".

        Raises:
            ValueError: for another `memory`.
        """
        if memory not in ("contextual", "persistent"):
            raise ValueError(f"memory must be contextual or persistent, not {memory!r}")
        self._replacements.append(_Replacement(memory, layer, unit, answer))
        return self

    def delete_slots(self, *, layer: int, unit: int, slots: Iterable[int]) -> "MemoryEdit":
        """Leaves trained pairs of a persistent unit out of its average.

        Args:
            layer, unit (`int`): of which unit.
            slots (`Iterable[int]`): their numbers; banks are numbered one after the other.
        """
        self._removals.append(_Removal(layer, unit, sorted(set(slots))))
        return self

    @contextmanager
    def applied(self, model: PreTrainedModel) -> Iterator[PreTrainedModel]:
        """Applies the edit to a Memory Mosaic until the block ends.

        Raises:
            ValueError: for another model, layers or units that it does not have, keys and values of another
                size, or an edit within an edit. A forward pass raises one for a pair that its text has not,
                and for a cache that holds other pairs than those of the text.
        """
        layers = layers_of(model)
        edits = self._by_part(layers)
        if any(part.memory in _EDITS for layer in layers for part in layer.contextual):
            raise ValueError("another edit is applied to this model already; add to that one")
        with ExitStack() as stack:
            for replacement in self._replacements:
                part, unit = layers[replacement.layer].find(replacement.memory, replacement.unit)
                stack.enter_context(answers_replaced(part, unit, replacement.answer))
            for removal in self._removals:
                memory = layers[removal.layer].block.persistent_memory
                stack.enter_context(slots_removed(memory, removal.unit, removal.slots))
            if any(edits):
                stack.enter_context(attending_by(model, EDITED))
            for number, edited in enumerate(edits):
                for part, edit in edited.items():
                    _EDITS[part.memory] = edit
                    stack.callback(_EDITS.pop, part.memory)
                if edited:
                    memory = layers[number].block.contextual_memory
                    handle = memory.register_forward_pre_hook(_prepare(number, edited), with_kwargs=True)
                    stack.callback(handle.remove)
            yield model

    def _by_part(self, layers: list[LayerParts]) -> list[dict[ContextualPart, _PartEdit]]:
        """The edits of each layer's parts that have any, checked against the model's sizes."""
        edits: list[dict[ContextualPart, _PartEdit]] = [{} for _ in layers]

        def edits_of(chosen_layers, chosen_units):
            for layer, unit in _each(chosen_layers, chosen_units, layers, "contextual"):
                part, number = layers[layer].find("contextual", unit)
                yield edits[layer].setdefault(part, _PartEdit(part.is_window)), number

        for chosen_layers, units, pairs in self._deletions:
            for edit, unit in edits_of(chosen_layers, units):
                edit.deleted.setdefault(unit, set()).update(pairs)
        size = layers[0].contextual[0].head_dim
        for chosen_layers, units, key_D, value_D in self._additions:
            for name, vector in (("key", key_D), ("value", value_D)):
                if tuple(vector.shape) != (size,):
                    raise ValueError(f"{name} must have shape ({size},), not {tuple(vector.shape)}")
            for edit, unit in edits_of(chosen_layers, units):
                edit.added.setdefault(unit, []).append((key_D, value_D))
        for replacement in self._replacements:
            _each([replacement.layer], [replacement.unit], layers, replacement.memory)
        num_slots = layers[0].persistent.num_slots
        if self._removals and num_slots == 0:
            raise ValueError("slots: the model's persistent memories are feed-forward and have none")
        for removal in self._removals:
            _each([removal.layer], [removal.unit], layers, "persistent")
            for slot in removal.slots:
                if not isinstance(slot, int) or not 0 <= slot < num_slots:
                    raise ValueError(f"slot {slot}: persistent units have slots 0 to {num_slots - 1}")
        return edits


def _prepare(number: int, edited: dict[ContextualPart, _PartEdit]):
    """A hook that refuses pairs which the text has not, and lets first tokens see what was added."""
    last = max(
        (max(pairs, default=-1) for edit in edited.values() for pairs in edit.deleted.values()), default=-1
    )

    def hook(module, args, kwargs):
        cache, time = kwargs.get("cache"), args[0].shape[1]
        if hasattr(cache, "answer") or slots_in_front(cache):
            raise ValueError(
                f"pairs cannot be edited in a {type(cache).__name__}, which holds other pairs than those of "
                "the text; a MosaicMemory can forget them"
            )
        num_seen = 0 if cache is None else int(cache.get_seq_length(module.layer_idx))
        if num_seen == 0 and last > time - 2:
            stored = f"pairs 0 to {time - 2}" if time > 1 else "no pairs"
            raise ValueError(f"pair {last} of layer {number}: the text has {stored}")
        masks = kwargs["masks"]
        for part in edited:
            masks = part.without_empty(masks)
        return args, {**kwargs, "masks": masks, "num_slots": num_seen + time}

    return hook


@contextmanager
def answers_replaced(
    part: ContextualPart | PersistentPart, unit: int, answer: torch.Tensor | None
) -> Iterator[None]:
    """Replaces what a unit answers by `answer`, zero if `None`, until the block ends."""

    def hook(module, args):
        answers_nHD = args[0].unflatten(-1, (part.num_heads, -1)).clone()
        answers_nHD[..., unit, :] = 0 if answer is None else answer.to(answers_nHD)
        return (answers_nHD.flatten(-2),)

    handle = part.o_proj.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def slots_removed(memory: nn.Module, unit: int, slots: list[int]) -> Iterator[None]:
    """Leaves slots of a persistent unit out of its average until the block ends; an empty bank adds 0."""
    asked: list[torch.Tensor] = []

    def ask(module, args, output):
        asked[:] = [output[0][:, unit].flatten(0, 1)]

    def answer(module, args):
        keys_NmE, values_NmE = memory.memory_keys[:, unit], memory.memory_values[:, unit]
        scores_NnM = asked.pop().to(keys_NmE) @ keys_NmE.mT
        gone_M = torch.zeros(keys_NmE.shape[:2], dtype=torch.bool, device=keys_NmE.device)
        gone_M.view(-1)[slots] = True
        weights_NnM = scores_NnM.masked_fill(gone_M[:, None], -torch.inf).softmax(-1).nan_to_num(0)
        scale = torch.exp(SCALAR_GAIN * memory.log_value_norm[unit])
        answers_nHE = args[0].unflatten(-1, (memory.num_heads, -1)).clone()
        answers_nHE[..., unit, :] = (scale * (weights_NnM @ values_NmE).mean(0)).to(answers_nHE)
        return (answers_nHE.flatten(-2),)

    handles = [
        memory.key_extractor.register_forward_hook(ask),
        memory.o_proj.register_forward_pre_hook(answer),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def attending_by(model: PreTrainedModel, implementation: str) -> Iterator[None]:
    """Gives a model another attention implementation until the block ends."""
    before = model.config._attn_implementation
    model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def delete_from_unit(layer: int, unit: int, pairs: Iterable[int]) -> MemoryEdit:
    """Second deletion: pairs of one unit, and whatever the model makes of that."""
    return MemoryEdit().delete(layer=layer, unit=unit, pairs=pairs)


def delete_everywhere(pairs: Iterable[int]) -> MemoryEdit:
    """Third deletion: pairs of all units of all layers; the tokens stay in the text."""
    return MemoryEdit().delete(pairs=pairs)


def delete_from_text(token_ids: Sequence[int], tokens: Iterable[int]) -> list[int]:
    """Fourth deletion: the text without some of its tokens.

    Raises:
        ValueError: for a token that the text has not.
    """
    left_out = set(tokens)
    for token in left_out:
        if not 0 <= token < len(token_ids):
            raise ValueError(f"token {token}: the text has tokens 0 to {len(token_ids) - 1}")
    return [int(token_id) for place, token_id in enumerate(token_ids) if place not in left_out]


def _as_list(numbers: int | Sequence[int] | None) -> list[int] | None:
    return [numbers] if isinstance(numbers, int) else None if numbers is None else list(numbers)


def _each(
    chosen_layers: list[int] | None, units: list[int] | None, layers: list[LayerParts], memory: str
) -> list[tuple[int, int]]:
    """All combinations of layers and units; raises a `ValueError` for one that the model has not."""
    bounds = {"layer": (chosen_layers, len(layers)), "unit": (units, layers[0].count(memory))}
    chosen = []
    for name, (numbers, bound) in bounds.items():
        numbers = list(range(bound)) if numbers is None else numbers
        for number in numbers:
            if not isinstance(number, int) or not 0 <= number < bound:
                raise ValueError(f"{name} {number}: the model has {name}s 0 to {bound - 1}")
        chosen.append(numbers)
    return [(layer, unit) for layer in chosen[0] for unit in chosen[1]]
