"""generate() with Memory Mosaics v2: whatever the way, the tokens and logits of decoding without a cache.

Texts are longer than the short-term memory, which is what the cache holds of it.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention
from transformers import DynamicCache, StaticCache

from decoding_checks import EPS, GREEDY, WAYS, assert_plain
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


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=[pytest.mark.slow] * ("compiled" in way)) for way in WAYS]
)
@pytest.mark.parametrize("fields", [dict(), dict(use_long_memory=False), dict(implementation="eager")])
def test_greedy(make_v2, prompt, way, fields, compiling):
    model = make_v2(**fields)
    with compiling(scaled_dot_product_attention):
        outputs = model.generate(prompt, **GREEDY, **WAYS[way])
    assert_plain(outputs, model, prompt)


@pytest.mark.parametrize("way", ["dynamic cache", "without cache", "static cache"])
@pytest.mark.parametrize("chunk", [None, 1, 5])
def test_left_padded_batch(model, batch, way, chunk):
    if chunk is not None and way == "without cache":
        pytest.skip("chunks are for caches")
    outputs = model.generate(**batch, **GREEDY, **WAYS[way], prefill_chunk_size=chunk)
    for index, mask in enumerate(batch["attention_mask"]):
        row = batch["input_ids"][index : index + 1, mask == 1]
        assert_plain(outputs, model, row, index)


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


@pytest.mark.parametrize("padding", ["none", "left", "between"])
def test_crop(model, prompt, batch, random_tokens, padding):
    """What was read and taken back leaves no trace."""
    inputs = dict(input_ids=prompt, attention_mask=torch.ones_like(prompt)) if padding == "none" else batch
    if padding == "between":
        inputs["attention_mask"][0, 6:9] = inputs["attention_mask"][2, 10] = 0
    rows, length = inputs["input_ids"].shape
    wrong = torch.cat([inputs["input_ids"], random_tokens(rows, 9, seed=7)], 1)
    wrong_mask = torch.cat([inputs["attention_mask"], torch.ones(rows, 9, dtype=torch.long)], 1)
    for kept in (length - 1, 3):
        cache = DynamicCache(config=model.config)
        cache.activate_past_recording()
        model(wrong, attention_mask=wrong_mask, cache=cache)
        cache.crop(kept - wrong.shape[1])
        outputs = model.generate(**inputs, past_key_values=cache, **GREEDY)
        for index, mask in enumerate(inputs["attention_mask"]):
            assert_plain(outputs, model, inputs["input_ids"][index : index + 1, mask == 1], index)


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


def test_assisted_decoding(make_v2, model, prompt):
    assistant = make_v2(seed=1, num_hidden_layers=1)
    assert_plain(model.generate(prompt, assistant_model=assistant, **GREEDY), model, prompt)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_beams_and_samples(model, batch, cache):
    options = dict(max_new_tokens=15, num_beams=4, do_sample=False, output_scores=True)
    options |= dict(return_dict_in_generate=True, num_return_sequences=2)
    expected = model.generate(**batch, **options, use_cache=False)
    outputs = model.generate(**batch, **options, cache_implementation=cache)
    assert torch.equal(outputs.sequences, expected.sequences)
    # Each a sum of 15 terms.
    torch.testing.assert_close(outputs.sequences_scores, expected.sequences_scores, rtol=15 * EPS, atol=0)
    sampled = []
    for extra in (dict(use_cache=False), dict(cache_implementation=cache)):
        torch.manual_seed(3)
        sampled.append(model.generate(**batch, do_sample=True, max_new_tokens=20, **extra))
    assert torch.equal(*sampled)


@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_a_cache_from_elsewhere(model, prompt, context):
    with context():
        cache = model(prompt[:, :5])[CACHE_NAME]
    logits = [model(prompt[:, start:stop], cache=cache).logits for start, stop in ((5, 8), (8, 9), (9, 12))]
    torch.testing.assert_close(torch.cat(logits, 1), model(prompt).logits[:, 5:], rtol=0, atol=1e-10)
    logits[-1].sum().backward()


def test_gradients_reach_back_through_a_cache(model, random_tokens):
    tokens = random_tokens(2, 30)
    weights = torch.randn(2, 9, 61, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    parameters = list(model.parameters())
    expected = torch.autograd.grad((model(tokens).logits[:, 21:] * weights).sum(), parameters)
    cache = DynamicCache(config=model.config)
    model(tokens[:, :20], cache=cache)
    model(tokens[:, 20:21], cache=cache)
    found = torch.autograd.grad((model(tokens[:, 21:], cache=cache).logits * weights).sum(), parameters)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


def test_a_prefix_of_keys_and_values(model, random_tokens):
    """Pairs of the long-term memory, read like a text whose last token has a zero key and a zero value."""
    keys, values = torch.randn(2, 2, 3, 4, 6, 8, generator=torch.Generator().manual_seed(0)).double()

    def prefix():
        return DynamicCache([(key.clone(), value.clone()) for key, value in zip(keys, values, strict=True)])

    tokens = random_tokens(3, 20)
    logits = model(tokens, cache=prefix()).logits
    cache = prefix()
    parts = [model(tokens[:, a:b], cache=cache).logits for a, b in ((0, 1), (1, 9), (9, 20))]
    torch.testing.assert_close(torch.cat(parts, 1), logits, rtol=0, atol=1e-10)
    assert not torch.allclose(logits, model(tokens).logits, atol=1e-2)
    assert cache.get_seq_length() == 26


@pytest.mark.parametrize("rows", [1, 2])
def test_masks_of_static_caches_differ_in_nothing_that_compiles_a_step_again(make_v2, random_tokens, rows):
    model, tokens = make_v2(), random_tokens(rows, 12)
    cache, layouts = StaticCache(config=model.config, max_cache_len=12), []
    with torch.no_grad():
        model(tokens[:, :9], cache=cache)
        for seen in (9, 10):
            mask, embeds = torch.ones_like(tokens[:, : seen + 1]), torch.zeros(rows, 1, 32)
            masks = model.create_masks_for_generate(model.config, embeds, mask, cache)
            layouts.append(
                {
                    name: value.stride() if isinstance(value, torch.Tensor) else value
                    for name, value in masks.items()
                }
            )
            model(tokens[:, seen : seen + 1], cache=cache)
    assert layouts[0] == layouts[1]
