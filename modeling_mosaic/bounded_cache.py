"""A cache of bounded memories: a text without end in constant memory, and constant time per token.

Shapes: B batch, H heads, T new tokens, S slots (slot 0 is a dummy), D head size, N numbers that a policy keeps.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F
from transformers.cache_utils import Cache, LinearAttentionAndFullAttentionLayer

from .eviction import EvictionPolicy, choose_slots, make_policy

if TYPE_CHECKING:
    from .configuration_mosaic import MosaicConfig
    from .memory_masks import MemoryMasks

# Tokens of a prompt that are answered before the next eviction.
CHUNK_SIZE = 16


class BoundedLayer(LinearAttentionAndFullAttentionLayer):
    """The memories of one layer: at most `policy.max_pairs` pairs for each unit, which chooses its own."""

    is_croppable = False

    def __init__(self, number_of_states: int, policy: EvictionPolicy, chunk_size: int):
        super().__init__(number_of_states=number_of_states)
        self.policy = policy
        self.chunk_size = chunk_size
        self._forget()

    def _forget(self) -> None:
        self.num_seen = 0
        self.has_padding = False
        self.visible: torch.Tensor | None = None
        self.state: torch.Tensor | None = None
        self.num_new = 0

    def lazy_initialization(self, *args, **kwargs) -> None:
        super().lazy_initialization(*args, **kwargs)
        if args:
            key_BHTD = args[0]
            shape = (*key_BHTD.shape[:2], 0)
            self.visible = key_BHTD.new_zeros(shape, dtype=torch.bool)
            self.state = key_BHTD.new_zeros(
                (*shape[:2], self.policy.num_states, 0),
                dtype=torch.promote_types(key_BHTD.dtype, torch.float32),
            )

    def update(self, key_states, value_states, *args, **kwargs):
        """Stores new pairs without a bound, until `answer` has used them."""
        self.num_new = key_states.shape[2]
        self.num_seen += self.num_new
        return super().update(key_states, value_states)

    def answer(
        self, query_BHTD: torch.Tensor, recall_BT: torch.Tensor, has_padding: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Answers the queries of the tokens last stored, and evicts what there is no room for.

        Evicts after each `chunk_size` tokens: each of them sees the pairs that stayed after the chunk before
        and the new ones up to its own.

        Args:
            query_BHTD (`torch.Tensor`): a query for each new slot.
            recall_BT (`torch.BoolTensor`): False for queries whose memory is empty and for padding; their
                slots hold no pair.
            has_padding (`bool`): whether it can be False but for the first token.

        Returns:
            `tuple`: answers `(batch, time, heads, head_dim)`, 0 where the memory is empty; and the weights
            `(batch, heads, time, slots)`, `None` if pairs went in between.
        """
        self.has_padding |= has_padding
        new = [states[:, :, -self.num_new :] for states in (self.keys, self.values)]
        held = self.keys.shape[2] - self.num_new
        self.keys, self.values = self.keys[:, :, :held], self.values[:, :, :held]
        answers, weights = [], []
        for start in range(0, self.num_new, self.chunk_size):
            chunk = slice(start, start + self.chunk_size)
            self._append(*(states[:, :, chunk] for states in new), recall_BT[:, chunk])
            weight_BHTS = self._weigh(query_BHTD[:, :, chunk], recall_BT[:, chunk])
            answers.append(weight_BHTS.to(query_BHTD.dtype) @ self.values)
            weights.append(weight_BHTS)
            with torch.no_grad():
                self.state = self.policy.observe(
                    self.state, weight_BHTS.detach(), self.visible, recall_BT[:, chunk]
                )
                self._evict()
        return torch.cat(answers, 2).transpose(1, 2), weights[0] if len(weights) == 1 else None

    def _append(self, key_BHTD, value_BHTD, recall_BT) -> None:
        time = key_BHTD.shape[2]
        self.keys = torch.cat([self.keys, key_BHTD], 2)
        self.values = torch.cat([self.values, value_BHTD], 2)
        self.visible = torch.cat([self.visible, recall_BT[:, None].expand(*key_BHTD.shape[:2], time)], 2)
        self.state = F.pad(self.state, (0, time))

    def _weigh(self, query_BHTD, recall_BT):
        """The weight of each pair in full precision, 0 where a query does not see it."""
        time, num_slots = query_BHTD.shape[2], self.keys.shape[2]
        score_BHTS = (query_BHTD @ self.keys.transpose(2, 3)).to(self.state.dtype)
        visible_BHTS = self.visible[:, :, None]
        if time > 1:
            is_past_TS = torch.ones(time, num_slots, dtype=torch.bool, device=query_BHTD.device)
            visible_BHTS = visible_BHTS & is_past_TS.tril(num_slots - time)
        weight_BHTS = score_BHTS.masked_fill(~visible_BHTS, -torch.inf).softmax(-1)
        return weight_BHTS.masked_fill(~recall_BT[:, None, :, None], 0)

    def _evict(self) -> None:
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

    def get_seq_length(self) -> int:
        """Tokens seen, evicted or not."""
        return self.num_seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Slots held, with those of `query_length` new tokens."""
        return (self.keys.shape[2] if self.is_initialized else 0) + query_length, 0

    def reset(self) -> None:
        super().reset()
        self._forget()

    def _for_rows(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        if self.is_initialized:
            for name in ("keys", "values", "visible", "state"):
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

    def activate_past_recording(self) -> None:
        raise ValueError(
            "a BoundedCache cannot take tokens back, as prompt lookup and assisted decoding need: what they "
            "evicted is gone"
        )

    def crop(self, tokens_to_remove: int) -> None:
        raise ValueError("a BoundedCache cannot be cropped: what the tokens evicted is gone")


class BoundedCache(Cache):
    """Memories that hold at most `max_pairs` pairs per layer and unit, however long the text.

    For `generate()` and forward, in place of `DynamicCache`. Memory and time per token are constant. A text with
    no more than `max_pairs` pairs, its tokens but one, gives exactly what an unbounded cache gives. Every row of a
    batch and every unit chooses which pairs it keeps. Cannot be cropped.

    Args:
        config (`MosaicConfig`): the model's config.
        max_pairs (`int`): pairs per unit.
        policy (`str`): which pairs stay, a name of [`POLICIES`].
        chunk_size (`int`): tokens of a prompt between two evictions; meanwhile, there are as many pairs more.
            1 evicts as if the tokens came one by one, and takes longer.

    Raises:
        ValueError: for a bound or a chunk below 1 or an unknown policy; by methods, for what would take tokens back.

    Example:

    ```python
    >>> from modeling_mosaic import BoundedCache

    >>> outputs = model.generate(**inputs, cache=BoundedCache(model.config, max_pairs=256))
    ```
    """

    def __init__(
        self, config: "MosaicConfig", max_pairs: int, policy: str = "lru", chunk_size: int = CHUNK_SIZE
    ):
        if isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1:
            raise ValueError(f"chunk_size must be a whole number of at least 1, not {chunk_size!r}")
        chosen = make_policy(policy, max_pairs)
        layers = range(config.num_hidden_layers)
        super().__init__(
            layers=[BoundedLayer(config.number_of_conv_states, chosen, chunk_size) for _ in layers]
        )

    def answer(
        self, query_BHTD: torch.Tensor, masks: "MemoryMasks", layer_idx: int
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Answers the queries of a layer in the model's place, see `BoundedLayer.answer`."""
        return self.layers[layer_idx].answer(query_BHTD, masks["recall"], masks["keep"] is not None)
