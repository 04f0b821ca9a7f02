"""A cache of bounded memories: a text without end in constant memory, and constant time per token.

Shapes: B batch, H heads, T new tokens, S slots (slot 0 is a dummy), D head size, N numbers of a policy.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from .answering_cache import AnsweringCache, AnsweringLayer, append_slots, pad_slots, score_slots
from .eviction import EvictionPolicy, choose_slots, make_policy

if TYPE_CHECKING:
    from ..configuration_mosaic import MosaicConfig

# Tokens of a prompt that are answered before the next eviction.
CHUNK_SIZE = 16


class BoundedLayer(AnsweringLayer):
    """The memories of one layer: at most `policy.max_pairs` pairs for each unit, which chooses its own."""

    def __init__(self, number_of_states: int, policy: EvictionPolicy, chunk_size: int):
        super().__init__(number_of_states)
        self.policy = policy
        self.chunk_size = chunk_size

    def _forget(self) -> None:
        super()._forget()
        self.has_padding = False
        self.visible: torch.Tensor | None = None
        self.state: torch.Tensor | None = None

    def answer(self, query_BHTD, recall_BT, has_padding):
        """Answers the queries of the tokens last stored, and evicts what there is no room for.

        Evicts after each `chunk_size` tokens: each of them sees the pairs that stayed after the chunk before
        and the new ones up to its own. Weights are returned if no pair went in between.
        """
        self.has_padding |= has_padding
        held = self.keys.shape[2] - self.num_new
        new_key, new_value = self.keys[:, :, held:], self.values[:, :, held:]
        self.keys, self.values = self.keys[:, :, :held], self.values[:, :, :held]
        answers, weights = [], []
        for start in range(0, self.num_new, self.chunk_size):
            chunk = slice(start, start + self.chunk_size)
            self._append(new_key[:, :, chunk], new_value[:, :, chunk], recall_BT[:, chunk])
            score_BHTS = score_slots(query_BHTD[:, :, chunk], self.keys, self.visible)
            weights.append(score_BHTS.softmax(-1).masked_fill(~recall_BT[:, None, chunk, None], 0))
            answers.append(weights[-1].to(query_BHTD.dtype) @ self.values)
            with torch.no_grad():
                self._evict(weights[-1].detach(), recall_BT[:, chunk])
        return torch.cat(answers, 2).transpose(1, 2), weights[0] if len(weights) == 1 else None

    def _append(self, key_BHTD, value_BHTD, recall_BT) -> None:
        self.keys = torch.cat([self.keys, key_BHTD], 2)
        self.values = torch.cat([self.values, value_BHTD], 2)
        self.visible = append_slots(self.visible, recall_BT, key_BHTD)
        self.state = pad_slots(self.state, self.policy.num_states, key_BHTD)

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
        for name in ("keys", "values", "visible", "state"):
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

    Args:
        config (`MosaicConfig`): the model's config.
        max_pairs (`int`): pairs per unit.
        policy (`str`): which pairs stay, a name of [`POLICIES`].
        chunk_size (`int`): tokens of a prompt between two evictions; meanwhile there are so many pairs more.
            1 evicts as if the tokens came one by one, and takes longer.

    Raises:
        ValueError: for a bound or a chunk below 1, an unknown policy or another model's config; later, for
            what takes tokens back.

    Example:

    ```python
    >>> from modeling_mosaic import BoundedCache

    >>> outputs = model.generate(**inputs, cache=BoundedCache(model.config, max_pairs=256))
    ```
    """

    def __init__(
        self, config: "MosaicConfig", max_pairs: int, policy: str = "recent", chunk_size: int = CHUNK_SIZE
    ):
        if isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1:
            raise ValueError(f"chunk_size must be a whole number of at least 1, not {chunk_size!r}")
        chosen = make_policy(policy, max_pairs)
        super().__init__(config, lambda: BoundedLayer(config.number_of_conv_states, chosen, chunk_size))
