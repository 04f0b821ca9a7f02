"""What a layer keeps in a cache besides its pairs, to continue after the last token.

A layer's states are vectors after its last token: the leaky averages that the next keys continue, and the
key and the raw value of the pair that the next token completes. They are kept as convolution states of kernel
size 1, because a cache rolls those back when it is cropped; it cannot roll back recurrent states.

Shapes: B batch, T new tokens, C hidden size, H heads, D head size.
"""

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer
from transformers.utils.import_utils import is_tracing

from .configuration_mosaic import MosaicConfig

# Their numbers in a cache.
CONTEXTUAL_AVERAGE, LAST_KEY, LAST_VALUE, PERSISTENT_AVERAGE = range(4)


def slots_in_front(cache: Cache | None) -> int:
    """Slots of a memory that was put in front of a text: no tokens of it, and not in `get_seq_length`."""
    return 0 if cache is None else len(getattr(cache, "ages_in_front", ()))


def holds_memories(cache: Cache | None) -> bool:
    """Whether a cache has seen any token, or has a memory in front of the text."""
    return cache is not None and cache.get_seq_length() + slots_in_front(cache) > 0


def read_state(cache: Cache | None, layer_idx: int, state_idx: int, num_heads: int) -> torch.Tensor | None:
    """The cached state `(batch, heads, 1, head_dim)` after the last token seen, `None` if there was none.

    It is a view of the cache: use it before `write_state` replaces it.
    """
    state_BCn = None if cache is None else cache.layers[layer_idx].conv_states[state_idx]
    if state_BCn is None:
        return None
    if state_BCn.shape[-1] > 1:
        # All states since the cache began to record, see `write_state`.
        state_BCn = state_BCn[..., -1:].contiguous()
    if torch.is_grad_enabled() and state_BCn.is_inference():
        # Made under `inference_mode`: autograd may not keep it.
        state_BCn = state_BCn.clone()
    return state_BCn.view(-1, num_heads, 1, state_BCn.shape[1] // num_heads)


def write_state(cache: Cache, layer_idx: int, state_idx: int, state_BHTD: torch.Tensor) -> None:
    """Hands the states after each new token to the cache, which keeps the last one; all while it records."""
    layer = cache.layers[layer_idx]
    if layer.record_past:
        state_BCT = state_BHTD.transpose(2, 3).flatten(1, 2)
    else:
        num_channels = state_BHTD.shape[1] * state_BHTD.shape[3]
        if is_one_step := state_BHTD.shape[2] == 1:
            state_BCT = state_BHTD.view(-1, num_channels, 1)
        else:
            state_BCT = state_BHTD[:, :, -1].reshape(-1, num_channels, 1)
    kept_BC1 = layer.conv_states[state_idx]
    if layer.record_past or kept_BC1 is None:
        cache.update_conv_state(state_BCT, layer_idx, state_idx=state_idx, conv_kernel_size=1)
    elif cache.is_compileable:
        # In place, since graphs know the state by its address; `update_conv_state` would also put the old
        # state in front of the new one.
        kept_BC1.copy_(state_BCT)
    else:
        # Not in place: the old state may be a leaf of a graph of gradients, or made for inference only. Nor a
        # view that would keep all steps in memory.
        layer.conv_states[state_idx] = state_BCT if is_one_step else state_BCT.clone()


def shift(before_BH1D: torch.Tensor | None, states_BHTD: torch.Tensor) -> torch.Tensor:
    """Moves states one token later: that of the token before comes first, the last one drops out.

    With `None` there is nothing before the first token, and one state less comes back.
    """
    if before_BH1D is None:
        return states_BHTD[:, :, :-1]
    if states_BHTD.shape[2] == 1:
        return before_BH1D
    # Without a slice of T - 1: exporters would rule out the number of tokens that makes it 1.
    return torch.cat([before_BH1D, states_BHTD], 2)[:, :, : states_BHTD.shape[2]]


def repeat_over_padding(
    before_BH1D: torch.Tensor, value_BHTD: torch.Tensor, keep_BT: torch.Tensor
) -> torch.Tensor:
    """Puts the last real value at each padded position, so that the next real token completes that one.

    `before_BH1D` is the value before the first token.
    """
    step_T = torch.arange(1, keep_BT.shape[1] + 1, device=keep_BT.device)
    last_real_BT = (step_T * keep_BT).cummax(-1)[0]
    value_BHtD = torch.cat([before_BH1D, value_BHTD], 2)
    return value_BHtD.gather(2, last_real_BT[:, None, :, None].expand_as(value_BHTD))


def prepare_cache(cache: Cache, config: MosaicConfig, batch: int) -> None:
    """Checks that a cache suits the model and the rows, and gives one without states (prefix tuning) its own.

    Raises:
        ValueError: if it does not hold pairs and states of every layer, or is of another batch or width.
    """
    check_cache(cache, config, batch)
    if is_prefix(cache):
        add_states(cache, config)


def is_prefix(cache: Cache) -> bool:
    """Whether it holds keys and values of every layer, and no states."""
    return all(type(layer) is DynamicLayer and layer.is_initialized for layer in cache.layers)


def check_cache(cache: Cache, config: MosaicConfig, batch: int) -> None:
    """Raises a `ValueError` unless a cache holds pairs of the right sizes, and states if it is no prefix."""
    layers = cache.layers if isinstance(cache, Cache) else []
    num_states = config.number_of_conv_states
    has_states = all(getattr(layer, "number_of_states", 0) == num_states for layer in layers)
    if len(layers) != config.num_hidden_layers or not (has_states or is_prefix(cache)):
        raise ValueError(
            "cache (past_key_values) must hold keys, values and states of every layer: build it with "
            "DynamicCache(config=model.config) or StaticCache(config=model.config, ...), not "
            f"{cache if isinstance(cache, Cache) else type(cache).__name__}"
        )
    expected = (batch, *config.stored_shape)
    for layer in layers if not is_tracing() else []:
        if layer.is_initialized and (found := (*layer.keys.shape[:2], layer.keys.shape[-1])) != expected:
            raise ValueError(
                f"cache (past_key_values) holds memories of (batch, heads, head size) = {found}, but the "
                f"model and its inputs have {expected}"
            )


def add_states(cache: Cache, config: MosaicConfig) -> None:
    """Gives a cache of keys and values alone the states that it lacks.

    They are zero: the prefix is read like a text whose last token has a zero key and a zero value. Its first
    pair lies in the dummy slot, which no query may see.
    """
    complete = DynamicCache(config=config)
    for layer_idx, layer in enumerate(cache.layers):
        complete.update(layer.keys, layer.values, layer_idx)
        for state_idx in range(config.number_of_conv_states):
            state_BC1 = layer.keys.new_zeros(len(layer.keys), config.hidden_size, 1)
            complete.update_conv_state(state_BC1, layer_idx, state_idx=state_idx, conv_kernel_size=1)
    cache.layers = complete.layers
