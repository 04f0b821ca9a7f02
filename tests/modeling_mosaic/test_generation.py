"""generate() on the native cache: whatever the way, the tokens and logits of decoding without a cache."""

import copy
import pickle
import threading

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    PreTrainedTokenizerFast,
    StaticCache,
    TextIteratorStreamer,
)
from transformers.utils import logging

from decoding_checks import EPS, GREEDY, WAYS, assert_plain, plain_greedy
from modeling_mosaic.compatibility import CACHE_NAME


@pytest.fixture
def make_model(make_either):
    """Models in double precision: rounding, other in each kernel, never decides between two tokens."""
    return lambda **fields: make_either(**fields).double()


@pytest.fixture
def model(make_model):
    return make_model()


@pytest.fixture
def prompt(random_tokens):
    return random_tokens(1, 12)


def either_with(ways):
    """Both models with each of the ways; what torch compiles for the second one takes long."""
    return pytest.mark.parametrize(
        "kind, way",
        [
            pytest.param(kind, way, marks=[pytest.mark.slow] * (kind == "mosaic_v2" and "compiled" in way))
            for kind in ("mosaic", "mosaic_v2")
            for way in ways
        ],
        indirect=["kind"],
    )


@either_with(WAYS)
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_greedy(make_model, prompt, way, implementation, compiling):
    model = make_model(implementation=implementation)
    with compiling(scaled_dot_product_attention):
        outputs = model.generate(prompt, **GREEDY, **WAYS[way])
    assert_plain(outputs, model, prompt)


@either_with([way for way in WAYS if way != "prompt lookup"])
def test_left_padded_batch(model, batch, way, compiling):
    with compiling(scaled_dot_product_attention):
        outputs = model.generate(**batch, **GREEDY, **WAYS[way])
    for index, mask in enumerate(batch["attention_mask"]):
        row = batch["input_ids"][index : index + 1, mask == 1]
        assert_plain(outputs, model, row, index)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_left_padded_batch_of_one(model, batch, cache):
    one = {name: value[:1] for name, value in batch.items()}
    outputs = model.generate(**one, **GREEDY, cache_implementation=cache)
    assert_plain(outputs, model, one["input_ids"][:, 5:])


@pytest.mark.parametrize("chunk", [1, 2, 5, 7, 11, 12])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_prefill_in_chunks(model, prompt, chunk, cache):
    options = dict(prefill_chunk_size=chunk, cache_implementation=cache)
    assert_plain(model.generate(prompt, **GREEDY, **options), model, prompt)


@pytest.mark.parametrize("chunk", [1, 4, 7])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_prefill_of_a_padded_batch_in_chunks(model, batch, chunk, cache):
    outputs = model.generate(**batch, **GREEDY, prefill_chunk_size=chunk, cache_implementation=cache)
    for index, mask in enumerate(batch["attention_mask"]):
        assert_plain(outputs, model, batch["input_ids"][index : index + 1, mask == 1], index)


@pytest.mark.parametrize("split", [1, 2, 3, 6, 7, 8, 20, 38, 39])
def test_a_forward_split_anywhere(model, random_tokens, split):
    tokens = random_tokens(2, 40)
    with torch.no_grad():
        expected = model(tokens, use_cache=False).logits
        for cache in (DynamicCache(config=model.config), StaticCache(config=model.config, max_cache_len=48)):
            first = model(tokens[:, :split], cache=cache).logits
            rest = model(tokens[:, split:], cache=cache).logits
            torch.testing.assert_close(torch.cat([first, rest], 1), expected, rtol=0, atol=1e-10)


def test_continuing_from_a_returned_cache(model, prompt):
    first = model.generate(prompt, **{**GREEDY, "max_new_tokens": 8})
    options = {**GREEDY, "max_new_tokens": 12, "attention_mask": torch.ones_like(first.sequences)}
    outputs = model.generate(first.sequences, past_key_values=first.past_key_values, **options)
    outputs.logits = first.logits + outputs.logits
    assert_plain(outputs, model, prompt)


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


@pytest.mark.parametrize("same", [False, True])
def test_assisted_decoding(make_model, model, prompt, same):
    assistant = model if same else make_model(seed=1, num_hidden_layers=1)
    assert_plain(model.generate(prompt, assistant_model=assistant, **GREEDY), model, prompt)


@pytest.mark.parametrize("options", [dict(), dict(num_return_sequences=3), dict(length_penalty=2.0)])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_beam_search(model, batch, options, cache):
    options = dict(max_new_tokens=15, num_beams=4, do_sample=False, output_scores=True, **options)
    options |= dict(return_dict_in_generate=True)
    expected = model.generate(**batch, **options, use_cache=False)
    outputs = model.generate(**batch, **options, cache_implementation=cache)
    assert torch.equal(outputs.sequences, expected.sequences)
    # Each a sum of 15 terms.
    torch.testing.assert_close(outputs.sequences_scores, expected.sequences_scores, rtol=15 * EPS, atol=0)


def test_beam_search_finds_the_best_sequence(make_model, random_tokens):
    """With as many beams as there are continuations, it is exhaustive search."""
    model = make_model(vocab_size=5)
    prompt = random_tokens(1, 6, vocab_size=5)
    found = model.generate(prompt, num_beams=25, max_new_tokens=3, do_sample=False, length_penalty=0.0)
    every = torch.cartesian_prod(*[torch.arange(5)] * 3)
    texts = torch.cat([prompt.expand(len(every), -1), every], 1)
    with torch.no_grad():
        scores = model(texts).logits[:, 5:-1].log_softmax(-1).gather(2, every[..., None]).sum((1, 2))
    assert torch.equal(found[0], texts[scores.argmax()])


@pytest.mark.parametrize("options", [dict(), dict(num_return_sequences=4), dict(top_k=5, temperature=0.7)])
def test_sampling_with_a_seed(model, batch, options):
    sequences = []
    for extra in (dict(use_cache=False), dict(), dict(cache_implementation="static")):
        torch.manual_seed(3)
        sequences.append(model.generate(**batch, do_sample=True, max_new_tokens=20, **options, **extra))
    assert torch.equal(sequences[0], sequences[1]) and torch.equal(sequences[0], sequences[2])


def test_streaming(make_model, tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {f"word{i}": i for i in range(61)}
    backend = Tokenizer(models.WordLevel(words, unk_token="word0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="word0").save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = make_model()
    inputs = tokenizer("word3 word5 word7", return_tensors="pt")
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=60)
    thread = threading.Thread(
        target=model.generate, kwargs=dict(**inputs, streamer=streamer, max_new_tokens=10)
    )
    thread.start()
    text = "".join(streamer)
    thread.join()
    sequence, _ = plain_greedy(model, inputs["input_ids"], 10)
    assert text.split() == tokenizer.decode(sequence[0, 3:]).split()


@pytest.mark.parametrize("backend", ["quanto", "hqq"])
def test_quantized_caches_are_refused(model, prompt, backend):
    options = dict(cache_implementation="quantized", cache_config={"backend": backend, "nbits": 4})
    with pytest.raises(ValueError, match="hybrid"):
        model.generate(prompt, **options)


def test_a_cache_for_another_model_is_refused(make_model, model, prompt):
    for cache in (DynamicCache(), DynamicCache(config=make_model(num_hidden_layers=1).config)):
        with pytest.raises(ValueError, match="cache .* must hold .*DynamicCache\\(config=model.config\\)"):
            model(prompt, past_key_values=cache)


def test_offloaded_weights(model, prompt, tmp_path):
    """accelerate brings the weights of a layer in when the layer is called, and takes them away after."""
    model.save_pretrained(tmp_path / "model")
    device_map = {"model.embed_tokens": "cpu", "model.layers.0": "disk", "model.layers.1": "cpu"}
    device_map |= {"model.norm": "cpu", "lm_head": "cpu"}
    offloaded = type(model).from_pretrained(
        tmp_path / "model", device_map=device_map, offload_folder=tmp_path / "offload"
    )
    assert all(parameter.device.type == "meta" for parameter in offloaded.model.layers[0].parameters())
    assert_plain(offloaded.generate(prompt, **GREEDY), model, prompt)


@pytest.mark.parametrize("model_class", [AutoModel.from_config, AutoModelForCausalLM.from_config])
def test_cache_by_both_names(make_model, prompt, model_class, recwarn):
    """The old one with transformers' own warning, where transformers itself has given it up."""
    model = make_model(model_class=model_class)
    expected = model(prompt)[0][:, 5:]
    for name in ("cache", "past_key_values"):
        cache = DynamicCache(config=model.config)
        recwarn.clear()
        with torch.no_grad():
            model(prompt[:, :5], **{name: cache})
            torch.testing.assert_close(model(prompt[:, 5:], **{name: cache})[0], expected, rtol=0, atol=1e-10)
        warned = [str(warning.message) for warning in recwarn if warning.category is FutureWarning]
        assert bool(warned) == (name == "past_key_values" != CACHE_NAME)
        assert all("Use `cache` instead" in text for text in warned)


def test_no_name_that_is_deprecated(model, prompt, monkeypatch, recwarn):
    """transformers says so once, in the middle of the progress bar of a training."""
    said = []
    logger = logging.get_logger("transformers.utils.generic")
    monkeypatch.setattr(type(logger), "warning_once", lambda self, text, *args: said.append(text))
    model(prompt, labels=prompt).loss.backward()
    model.generate(prompt, max_new_tokens=3, do_sample=False)
    assert not said
    assert not [str(warning.message) for warning in recwarn if warning.category is FutureWarning]


def through_pickle(cache):
    return pickle.loads(pickle.dumps(cache))


@pytest.mark.parametrize("restore", [through_pickle, copy.deepcopy, lambda cache: cache])
@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_a_cache_from_elsewhere(model, prompt, restore, context):
    if restore is copy.deepcopy and context is torch.enable_grad:
        pytest.skip("torch does not copy tensors with a history, whatever the model")
    with context():
        cache = restore(model(prompt[:, :5])[CACHE_NAME])
    logits = [model(prompt[:, start:stop], cache=cache).logits for start, stop in ((5, 8), (8, 9), (9, 12))]
    torch.testing.assert_close(torch.cat(logits, 1), model(prompt).logits[:, 5:], rtol=0, atol=1e-10)
    logits[-1].sum().backward()


def test_a_prefix_of_keys_and_values(model, random_tokens):
    """A cache without states is read as a text whose last token has a zero key and a zero value."""
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
    # The first pair lies in the dummy slot.
    keys[:, :, :, 0] += 5
    torch.testing.assert_close(model(tokens, cache=prefix()).logits, logits)
    keys[:, :, :, 1] += 5
    assert not torch.allclose(model(tokens, cache=prefix()).logits, logits, atol=1e-3)


@pytest.mark.parametrize("rows", [1, 2])
def test_masks_of_static_caches_differ_in_nothing_that_compiles_a_step_again(make_model, random_tokens, rows):
    model, tokens = make_model(), random_tokens(rows, 12)
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
