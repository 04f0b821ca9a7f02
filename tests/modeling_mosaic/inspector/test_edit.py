"""Edits against the equations as they stand, in forward passes, cached steps and generate()."""

import pytest
import torch
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel, StaticCache

from modeling_mosaic import BoundedCache, MemoryEdit, read_tokens
from modeling_mosaic.compatibility import CACHE_NAME
from modeling_mosaic.inspector.anatomy import layers_of
from modeling_mosaic.inspector.edit import delete_everywhere, delete_from_text, delete_from_unit
from modeling_mosaic.memories.reading import TokenisedText
from modeling_mosaic.plain_mosaic import PlainMosaic
from modeling_mosaic.plain_mosaic_v2 import PlainMosaicV2

TIME = 14


class Edited:
    """A plain model, with pairs deleted, `{(layer, unit): pairs}`, and added, `{(layer, unit): [(k, v)]}`."""

    def __init__(self, model, deleted, added):
        super().__init__(model)
        self.deleted, self.added = deleted, added

    def answer(self, layer, first, query_BHTD, key_BHTD, value_BHTD, is_seen_TT):
        """Answers `(batch, time, heads * head_dim)`, by a loop; `first` is the number of the first unit."""
        recalled = torch.zeros_like(key_BHTD)
        for row in range(len(key_BHTD)):
            for unit in range(key_BHTD.shape[1]):
                place = (layer, first + unit)
                keys, values = key_BHTD[row, unit], value_BHTD[row, unit]
                for t, query in enumerate(query_BHTD[row, unit]):
                    seen = [i for i in range(t) if is_seen_TT[t, i] and i not in self.deleted.get(place, ())]
                    stored = [(keys[i], values[i]) for i in seen] + self.added.get(place, [])
                    if stored:
                        weight = torch.stack([query @ k for k, _ in stored]).softmax(0)
                        recalled[row, unit, t] = weight @ torch.stack([v for _, v in stored])
        return recalled.transpose(1, 2).flatten(2)


class EditedMosaic(Edited, PlainMosaic):
    def contextual_memory(self, x_BTC, layer):
        name, number = f"{layer}.contextual_memory", int(layer.rsplit(".", 1)[1])
        key_BHTD = self.keys(x_BTC, f"{name}.key_extractor", self.config.num_attention_heads)
        sees = torch.ones(2 * [x_BTC.shape[1]]).tril(-1)
        answers = self.answer(number, 0, key_BHTD, key_BHTD, self.values(x_BTC, name), sees)
        return self.linear(answers, f"{name}.o_proj")


class EditedMosaicV2(Edited, PlainMosaicV2):
    """Queries are what they were: neither deleted nor added pairs change how many there are, beta(n)."""

    def memory(self, x_BTC, name, is_seen_TT):
        key_BHTD = self.keys(x_BTC, name)
        query_BHTD = self.bandwidth(is_seen_TT.sum(-1), name) * key_BHTD
        first = 0 if "short" in name else self.config.num_attention_heads
        number = int(name.split(".")[2])
        return self.answer(number, first, query_BHTD, key_BHTD, self.values(x_BTC, name), is_seen_TT)


PLAIN = {"mosaic": (PlainMosaic, EditedMosaic), "mosaic_v2": (PlainMosaicV2, EditedMosaicV2)}


@pytest.fixture
def plain(make):
    """The plain class of the model that `make` makes, and the edited one."""
    return PLAIN[make().config.model_type]


@pytest.fixture
def edit():
    """An edit and the same as dictionaries: two deletions that overlap, and pairs added to two units."""
    torch.manual_seed(5)
    pair = (torch.randn(8, dtype=torch.float64), torch.randn(8, dtype=torch.float64))
    edit = MemoryEdit().delete(layer=0, unit=1, pairs=[2, 3]).delete(layer=[0, 1], unit=[1, 2], pairs=[3, 7])
    edit = edit.delete(pairs=[0], layer=1).add(layer=1, unit=0, key=pair[0], value=pair[1])
    edit = edit.add(layer=1, unit=[0, 3], key=pair[1], value=pair[0])
    deleted = {
        (0, 1): {2, 3, 7},
        (0, 2): {3, 7},
        (1, 1): {0, 3, 7},
        (1, 2): {0, 3, 7},
        **{(1, unit): {0} for unit in (0, 3, 4, 5, 6, 7)},
    }
    return edit, deleted, {(1, 0): [pair, pair[::-1]], (1, 3): [pair[::-1]]}


@pytest.fixture
def edit_of_last(make):
    """The same of the last units, long-term ones in the second model."""
    torch.manual_seed(6)
    last = layers_of(make())[0].count("contextual") - 1
    pair = (torch.randn(8, dtype=torch.float64), torch.randn(8, dtype=torch.float64))
    edit = MemoryEdit().delete(layer=1, unit=last, pairs=[1, 5]).delete(layer=0, unit=last - 1, pairs=[2])
    edit = edit.add(layer=0, unit=last, key=pair[0], value=pair[1])
    return edit, {(1, last): {1, 5}, (0, last - 1): {2}}, {(0, last): [pair]}


@pytest.mark.parametrize("implementation", ["sdpa", "eager", "flex_attention"])
@torch.no_grad()
@pytest.mark.parametrize("which", ["edit", "edit_of_last"])
def test_forward_and_cached_steps(request, which, make, plain, random_tokens, implementation):
    edit, deleted, added = request.getfixturevalue(which)
    plain_class, edited_class = plain
    model = make(implementation=implementation).double()
    tokens = random_tokens(2, TIME)
    expected = edited_class(model, deleted, added).logits(tokens)
    assert (expected - plain_class(model).logits(tokens)).abs().max() > 1e-3
    with edit.applied(model):
        torch.testing.assert_close(model(tokens).logits, expected)
        static = StaticCache(config=model.config, max_cache_len=TIME + 3)
        for cache in (DynamicCache(config=model.config), static):
            steps = [model(tokens[:, :9], cache=cache).logits]
            steps += [model(tokens[:, t : t + 1], cache=cache).logits for t in range(9, TIME)]
            torch.testing.assert_close(torch.cat(steps, 1), expected)
    assert model.config._attn_implementation == implementation
    if implementation != "flex_attention":
        torch.testing.assert_close(model(tokens).logits, plain_class(model).logits(tokens))


@torch.no_grad()
def test_generate(edit, make, plain, random_tokens):
    """The logits of each written token are those of a pass without a cache over what is there."""
    edit, deleted, added = edit
    plain_class, edited_class = plain
    model, tokens = make().double(), random_tokens(1, TIME)
    options = dict(max_new_tokens=8, do_sample=False, output_logits=True, return_dict_in_generate=True)
    with edit.applied(model):
        written = model.generate(tokens, **options)
    logits = torch.stack(written.logits, 1)
    expected = edited_class(model, deleted, added).logits(written.sequences)[:, TIME - 1 : -1]
    torch.testing.assert_close(logits.to(expected), expected, rtol=1e-5, atol=1e-6)
    unedited = plain_class(model).logits(written.sequences)[:, TIME - 1 : -1]
    assert ((logits - unedited).abs().amax((0, 2)) > 1e-3).all()


@torch.no_grad()
def test_a_unit_without_pairs_answers_nothing(make, random_tokens):
    model, tokens = make().double(), random_tokens(1, TIME)
    with MemoryEdit().ablate(layer=1, unit=2).applied(model):
        expected = model(tokens).logits
    with MemoryEdit().delete(layer=1, unit=2, pairs=range(TIME - 1)).applied(model):
        torch.testing.assert_close(model(tokens).logits, expected)
    assert (model(tokens).logits - expected).abs().max() > 1e-3


@pytest.mark.parametrize("memory", ["contextual", "persistent"])
@torch.no_grad()
def test_ablation(make, random_tokens, memory):
    """Replacing a unit's answers by zero, one vector, or other answers is replacing columns of `o_proj`."""
    model, tokens = make().double(), random_tokens(2, TIME)
    unit = layers_of(model)[0].count(memory) - 1
    part, local = layers_of(model)[0].find(memory, unit)
    projection, size = part.o_proj, part.o_proj.in_features // part.num_heads
    own = slice(local * size, (local + 1) * size)
    answers = torch.randn(2 * TIME, size, dtype=torch.float64)
    for answer in (None, answers[0], answers):
        edit = MemoryEdit().ablate(layer=0, unit=unit, answer=answer, memory=memory)
        with edit.applied(model):
            found = model(tokens).logits
        columns = projection.weight[:, own].clone()
        projection.weight[:, own] = 0
        given = 0 if answer is None else (answer @ columns.T).expand(2 * TIME, -1)
        handle = projection.register_forward_hook(lambda module, args, output, given=given: output + given)
        torch.testing.assert_close(model(tokens).logits, found)
        handle.remove()
        projection.weight[:, own] = columns


class MosaicWithoutSlots(PlainMosaic):
    """The plain model without some slots `(unit, bank, slot)` of its second layer."""

    def __init__(self, model, removed):
        super().__init__(model)
        self.removed = removed

    def persistent_memory(self, x_BTC, layer):
        if layer != "model.layers.1":
            return super().persistent_memory(x_BTC, layer)
        name = f"{layer}.persistent_memory"
        units = self.config.num_persistent_heads
        query_BHTD = self.key_scale(f"{name}.key_extractor") * self.keys(
            x_BTC, f"{name}.key_extractor", units
        )
        keys, values = (self.parameters[f"{name}.memory_{part}"] for part in ("keys", "values"))
        recalled = torch.zeros_like(query_BHTD)
        for unit in range(units):
            for bank in range(len(keys)):
                kept = [m for m in range(keys.shape[2]) if (unit, bank, m) not in self.removed]
                weights = (query_BHTD[:, unit] @ keys[bank, unit, kept].mT).softmax(-1)
                recalled[:, unit] += weights @ values[bank, unit, kept] / len(keys)
        scale = (10 * self.parameters[f"{name}.log_value_norm"]).exp()[:, None, None]
        return self.linear((scale * recalled).transpose(1, 2).flatten(2), f"{name}.o_proj")


@pytest.mark.parametrize("banks", [1, 2])
@torch.no_grad()
def test_slots_left_out(make_model, random_tokens, banks):
    model = make_model(num_persistent_banks=banks).double()
    size, tokens = model.config.persistent_memory_size, random_tokens(2, TIME)
    removed = {(2, 0, 1), (2, banks - 1, 7), (0, 0, 3)}
    edit = MemoryEdit().delete_slots(layer=1, unit=0, slots=[3])
    edit = edit.delete_slots(layer=1, unit=2, slots=[1, (banks - 1) * size + 7])
    expected = MosaicWithoutSlots(model, removed).logits(tokens)
    assert (expected - PlainMosaic(model).logits(tokens)).abs().max() > 1e-3
    with edit.applied(model):
        torch.testing.assert_close(model(tokens).logits, expected)
        cache = DynamicCache(config=model.config)
        steps = [model(tokens[:, t : t + 1], cache=cache).logits for t in range(TIME)]
        torch.testing.assert_close(torch.cat(steps, 1), expected)
    torch.testing.assert_close(model(tokens).logits, PlainMosaic(model).logits(tokens))
    with MemoryEdit().delete_slots(layer=1, unit=2, slots=range(banks * size)).applied(model):
        silent = model(tokens).logits
    with MemoryEdit().ablate(layer=1, unit=2, memory="persistent").applied(model):
        torch.testing.assert_close(model(tokens).logits, silent)


@torch.no_grad()
def test_the_four_deletions_differ(make, random_tokens):
    model, tokens = make().double(), random_tokens(1, TIME)
    runs = [model(tokens).logits[:, -1]]
    for edit in (delete_from_unit(0, 1, [8]), delete_everywhere([8])):
        with edit.applied(model):
            runs.append(model(tokens).logits[:, -1])
    shorter = delete_from_text(tokens[0].tolist(), [8])
    assert shorter == [*tokens[0, :8].tolist(), *tokens[0, 9:].tolist()]
    runs.append(model(torch.tensor([shorter])).logits[:, -1])
    for number, logits in enumerate(runs):
        assert all((logits - other).abs().max() > 1e-4 for other in runs[:number])


@torch.no_grad()
def test_padding_counts_and_rows_differ(make, random_tokens):
    """A left-padded row is edited as the row without padding is, with pairs numbered from the padding on."""
    model, tokens = make().double(), random_tokens(1, TIME)
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), tokens], 1)
    mask = (torch.arange(TIME + 3) >= 3).long()[None]
    with MemoryEdit().delete(pairs=[4, 9]).applied(model):
        expected = model(tokens).logits
    with MemoryEdit().delete(pairs=[7, 12]).applied(model):
        cache = DynamicCache(config=model.config)
        steps = [model(padded[:, :14], attention_mask=mask[:, :14], **{CACHE_NAME: cache}).logits]
        for t in range(14, TIME + 3):
            step = padded[:, t : t + 1]
            steps.append(model(step, attention_mask=mask[:, : t + 1], **{CACHE_NAME: cache}).logits)
    torch.testing.assert_close(torch.cat(steps, 1)[:, 3:], expected)


def test_what_there_is_not_is_refused(make_model, random_tokens):
    model, tokens = make_model(), random_tokens(1, TIME)
    vector = torch.ones(8)
    wrong = {
        "layer 2: the model has layers 0 to 1": MemoryEdit().delete(layer=2, pairs=[0]),
        "unit -1: the model has units 0 to 3": MemoryEdit().delete(unit=-1, pairs=[0]),
        "unit 4: the model has units 0 to 3": MemoryEdit().ablate(layer=0, unit=4, memory="persistent"),
        "slot 20: persistent units have slots 0 to 19": MemoryEdit().delete_slots(
            layer=0, unit=0, slots=[3, 20]
        ),
        r"value must have shape \(8,\), not \(9,\)": MemoryEdit().add(key=vector, value=torch.ones(9)),
    }
    for message, edit in wrong.items():
        with pytest.raises(ValueError, match=message), edit.applied(model):
            pass
    for build, message in (
        (lambda: MemoryEdit().delete(pairs=[-1]), "pairs must be numbers from 0 on, not -1"),
        (
            lambda: MemoryEdit().ablate(layer=0, unit=0, memory="other"),
            "memory must be contextual or persistent",
        ),
        (lambda: delete_from_text([1, 2], [2]), "token 2: the text has tokens 0 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            build()
    pair = MemoryEdit().delete(layer=1, pairs=[TIME - 1])
    with pytest.raises(ValueError, match=f"pair 13 of layer 1: the text has pairs 0 to {TIME - 2}"):
        with pair.applied(model):
            model(tokens)
    in_front = read_tokens(model, [TokenisedText("before", [3, 4, 5])])
    for cache in (BoundedCache(model.config, 4), in_front.to_cache()):
        with MemoryEdit().delete(layer=1, pairs=[2]).applied(model):
            with pytest.raises(ValueError, match=f"cannot be edited in a {type(cache).__name__}"):
                model(tokens, **{CACHE_NAME: cache})
    with (
        MemoryEdit().delete(pairs=[0]).applied(model),
        pytest.raises(ValueError, match="applied to this model"),
    ):
        with MemoryEdit().delete(pairs=[1]).applied(model):
            pass
    other = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=9))
    with pytest.raises(ValueError, match="must be a Memory Mosaic, not GPT2LMHeadModel"):
        with MemoryEdit().applied(other):
            pass
    torch.testing.assert_close(model(tokens).logits, PlainMosaic(model).logits(tokens))
