"""Memories as things: what is read, merged, forgotten, saved and continued equals lists of pairs."""

import copy
from dataclasses import replace
from random import Random

import huggingface_hub.constants
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, pipeline

from hub_server import READER, WRITER, run_hub
from list_mosaic import ListMemory, ListMosaic
from modeling_mosaic import MosaicForCausalLM, MosaicMemory, merge, read, read_tokens
from modeling_mosaic.compatibility import CACHE_NAME
from modeling_mosaic.memories import reading
from modeling_mosaic.memories.portable_memory import BEGINNING, NO_TOKEN, SOURCE, Token
from modeling_mosaic.memories.reading import TokenisedText
from modeling_mosaic.model_fingerprint import fingerprint
from modeling_mosaic.plain_mosaic import PlainMosaic

BOS = 0


@pytest.fixture
def make_model(make_model):
    """Models in double precision: rounding, other in each kernel, never decides between two tokens."""
    return lambda **fields: make_model(**fields).double()


@pytest.fixture
def model(make_model):
    return make_model()


@pytest.fixture
def take(model):
    """A memory of random texts of the given lengths, whose characters are its tokens, and their ids."""

    def make(*lengths, model=model, seed=0, **options):
        texts = [
            draw_text(Random(seed + number), f"text {number}", size) for number, size in enumerate(lengths)
        ]
        return read_tokens(model, texts, **options), [list(text.ids) for text in texts]

    return make


def draw_text(random, name, size):
    ids = [random.randint(1, 60) for _ in range(size)]
    return TokenisedText(name, ids, [(number, number + 1) for number in range(size)])


def given(memory, rows=1):
    """What `generate()` and pipelines take, by the name of this release."""
    return {CACHE_NAME: memory.to_cache(rows)}


def continue_after(model, memory, ids):
    with torch.no_grad():
        return model(torch.tensor([ids]), cache=memory.to_cache()).logits[0]


# Equality with the slow implementation.


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


# Continuing.

GREEDY = dict(max_new_tokens=8, do_sample=False)


@pytest.mark.parametrize(
    ("implementation", "options"),
    [
        ("eager", {}),
        ("sdpa", {}),
        ("sdpa", dict(prompt_lookup_num_tokens=3)),
        ("sdpa", dict(prefill_chunk_size=3)),
        ("sdpa", dict(num_beams=3)),
    ],
)
def test_generation_continues_as_if_just_read(make_model, take, random_tokens, options, implementation):
    model = make_model(implementation=implementation)
    memory, (ids,) = take(30, model=model)
    prompt = random_tokens(1, 7)
    whole = torch.cat([torch.tensor([ids]), prompt], 1)
    expected = model.generate(whole, **GREEDY, **options)[:, whole.shape[1] :]
    rows = options.get("num_beams", 1)
    for name in {CACHE_NAME, "past_key_values"}:
        found = model.generate(prompt, **{name: memory.to_cache(rows)}, **GREEDY, **options)
        assert torch.equal(found[:, 7:], expected), name
    assert not expected.eq(model.generate(prompt, **GREEDY, **options)[:, 7:]).all()


def test_padded_batches_and_returned_caches(model, take, random_tokens):
    memory, (ids,) = take(25)
    prompts = random_tokens(3, 9)
    mask = torch.ones_like(prompts)
    mask[0, :4], mask[1, :8] = 0, 0
    inputs = dict(input_ids=prompts.masked_fill(mask == 0, 0), attention_mask=mask)
    first = model.generate(**inputs, **given(memory, 3), return_dict_in_generate=True, **GREEDY)
    # The prompt again, all that was written, and two tokens more, on the cache that came back.
    longer = torch.cat([first.sequences, random_tokens(3, 2, seed=1)], 1)
    mask = torch.cat([mask, torch.ones(3, longer.shape[1] - 9, dtype=torch.long)], 1)
    second = model.generate(longer, attention_mask=mask, **{CACHE_NAME: first[CACHE_NAME]}, **GREEDY)
    for row, start in enumerate((4, 8, 0)):
        whole = torch.cat([torch.tensor(ids), prompts[row, start:]])[None]
        alone = model.generate(whole, **GREEDY)[0, whole.shape[1] :]
        assert torch.equal(first.sequences[row, 9:], alone)
        whole = torch.cat([torch.tensor(ids), longer[row, start:]])[None]
        alone = model.generate(whole, **GREEDY)[0, whole.shape[1] :]
        assert torch.equal(second[row, longer.shape[1] :], alone)


def test_a_pipeline_continues(demo):
    model = MosaicForCausalLM.from_pretrained("runs/demo").double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2 if parameter.ndim > 1 else 1)
    tokenizer = AutoTokenizer.from_pretrained("runs/demo")
    tell = pipeline("text-generation", model, tokenizer=tokenizer)
    text, prompt = "Once upon a time there was a story.", " There was"
    memory = read(model, tokenizer, text)
    found = tell(prompt, **given(memory), return_full_text=False, **GREEDY)
    whole = tokenizer(text)["input_ids"] + tokenizer(prompt)["input_ids"]
    expected = model.generate(torch.tensor([whole]), **GREEDY)[0, len(whole) :]
    assert found[0]["generated_text"] == tokenizer.decode(expected)
    tokenizer.pad_token = tokenizer.eos_token
    both = tell([prompt, " a"], batch_size=2, **given(memory, 2), return_full_text=False, **GREEDY)
    assert both[0] == found
    assert both[1] == tell(" a", **given(memory), return_full_text=False, **GREEDY)


def test_weights_are_those_of_the_whole_text(make_model, take):
    """Column i is pair i, as `where` counts them."""
    model = make_model(implementation="eager")
    memory, (ids,) = take(12, model=model)
    with torch.no_grad():
        whole = model(torch.tensor([[*ids, 5, 6, 7]]), output_attentions=True).attentions
        found = model(torch.tensor([[5, 6, 7]]), cache=memory.to_cache(), output_attentions=True).attentions
    for ours, expected in zip(found, whole, strict=True):
        # The dummy slot comes last.
        torch.testing.assert_close(ours, expected[:, :, 12:], rtol=0, atol=1e-12)


def test_what_a_memory_in_front_refuses(model, take):
    memory, _ = take(6)
    with pytest.raises(ValueError, match=r"batch_size must be at least 1, not 0"):
        memory.to_cache(0)
    with pytest.raises(ValueError, match=r"\(1, 2\), not \(1, 8\)"):
        model(torch.ones(1, 2, dtype=torch.long), attention_mask=torch.ones(1, 8), cache=memory.to_cache())
    with pytest.raises(ValueError, match="packed sequences"):
        ids = torch.ones(1, 2, dtype=torch.long)
        model(ids, seq_idx=torch.tensor([[0, 1]]), cache=memory.to_cache())
    with pytest.raises(ValueError, match="memories of"):
        model(torch.ones(2, 1, dtype=torch.long), cache=memory.to_cache())


# Reading.


def test_reading_in_batches_and_chunks_changes_nothing(model, take, monkeypatch):
    lengths = (40, 3, 16, 1)
    whole, texts = take(*lengths, batch_size=1)
    monkeypatch.setattr(reading, "CHUNK_SIZE", 16)
    memory, _ = take(*lengths, batch_size=3)
    torch.testing.assert_close(memory.keys, whole.keys, rtol=0, atol=1e-12)
    torch.testing.assert_close(memory.values, whole.values, rtol=0, atol=1e-12)
    assert torch.equal(memory.tokens, whole.tokens)
    alone = read_tokens(model, [TokenisedText("alone", texts[-1])])
    for found, expected in zip(memory.states, alone.states, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert len(memory) == sum(map(len, texts)) - 4


def test_reading_leaves_the_model_as_it_was(make_model):
    model = make_model(attention_dropout=0.5, hidden_dropout=0.5).train()
    text = draw_text(Random(0), "a", 12)
    memory = read_tokens(model, [text])
    assert model.training
    torch.testing.assert_close(memory.keys, read_tokens(model.eval(), [text]).keys)


def test_places_lead_back_to_the_text(demo):
    model = MosaicForCausalLM.from_pretrained("runs/demo")
    tokenizer = AutoTokenizer.from_pretrained("runs/demo")
    texts = {"story": "Once upon a time", "other": "there was a story."}
    memory = read(model, tokenizer, texts)
    for name, text in texts.items():
        ids = tokenizer(text)["input_ids"]
        part = memory.keep(name)
        assert len(part) == len(ids) - 1
        for pair in range(len(part)):
            own, following = part.where(pair)
            assert (own.number, following.number) == (pair, pair + 1)
            assert part.sources[own.source] == part.sources[following.source] == name
            assert tokenizer.decode(own.id) == text[own.start : own.end]
            assert tokenizer.decode(following.id) == text[following.start : following.end]
    end = len("there was")
    without = memory.forget("other", span=(6, 9))
    words = ["there", " was", " a"]
    spans = [[(t.start, t.end) for t in without.where(pair)] for pair in range(len(without))]
    assert all(not (start < 9 and stop > 6) for pair in spans[-3:] for start, stop in pair), (words, end)
    ids = tokenizer(texts["story"])["input_ids"]
    assert read(model, tokenizer, texts["story"]).sources[0].startswith("text-")
    assert read(model, tokenizer, list(texts.values())).tokens[:, :, SOURCE].max() == 1
    assert len(read_tokens(model, [TokenisedText("a", ids)])) == len(ids) - 1


def test_emptied_memories_continue_as_if_only_the_beginning_had_been_read(model, take):
    memory, _ = take(8, 9)
    emptied = memory.forget("text 0").forget("text 1")
    assert (len(emptied), emptied.sources) == (0, ())
    begun = read_tokens(model, [TokenisedText("a", [BOS])])
    for other in (begun, begun.forget("a"), memory.forget(pairs=slice(None)).end_text()):
        logits, expected = (continue_after(model, each, [5, 6, 7]) for each in (other, emptied))
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)
    assert emptied.tokens.tolist() == [[[BEGINNING, 0, -1, -1, BOS], list(NO_TOKEN)]]
    assert len(read_tokens(model, [draw_text(Random(0), "a", 3)], after=emptied)) == 3


def test_compressing_keeps_recent_pairs_or_unusual_keys(model, take):
    memory, _ = take(14, 9)
    recent = memory.compress(8, "recent")
    assert torch.equal(recent.keys, memory.keys[:, :, -8:])
    units = torch.nn.functional.normalize(memory.keys, dim=-1)
    likeness = torch.nn.functional.cosine_similarity(units, units.mean(2, keepdim=True), dim=-1)
    rank = likeness.flatten(0, 1).argsort(1).argsort(1).double().mean(0)
    kept = rank.argsort()[:6].sort().values
    unusual = memory.compress(6, "keydiff")
    assert torch.equal(unusual.keys, memory.keys[:, :, kept])
    assert torch.equal(unusual.tokens[:-1], memory.tokens[kept])
    assert memory.compress(len(memory), "keydiff") is memory
    both = memory.compress(6, "keydiff_recent")
    kept = torch.cat([rank[:-3].argsort()[:3].sort().values, torch.arange(len(memory) - 3, len(memory))])
    assert torch.equal(both.tokens[:-1], memory.tokens[kept])
    logits, expected = (continue_after(model, each, [5]) for each in (both, memory.keep(pairs=kept)))
    torch.testing.assert_close(logits, expected)


def test_repr_and_sums(take):
    memory, _ = take(5, 4)
    assert len(memory) == 7
    shown = repr(memory)
    assert "7 pairs in 2 layers x 4 units of 8; {'text 0': 4, 'text 1': 3}; continues 'text 1'" in shown
    assert "continues a new text" in repr(memory.end_text())
    # Of a text of one token no pair is left, unless it goes on.
    assert take(5, 1, 4)[0].sources == ("text 0", "text 2")
    assert take(5, 1)[0].sources == ("text 0", "text 1")
    assert take(5, 1)[0].end_text().sources == ("text 0",)
    both = memory.keep("text 0") + memory.keep("text 1").rename("text 1", "other")
    assert both.sources == ("text 0", "other")
    with pytest.raises(TypeError):
        memory + 1


# What is refused.

ONE = TokenisedText("a", [1, 2, 3])
REFUSED = {
    "no texts": (lambda m, memory: read_tokens(m, []), "there is none to read"),
    "no tokens": (lambda m, memory: read_tokens(m, [TokenisedText("a", [])]), "'a' has no tokens"),
    "twice": (lambda m, memory: read_tokens(m, [ONE, ONE]), "'a' is there twice"),
    "held": (
        lambda m, memory: read_tokens(m, [replace(ONE, name="text 0")], after=memory),
        "'text 0' is there twice",
    ),
    "two after": (
        lambda m, memory: read_tokens(m, [ONE, replace(ONE, name="b")], after=memory),
        "only one text can follow, not 2",
    ),
    "unknown token": (lambda m, memory: read_tokens(m, [replace(ONE, ids=[1, 61])]), r"\[0, 61\), not 61"),
    "batch of none": (lambda m, memory: read_tokens(m, [ONE], batch_size=0), "batch_size must be at least 1"),
    "nothing to merge": (lambda m, memory: merge([]), "none to merge"),
    "itself": (lambda m, memory: memory + memory, "'text 0' is in more than one of the memories"),
    "no source": (lambda m, memory: memory.forget(), "source must name one of the texts"),
    "unknown source": (lambda m, memory: memory.keep("b"), "'b' is not in this memory, which holds"),
    "span of two": (lambda m, memory: memory.forget(span=(0, 1)), "source must name one"),
    "span outside": (lambda m, memory: memory.forget("text 0", span=(90, 99)), "no token of 'text 0' lies"),
    "span backwards": (lambda m, memory: memory.forget("text 0", span=(3, 3)), r"not \(3, 3\)"),
    "unknown span": (
        lambda m, memory: read_tokens(m, [ONE]).forget(span=(0, 1)),
        "did not tell where the tokens are",
    ),
    "unknown pair": (lambda m, memory: memory.forget(pairs=[99]), "no such pair among 7"),
    "pairs of a source": (lambda m, memory: memory.keep("text 0", pairs=[1]), "together with source or span"),
    "same name": (lambda m, memory: memory.rename("text 0", "text 1"), "different names"),
    "bound of 0": (lambda m, memory: memory.compress(0, "recent"), "at least 1, not 0"),
    "unknown policy": (lambda m, memory: memory.compress(2, "fifo"), "policy must be one of recent"),
    "policy of weights": (lambda m, memory: memory.compress(2, "h2o"), "'h2o' needs the weights of queries"),
    "NaN": (lambda m, memory: replace(memory, keys=memory.keys / 0), "keys of this memory are NaN"),
    "infinite state": (
        lambda m, memory: replace(memory, states=tuple(state / 0 for state in memory.states)),
        "states.contextual_average of this memory are NaN or infinite",
    ),
    "no beginning": (lambda m, memory: replace(memory, beginning_id=None), "beginning_id must be"),
    "other shape": (lambda m, memory: replace(memory, values=memory.values[:1]), "keys and values must have"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_input(model, take, case):
    act, message = REFUSED[case]
    memory, _ = take(5, 4)
    with pytest.raises(ValueError, match=message):
        act(model, memory)


def test_models_without_a_beginning(make_model, take):
    model = make_model(bos_token_id=None)
    memory, _ = take(5, 4, model=model)
    assert memory.beginning is None
    kept = memory.forget("text 0")
    with pytest.raises(ValueError, match="neither bos_token_id nor eos_token_id"):
        kept.forget("text 1")
    # Not in the vocabulary, as the default is not in a small one.
    model.config.eos_token_id = 50256
    assert take(5, model=model)[0].beginning is None
    model.config.eos_token_id = [7, 8]
    assert take(5, model=model)[0].beginning_id == 7


def test_memories_of_other_models(make_model, model, take, tmp_path):
    memory, _ = take(5)
    memory.save(tmp_path / "memory")
    trained = copy.deepcopy(model).train()
    optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-3)
    trained(torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss.backward()
    optimizer.step()
    for other in (trained, make_model(num_hidden_layers=3), make_model(num_attention_heads=2)):
        with pytest.raises(ValueError, match="read by another model"):
            MosaicMemory.load(tmp_path / "memory", other)
        with pytest.raises(ValueError, match="read by another model"):
            read_tokens(other, [ONE], after=memory)
        with pytest.raises(ValueError, match="different models cannot be merged"):
            merge([memory, read_tokens(other, [ONE])])


def test_every_parameter_tells_models_apart(model):
    for name, parameter in model.model.named_parameters():
        before = fingerprint(model)
        with torch.no_grad():
            parameter.flatten()[-1] += 1
        assert fingerprint(model) != before, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_in_another_precision_is_the_same(model, take, tmp_path, dtype):
    # bfloat16 rounds float32, as models are saved.
    model = model.float()
    memory, (ids,) = take(20, model=model)
    other = copy.deepcopy(model).to(dtype)
    assert fingerprint(other) == fingerprint(copy.deepcopy(other).double()) == fingerprint(model)
    assert fingerprint(model.model) == fingerprint(model)
    memory.save(tmp_path / "memory")
    moved = MosaicMemory.load(tmp_path / "memory", other)
    assert moved.keys.dtype == dtype and moved.states[0].dtype == torch.float32
    logits = continue_after(other, moved, [5, 6, 7])
    whole = model(torch.tensor([[*ids, 5, 6, 7]])).logits[0, 20:]
    torch.testing.assert_close(logits.float(), whole, rtol=0, atol=1e-5 if dtype == torch.float32 else 0.1)


# Files.


def test_files_come_back_as_they_were(take, tmp_path):
    memory, _ = take(5, 4)
    part = memory.keep(pairs=[2, 5])
    part.save(tmp_path / "memory.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["memory.safetensors"]
    back = MosaicMemory.load(tmp_path / "memory.safetensors")
    assert repr(back) == repr(part)
    for name in ("keys", "values", "tokens", "sources", "beginning_id"):
        found, expected = getattr(back, name), getattr(part, name)
        assert torch.equal(found, expected) if torch.is_tensor(found) else found == expected
    for found, expected in zip((*back.states, *back.beginning), (*part.states, *part.beginning), strict=True):
        assert torch.equal(found, expected) and found.dtype == expected.dtype


def test_damaged_files_are_refused(take, tmp_path):
    memory, _ = take(5, 4)
    path = tmp_path / "memory.safetensors"
    memory.save(path)
    whole = path.read_bytes()
    for size in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"memory.safetensors: damaged, or no memory"):
            MosaicMemory.load(path)
    path.write_bytes(whole)
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    for changes, message in {
        ("version", "2"): "a memory of version 2; this release reads version 1",
        ("format", "x"): "no memory of a mosaic",
        ("sources", "[1"): "damaged",
        ("sources", '["text 0"]'): "not among the 1 sources",
    }.items():
        save_file(tensors, path, metadata | dict([changes]))
        with pytest.raises(ValueError, match=message):
            MosaicMemory.load(path)
    for name, tensor in {"keys": tensors["keys"] * float("nan"), "tokens": tensors["tokens"][1:]}.items():
        save_file(tensors | {name: tensor.contiguous()}, path, metadata)
        with pytest.raises(ValueError, match=name):
            MosaicMemory.load(path)
    del tensors["values"]
    save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match="damaged, or no memory: .*values"):
        MosaicMemory.load(path)
    with pytest.raises(OSError):
        MosaicMemory.load(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="cannot be written"):
        memory.save(path / "memory.safetensors")
    path.unlink()
    assert list(tmp_path.iterdir()) == []


def test_push(model, take, tmp_path, monkeypatch):
    memory, _ = take(5, 4)
    folder = memory.push_to_hub("somebody/tom", dry_run=tmp_path / "dry", base_model="somebody/stories")
    files = {"README.md", "memory.safetensors"}
    assert {path.name for path in (tmp_path / "dry").iterdir()} == files
    assert repr(MosaicMemory.load(folder, model)) == repr(memory)
    card = ModelCard.load(tmp_path / "dry" / "README.md")
    assert card.data.base_model == "somebody/stories" and repr(memory) in card.text
    with pytest.raises(OSError):
        memory.push_to_hub("somebody/tom", dry_run=tmp_path / "dry")
    for wrong in ("tom", "a/b/c"):
        with pytest.raises(ValueError, match=wrong):
            memory.push_to_hub(wrong, dry_run=tmp_path / "other")
    with run_hub() as hub:
        for name, value in {
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "ENDPOINT": hub.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
        }.items():
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        assert hub.endpoint in memory.push_to_hub("somebody/tom", token=WRITER)
        assert set(hub.repositories["models", "somebody/tom"].at("main")[1]) >= files
        monkeypatch.setenv("HF_TOKEN", READER)
        assert repr(MosaicMemory.load("somebody/tom", model)) == repr(memory)
