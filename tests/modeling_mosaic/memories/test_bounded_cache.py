"""Bounded memories: against lists of pairs, against the unbounded cache, in batches, chunks and beams."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache, GPT2Config

from list_mosaic import LISTS, ListMemory
from modeling_mosaic import BoundedCache, MosaicV2Config
from modeling_mosaic.compatibility import CACHE_NAME
from modeling_mosaic.memories.eviction import POLICIES
from mosaic_lab.benchmark.operations import count_operations

# The second model's memories do the same with pairs that come later.
CASES = [*(("mosaic", policy) for policy in POLICIES), ("mosaic_v2", "lru"), ("mosaic_v2", "snapkv")]


class ListedPair:
    """A pair, with all weights that it has ever got, by query, and when it was last used."""

    def __init__(self, key, value, time):
        self.key, self.value = key, value
        self.weights, self.used = {}, time


class ListedLayer:
    """The memories of a layer for one row, as lists of pairs: the policies as they are defined."""

    def __init__(self, num_heads, policy, max_pairs, chunk_size, delay):
        self.pairs_H = [[] for _ in range(num_heads)]
        self.policy, self.max_pairs, self.chunk_size, self.delay = policy, max_pairs, chunk_size, delay
        self.time, self.queries, self.slots, self.num_seen = 0, [], [], []

    def read(self, query_HTD, key_HTD, value_HTD, keep_T):
        """Answers `(time, heads, head_dim)`; eviction comes after each chunk."""
        answers = []
        for step in range(len(keep_T)):
            answers.append(self.step(query_HTD[:, step], key_HTD[:, step], value_HTD[:, step], keep_T[step]))
            self.num_seen.append(len(self.pairs_H[0]) if answers[-1].any() else 0)
            if (step + 1) % self.chunk_size == 0 or step + 1 == len(keep_T):
                scores_H = [self.score(head) for head in range(len(self.pairs_H))]
                self.pairs_H = [self.keep(*both) for both in zip(self.pairs_H, scores_H, strict=True)]
        return torch.stack(answers)

    def step(self, query_HD, key_HD, value_HD, is_token):
        self.time += 1
        if is_token:
            self.slots.append((key_HD, value_HD))
        # The first token completes no pair.
        if not is_token or len(self.slots) <= self.delay:
            return torch.zeros_like(query_HD)
        key_HD, value_HD = self.slots[-self.delay]
        self.queries.append(self.time)
        answers = []
        for pairs, query, key, value in zip(self.pairs_H, query_HD, key_HD, value_HD, strict=True):
            pairs.append(ListedPair(key, value, self.time))
            exponentials = [math.exp(query @ pair.key) for pair in pairs]
            for pair, exponential in zip(pairs, exponentials, strict=True):
                pair.weights[self.time] = exponential / sum(exponentials)
                if exponential / sum(exponentials) >= 1 / len(pairs):
                    pair.used = self.time
            answers.append(sum(pair.weights[self.time] * pair.value for pair in pairs))
        return torch.stack(answers)

    def score(self, head):
        pairs, n = self.pairs_H[head], self.max_pairs
        if self.policy == "recent":
            return list(range(len(pairs)))
        if self.policy == "lru":
            return [pair.used for pair in pairs]
        if self.policy == "h2o":
            return self.protect([sum(pair.weights.values()) for pair in pairs], n // 2)
        if self.policy == "tova":
            last = self.queries[-1:]
            # All heads hold the pairs of the same tokens.
            return [
                sum(pair.weights.get(t, 0) for pair in same for t in last)
                for same in zip(*self.pairs_H, strict=True)
            ]
        if self.policy == "snapkv":
            window = min(32, n // 2)
            voters = self.queries[-max(1, window) :]
            votes = [0, 0, *(sum(pair.weights.get(t, 0) for t in voters) for pair in pairs), 0, 0]
            return self.protect([sum(votes[i : i + 5]) / 5 for i in range(len(pairs))], window)
        mean = sum(pair.key / pair.key.norm() for pair in pairs) / max(1, len(pairs))
        scores = [-float(pair.key @ mean / pair.key.norm()) for pair in pairs]
        return scores if self.policy == "keydiff" else self.protect(scores, n // 2)

    @staticmethod
    def protect(scores, number):
        return [math.inf if i >= len(scores) - number else score for i, score in enumerate(scores)]

    def keep(self, pairs, scores):
        ranking = sorted(range(len(pairs)), key=lambda i: (scores[i], i))
        return [pairs[i] for i in sorted(ranking[max(0, len(pairs) - self.max_pairs) :])]


@st.composite
def texts(draw):
    """What is read: sizes, where padding is, the splits of the caller, the bound and the chunks."""
    batch, time = draw(st.integers(1, 3)), draw(st.integers(1, 40))
    keep = draw(
        st.lists(st.lists(st.booleans(), min_size=time, max_size=time), min_size=batch, max_size=batch)
    )
    is_padded = draw(st.booleans())
    splits = draw(st.lists(st.integers(1, 12), min_size=1, max_size=5))
    return dict(
        keep_BT=torch.tensor(keep) if is_padded else torch.ones(batch, time, dtype=torch.bool),
        splits=splits,
        max_pairs=draw(st.integers(1, 12)),
        chunk_size=draw(st.sampled_from([1, 3, 7, 100])),
        delay=draw(st.sampled_from([1, 1, 2, 5])),
        seed=draw(st.integers(0, 1000)),
    )


def split(time, splits):
    """The parts in which `time` tokens are read."""
    parts = []
    while not parts or parts[-1].stop < time:
        start = parts[-1].stop if parts else 0
        parts.append(slice(start, start + splits[len(parts) % len(splits)]))
    return parts


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=20, deadline=None)
@given(text=texts())
def test_equals_lists_of_pairs(policy, text):
    """Every policy, whatever is padded and however the text is split, keeps and answers as lists do.

    The first model's pairs are seen at once; those of long-term memories wait.
    """
    keep_BT, chunk_size, delay = text["keep_BT"], text["chunk_size"], text["delay"]
    # Two keys are equally far from their mean.
    max_pairs = text["max_pairs"] + policy.startswith("keydiff")
    batch, time = keep_BT.shape
    num_pairs_BT = ((keep_BT.cumsum(-1) - delay) * keep_BT).clamp(min=0)
    generator = torch.Generator().manual_seed(text["seed"])
    query, key, value = torch.randn(3, batch, 2, time, 4, generator=generator, dtype=torch.float64)
    cache = BoundedCache(
        MosaicV2Config(num_hidden_layers=1, long_memory_delay=delay), max_pairs, policy, chunk_size
    )
    (layer,), answers, num_seen = cache.layers, [], []
    for part in split(time, text["splits"]):
        layer.update(key[:, :, part], value[:, :, part])
        keep_Bt = None if keep_BT.all() else keep_BT[:, part]
        answers.append(cache.answer(query[:, :, part], num_pairs_BT[:, part] > 0, keep_Bt, 0)[0])
        num_seen.append(cache.count_held(num_pairs_BT[:, part]))
    assert layer.get_seq_length() == time and layer.keys.shape[2] <= 1 + max_pairs
    for row in range(batch):
        listed, expected = ListedLayer(2, policy, max_pairs, chunk_size, delay), []
        for part in split(time, text["splits"]):
            states = (states[row, :, part] for states in (query, key, value))
            expected.append(listed.read(*states, keep_BT[row, part]))
        torch.testing.assert_close(torch.cat(answers, 1)[row], torch.cat(expected), rtol=1e-9, atol=1e-12)
        assert torch.cat(num_seen, 1)[row].tolist() == listed.num_seen
        for head, pairs in enumerate(listed.pairs_H):
            kept = layer.keys[row, head][layer.visible[row, head]]
            assert kept.tolist() == [pair.key.tolist() for pair in pairs]


@pytest.fixture
def model(make_model):
    return make_model().double()


@pytest.fixture
def batch(random_tokens):
    """Rows of 40 tokens; the first has padding in front and in the middle, the second much of it."""
    tokens, mask = random_tokens(3, 40), torch.ones(3, 40, dtype=torch.long)
    mask[0, :5] = mask[0, 20:23] = mask[1, :30] = 0
    return tokens.masked_fill(mask == 0, 0), mask


def read(model, tokens, mask, cache, parts):
    """Logits of all tokens, read `parts` tokens at a time."""
    logits = []
    with torch.no_grad():
        for stop in range(parts, tokens.shape[1] + parts, parts):
            part = tokens[:, stop - parts : stop]
            seen = None if mask is None else mask[:, :stop]
            logits.append(model(part, attention_mask=seen, **{CACHE_NAME: cache}).logits)
    return torch.cat(logits, 1)


@pytest.mark.parametrize(("kind", "policy"), CASES)
def test_rows_are_what_they_are_alone(model, batch, policy):
    """Evicting token by token, neither the split into chunks nor padding nor the batch changes a logit."""
    tokens, mask = batch
    caches = [BoundedCache(model.config, 6, policy, chunk_size=1) for _ in range(3)]
    logits = read(model, tokens, mask, caches[0], 40)
    torch.testing.assert_close(read(model, tokens, mask, caches[1], 7), logits, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(read(model, tokens, mask, caches[2], 1), logits, rtol=1e-9, atol=1e-9)
    for row, keep in zip(range(3), mask.bool(), strict=True):
        cache = BoundedCache(model.config, 6, policy, chunk_size=1)
        alone = read(model, tokens[row : row + 1, keep], None, cache, 40)
        torch.testing.assert_close(logits[row, keep], alone[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("kind", "policy"), CASES)
def test_a_bound_that_is_not_reached_changes_nothing(model, batch, policy):
    tokens, mask = batch
    for some_mask in (None, mask):
        expected = read(model, tokens, some_mask, DynamicCache(config=model.config), 40)
        logits = read(model, tokens, some_mask, BoundedCache(model.config, 39, policy, chunk_size=5), 11)
        torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
    logits = read(model, tokens, None, BoundedCache(model.config, 38, policy), 1)
    unbounded = read(model, tokens, None, DynamicCache(config=model.config), 1)
    torch.testing.assert_close(logits[:, :39], unbounded[:, :39], rtol=1e-9, atol=1e-9)


def test_recent_pairs_are_those_of_a_window(kind, model, random_tokens):
    """Of all layers, token by token from the equations; n is the number of pairs that a query finds."""
    model_lists, bound = LISTS[kind], 6
    # What stayed before, and one new pair.
    largest_age = bound + model.config.stored_delay

    class Window(model_lists):
        def sees(self, name, pair):
            is_short = name == "contextual_memory.short_memory"
            return super().sees(name, pair) and (is_short or pair.age <= largest_age)

    tokens = random_tokens(1, 25)
    logits = read(model, tokens, None, BoundedCache(model.config, bound, chunk_size=1), 10)
    expected = Window(model).logits(ListMemory(), tokens[0].tolist())
    torch.testing.assert_close(logits[0], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("kind", "policy"), CASES)
def test_memory_and_work_are_constant(model, random_tokens, policy):
    """However long the text, the cache holds as much, and a token takes as many operations."""
    cache = BoundedCache(model.config, 10, policy)
    sizes, operations = set(), set()
    for _ in range(4):
        read(model, random_tokens(2, 40), None, cache, 17)
        tensors = [state for layer in cache.layers for state in vars(layer).values()]
        tensors += [state for layer in cache.layers for state in layer.conv_states.values()]
        tensors = [state for state in tensors if isinstance(state, torch.Tensor)]
        sizes.add(sum(state.nbytes for state in tensors))
        # A view would keep what it is a part of.
        assert all(state.untyped_storage().nbytes() == state.nbytes for state in tensors)
        operations.add(count_operations(lambda: read(model, random_tokens(2, 1), None, cache, 1)))
    assert len(sizes) == len(operations) == 1
    assert cache.layers[0].keys.shape[2] == 11 and cache.get_seq_length() == 168


@pytest.mark.parametrize(("kind", "policy"), CASES)
def test_rows_follow_beams(model, batch, random_tokens, policy):
    """Rows that are reordered, repeated or selected continue as they would have."""
    tokens, mask = batch
    more, beams = random_tokens(3, 4, seed=1), torch.tensor([2, 0, 0])
    cache = BoundedCache(model.config, 6, policy)
    read(model, tokens, mask, cache, 40)
    ways = {"reorder_cache": beams, "batch_select_indices": beams}
    for way, argument in ways.items():
        changed = copy.deepcopy(cache)
        getattr(changed, way)(argument)
        whole = torch.cat([mask[beams], torch.ones_like(more)], 1)
        with torch.no_grad():
            logits = model(more, attention_mask=whole, **{CACHE_NAME: changed}).logits
        for row, beam in enumerate(beams):
            alone = copy.deepcopy(cache)
            alone.batch_select_indices(beam[None])
            with torch.no_grad():
                inputs = dict(attention_mask=whole[row : row + 1])
                expected = model(more[row : row + 1], **inputs, **{CACHE_NAME: alone}).logits
            torch.testing.assert_close(logits[row : row + 1], expected, rtol=1e-9, atol=1e-9)
    cache.batch_repeat_interleave(2)
    assert cache.layers[1].keys.shape[0] == cache.layers[1].conv_states[0].shape[0] == 6


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"num_return_sequences": 2, "do_sample": True}])
def test_generate(model, batch, options):
    """`generate()` with a bound that is not reached, in batches and beams, gives what it gives without."""
    tokens, mask = batch
    outputs = []
    for cache in (DynamicCache(config=model.config), BoundedCache(model.config, 80)):
        torch.manual_seed(0)
        inputs = dict(input_ids=tokens, attention_mask=mask, max_new_tokens=20, **{CACHE_NAME: cache})
        outputs.append(model.generate(**{"do_sample": False, **inputs, **options}))
    assert torch.equal(*outputs)


def test_generate_goes_on_with_a_full_memory(model, batch):
    """Prompts in chunks, and a second call that continues, with memories that are full all the time."""
    tokens, mask = batch
    cache, whole = (BoundedCache(model.config, 5, chunk_size=1) for _ in range(2))
    options = dict(do_sample=False, max_new_tokens=10)
    longer = torch.nn.functional.pad(mask, (0, 10), value=1)
    first = model.generate(
        tokens, attention_mask=mask, prefill_chunk_size=8, **{CACHE_NAME: cache}, **options
    )
    second = model.generate(first, attention_mask=longer, **{CACHE_NAME: cache}, **options)
    options["max_new_tokens"] = 20
    expected = model.generate(tokens, attention_mask=mask, **{CACHE_NAME: whole}, **options)
    assert torch.equal(second, expected)
    assert cache.get_seq_length() == 59 and cache.layers[0].keys.shape[2] == 6


def test_half_precision_and_gradients(make_model, random_tokens):
    model, tokens = make_model(), random_tokens(2, 30)
    loss = model(tokens, labels=tokens, **{CACHE_NAME: BoundedCache(model.config, 6)}).loss
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    half = copy.deepcopy(model).bfloat16()
    logits = read(half, tokens, None, BoundedCache(model.config, 29), 1)
    assert logits.dtype == torch.bfloat16
    unbounded = read(half, tokens, None, DynamicCache(config=model.config), 1)
    exact = read(model, tokens, None, DynamicCache(config=model.config), 1)
    # As far from full precision as an unbounded cache, within the noise of rounding.
    assert (logits - exact).abs().mean() < 1.5 * (unbounded - exact).abs().mean()


def test_weights_are_returned_until_pairs_go(kind, make_model, random_tokens):
    model, tokens = make_model(implementation="eager"), random_tokens(1, 12)
    cache = BoundedCache(model.config, 20)
    with torch.no_grad():
        outputs = model(tokens, output_attentions=True, **{CACHE_NAME: cache})
        expected = model(tokens, output_attentions=True).attentions
    if kind == "mosaic_v2":
        # Short-term memories have theirs in other places.
        assert not outputs.attentions
        return
    for weights, theirs in zip(outputs.attentions, expected, strict=True):
        # Theirs are pairs, without the dummy slot in front.
        torch.testing.assert_close(weights[..., 1:], theirs[..., :-1])


def test_reset_begins_anew(model, random_tokens):
    tokens, cache = random_tokens(2, 20), BoundedCache(model.config, 6, "h2o")
    logits = read(model, tokens, None, cache, 20)
    cache.reset()
    assert cache.get_seq_length() == 0
    torch.testing.assert_close(read(model, tokens, None, cache, 20), logits)


@pytest.mark.parametrize("max_pairs", [0, -1, 2.5, True, None])
def test_refuses_other_bounds(make_config, max_pairs):
    with pytest.raises(ValueError, match=f"max_pairs must be a whole number of at least 1, not {max_pairs}"):
        BoundedCache(make_config(), max_pairs)


def test_refuses_what_it_cannot_do(model, batch):
    tokens, mask = batch
    with pytest.raises(ValueError, match="config must be a Memory Mosaic's, not gpt2's"):
        BoundedCache(GPT2Config(), 4)
    with pytest.raises(
        ValueError, match="use_long_memory is False: .* nothing to keep, to bound or to search"
    ):
        BoundedCache(MosaicV2Config(use_long_memory=False), 4)
    with pytest.raises(ValueError, match="policy must be one of recent, .*not 'oldest'"):
        BoundedCache(model.config, 4, "oldest")
    with pytest.raises(ValueError, match="chunk_size must be a whole number of at least 1, not 0"):
        BoundedCache(model.config, 4, chunk_size=0)
    cache = BoundedCache(model.config, 4)
    with pytest.raises(ValueError, match="cannot be cropped"):
        cache.crop(-1)
    with pytest.raises(ValueError, match="cannot take tokens back"):
        model.generate(tokens[:1], prompt_lookup_num_tokens=2, max_new_tokens=3, **{CACHE_NAME: cache})
    read(model, tokens, mask, cache, 40)
    with pytest.raises(ValueError, match="holds memories of"):
        model(tokens[:1], **{CACHE_NAME: cache})
