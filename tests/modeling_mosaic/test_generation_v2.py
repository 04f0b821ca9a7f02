"""generate() with Memory Mosaics v2: whatever the way, the tokens and logits of decoding without a cache.

Texts are longer than the short-term memory, which is what the cache holds of it.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache, StaticCache

from decoding_checks import GREEDY, WAYS, assert_plain
from modeling_mosaic import MosaicV2ForCausalLM
from modeling_mosaic.compatibility import CACHE_NAME
from modeling_mosaic.memory_masks_v2 import WINDOW_KEYS


@pytest.fixture
def make_v2(make_v2):
    """Models in double precision: rounding, other in each kernel, never decides between two tokens."""
    return lambda **fields: make_v2(**fields).double()


@pytest.fixture
def model(make_v2):
    return make_v2()


@pytest.fixture
def prompt(random_tokens):
    return random_tokens(1, 12)


@pytest.mark.parametrize("way", [way for way in WAYS if "compiled" not in way])
def test_without_a_long_memory(make_v2, prompt, way):
    model = make_v2(use_long_memory=False)
    assert_plain(model.generate(prompt, **GREEDY, **WAYS[way]), model, prompt)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    cuts=st.sets(st.integers(1, 39), max_size=6),
    is_static=st.booleans(),
    has_long_memory=st.booleans(),
    short_memory_size=st.sampled_from([2, 7, 50]),
)
def test_a_forward_split_anywhere(cuts, is_static, has_long_memory, short_memory_size):
    """And the cache holds h pairs of the short-term memory: h - 1, and the one to be completed."""
    torch.manual_seed(0)
    delay = min(3, short_memory_size)
    fields = dict(use_long_memory=has_long_memory, short_memory_size=short_memory_size)
    fields |= dict(long_memory_delay=delay, long_memory_delay_range=(delay, delay))
    config = MosaicV2ForCausalLM.config_class(
        vocab_size=61, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, **fields
    )
    model, tokens = MosaicV2ForCausalLM(config).double().eval(), torch.randint(61, (2, 40))
    make = {False: DynamicCache, True: lambda config: StaticCache(config=config, max_cache_len=48)}[is_static]
    cache, bounds = make(config=config), [0, *sorted(cuts), 40]
    with torch.no_grad():
        expected = model(tokens, use_cache=False).logits
        parts = [model(tokens[:, a:b], cache=cache).logits for a, b in zip(bounds, bounds[1:], strict=False)]
    torch.testing.assert_close(torch.cat(parts, 1), expected, rtol=0, atol=1e-10)
    num_kept = short_memory_size - 1 if is_static else min(short_memory_size - 1, 40)
    for layer in cache.layers:
        assert layer.conv_states[WINDOW_KEYS].shape == (2, 32, num_kept)
        assert layer.conv_states[WINDOW_KEYS].untyped_storage().nbytes() == 2 * 32 * num_kept * 8
        assert layer.keys[0, :, 0].numel() == (32 if has_long_memory else 1)


@pytest.mark.parametrize("cut", [5, 12, 20])
def test_long_chunks_behind_padding(model, random_tokens, cut):
    """Blocks of queries find the pairs that padding has moved away from them."""
    tokens, mask = random_tokens(2, 40), torch.ones(2, 40, dtype=torch.long)
    mask[0, 6:9] = mask[1, :4] = 0
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        expected = model(tokens, attention_mask=mask, use_cache=False).logits
        parts = [model(tokens[:, :cut], attention_mask=mask[:, :cut], cache=cache).logits]
        parts.append(model(tokens[:, cut:], attention_mask=mask, cache=cache).logits)
    torch.testing.assert_close(torch.cat(parts, 1)[mask == 1], expected[mask == 1], rtol=0, atol=1e-10)


def test_what_a_cache_cannot_do_is_named(model, prompt):
    cache = model(prompt)[CACHE_NAME]
    with pytest.raises(RuntimeError, match="activate_past_recording"):
        cache.crop(-3)
    cache, mask = StaticCache(config=model.config, max_cache_len=20), torch.ones_like(prompt)
    mask[:, 5] = 0
    with pytest.raises(ValueError, match="static cache takes padding on the left only"):
        model(prompt, attention_mask=mask, cache=cache)


def test_a_cache_that_was_reset_is_empty(model, prompt, random_tokens):
    """Whatever the scale of the averages in it: here, of keys with large gains."""
    with torch.no_grad():
        for layer in model.model.layers:
            layer.contextual_memory.long_memory.gain_proj.weight.mul_(300)
        expected = model(prompt, use_cache=False).logits
        for cache in (DynamicCache(config=model.config), StaticCache(config=model.config, max_cache_len=20)):
            model(random_tokens(1, 15, seed=4), cache=cache)
            cache.reset()
            if cache.get_seq_length() != 0:
                # transformers 5.16 only zeroes the slots of a dynamic one.
                continue
            parts = [model(prompt[:, :8], cache=cache).logits, model(prompt[:, 8:], cache=cache).logits]
            torch.testing.assert_close(torch.cat(parts, 1), expected, rtol=0, atol=1e-9)
