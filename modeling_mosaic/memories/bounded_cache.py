"""A cache of bounded memories: a text without end in constant memory, and constant time per token.

Shapes: B batch, H heads, T new tokens, S slots (slot 0 is a dummy), D head size, N numbers of a policy.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from .answering_cache import AnsweringCache, AnsweringLayer, pad_slots, score_slots
from .eviction import EvictionPolicy, choose_slots, make_policy

if TYPE_CHECKING:
    from ..configuration_mosaic import MosaicConfig
    from ..configuration_mosaic_v2 import MosaicV2Config

# Tokens of a prompt that are answered before the next eviction.
CHUNK_SIZE = 16
# More than any number of pairs.
NO_PAIR = 2**40


class BoundedLayer(AnsweringLayer):
    """The memories of one layer: at most `policy.max_pairs` pairs for each unit, which chooses its own."""

    def __init__(self, config: "MosaicConfig | MosaicV2Config", policy: EvictionPolicy, chunk_size: int):
        super().__init__(config)
        self.policy = policy
        self.chunk_size = chunk_size

    def _forget(self) -> None:
        super()._forget()
        self.has_padding = False
        self.state: torch.Tensor | None = None

    def answer(self, query_BHTD, recall_BT, keep_BT):
        """Stores pairs, answers the queries of new tokens, and evicts what there is no room for.

        Evicts after each `chunk_size` tokens: each of them sees the pairs that stayed after the chunk before
        and the new ones up to its own. Weights are returned if no pair went in between.
        """
        self.has_padding |= keep_BT is not None
        new_key, new_value = self.release(keep_BT)
        answers, weights = [], []
        for start in range(0, new_key.shape[2], self.chunk_size):
            chunk = slice(start, start + self.chunk_size)
            self.append(new_key[:, :, chunk], new_value[:, :, chunk], recall_BT[:, chunk])
            self.state = pad_slots(self.state, self.policy.num_states, new_key[:, :, chunk])
            score_BHTS = score_slots(query_BHTD[:, :, chunk], self.keys, self.visible)
            weights.append(score_BHTS.softmax(-1).masked_fill(~recall_BT[:, None, chunk, None], 0))
            answers.append(weights[-1].to(query_BHTD.dtype) @ self.values)
            with torch.no_grad():
                self._evict(weights[-1].detach(), recall_BT[:, chunk])
        return torch.cat(answers, 2).transpose(1, 2), weights[0] if len(weights) == 1 else None

    def _evict(self, weight_BHTS, recall_BT) -> None:
        self.state = self.policy.observe(self.state, weight_BHTS, self.visible, recall_BT)
        if self.keys.shape[2] <= 1 + self.policy.max_pairs:
            return
        if self.has_padding:
            # Slots without a pair come first, so that neighbours and recent pairs are those of the row alone.
            place_BHS = self.visible.byte() + 1
            place_BHS[..., 0] = 0
            self._keep_slots(place_BHS.argsort(dim=-1, stable=True))
        self._keep_slots(choose_slots(self.policy, self.state, self.keys, self.visible))

    def _keep_slots(self, index_BHS: torch.Tensor) -> None:
        index_BHS1, index_BH1S = index_BHS[..., None], index_BHS[:, :, None]
        self.keys = self.keys.gather(2, index_BHS1.expand(-1, -1, -1, self.keys.shape[-1]))
        self.values = self.values.gather(2, index_BHS1.expand(-1, -1, -1, self.values.shape[-1]))
        self.state = self.state.gather(3, index_BH1S.expand(-1, -1, self.state.shape[2], -1))
        self.visible = self.visible.gather(2, index_BHS)

    def _for_rows(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        for name in ("keys", "values", "waiting_keys", "waiting_values", "visible", "state"):
            if getattr(self, name) is not None:
                setattr(self, name, change(getattr(self, name)))
        for state_idx, state_BC1 in self.conv_states.items():
            if state_BC1 is not None:
                self.conv_states[state_idx] = change(state_BC1)

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        self._for_rows(lambda states: states.index_select(0, beam_idx.to(states.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._for_rows(lambda states: states.repeat_interleave(repeats, 0))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self._for_rows(lambda states: states[indices])


class BoundedCache(AnsweringCache):
    """Memories that hold at most `max_pairs` pairs per layer and unit, however long the text.

    For `generate()` and forward, in place of `DynamicCache`. Memory and time per token are constant. While
    there are no more than `max_pairs` pairs, one less than tokens, it gives exactly what an unbounded cache
    gives. Every row of a batch and every unit chooses which pairs it keeps. It cannot be cropped.

    Of the second model, it bounds the long-term memory: its `long_memory_delay - 1` latest pairs, which no
    query sees yet, wait outside of the bound. The short-term memory has its own. The n of the bandwidth
    beta(n) counts the pairs that a query finds: those kept.

    Args:
        config (`MosaicConfig` or `MosaicV2Config`): the model's config.
        max_pairs (`int`): pairs per unit.
        policy (`str`): which pairs stay, a name of [`POLICIES`].
        chunk_size (`int`): tokens of a prompt between two evictions; meanwhile there are so many pairs more.
            1 evicts as if the tokens came one by one, and takes longer.

    Raises:
        ValueError: for a bound or a chunk below 1, an unknown policy, another model's config or one
            without long-term memory; later, for what takes tokens back.

    Example:

    ```python
    >>> from modeling_mosaic import BoundedCache

    >>> outputs = model.generate(**inputs, cache=BoundedCache(model.config, max_pairs=256))
    ```
    """

    def __init__(
        self,
        config: "MosaicConfig | MosaicV2Config",
        max_pairs: int,
        policy: str = "recent",
        chunk_size: int = CHUNK_SIZE,
    ):
        if isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1:
            raise ValueError(f"chunk_size must be a whole number of at least 1, not {chunk_size!r}")
        chosen = make_policy(policy, max_pairs)
        super().__init__(config, lambda: BoundedLayer(config, chosen, chunk_size))
        self.max_pairs, self.chunk_size = max_pairs, chunk_size

    def count_held(self, num_pairs_bT):
        """All but those that were evicted before the chunk: what was stored by then, less the bound."""
        time, size = num_pairs_bT.shape[1], self.chunk_size
        stored_bT = F.pad(
            num_pairs_bT.masked_fill(num_pairs_bT == 0, NO_PAIR), (0, -time % size), value=NO_PAIR
        )
        # A chunk's first token stores the first pair that was not there when pairs were evicted.
        first_bT = stored_bT.unflatten(-1, (-1, size)).amin(-1).repeat_interleave(size, -1)
        num_evicted_bT = (first_bT[:, :time] - 1 - self.max_pairs).clamp(min=0)
        return (num_pairs_bT - num_evicted_bT).clamp(min=0)
