"""A Memory Mosaic (arXiv 2405.06394) for mlx-lm, which loads this file from a saved folder.

The computation of `modeling_mosaic.py`, which says what the parts are. mlx-lm wants a model in one file,
with the classes `Model` and `ModelArgs`.

Shapes: B batch, T new tokens, t of them with the state before in front, S slots, C hidden size, H heads, D
head size. Slot t of a memory holds pair t - 1; slot 0 is a dummy that no query may see.
"""

from dataclasses import dataclass

# transformers, which copies this file with the model, asks for what stands outside of a `try`.
try:
    import mlx.core as mx
    from mlx import nn
    from mlx_lm.models.base import (
        BaseModelArgs,
        create_attention_mask,
        create_causal_mask,
        create_ssm_mask,
    )
    from mlx_lm.models.cache import ArraysCache, CacheList, KVCache
except ImportError as error:
    raise ImportError("this file is for mlx-lm: pip install mlx-lm") from error

# As in `memory_norms.py`.
SCALAR_GAIN = 10.0
# Steps whose averages are one product with a matrix of decays.
CHUNK_SIZE = 64
# What a layer keeps besides its pairs: their numbers in an `ArraysCache`.
CONTEXTUAL_AVERAGE, LAST_VALUE, PERSISTENT_AVERAGE = range(3)


@dataclass
class ModelArgs(BaseModelArgs):
    """The fields of `config.json` that matter here."""

    model_type: str
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_persistent_heads: int
    persistent_memory_size: int
    num_persistent_banks: int
    use_bias: bool
    layer_norm_eps: float
    logit_scale: float
    max_log_key_scale: float
    tie_word_embeddings: bool


def split_heads(states_BTC: mx.array, num_heads: int) -> mx.array:
    """`(batch, time, hidden)` to `(batch, heads, time, head_dim)`."""
    return states_BTC.reshape(*states_BTC.shape[:2], num_heads, -1).swapaxes(1, 2)


def merge_heads(states_BHTD: mx.array) -> mx.array:
    """Undoes `split_heads`."""
    return states_BHTD.swapaxes(1, 2).flatten(2)


def by_head(scalar_H: mx.array) -> mx.array:
    """A scalar of each head, `(heads, 1, 1)` in float32."""
    return scalar_H.astype(mx.float32)[:, None, None]


def gained(scalar_H: mx.array) -> mx.array:
    """The same as it is used, if it is stored divided by the gain."""
    return SCALAR_GAIN * by_head(scalar_H)


def scaled_unit(vector_BHTD: mx.array, scale_H11: mx.array) -> mx.array:
    """`alpha Norm(x)` of equation 7; a zero vector stays zero."""
    square_BHT1 = mx.square(vector_BHTD).sum(axis=-1, keepdims=True)
    return vector_BHTD * (scale_H11 * mx.rsqrt(mx.maximum(square_BHT1, 1e-30)))


def leaky_average(key_BHTD: mx.array, leak_H11: mx.array, state_BH1D: mx.array) -> mx.array:
    """`kbar_t = key_t + exp(-leak) kbar_{t-1}` (equation 7), with the state in front: `(B, H, 1 + T, D)`."""
    averages = [state_BH1D]
    for start in range(0, key_BHTD.shape[2], CHUNK_SIZE):
        chunk_BHtD = key_BHTD[:, :, start : start + CHUNK_SIZE]
        step_t1 = mx.arange(chunk_BHtD.shape[2])[:, None]
        age_tt = step_t1 - step_t1.T
        decay_Htt = mx.where(age_tt >= 0, mx.exp(-leak_H11 * mx.maximum(age_tt, 0)), 0)
        left_BHtD = mx.exp(-leak_H11 * (step_t1 + 1)) * averages[-1][:, :, -1:]
        averages.append(decay_Htt @ chunk_BHtD + left_BHtD)
    return mx.concatenate(averages, axis=2)


def recall(query_BHTD: mx.array, key_BHSD: mx.array, value_BHSD: mx.array, sees_slot: mx.array) -> mx.array:
    """What the slots that each query sees answer; an empty memory answers 0."""
    recalled_BHTD = mx.fast.scaled_dot_product_attention(
        query_BHTD, key_BHSD, value_BHSD, scale=1.0, mask=sees_slot
    )
    # Attention over no slots is implementation-defined.
    return mx.where(mx.any(sees_slot, axis=-1, keepdims=True), recalled_BHTD, 0)


class States:
    """The states of one layer before these tokens, and the place for those after."""

    def __init__(self, cache: ArraysCache | None):
        self.cache = cache

    def read(self, number: int, like_BHTD: mx.array, steps: int = 1) -> mx.array:
        """Those of the last steps, `(B, H, steps, D)`: zeros before the first token."""
        batch, heads, _, dim = like_BHTD.shape
        if self.cache is None or self.cache[number] is None:
            return mx.zeros((batch, heads, steps, dim), like_BHTD.dtype)
        return split_heads(self.cache[number], heads)

    def write(self, number: int, states_BHtD: mx.array, steps: int = 1) -> None:
        """Keeps the last of `steps + T` states of each row: to the last real one, where padding follows."""
        if self.cache is None:
            return
        states_BtC = merge_heads(states_BHtD)
        if self.cache.lengths is None:
            self.cache[number] = states_BtC[:, -steps:]
        else:
            new_B11 = mx.clip(self.cache.lengths, 0, states_BtC.shape[1] - steps)[:, None, None]
            kept_Bn1 = new_B11 + mx.arange(steps)[:, None]
            self.cache[number] = mx.take_along_axis(states_BtC, kept_Bn1, axis=1)


class LeakyNorm(nn.Module):
    """See `MosaicLeakyNorm`; here without the average."""

    def __init__(self, num_heads: int, max_log_scale: float, power: int):
        super().__init__()
        self._max_log_scale, self._power = max_log_scale, power
        self.leak = mx.zeros(num_heads)
        self.log_scale = mx.zeros(num_heads)

    def __call__(self, average_BHTD: mx.array) -> mx.array:
        log_scale_H11 = self._power * mx.minimum(gained(self.log_scale), self._max_log_scale)
        return scaled_unit(average_BHTD, mx.exp(log_scale_H11))


class PeekNorm(nn.Module):
    """See `MosaicPeekNorm`."""

    def __init__(self, num_heads: int):
        super().__init__()
        self.mix = mx.zeros(num_heads)
        self.log_scale = mx.zeros(num_heads)

    def scale(self) -> mx.array:
        """The length of values, `(heads, 1, 1)`."""
        return mx.exp(gained(self.log_scale))

    def __call__(self, older_BHTD: mx.array, newer_BHTD: mx.array) -> mx.array:
        mix_H11 = by_head(self.mix)
        return scaled_unit(mix_H11 * older_BHTD + (1 - mix_H11) * newer_BHTD, self.scale())


class KeyExtractor(nn.Module):
    """See `MosaicKeyExtractor`."""

    def __init__(self, args: ModelArgs, num_heads: int, power: int):
        super().__init__()
        self._num_heads = num_heads
        self.k_proj = nn.Linear(args.hidden_size, args.hidden_size, bias=args.use_bias)
        self.leaky_norm = LeakyNorm(num_heads, args.max_log_key_scale, power)

    def __call__(self, hidden_BTC: mx.array, keep_BT, states: States, number: int) -> mx.array:
        """Keys before the first of these tokens and after each, `(B, H, 1 + T, D)`."""
        key_BTC = self.k_proj(hidden_BTC).astype(mx.float32)
        if keep_BT is not None:
            key_BTC = mx.where(keep_BT[..., None], key_BTC, 0)
        key_BHTD = split_heads(key_BTC, self._num_heads)
        leak_H11 = mx.abs(gained(self.leaky_norm.leak))
        average_BHtD = leaky_average(key_BHTD, leak_H11, states.read(number, key_BHTD))
        states.write(number, average_BHtD)
        return self.leaky_norm(average_BHtD).astype(hidden_BTC.dtype)


class ContextualMemory(nn.Module):
    """See `MosaicContextualMemory`."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        self._num_heads = args.num_attention_heads
        self.key_extractor = KeyExtractor(args, self._num_heads, power=1)
        self.v_proj = nn.Linear(args.hidden_size, args.hidden_size, bias=args.use_bias)
        self.peek_norm = PeekNorm(self._num_heads)
        self.o_proj = nn.Linear(args.hidden_size, args.hidden_size, bias=args.use_bias)

    def __call__(self, hidden_BTC, sees_slot, keep_BT, pairs: KVCache | None, states: States) -> mx.array:
        key_BHtD = self.key_extractor(hidden_BTC, keep_BT, states, CONTEXTUAL_AVERAGE)
        value_BHTD = split_heads(self.v_proj(hidden_BTC), self._num_heads)
        value_BHtD = mx.concatenate([states.read(LAST_VALUE, value_BHTD), value_BHTD], axis=2)
        states.write(LAST_VALUE, value_BHtD)
        value_BHSD = self.peek_norm(value_BHtD[:, :, :-1], value_BHTD).astype(value_BHTD.dtype)
        slots = key_BHtD[:, :, :-1], value_BHSD
        if pairs is not None:
            slots = pairs.update_and_fetch(*slots)
        return self.o_proj(merge_heads(recall(key_BHtD[:, :, 1:], *slots, sees_slot)))


class PersistentMemory(nn.Module):
    """See `MosaicPersistentMemory`."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        self._num_heads = args.num_persistent_heads
        head_dim = args.hidden_size // self._num_heads
        shape = (args.num_persistent_banks, self._num_heads, args.persistent_memory_size, head_dim)
        self.key_extractor = KeyExtractor(args, self._num_heads, power=2)
        self.memory_keys = mx.zeros(shape)
        self.memory_values = mx.zeros(shape)
        self.log_value_norm = mx.zeros(self._num_heads)
        self.o_proj = nn.Linear(args.hidden_size, args.hidden_size, bias=args.use_bias)

    def __call__(self, hidden_BTC: mx.array, keep_BT, states: States) -> mx.array:
        batch, time, _ = hidden_BTC.shape
        query_BHTD = self.key_extractor(hidden_BTC, keep_BT, states, PERSISTENT_AVERAGE)[:, :, 1:]
        # All rows and all banks are asked alike: the batch is part of the time, banks take its place.
        query_1HnD = query_BHTD.swapaxes(0, 1).flatten(1, 2)[None]
        query_NHnD = mx.repeat(query_1HnD, len(self.memory_keys), axis=0)
        recalled_NHnD = mx.fast.scaled_dot_product_attention(
            query_NHnD, self.memory_keys, self.memory_values, scale=1.0
        )
        scale_H11 = mx.exp(gained(self.log_value_norm)).astype(hidden_BTC.dtype)
        recalled_HnD = recalled_NHnD.mean(axis=0) * scale_H11
        return self.o_proj(merge_heads(mx.unflatten(recalled_HnD, 1, (batch, time)).swapaxes(0, 1)))


class Block(nn.Module):
    """See `MosaicBlock`."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        self.contextual_norm = nn.LayerNorm(args.hidden_size, args.layer_norm_eps, bias=args.use_bias)
        self.contextual_memory = ContextualMemory(args)
        self.persistent_norm = nn.LayerNorm(args.hidden_size, args.layer_norm_eps, bias=args.use_bias)
        self.persistent_memory = PersistentMemory(args)

    def __call__(self, hidden_BTC: mx.array, sees_slot, keep_BT, cache: CacheList | None) -> mx.array:
        pairs, states = (None, States(None)) if cache is None else (cache[0], States(cache[1]))
        normed_BTC = self.contextual_norm(hidden_BTC)
        hidden_BTC = hidden_BTC + self.contextual_memory(normed_BTC, sees_slot, keep_BT, pairs, states)
        normed_BTC = self.persistent_norm(hidden_BTC)
        hidden_BTC = hidden_BTC + self.persistent_memory(normed_BTC, keep_BT, states)
        if cache is not None:
            cache[1].advance(hidden_BTC.shape[1])
        return hidden_BTC


def find_visible_slots(hidden_BTC: mx.array, pairs: KVCache | None) -> mx.array:
    """Which slots each of the new tokens may see: those before it, but no padding and no dummy."""
    mask = create_attention_mask(hidden_BTC, pairs, return_array=True)
    if mask is None:
        # One token without padding, which sees all slots.
        mask = create_causal_mask(1, offset=0 if pairs is None else pairs.offset)
    # The dummy slot is the first one behind the padding of batches.
    dummy = getattr(pairs, "left_padding", None)
    dummy = 0 if dummy is None else dummy[:, None, None, None]
    return mask & (mx.arange(mask.shape[-1]) > dummy)


class Body(nn.Module):
    """See `MosaicModel`."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        self.embed_tokens = nn.Embedding(args.vocab_size, args.hidden_size)
        self.layers = [Block(args) for _ in range(args.num_hidden_layers)]
        self.norm = nn.LayerNorm(args.hidden_size, args.layer_norm_eps, bias=args.use_bias)

    def __call__(self, hidden_BTC: mx.array, caches: list) -> mx.array:
        pairs, states = (None, None) if caches[0] is None else (caches[0][0], caches[0][1])
        sees_slot = find_visible_slots(hidden_BTC, pairs)
        keep_BT = create_ssm_mask(hidden_BTC, states)
        for layer, cache in zip(self.layers, caches, strict=True):
            hidden_BTC = layer(hidden_BTC, sees_slot, keep_BT, cache)
        return self.norm(hidden_BTC)


class Model(nn.Module):
    """See `MosaicForCausalLM`."""

    body_class = Body

    def __init__(self, args: ModelArgs):
        super().__init__()
        self.args = args
        self.model_type = args.model_type
        self.model = self.body_class(args)
        if not args.tie_word_embeddings:
            self.lm_head = nn.Linear(args.hidden_size, args.vocab_size, bias=False)

    def __call__(self, inputs: mx.array, cache: list | None = None, input_embeddings=None) -> mx.array:
        """Logits `(batch, time, vocabulary)`; `cache` is what `make_cache` returns, or a batch of these."""
        hidden_BTC = self.model.embed_tokens(inputs) if input_embeddings is None else input_embeddings
        hidden_BTC = self.model(hidden_BTC, cache or [None] * len(self.layers)) * self.args.logit_scale
        head = self.model.embed_tokens.as_linear if self.args.tie_word_embeddings else self.lm_head
        # mlx-lm normalises them in their precision: in bfloat16 many probabilities would be the same.
        return head(hidden_BTC).astype(mx.float32)

    @property
    def layers(self) -> list[Block]:
        return self.model.layers

    def make_cache(self) -> list[CacheList]:
        """Pairs and states of each layer."""
        return [CacheList(KVCache(), ArraysCache(3)) for _ in self.layers]
