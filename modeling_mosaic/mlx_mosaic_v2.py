"""A Memory Mosaic v2 (arXiv 2507.03285) for mlx-lm, which loads this file from a saved folder.

The computation of `modeling_mosaic_v2.py`, which says what the parts are, with what `mlx_mosaic.py` in the
same folder has of it.

Shapes: B batch, b batch or 1, T new tokens, t of them with the state before in front, S slots, C hidden size,
H heads, D head size; W columns of the short-term memory's window. Slot t of a memory holds pair t - 1; slot 0
is a dummy that no query may see.
"""

from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

# As in `mlx_mosaic.py`.
try:
    import mlx.core as mx
    from mlx import nn
    from mlx_lm.models.base import BaseModelArgs
    from mlx_lm.models.cache import ArraysCache, CacheList, KVCache
except ImportError as error:
    raise ImportError("this file is for mlx-lm: pip install mlx-lm") from error


def load_beside(name: str) -> ModuleType:
    """A module of the same folder: mlx-lm loads this file by its path, which makes it part of no package."""
    spec = spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


mosaic = load_beside("mlx_mosaic")

# As in `modeling_mosaic_v2.py`.
MAX_LOG_BETA, MAX_LOG_VALUE_SCALE = 10.0, 15.0
# As in `gated_average.py`: the log scale of an average of nothing.
EMPTY = -1e30
# What a layer keeps besides the pairs of its long-term memory: numbers of states in an `ArraysCache`. Each
# memory has three, from the first of its own on; then, the window of the short-term memory has two.
AVERAGE, LOG_SCALE, LAST_VALUE = range(3)
SHORT_STATES, WINDOW_KEYS, WINDOW_VALUES, LONG_STATES = 0, 3, 4, 5


@dataclass
class ModelArgs(BaseModelArgs):
    """The fields of `config.json` that matter here."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    short_memory_size: int
    long_memory_delay: int
    use_long_memory: bool
    rms_norm_eps: float
    logit_scale: float
    tie_word_embeddings: bool


class Seen(NamedTuple):
    """What queries see of a memory."""

    # `(b, 1, time, slots)`: True for slots that a query sees.
    slots: mx.array
    # `(b, 1, time, 1)`: how many that are, or 1.
    num_pairs: mx.array


def see(after_bT: mx.array, until_bT: mx.array, slot_bS: mx.array) -> Seen:
    """The slots with `after < number <= until`."""
    is_seen_bTS = (after_bT[..., None] < slot_bS[:, None]) & (slot_bS[:, None] <= until_bT[..., None])
    num_pairs_bT = mx.maximum(until_bT - after_bT, 1).astype(mx.float32)
    return Seen(is_seen_bTS[:, None], num_pairs_bT[:, None, :, None])


def find_seen(args: ModelArgs, time: int, pairs: KVCache | None) -> tuple[Seen, Seen]:
    """What new tokens see of the short-term and of the long-term memory, by their numbers in their rows."""
    num_slots = 0 if pairs is None else pairs.size()
    padding_B = getattr(pairs, "left_padding", None)
    padding_b1 = mx.zeros((1, 1), mx.int32) if padding_B is None else padding_B[:, None]
    # Padding behind a row has numbers as if it were text, which no token of the row sees.
    number_bT = num_slots - padding_b1 + mx.arange(time)
    window_bW = num_slots - padding_b1 + mx.arange(1 - args.short_memory_size, time)
    slot_bS = mx.arange(num_slots + time) - padding_b1
    short = see(mx.maximum(number_bT - args.short_memory_size, 0), number_bT, window_bW)
    return short, see(mx.zeros_like(number_bT), number_bT - (args.long_memory_delay - 1), slot_bS)


def gated_average(key_BHTD, log_gain_BHT, leak_BHT, average_BH1D, log_scale_BH1) -> tuple[mx.array, mx.array]:
    """`kbar_t = exp(a_t) key_t + exp(-d_t) kbar_{t-1}` (equation 8), with the state in front.

    In float32. As in `gated_average.py`, kbar is `average * exp(log_scale)` with the greatest weight for a
    scale.

    Returns:
        `tuple`: averages `(B, H, 1 + T, D)` and log scales `(B, H, 1 + T)`.
    """
    averages, log_scales = [average_BH1D], [log_scale_BH1]
    for start in range(0, key_BHTD.shape[2], mosaic.CHUNK_SIZE):
        chunk = slice(start, start + mosaic.CHUNK_SIZE)
        # The state is one more key, whose gain is its scale.
        key_BHtD = mx.concatenate([averages[-1][:, :, -1:], key_BHTD[:, :, chunk]], axis=2)
        log_gain_BHt = mx.concatenate([log_scales[-1][:, :, -1:], log_gain_BHT[:, :, chunk]], axis=2)
        leak_BHt = mx.pad(leak_BHT[:, :, chunk], [(0, 0), (0, 0), (1, 0)])
        step_t = mx.arange(key_BHtD.shape[2])
        age_tt = step_t[:, None] - step_t
        # What has leaked since each key, added up for each by itself: in a difference of two sums over the
        # chunk, small leaks would be lost behind large ones.
        faded_BHtt = mx.where(age_tt > 0, leak_BHt[..., None], 0).cumsum(axis=2)
        log_weight_BHtt = mx.where(age_tt >= 0, log_gain_BHt[:, :, None] - faded_BHtt, -mx.inf)
        log_scale_BHt1 = log_weight_BHtt.max(axis=-1, keepdims=True)
        average_BHtD = mx.exp(log_weight_BHtt - log_scale_BHt1) @ key_BHtD
        averages.append(average_BHtD[:, :, 1:])
        log_scales.append(log_scale_BHt1[:, :, 1:, 0])
    return mx.concatenate(averages, axis=2), mx.concatenate(log_scales, axis=2)


class KeyNorm(nn.Module):
    """See `MosaicV2KeyNorm`; here the bandwidth of queries alone."""

    def __init__(self, num_heads: int):
        super().__init__()
        self.log_beta_0 = mx.zeros(num_heads)
        self.log_beta_1 = mx.zeros(num_heads)
        self.exponent = mx.zeros(num_heads)

    def __call__(self, num_pairs_b1T1: mx.array) -> mx.array:
        """`beta_1 n^alpha + beta_0` (equation 6), `(b, heads, time, 1)`."""
        beta_0_H11, beta_1_H11 = (
            mx.exp(mx.minimum(mosaic.by_head(log_beta_H), MAX_LOG_BETA))
            for log_beta_H in (self.log_beta_0, self.log_beta_1)
        )
        exponent_H11 = mx.minimum(mx.abs(mosaic.by_head(self.exponent)), 1)
        return beta_1_H11 * mx.power(num_pairs_b1T1, exponent_H11) + beta_0_H11


class PeekNorm(mosaic.PeekNorm):
    """See `MosaicV2PeekNorm`."""

    def scale(self) -> mx.array:
        return mx.exp(mx.minimum(mosaic.by_head(self.log_scale), MAX_LOG_VALUE_SCALE))


class Memory(nn.Module):
    """See `MosaicV2Memory`."""

    # The number of its first state.
    first_state: int

    def __init__(self, args: ModelArgs):
        super().__init__()
        width, self._num_heads = args.hidden_size, args.num_attention_heads
        self._window = args.short_memory_size - 1
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.gain_proj = nn.Linear(width, self._num_heads, bias=False)
        self.leak_proj = nn.Linear(width, self._num_heads, bias=False)
        self.key_norm = KeyNorm(self._num_heads)
        self.peek_norm = PeekNorm(self._num_heads)
        self.o_proj = nn.Linear(width, width, bias=False)

    def __call__(self, hidden_BTC: mx.array, seen: Seen, pairs: KVCache | None, states) -> mx.array:
        key_BHtD, value_BHTD = self.extract_keys(hidden_BTC, states), self.extract_values(hidden_BTC, states)
        query_BHTD = key_BHtD[:, :, 1:] * self.key_norm(seen.num_pairs)
        new_slots = key_BHtD[:, :, :-1].astype(hidden_BTC.dtype), value_BHTD
        slots = self.remember(*new_slots, pairs, states)
        recalled_BHTD = mosaic.recall(query_BHTD.astype(hidden_BTC.dtype), *slots, seen.slots)
        return self.o_proj(mosaic.merge_heads(recalled_BHTD))

    def extract_keys(self, hidden_BTC: mx.array, states) -> mx.array:
        """Keys of length 1 before the first of these tokens and after each, `(B, H, 1 + T, D)` in float32."""
        key_BHTD, log_gain_BHT1, leak_BHT1 = (
            mosaic.split_heads(projection(hidden_BTC).astype(mx.float32), self._num_heads)
            for projection in (self.k_proj, self.gain_proj, self.leak_proj)
        )
        average_BH1D = states.read(self.first_state + AVERAGE, key_BHTD)
        log_scale_BH11 = states.read(self.first_state + LOG_SCALE, leak_BHT1)
        # The states of rows without text are zeros.
        log_scale_BH11 = mx.where(mx.any(average_BH1D != 0, axis=-1, keepdims=True), log_scale_BH11, EMPTY)
        average_BHtD, log_scale_BHt = gated_average(
            key_BHTD, log_gain_BHT1[..., 0], mx.abs(leak_BHT1[..., 0]), average_BH1D, log_scale_BH11[..., 0]
        )
        states.write(self.first_state + AVERAGE, average_BHtD)
        states.write(self.first_state + LOG_SCALE, log_scale_BHt[..., None])
        return mosaic.scaled_unit(average_BHtD, 1)

    def extract_values(self, hidden_BTC: mx.array, states) -> mx.array:
        """The values of the pairs that these tokens complete, `(B, H, T, D)`."""
        value_BHTD = mosaic.split_heads(self.v_proj(hidden_BTC), self._num_heads)
        last_BH1D = states.read(self.first_state + LAST_VALUE, value_BHTD)
        value_BHtD = mx.concatenate([last_BH1D, value_BHTD], axis=2)
        states.write(self.first_state + LAST_VALUE, value_BHtD)
        return self.peek_norm(value_BHtD[:, :, :-1], value_BHTD).astype(value_BHTD.dtype)

    def remember(self, key_BHTD, value_BHTD, pairs: KVCache | None, states) -> tuple[mx.array, mx.array]:
        """Keys and values of what the memory holds, the new ones last."""
        raise NotImplementedError


class ShortMemory(Memory):
    """See `MosaicV2ShortMemory`."""

    first_state = SHORT_STATES

    def remember(self, key_BHTD, value_BHTD, pairs, states):
        window = []
        for number, new_BHTD in ((WINDOW_KEYS, key_BHTD), (WINDOW_VALUES, value_BHTD)):
            before_BHwD = states.read(number, new_BHTD, self._window)
            window.append(mx.concatenate([before_BHwD, new_BHTD], axis=2))
            states.write(number, window[-1], self._window)
        return tuple(window)


class LongMemory(Memory):
    """See `MosaicV2LongMemory`."""

    first_state = LONG_STATES

    def remember(self, key_BHTD, value_BHTD, pairs, states):
        return (key_BHTD, value_BHTD) if pairs is None else pairs.update_and_fetch(key_BHTD, value_BHTD)


class ContextualMemory(nn.Module):
    """See `MosaicV2ContextualMemory`."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        self.short_memory = ShortMemory(args)
        self.long_memory = LongMemory(args) if args.use_long_memory else None

    def __call__(self, hidden_BTC: mx.array, seen: tuple[Seen, Seen], pairs, states) -> mx.array:
        recalled_BTC = self.short_memory(hidden_BTC, seen[0], pairs, states)
        if self.long_memory is not None:
            return recalled_BTC + self.long_memory(hidden_BTC, seen[1], pairs, states)
        if pairs is not None:
            # What tells how many tokens the cache has seen.
            count_B1T1 = mx.zeros((*hidden_BTC.shape[:2], 1), hidden_BTC.dtype)[:, None]
            pairs.update_and_fetch(count_B1T1, count_B1T1)
        return recalled_BTC


class PersistentMemory(nn.Module):
    """See `MosaicV2PersistentMemory`."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        self.gate_proj = nn.Linear(args.hidden_size, args.intermediate_size, bias=False)
        self.up_proj = nn.Linear(args.hidden_size, args.intermediate_size, bias=False)
        self.down_proj = nn.Linear(args.intermediate_size, args.hidden_size, bias=False)

    def __call__(self, hidden_BTC: mx.array) -> mx.array:
        return self.down_proj(nn.silu(self.gate_proj(hidden_BTC)) * self.up_proj(hidden_BTC))


class Block(nn.Module):
    """See `MosaicV2Block`."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        self.contextual_norm = nn.RMSNorm(args.hidden_size, args.rms_norm_eps)
        self.contextual_memory = ContextualMemory(args)
        self.persistent_norm = nn.RMSNorm(args.hidden_size, args.rms_norm_eps)
        self.persistent_memory = PersistentMemory(args)

    def __call__(self, hidden_BTC: mx.array, seen: tuple[Seen, Seen], cache: CacheList | None) -> mx.array:
        pairs, states = (None, None) if cache is None else (cache[0], cache[1])
        normed_BTC = self.contextual_norm(hidden_BTC)
        hidden_BTC = hidden_BTC + self.contextual_memory(normed_BTC, seen, pairs, mosaic.States(states))
        if cache is not None:
            states.advance(hidden_BTC.shape[1])
        return hidden_BTC + self.persistent_memory(self.persistent_norm(hidden_BTC))


class Body(nn.Module):
    """See `MosaicV2Model`."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        self._args = args
        self.embed_tokens = nn.Embedding(args.vocab_size, args.hidden_size)
        self.layers = [Block(args) for _ in range(args.num_hidden_layers)]
        self.norm = nn.RMSNorm(args.hidden_size, args.rms_norm_eps)

    def __call__(self, hidden_BTC: mx.array, caches: list) -> mx.array:
        seen = find_seen(self._args, hidden_BTC.shape[1], None if caches[0] is None else caches[0][0])
        for layer, cache in zip(self.layers, caches, strict=True):
            hidden_BTC = layer(hidden_BTC, seen, cache)
        return self.norm(hidden_BTC)


class Model(mosaic.Model):
    """See `MosaicV2ForCausalLM`."""

    body_class = Body

    def make_cache(self) -> list[CacheList]:
        """Of each layer the pairs of the long-term memory, and the states."""
        num_states = 8 if self.args.use_long_memory else 5
        return [CacheList(KVCache(), ArraysCache(num_states)) for _ in self.layers]
