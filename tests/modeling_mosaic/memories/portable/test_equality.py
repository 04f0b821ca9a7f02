"""Memories equal lists of pairs, and packed sequences where theory says so."""

from dataclasses import replace
from random import Random

import pytest
import torch

from list_mosaic import LISTS, ListMemory
from memory_texts import continue_after, draw_text, list_tensors
from modeling_mosaic import MosaicMemory, read_tokens
from modeling_mosaic.memories.tokens import Token
from modeling_mosaic.plain_mosaic import PlainMosaic
from modeling_mosaic.plain_mosaic_v2 import PlainMosaicV2

BOS = 0
PLAIN = {"mosaic": PlainMosaic, "mosaic_v2": PlainMosaicV2}


class Twin:
    """A memory and the lists of pairs that it must equal."""

    def __init__(self, fast, slow, texts):
        self.fast, self.slow, self.texts = fast, slow, texts


class Story:
    """A random sequence of everything that one can do with memories."""

    def __init__(self, model, seed, folder):
        self.model, self.slow = model, LISTS[model.config.model_type](model)
        self.random, self.folder = Random(seed), folder
        self.count, self.pool = 0, []

    def draw(self):
        self.count += 1
        return draw_text(self.random, f"text {self.count}", self.random.randint(1, 6))

    def read(self):
        texts = [self.draw() for _ in range(self.random.randint(1, 3))]
        slow = [self.slow.read(text.ids, text.name) for text in texts]
        fast = read_tokens(self.model, texts, batch_size=2)
        pairs = [pair for each in slow[:-1] for pair in each.ended()] + slow[-1].pairs
        return Twin(fast, replace(slow[-1], pairs=pairs), {text.name for text in texts})

    def read_on(self):
        twin, text = self.random.choice(self.pool), self.draw()
        slow = self.slow.read(text.ids, text.name, twin.slow)
        return Twin(read_tokens(self.model, [text], after=twin.fast), slow, twin.texts | {text.name})

    def merge(self):
        first, second = self.random.choice(self.pool), self.random.choice(self.pool)
        if set(first.fast.sources) & set(second.fast.sources):
            with pytest.raises(ValueError, match="in more than one of the memories"):
                first.fast + second.fast
            return first
        slow = replace(second.slow, pairs=first.slow.ended() + second.slow.pairs)
        return Twin(first.fast + second.fast, slow, first.texts | second.texts)

    def save_and_load(self):
        twin, path = self.random.choice(self.pool), self.folder / "memory.safetensors"
        twin.fast.save(path)
        return Twin(MosaicMemory.load(path, self.model), twin.slow, twin.texts)

    def forget_tokens(self, keep=False, span=False):
        twin = self.random.choice(self.pool)
        if not twin.fast.sources:
            return twin
        name, start = self.random.choice(twin.fast.sources), None
        tokens = [Token(*token) for pair in twin.fast.all_tokens().tolist() for token in pair]
        number = twin.fast.sources.index(name)
        held = sorted({token.number for token in tokens if token.source == number})
        if span:
            start = self.random.choice(held)
            chosen = {(name, number) for number in range(start, start + 2)}
        else:
            chosen = {(name, number) for number in range(100)}
        act = twin.fast.keep if keep else twin.fast.forget
        fast = act(name, span=None if start is None else (start, start + 2))

        def is_forgotten(token):
            return token is not None and (token not in chosen if keep else token in chosen)

        slow = replace(
            twin.slow,
            pairs=[p for p in twin.slow.pairs if not (is_forgotten(p.own) or is_forgotten(p.following))],
        )
        if is_forgotten(twin.slow.pending.own):
            slow = self.slow.begin(slow, BOS)
        return Twin(fast, slow, twin.texts)

    def forget_pairs(self, keep=False):
        twin = self.random.choice(self.pool)
        chosen = [number for number in range(len(twin.fast)) if self.random.random() < 0.3]
        act = twin.fast.keep if keep else twin.fast.forget
        lasting = [pair for pair in twin.slow.pairs if pair.is_lasting]
        chosen_pairs = [id(lasting[number]) for number in chosen]
        pairs = [pair for pair in twin.slow.pairs if (id(pair) in chosen_pairs) == keep]
        return Twin(act(pairs=chosen), replace(twin.slow, pairs=pairs), twin.texts)

    def compress(self):
        twin, bound = self.random.choice(self.pool), self.random.randint(1, 6)
        gone = [id(pair) for pair in twin.slow.pairs if pair.is_lasting][:-bound]
        pairs = [replace(p, is_lasting=False) if id(p) in gone else p for p in twin.slow.pairs]
        return Twin(twin.fast.compress(bound, "recent"), replace(twin.slow, pairs=pairs), twin.texts)

    def keep_pairs(self):
        return self.forget_pairs(keep=True)

    def forget_text(self):
        return self.forget_tokens()

    def forget_span(self):
        return self.forget_tokens(span=True)

    def keep_text(self):
        return self.forget_tokens(keep=True)

    def keep_span(self):
        return self.forget_tokens(keep=True, span=True)

    def end_text(self):
        twin = self.random.choice(self.pool)
        return Twin(twin.fast.end_text(), self.slow.begin(twin.slow, BOS), twin.texts)

    def check(self, twin):
        assert len(twin.fast) == sum(pair.is_lasting for pair in twin.slow.pairs)
        ids = draw_text(self.random, "", 3).ids
        expected = self.slow.logits(twin.slow, ids)
        torch.testing.assert_close(continue_after(self.model, twin.fast, ids), expected, rtol=0, atol=1e-9)

    def tell(self, length):
        acts = [self.read, self.read_on, self.read_on, self.merge, self.merge]
        acts += [self.save_and_load, self.end_text, self.forget_pairs, self.keep_pairs, self.compress]
        acts += [self.forget_text, self.forget_span, self.keep_text, self.keep_span]
        self.pool.append(self.read())
        for _ in range(length):
            self.pool.append(self.random.choice(acts)())
            self.check(self.pool[-1])


@pytest.mark.parametrize(
    "seed", [*range(4), *(pytest.param(i, marks=pytest.mark.slow) for i in range(4, 40))]
)
def test_any_sequence_equals_lists_of_pairs(kind, make_model, tmp_path, seed):
    fields = {
        "mosaic": dict(num_persistent_heads=2, num_persistent_banks=1 + seed % 2),
        # From a short-term memory that no text fills to one of two pairs.
        "mosaic_v2": [
            {},
            dict(short_memory_size=2, long_memory_delay_range=(1, 3)),
            dict(short_memory_size=5, long_memory_delay=6, long_memory_delay_range=(6, 6)),
            dict(short_memory_size=20, long_memory_delay=1),
        ][seed % 4],
    }[kind]
    Story(make_model(seed=seed, num_hidden_layers=1 + seed % 3, **fields), seed, tmp_path).tell(12)


def test_lists_of_pairs_equal_the_model(model, random_tokens):
    """The slow implementation itself, on a text in a row."""
    ids = random_tokens(1, 15)
    plain = PLAIN[model.config.model_type](model)
    slow = LISTS[model.config.model_type](model).logits(ListMemory(), ids[0].tolist())
    torch.testing.assert_close(slow, plain.logits(ids)[0], rtol=0, atol=1e-10)


# Where theory is exact.


# The memories of a layer: the ages of the pairs of its text that each sees, and whether it sees others' too.
MEMORIES = {
    "mosaic": {"contextual_memory": (1, 99, True)},
    "mosaic_v2": {
        "contextual_memory.short_memory": (1, 7, False),
        "contextual_memory.long_memory": (3, 99, True),
    },
}


def extract(model, ids, path):
    """Keys and values `(heads, time, head_dim)` of the first layer, and beta(n), by the equations."""
    plain = PLAIN[model.config.model_type](model)
    norm, path = "model.layers.0.contextual_norm", f"model.layers.0.{path}"
    x_1TC = plain.parameters["model.embed_tokens.weight"][ids][None]
    if isinstance(plain, PlainMosaicV2):
        x_1TC = plain.rms_norm(x_1TC, norm)
        bandwidth = lambda number: plain.bandwidth(torch.tensor([number]), path)[..., 0]  # noqa: E731
        return plain.keys(x_1TC, path)[0], plain.values(x_1TC, path)[0], bandwidth
    x_1TC = plain.layer_norm(x_1TC, norm)
    return plain.keys(x_1TC, f"{path}.key_extractor", 4)[0], plain.values(x_1TC, path)[0], lambda number: 1


def test_one_layer_equals_packed_sequences_that_share_a_memory(kind, make_model):
    """One memory for all queries of the last text: the long-term one, if there are two."""
    model = make_model(num_hidden_layers=1)
    texts = [draw_text(Random(seed), str(seed), size) for seed, size in enumerate((9, 1, 7))]
    following, num_read = draw_text(Random(9), "", 8).ids, 7
    seen = {}
    for path in MEMORIES[kind]:
        model.model.layers[0].get_submodule(f"{path}.o_proj").register_forward_pre_hook(
            lambda module, args, path=path: seen.update({path: args[0]})
        )
    memory = read_tokens(model, texts)
    with torch.no_grad():
        model(torch.tensor([following]), cache=memory.to_cache())
    for path, (youngest, oldest, has_others) in MEMORIES[kind].items():
        others = [extract(model, text.ids, path)[:2] for text in texts[:-1] if has_others]
        keys, values, bandwidth = extract(model, [*texts[-1].ids, *following], path)
        for step in range(len(following)):
            query = num_read + step
            own = slice(max(0, query - oldest), query - youngest + 1)
            shared_keys = torch.cat([*(theirs[:, :-1] for theirs, _ in others), keys[:, own]], 1)
            shared_values = torch.cat([*(theirs[:, :-1] for _, theirs in others), values[:, own]], 1)
            scores = bandwidth(shared_keys.shape[1]) * (shared_keys @ keys[:, query, :, None])[..., 0]
            answer = (scores.softmax(-1)[:, None] @ shared_values).flatten()
            torch.testing.assert_close(seen[path][step], answer, rtol=0, atol=1e-10)


def test_order_makes_no_difference(model, take):
    memory, _ = take(20, 15)
    order = torch.randperm(len(memory), generator=torch.Generator().manual_seed(0))
    tokens = torch.cat([memory.tokens[:-1][order], memory.tokens[-1:]])
    window = memory.window._replace(pairs=order.argsort()[memory.window.pairs.long()])
    keys, values = memory.keys[:, :, order], memory.values[:, :, order]
    shuffled = replace(memory, keys=keys, values=values, window=window, tokens=tokens)
    logits, expected = (continue_after(model, each, [5, 6, 7]) for each in (shuffled, memory))
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)
    assert shuffled.forget("text 1").tokens.shape == memory.forget("text 1").tokens.shape


def test_what_is_forgotten_leaves_no_trace(model, take):
    """Not in the window of a short-term memory either, whose other pairs stay as old as they were."""
    memory, _ = take(20)
    without = memory.forget("text 0", span=(15, 16))
    by_pairs = memory.forget(pairs=[14, 15])
    for found, expected in zip(list_tensors(without), list_tensors(by_pairs), strict=True):
        assert torch.equal(found, expected)
    columns = len(memory.window.pairs)
    assert columns == (0 if not memory.layout.window else model.config.short_memory_size - 1)
    for name in ("keys", "values"):
        before, after = getattr(memory.window, name), getattr(without.window, name)
        for column, pair in enumerate(memory.window.pairs.tolist()):
            expected = before[:, :, column] * (pair not in (14, 15))
            assert torch.equal(after[:, :, column], expected)
    assert not without.window.is_held()[[pair in (14, 15) for pair in memory.window.pairs.tolist()]].any()
