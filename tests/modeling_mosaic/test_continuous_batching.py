"""Continuous batching of transformers gives the tokens of `generate()`, whatever happens to requests."""

import time

import pytest
import torch
from transformers import CompileConfig, ContinuousBatchingConfig, GenerationConfig, pipeline

from modeling_mosaic.compatibility import CACHE_NAME

if CACHE_NAME != "cache":
    pytest.skip("needs transformers 5.24", allow_module_level=True)

from transformers.generation.continuous_batching import ContinuousBatchingManager

from modeling_mosaic import continuous_batching, page_contents

NEW_TOKENS = 18
PAGE = 8
# Blocks and tokens a step enough for all; fewer tokens a step than prompts have; blocks for a few requests at
# a time, of which some start again.
SETTINGS = {
    "ample": dict(num_blocks=200, max_batch_tokens=512),
    "chunked": dict(num_blocks=200, max_batch_tokens=13),
    "pressure": dict(num_blocks=16, max_batch_tokens=24),
    "unshared": dict(num_blocks=200, max_batch_tokens=64, allow_block_sharing=False),
}


@pytest.fixture(params=["mosaic", "mosaic_v2"])
def make(request, make_model, make_v2):
    """Builds small models of either kind in float64; the second's window is a little shorter than a page."""

    def build(**fields):
        return (make_model if request.param == "mosaic" else make_v2)(**fields).double()

    return build


@pytest.fixture
def prompts(random_tokens):
    """Prompts of lengths around those of pages, some of which begin alike."""
    lengths = (1, 2, 7, 8, 9, 31, 32, 33, 50)
    alike = random_tokens(29, seed=99).tolist()
    separate = [random_tokens(length, seed=length).tolist() for length in lengths]
    return separate + [alike + random_tokens(length, seed=100 + length).tolist() for length in (1, 3, 20)]


def expected(model, prompts):
    """What `generate()` writes."""
    longest = max(map(len, prompts))
    # Left-padded, which `test_generation.py` holds against each prompt alone.
    rows = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    options = dict(max_new_tokens=NEW_TOKENS, do_sample=False)
    return model.generate(rows, attention_mask=(rows > 0).long(), **options)[:, longest:].tolist()


def settings(name="ample", **fields):
    return ContinuousBatchingConfig(**{"page_size": PAGE, **SETTINGS[name], **fields})


def greedy(**fields):
    return GenerationConfig(max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=-1, **fields)


def written(model, prompts, chosen, generation_config=None, **options):
    """What continuous batching writes."""
    results = model.generate_batch(
        prompts,
        generation_config=generation_config or greedy(),
        continuous_batching_config=chosen,
        **options,
    )
    return [result.generated_tokens for result in results.values()]


@pytest.fixture
def count_tokens():
    """Counts the tokens that a model embeds."""

    def count(model):
        counted = []
        model.get_input_embeddings().register_forward_pre_hook(
            lambda module, inputs: counted.append(inputs[0].numel())
        )
        return counted

    return count


@pytest.mark.parametrize("name", SETTINGS)
def test_tokens_of_generate(make, prompts, name):
    model = make()
    assert written(model, prompts, settings(name)) == expected(model, prompts)


@pytest.mark.parametrize(
    ("make", "fields"),
    [
        ("mosaic", dict(num_hidden_layers=3, num_persistent_heads=2, use_bias=True)),
        ("mosaic", dict(num_attention_heads=1, num_persistent_banks=2, implementation="eager")),
        ("mosaic_v2", dict(num_attention_heads=1, implementation="eager")),
        ("mosaic_v2", dict(use_long_memory=False)),
        ("mosaic_v2", dict(short_memory_size=20, long_memory_delay=15)),
    ],
    indirect=["make"],
)
def test_shapes(make, prompts, monkeypatch, fields):
    """States fill one page or several, windows several, and longer memories make batches of their own."""
    monkeypatch.setattr(continuous_batching, "FEW_SLOTS", 1)
    model = make(**fields)
    assert written(model, prompts, settings("chunked", page_size=4)) == expected(model, prompts)


def test_faint_first_tokens(make_v2, prompts):
    """The gain of a request's first token is not set against a state that is not there."""
    model = make_v2().double()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.contextual_memory.short_memory.gain_proj.weight.mul_(2000)
    assert written(model, prompts[4:7], settings()) == expected(model, prompts[4:7])


def test_bfloat16(make, prompts):
    """The tokens are the best ones, or nearly so, of a pass without any cache in the same precision."""
    model = make().bfloat16()
    for prompt, new in zip(prompts, written(model, prompts, settings("chunked")), strict=True):
        logits = model(torch.tensor([prompt + new])).logits[0, len(prompt) - 1 : -1].float()
        chosen = logits.gather(1, torch.tensor(new)[:, None])[:, 0]
        assert (logits.amax(-1) - chosen).max() < 0.02 * logits.abs().max()


def test_prefixes_are_shared(make, prompts, count_tokens):
    model = make()
    alike, reference = prompts[-3:], expected(model, prompts[-3:])
    counted = count_tokens(model)
    options = dict(chosen=settings(), persistent_manager=True)
    for prompt, tokens in zip(alike, reference, strict=True):
        assert written(model, [prompt], **options) == [tokens]
    # The first prompt is read as a whole; of the others, what begins alike lies in three blocks.
    alone = [len(prompt) + NEW_TOKENS - 1 for prompt in alike]
    assert sum(counted) == sum(alone) - 2 * (29 // PAGE * PAGE)
    model.destroy_cached_continuous_batching_manager()
    # Nor is anything left of it.
    assert written(model, alike[:1], settings()) == reference[:1]
    assert sum(counted) == sum(alone) - 2 * (29 // PAGE * PAGE) + alone[0]


@pytest.mark.parametrize("sharing", [True, False])
def test_forks(make, prompts, count_tokens, sharing):
    model = make()
    reference = expected(model, prompts)
    counted = count_tokens(model)
    # Sampled from one token.
    config = GenerationConfig(
        max_new_tokens=NEW_TOKENS, do_sample=True, top_k=1, num_return_sequences=3, eos_token_id=-1
    )
    found = written(model, prompts, settings(num_blocks=400, allow_block_sharing=sharing), config)
    assert found == [tokens for tokens in reference for _ in range(3)]
    read = sum(map(len, prompts))
    assert sum(counted) <= read + 3 * len(prompts) * NEW_TOKENS


def test_cancelled_requests(make, prompts):
    """Requests that go leave the others as they were, and no block behind."""
    model = make()
    reference = expected(model, prompts)
    chosen = settings("chunked", num_blocks=60, allow_block_sharing=False)
    with model.continuous_batching_context_manager(greedy(), continuous_batching_config=chosen) as manager:
        names = manager.add_requests(prompts, streaming=True)
        cancelled, results = set(names[::2]), {}
        limit = time.monotonic() + 60
        while len(results) < len(names) - len(cancelled):
            assert time.monotonic() < limit
            result = manager.get_result(timeout=1)
            if result is None:
                continue
            if result.request_id in cancelled:
                # It has begun.
                manager.cancel_request(result.request_id)
            elif result.is_finished():
                results[result.request_id] = result.generated_tokens
        for name in cancelled:
            manager.cancel_request(name)
        processor = manager.batch_processor
        while processor.has_pending_requests():
            assert time.monotonic() < limit
            time.sleep(0.01)
        assert results == {
            name: tokens for name, tokens in zip(names, reference, strict=True) if name not in cancelled
        }
        processor.cache.pool.try_to_free_sectors()
        assert processor.cache.compute_free_capacity() == 1


def test_end_of_text(make_model, prompts):
    model = make_model().double()
    reference = expected(model, prompts)
    end = reference[0][5]
    config = GenerationConfig(max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=end)
    for tokens, new in zip(reference, written(model, prompts, settings(), config), strict=True):
        assert new == tokens[: tokens.index(end) + 1 if end in tokens else None]


def test_documented_example(run_examples):
    names = run_examples("docs/serving.md", "## Continuous batching in Python")
    tell = pipeline("text-generation", "runs/demo")
    options = dict(max_new_tokens=20, do_sample=False, return_full_text=False)
    told = [tell(prompt, **options)[0]["generated_text"] for prompt in names["prompts"]]
    assert [story.removesuffix("<|endoftext|>") for story in names["stories"]] == told


@pytest.mark.gpu
def test_asynchronous(make, prompts):
    model = make().cuda()
    reference = expected(make(), prompts)
    for name in ("chunked", "pressure"):
        assert written(model, prompts, settings(name, use_async_batching=True)) == reference


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        (dict(cpu_offload_space=1.0), "cpu_offload_space"),
        (dict(varlen_compile_config=CompileConfig()), "varlen_compile_config"),
        (dict(default_compile_level=1), "default_compile_level"),
        (dict(use_async_batching=True), "use_async_batching"),
    ],
)
def test_refuses_settings(make_model, fields, named):
    with pytest.raises(ValueError, match=named):
        written(make_model(), [[1]], settings(**fields))


def test_refuses_models(make):
    model = make()
    model.config._attn_implementation = "flex_attention"
    with pytest.raises(ValueError, match="flex_attention"):
        written(model, [[1]], settings())
    # As models that derive from these two call themselves.
    model.config.model_type = "mosaic_v2_ablated"
    with pytest.raises(ValueError, match="mosaic_v2_ablated"):
        written(model, [[1]], settings())


def test_refuses_prompts(make_model, prompts):
    """Requests that cannot be read do not end the others."""
    model = make_model().double()
    with model.continuous_batching_context_manager(
        greedy(), continuous_batching_config=settings()
    ) as manager:
        name = manager.add_request(prompts[4])
        for wrong in ([], [-1], [model.config.vocab_size]):
            with pytest.raises(ValueError, match="input_ids"):
                manager.add_request(wrong)
        result = manager.get_result(name, timeout=60)
        assert result.generated_tokens == expected(model, prompts[4:5])[0]


def test_names_the_version_it_needs(make_model, monkeypatch):
    monkeypatch.setattr(continuous_batching, "CACHE_NAME", "past_key_values")
    with pytest.raises(ImportError, match="transformers 5.24"):
        written(make_model(), [[1]], settings())


def test_what_transformers_offers(make):
    """Fails where a release changes what `continuous_batching.py` uses and no documentation promises."""
    changed = "transformers has changed this since 5.24: see modeling_mosaic/continuous_batching.py"
    assert {"switch_to_cb_friendly_attn", "add_request"} <= set(dir(ContinuousBatchingManager)), changed
    model = make()
    manager = model.init_continuous_batching(greedy(), continuous_batching_config=settings())
    manager.warmup()
    pages, contents = manager.batch_processor.cache, manager.model.contents
    allocator = pages.cache_allocators[page_contents.LAYER_TYPE]
    names = ("index", "tokens_per_page", "block_physical_stride", "bytes_per_block", "bytes_per_page")
    assert all(isinstance(getattr(allocator, name, None), int) for name in names), changed
    # Pages of a block follow each other in the order of the layers, keys before values, those of states last;
    # token 3 of block 2.
    place = torch.tensor([2 * allocator.block_physical_stride + 3])
    columns = [(name, layer_idx) for layer_idx in range(2) for name in contents.columns]
    states = [state for layer in contents.view_states(pages) for state in layer.values()]
    for page in range(len(allocator.layer_indices)):
        pair = torch.tensor([2 * page + 1, 2 * page + 2], dtype=pages.dtype)
        pair = pair.view(2, 1, 1, 1).expand(2, 1, model.config.num_attention_heads, allocator.head_dim)
        allocator.update(*pair, page, place, place)
        assert any(state.any() for state in states) == (2 * page >= len(columns)), changed
    for number, column in enumerate(columns):
        assert (contents.view_column(pages, *column)[place] == number + 1).all(), changed
    assert torch.cat(states, 1).any(1).nonzero().tolist() == [[2]], changed
