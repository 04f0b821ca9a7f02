"""Memories equal lists of pairs, and packed sequences where theory says so."""

from dataclasses import replace
from random import Random

import pytest
import torch

from list_mosaic import ListMemory, ListMosaic
from memory_texts import continue_after, draw_text
from modeling_mosaic import MosaicMemory, read_tokens
from modeling_mosaic.memories.portable_memory import Token
from modeling_mosaic.plain_mosaic import PlainMosaic

BOS = 0


class Twin:
    """A memory and the lists of pairs that it must equal."""

    def __init__(self, fast, slow, texts):
        self.fast, self.slow, self.texts = fast, slow, texts


class Story:
    """A random sequence of everything that one can do with memories."""

    def __init__(self, model, seed, folder):
        self.model, self.slow = model, ListMosaic(model)
        self.random, self.folder = Random(seed), folder
        self.count, self.pool = 0, []

    def draw(self):
        self.count += 1
        return draw_text(self.random, f"text {self.count}", self.random.randint(1, 6))

    def read(self):
        texts = [self.draw() for _ in range(self.random.randint(1, 3))]
        slow = [self.slow.read(text.ids, text.name) for text in texts]
        fast = read_tokens(self.model, texts, batch_size=2)
        pairs = [pair for each in slow for pair in each.pairs]
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
        slow = replace(second.slow, pairs=first.slow.pairs + second.slow.pairs)
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
        tokens = [Token(*token) for pair in twin.fast.tokens.tolist() for token in pair]
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
        pairs = [p for i, p in enumerate(twin.slow.pairs) if (i in chosen) == keep]
        return Twin(act(pairs=chosen), replace(twin.slow, pairs=pairs), twin.texts)

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
        assert len(twin.fast) == len(twin.slow.pairs)
        ids = draw_text(self.random, "", 3).ids
        expected = self.slow.logits(twin.slow, ids)
        torch.testing.assert_close(continue_after(self.model, twin.fast, ids), expected, rtol=0, atol=1e-9)

    def tell(self, length):
        acts = [self.read, self.read_on, self.read_on, self.merge, self.merge]
        acts += [self.save_and_load, self.end_text, self.forget_pairs, self.keep_pairs]
        acts += [self.forget_text, self.forget_span, self.keep_text, self.keep_span]
        self.pool.append(self.read())
        for _ in range(length):
            self.pool.append(self.random.choice(acts)())
            self.check(self.pool[-1])


@pytest.mark.parametrize(
    "seed", [*range(4), *(pytest.param(i, marks=pytest.mark.slow) for i in range(4, 40))]
)
def test_any_sequence_equals_lists_of_pairs(make_model, tmp_path, seed):
    fields = dict(num_hidden_layers=1 + seed % 3, num_persistent_heads=2, num_persistent_banks=1 + seed % 2)
    Story(make_model(seed=seed, **fields), seed, tmp_path).tell(15)


def test_lists_of_pairs_equal_the_model(model, random_tokens):
    """The slow implementation itself, on a text in a row."""
    ids = random_tokens(1, 15)
    slow = ListMosaic(model).logits(ListMemory(), ids[0].tolist())
    torch.testing.assert_close(slow, PlainMosaic(model).logits(ids)[0], rtol=0, atol=1e-10)


# Where theory is exact.


def test_one_layer_equals_packed_sequences_that_share_a_memory(make_model):
    """Keys and values of texts apart, as the equations have them; one memory for all queries of the last."""
    model = make_model(num_hidden_layers=1)
    plain, name = PlainMosaic(model), "model.layers.0.contextual_memory"
    texts = [draw_text(Random(seed), str(seed), size) for seed, size in enumerate((9, 1, 7))]
    following = draw_text(Random(9), "", 5).ids
    stored = []
    for text, more in zip(texts, ([], [], following), strict=True):
        x_1TC = plain.layer_norm(
            plain.parameters["model.embed_tokens.weight"][[*text.ids, *more]][None],
            "model.layers.0.contextual_norm",
        )
        stored.append((plain.keys(x_1TC, f"{name}.key_extractor", 4)[0], plain.values(x_1TC, name)[0]))
    shared = torch.cat([keys[:, :-1] for keys, _ in stored], 1), torch.cat([v[:, :-1] for _, v in stored], 1)
    memory = read_tokens(model, texts)
    cache = memory.to_cache()
    seen = []
    hook = model.model.layers[0].contextual_memory.o_proj.register_forward_pre_hook(
        lambda module, args: seen.append(args[0])
    )
    with torch.no_grad():
        model(torch.tensor([following]), cache=cache)
    hook.remove()
    queries = stored[-1][0][:, len(texts[-1].ids) :]
    for step in range(len(following)):
        visible = shared[0].shape[1] - len(following) + 1 + step
        weights = (queries[:, step, None] @ shared[0][:, :visible].mT).softmax(-1)
        answer = (weights @ shared[1][:, :visible]).flatten()
        torch.testing.assert_close(seen[0][step], answer, rtol=0, atol=1e-10)


def test_order_makes_no_difference(model, take):
    memory, _ = take(20, 15)
    order = torch.randperm(len(memory), generator=torch.Generator().manual_seed(0))
    tokens = torch.cat([memory.tokens[:-1][order], memory.tokens[-1:]])
    shuffled = replace(
        memory, keys=memory.keys[:, :, order], values=memory.values[:, :, order], tokens=tokens
    )
    logits, expected = (continue_after(model, each, [5, 6, 7]) for each in (shuffled, memory))
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)
    assert shuffled.forget("text 1").tokens.shape == memory.forget("text 1").tokens.shape
