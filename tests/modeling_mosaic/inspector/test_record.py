"""Records against the equations as they stand, slow computations, and runs of the edited model."""

import copy
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import ByteLevelBPETokenizer
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from modeling_mosaic import MEASURES, MemoryEdit, MemoryRecord, MosaicModel, record_memories
from modeling_mosaic.inspector import expectation, slots, trace
from modeling_mosaic.inspector.catalogue import LEADING
from modeling_mosaic.inspector.edit import memory_layers
from modeling_mosaic.plain_mosaic import PlainMosaic

TIME = 40


class RecordingMosaic(PlainMosaic):
    """The plain model, which keeps what its memories store, answer and add."""

    def __init__(self, model):
        super().__init__(copy.deepcopy(model).double())
        self.kept = {}

    def keys(self, x_BTC, name, num_heads):
        return self.keep(f"{name}.keys", super().keys(x_BTC, name, num_heads))

    def values(self, x_BTC, name):
        return self.keep(f"{name}.values", super().values(x_BTC, name))

    def linear(self, x_BTC, name):
        return self.keep(f"{name}.output", super().linear(self.keep(f"{name}.input", x_BTC), name))

    def layer_norm(self, x_BTC, name):
        return super().layer_norm(self.keep(f"{name}.input", x_BTC), name)

    def keep(self, name, states):
        self.kept[name] = states[0]
        return states

    def run(self, tokens):
        with torch.no_grad():
            self.logits_TV = self.logits(torch.tensor([tokens]))[0]
        return self


@pytest.fixture
def text(random_tokens):
    """Tokens with repetitions."""
    return random_tokens(TIME, vocab_size=30).tolist()


VARIANTS = [
    {},
    {"num_persistent_heads": 2, "num_persistent_banks": 2, "num_hidden_layers": 1},
    {"use_bias": True, "tie_word_embeddings": False, "hidden_size": 24, "num_attention_heads": 2},
]


@pytest.mark.parametrize("fields", VARIANTS, ids=["plain", "banks", "biases"])
@pytest.mark.parametrize(
    "implementation", ["sdpa", "eager", pytest.param("flex_attention", marks=pytest.mark.slow)]
)
def test_record_holds_what_the_equations_say(make_model, text, fields, implementation):
    model = make_model(implementation=implementation, **fields)
    record = record_memories(model, None, text)
    plain = RecordingMosaic(model).run(text)
    assert max(record.self_check.values()) < 1e-5
    expected_loss = F.cross_entropy(plain.logits_TV[:-1], torch.tensor(text[1:]), reduction="none")
    torch.testing.assert_close(record.tensors["loss"][:-1].double(), expected_loss, rtol=1e-5, atol=1e-5)
    assert record.tensors["loss"][-1].isnan()
    probs_TV = plain.logits_TV.softmax(-1)
    entropy_T = -(probs_TV * probs_TV.log()).sum(-1)
    torch.testing.assert_close(record.tensors["entropy"].double(), entropy_T, rtol=1e-5, atol=1e-5)
    for layer in range(record.num_layers):
        name = f"model.layers.{layer}.contextual_memory"
        kept = {
            part: plain.kept[f"{name}.{part}"] for part in ("key_extractor.keys", "values", "o_proj.input")
        }
        close = dict(rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            record.tensors["contextual.keys"][layer].double(), kept["key_extractor.keys"], **close
        )
        values = record.tensors["contextual.values"][layer].double()
        torch.testing.assert_close(values, kept["values"][:, :-1], **close)
        answers = torch.cat([record.answers(layer, unit) for unit in range(record.num_units)], -1)
        torch.testing.assert_close(answers.double(), kept["o_proj.input"], **close)


def test_weights_are_those_of_eager_attention(make_model, text):
    model = make_model(implementation="eager")
    record = record_memories(model, None, text, ablate=False)
    with torch.no_grad():
        attentions = model(torch.tensor([text]), output_attentions=True).attentions
    for layer in range(2):
        for unit in range(4):
            weights = record.weights(layer, unit)
            torch.testing.assert_close(weights, attentions[layer][0, unit])
            assert weights[7:9].equal(record.weights(layer, unit, slice(7, 9)))
            assert weights[[3, 5]].equal(record.weights(layer, unit, [3, 5]))
            # By what the record keeps of each query, any single weight is one exponential.
            keys = record.tensors["contextual.keys"][layer, unit]
            normaliser = record.tensors["contextual.log_normaliser"][layer, unit]
            assert weights[20, 11].item() == pytest.approx(
                (keys[20] @ keys[11] - normaliser[20]).exp().item()
            )
            index = record.tensors["contextual.pair_index"][layer, unit]
            strongest = record.tensors["contextual.pair_weight"][layer, unit].float()
            for t in range(TIME):
                expected = weights[t].sort(descending=True).values[:16]
                torch.testing.assert_close(strongest[t], expected, rtol=1e-3, atol=1e-6)
                there = index[t] >= 0
                assert there.sum() == (weights[t] > 0).sum().clamp(max=16)
                found = weights[t, index[t, there].long()]
                torch.testing.assert_close(found, strongest[t, there], rtol=1e-3, atol=1e-6)
            rest = 1 - strongest.sum(-1)
            rest[0] = 0
            torch.testing.assert_close(
                record.tensors["contextual.rest_weight"][layer, unit], rest, rtol=0, atol=2e-3
            )


def test_measures_of_targets_are_in_the_right_places(make_model, text):
    """Index t is query t: its target is the value it will be stored with, its weights see pairs before it."""
    model = make_model()
    record = record_memories(model, None, text)
    plain = RecordingMosaic(model).run(text)
    kept, name = plain.kept, "model.layers.1.contextual_memory"
    answers, raw = (
        kept[f"{name}.{part}"].unflatten(-1, (4, 8)) for part in ("o_proj.input", "v_proj.output")
    )
    mix = plain.parameters[f"{name}.peek_norm.mix"]
    for unit in range(4):
        for t in range(TIME):
            error, age = (record.measure(measure)[1, unit, t] for measure in ("error", "age"))
            known = record.measure("known_error")[1, unit, t]
            if t in (0, TIME - 1):
                assert error.isnan() and known.isnan()
            else:
                v = kept[f"{name}.values"][unit, t]
                assert error.item() == pytest.approx(
                    ((answers[t, unit] - v).norm() / v.norm()).item(), rel=1e-4
                )
                guess = mix[unit] * raw[t, unit]
                guess = guess * v.norm() / guess.norm()
                assert known.item() == pytest.approx(((guess - v).norm() / v.norm()).item(), rel=1e-4)
            weights = record.weights(1, unit, t)[0]
            if t:
                expected = sum(float(weights[i]) * (t - i) for i in range(t))
                assert age.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("fields", VARIANTS, ids=["plain", "banks", "biases"])
def test_direct_logits(make_model, text, fields):
    """What a unit adds to a logit is what the logit loses without it, with the last norm's sigma frozen."""
    model = make_model(**fields)
    record = record_memories(model, None, text)
    plain = RecordingMosaic(model).run(text)
    parameters, config = plain.parameters, model.config
    residual = plain.kept["model.norm.input"]
    sigma = (residual.var(-1, unbiased=False) + config.layer_norm_eps).sqrt()
    gamma, weight = parameters["model.norm.weight"], parameters["lm_head.weight"]
    for memory, prefix in (("contextual", ""), ("persistent", "persistent_")):
        direct = record.measure(f"{prefix}direct_logit")
        for layer in range(record.num_layers):
            name = f"model.layers.{layer}.{memory}_memory.o_proj"
            units = direct.shape[1]
            parts = plain.kept[f"{name}.input"].unflatten(-1, (units, -1))
            columns = parameters[f"{name}.weight"].unflatten(1, (units, -1))
            for unit in range(units):
                added = parts[:, unit] @ columns[:, unit].T
                logits = config.logit_scale * ((added - added.mean(-1, keepdim=True)) * gamma) @ weight.T
                logits = logits / sigma[:, None]
                expected = logits[range(TIME - 1), text[1:]] - logits[:-1].mean(-1)
                torch.testing.assert_close(direct[layer, unit, :-1].double(), expected, rtol=1e-4, atol=1e-5)
    # Read from the record alone: what a value adds to any token's logit.
    pair = record.explain(0, 1, 30).pairs[0]
    value = record.tensors["contextual.values"][0, 1, pair.pair]
    row = record.tensors["readout.rows"][record.tensors["readout.token_ids"].tolist().index(text[31])]
    added = record.tensors["contextual.output"][0, 1] @ value
    assert pair.share_of_logit == pytest.approx(
        (pair.weight * added @ row * record.tensors["final_scale"][30]).item(), rel=1e-4
    )
    total = sum(share.share_of_logit for share in record.explain(0, 1, 30, most=TIME).pairs)
    assert total == pytest.approx(record.measure("direct_logit")[0, 1, 30].item(), abs=1e-6)


def test_expectations_are_those_of_texts_that_go_on_otherwise(make_model, text):
    """AUC and rank from targets that the model computes for each other next token."""
    model = make_model()
    record = record_memories(model, None, text)
    plain = RecordingMosaic(model)
    auc, rank = record.measure("next_token_auc"), record.measure("next_token_rank")
    tried = auc[1, 0].isfinite().nonzero()[:, 0].tolist()
    assert len(tried) > 20 and not rank[1].isfinite().any()
    t = tried[len(tried) // 2]
    targets = []
    for candidate in range(61):
        kept = plain.run([*text[: t + 1], candidate, *text[t + 2 :]]).kept
        targets.append([kept[f"model.layers.{layer}.contextual_memory.values"][:, t] for layer in range(2)])
    counts = [text.count(candidate) for candidate in range(61)]
    for layer in range(2):
        for unit in range(4):
            answer = record.answers(layer, unit)[t].double()
            scores = [F.cosine_similarity(answer, v[layer][unit], dim=0).item() for v in targets]
            mine = scores[text[t + 1]]
            others = [b for b in range(61) if b != text[t + 1]]
            below = sum(counts[b] for b in others if scores[b] < mine) / sum(counts[b] for b in others)
            if layer == 0:
                assert rank[0, unit, t].item() == 1 + sum(scores[b] > mine for b in others)
                assert auc[0, unit, t].item() == pytest.approx(below)
            else:
                # Of 31 that were drawn: five standard errors around what all of them give.
                assert abs(auc[1, unit, t].item() - below) < 5 * (0.25 / 31) ** 0.5


def test_ablation_and_deletion_are_those_of_edits(make_model, text):
    model = make_model()
    record = record_memories(model, None, text)
    tokens = torch.tensor([text])

    def losses(edit):
        with edit.applied(model), torch.no_grad():
            return F.cross_entropy(model(tokens).logits[0, :-1], tokens[0, 1:], reduction="none")

    for layer in range(2):
        for unit in range(4):
            mean = record.answers(layer, unit)[1:].mean(0)
            cost = losses(MemoryEdit().ablate(layer=layer, unit=unit, answer=mean)) - losses(MemoryEdit())
            torch.testing.assert_close(
                record.measure("ablation_cost")[layer, unit, :-1], cost, rtol=1e-3, atol=1e-5
            )
    # Without a pair of the last layer, the answer is that of a run in which it was never stored.
    heard = []
    handle = memory_layers(model)[1].contextual_memory.o_proj.register_forward_pre_hook(
        lambda module, args: heard.append(args[0].unflatten(-1, (4, 8)))
    )
    pair = record.explain(1, 2, 30).pairs[0]
    losses(MemoryEdit().delete(layer=1, unit=2, pairs=[pair.pair]))
    handle.remove()
    target = record.tensors["contextual.values"][1, 2, 30]
    expected = ((heard[0][30, 2] - target).norm() / target.norm()).item()
    assert pair.error_if_forgotten == pytest.approx(expected, rel=1e-4)
    assert pair.error_if_forgotten != pytest.approx(record.measure("error")[1, 2, 30].item(), rel=1e-4)


def test_persistent_slots(make_model, text):
    model = make_model(num_persistent_banks=2)
    record = record_memories(model, None, text)
    plain = RecordingMosaic(model).run(text)
    name = "model.layers.1.persistent_memory"
    query = plain.key_scale(f"{name}.key_extractor") * plain.kept[f"{name}.key_extractor.keys"]
    keys, values = (plain.parameters[f"{name}.memory_{part}"] for part in ("keys", "values"))
    weights = torch.cat([(query @ keys[bank].mT).softmax(-1) / 2 for bank in range(2)], -1)
    use = record.tensors["persistent.slot_use"][1]
    torch.testing.assert_close(use.double(), weights.mean(1), rtol=1e-4, atol=1e-6)
    dead = (weights.mean(1) < 0.1 / 40).double().mean(1)
    torch.testing.assert_close(record.measure("persistent_dead_slots")[1].double(), dead)
    effective = (-(weights * weights.log()).sum(-1)).exp()
    torch.testing.assert_close(
        record.measure("persistent_effective_slots")[1].double(), effective, rtol=1e-4, atol=1e-4
    )
    shares = record.explain_slots(1, 3, 25)
    assert [share.slot for share in shares] == weights[3, 25].topk(16).indices.tolist()
    assert shares[0].weight == pytest.approx(weights[3, 25].max().item(), rel=1e-3)
    most = record.tensors["persistent.slot_most_used"][1, 3]
    assert most.tolist() == use[3].argsort(descending=True, stable=True).tolist()
    callers = weights[3][:, most].T.topk(4)
    assert record.tensors["persistent.slot_callers"][1, 3].tolist() == callers.indices.tolist()
    found = record.tensors["persistent.slot_caller_weights"][1, 3].double()
    torch.testing.assert_close(found, callers.values, rtol=1e-4, atol=1e-6)
    scale = (10 * plain.parameters[f"{name}.log_value_norm"]).exp()[:, None]
    answers = sum(scale[:, None] * weights[..., b * 20 : b * 20 + 20] @ values[b] for b in range(2))
    shift = record.tensors["persistent.slot_shift"][1]
    for unit, slot in ((0, 3), (2, 27), (3, use[3].argmax().item())):
        bank = slot // 20
        others = [m for m in range(20) if m != slot % 20]
        alone = (query[unit] @ keys[bank, unit, others].mT).softmax(-1) @ values[bank, unit, others]
        own = 2 * weights[unit, :, bank * 20 : bank * 20 + 20] @ values[bank, unit]
        moved = scale[unit] * (alone - own) / 2
        expected = (moved.norm(dim=-1) / answers[unit].norm(dim=-1)).mean().item()
        assert shift[unit, slot].item() == pytest.approx(expected, rel=1e-4)
    worth = record.tensors["persistent.slot_worth"]
    assert worth.isfinite().sum(-1).eq(slots.NUM_WEIGHED).all()
    for layer, unit, number in ((0, 1, 0), (0, 3, slots.NUM_WEIGHED - 1), (1, 2, 1)):
        slot = record.tensors["persistent.slot_most_used"][layer, unit, number].item()
        with MemoryEdit().delete_slots(layer=layer, unit=unit, slots=[slot]).applied(model), torch.no_grad():
            logits = model(torch.tensor([text])).logits[0]
        cost = F.cross_entropy(logits[:-1], torch.tensor(text[1:])) - record.tensors["loss"].nanmean()
        assert worth[layer, unit, number].item() == pytest.approx(cost.item(), rel=1e-3, abs=1e-6)
    # The tokens of the most used slot: its value through what comes after it.
    slot = use[3].argmax().item()
    assert record.tensors["persistent.slot_most_used"][1, 3, 0] == slot
    columns = plain.parameters[f"{name}.o_proj.weight"][:, 24:]
    added = columns @ (scale[3] * values[slot // 20, 3, slot % 20])
    logits = plain.parameters["lm_head.weight"] @ (
        (added - added.mean()) * plain.parameters["model.norm.weight"]
    )
    assert record.tensors["persistent.slot_tokens"][1, 3, 0].tolist() == logits.topk(10).indices.tolist()


def test_every_measure_is_there_and_says_what_it_is(make_model, text):
    model, text = make_model(), text * 2
    record = record_memories(model, None, text)
    assert set(record.measures) == set(MEASURES) and set(LEADING) < set(MEASURES)
    shapes = {"unit": (2, 4), "token": (2, 4, 2 * TIME), "relation": (2, 4, 4)}
    for name, measure in MEASURES.items():
        shape = (2, 6, 4) if name == "cross_retrieval" else shapes[measure.shape]
        values = record.measure(name)
        assert values.shape == shape and measure.description.endswith((".", "?"))
        finite = values[values.isfinite()]
        assert len(finite) or name == "context_gain", name
        if measure.range == (0, 1) and name != "predictability":
            assert finite.min() > -1e-4 and finite.max() < 1 + 1e-4, name
    assert not any(
        "ablation_cost" in name for name in record_memories(model, None, text, ablate=False).measures
    )
    with pytest.raises(ValueError, match="has no measure 'worth'; it has .*error"):
        record.measure("worth")
    with pytest.raises(ValueError, match="'target_cka' relates units"):
        record.unit_measure("target_cka")
    for wrong in ((2, 0, 0), (0, 4, 0), (0, 0, 2 * TIME)):
        with pytest.raises(ValueError, match="0 to"):
            record.explain(*wrong)


def test_blocks_change_nothing(make_model, text, monkeypatch):
    model = make_model()
    whole = record_memories(model, None, text)
    sizes = {
        (slots, "NUM_SCORES"): 7 * 4 * TIME,
        (expectation, "QUERY_BLOCK"): 7,
        (expectation, "VOCABULARY_BLOCK"): 9,
        (trace, "LOGIT_BLOCK"): 5,
        (trace, "CANDIDATE_BYTES"): 100_000,
    }
    for (module, name), size in sizes.items():
        monkeypatch.setattr(module, name, size)
    blocks = record_memories(model, None, text)
    for name, tensor in whole.tensors.items():
        if "index" not in name:
            torch.testing.assert_close(blocks.tensors[name], tensor, equal_nan=True, rtol=1e-3, atol=1e-5)


def test_bfloat16_and_training_mode(make_model, text):
    model = make_model().bfloat16().train()
    record = record_memories(model, None, text)
    assert model.training and record.tensors["contextual.keys"].dtype == torch.float32
    assert record.self_check["answer_max"] < 0.05
    exact = record_memories(model.float().eval(), None, text)
    difference = record.measure("error") - exact.measure("error")
    assert difference.abs().nanmean() < 0.02


def test_remote_code(make_model, text, tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path)
    remote_class = get_class_from_dynamic_module("modeling_mosaic.MosaicForCausalLM", str(tmp_path))
    remote = remote_class.from_pretrained(tmp_path)
    assert type(remote).__module__.startswith("transformers_modules")
    records = [record_memories(either, None, text) for either in (model, remote)]
    for name, tensor in records[0].tensors.items():
        torch.testing.assert_close(records[1].tensors[name], tensor, equal_nan=True, msg=name)
    assert records[0].model_fingerprint == records[1].model_fingerprint
    with MemoryEdit().delete(pairs=[3]).applied(remote), torch.no_grad():
        edited = remote(torch.tensor([text])).logits
    with MemoryEdit().delete(pairs=[3]).applied(model), torch.no_grad():
        torch.testing.assert_close(model(torch.tensor([text])).logits, edited)


def test_file(make_model, text, tmp_path):
    record = record_memories(make_model(), None, text)
    path = tmp_path / "text.safetensors"
    record.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["text.safetensors"]
    again = MemoryRecord.load(path)
    assert set(again.tensors) == set(record.tensors)
    for name, tensor in record.tensors.items():
        torch.testing.assert_close(again.tensors[name], tensor, equal_nan=True, rtol=0, atol=0)
    for name in (
        "tokens",
        "offsets",
        "text",
        "config",
        "self_check",
        "model_fingerprint",
        "vocabulary",
        "sources",
    ):
        assert getattr(again, name) == getattr(record, name)
    assert str(again.explain(1, 2, 20)) == str(record.explain(1, 2, 20))
    again.save(path)
    complete = path.read_bytes()
    for size in (0, 4, 100, len(complete) - 1):
        path.write_bytes(complete[:size])
        with pytest.raises(ValueError, match="text.safetensors: not a record"):
            MemoryRecord.load(path)
    for metadata, message in (
        (None, "another safetensors file"),
        ({"format": "memory-mosaics-record", "version": "0"}, "version 0, not 1"),
        ({"format": "memory-mosaics-record", "version": "1", "tokens": "[]"}, "a damaged record"),
    ):
        save_file({"x": torch.zeros(1)}, path, metadata)
        with pytest.raises(ValueError, match=message):
            MemoryRecord.load(path)
    with pytest.raises(OSError):
        MemoryRecord.load(tmp_path / "missing.safetensors")


@pytest.fixture
def tokenizer():
    """Bytes, and a word: characters fall into several tokens."""
    backend = ByteLevelBPETokenizer()
    backend.train_from_iterator(["cat cat"], 300, special_tokens=["<|endoftext|>"])
    return PreTrainedTokenizerFast(tokenizer_object=backend._tokenizer, eos_token="<|endoftext|>")


def test_texts(make_model, tokenizer):
    model = make_model(vocab_size=320)
    text = "A cat 😀 sat — <|endoftext|>כלב</script>"
    record = record_memories(model, tokenizer, text)
    assert record.text == text and len(record.tokens) == len(record.tensors["token_ids"])
    for (start, end), token in zip(record.offsets, record.tokens, strict=True):
        assert token == text[start:end] or token.endswith("\N{REPLACEMENT CHARACTER}")
    again = record_memories(model, tokenizer, record.tensors["token_ids"].tolist())
    assert (again.text, again.offsets, again.tokens) == (text, record.offsets, record.tokens)
    pair = record.explain(0, 0, len(record.tokens) - 2).pairs[0]
    assert (
        pair.after.endswith(text[: record.offsets[pair.pair][1]][-5:])
        and pair.came == record.tokens[pair.pair + 1]
    )
    # A character that is cut off at the end.
    cut = record_memories(model, tokenizer, tokenizer("😀")["input_ids"][:2])
    assert cut.num_tokens == 2 and "\N{REPLACEMENT CHARACTER}" in cut.text
    one = record_memories(model, tokenizer, "A")
    assert one.num_tokens == 1 and one.tensors["contextual.values"].shape == (2, 4, 0, 8)
    assert all(one.measure(name).isnan().all() for name in ("error", "age", "ablation_cost"))
    assert one.explain(0, 0, 0).pairs == [] and "too short" in one.sentence(0, 0)
    two = record_memories(model, tokenizer, "Ab")
    assert two.measure("age")[:, :, 1].eq(1).all() and two.explain(0, 0, 1).pairs[0].weight == 1


def test_words(make_model, text):
    record = record_memories(make_model(), None, text)
    assert "nats a token" in record.sentence(0, 1)
    explanation = str(record.explain(1, 2, 20))
    first = record.explain(1, 2, 20).pairs[0]
    assert f"[{text[first.pair]}]» came «[{text[first.pair + 1]}]»" in explanation
    assert "of the answer" in explanation and json.dumps(record.config)


def test_what_cannot_be_recorded_is_refused(make_model, make_config):
    model = make_model()
    for text, message in (([], "1 to 8 tokens .*, not 0"), ([1] * 9, "1 to 8 tokens .*, not 9")):
        with pytest.raises(ValueError, match=message):
            record_memories(model, None, text, max_tokens=8)
    with pytest.raises(ValueError, match="tokenizer must be given"):
        record_memories(model, None, "text")
    with pytest.raises(ValueError, match="MosaicForCausalLM.*unlike MosaicModel"):
        record_memories(MosaicModel(make_config()), None, [1])
    other = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=9))
    with pytest.raises(ValueError, match="must be a Memory Mosaic"):
        record_memories(other, None, [1])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_memory_is_bounded():
    """A record takes less memory above the model than one layer's weights would."""
    code = """
import resource, torch
from modeling_mosaic import MosaicConfig, MosaicForCausalLM, record_memories
torch.manual_seed(0)
config = MosaicConfig(vocab_size=2000, hidden_size=128, num_hidden_layers=2, num_attention_heads=8)
model = MosaicForCausalLM(config).eval()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
record_memories(model, None, torch.randint(2000, (64,)), ablate=False)
before = peak()
record_memories(model, None, torch.randint(2000, (4096,)), ablate=False)
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kibibytes = int(done.stdout)
    assert kibibytes < 8 * 4096**2 * 4 / 1024


def test_examples_of_the_docs(run_examples, capsys):
    names = run_examples("docs/inspector.md", "## Record a text")
    assert "of the answer" in capsys.readouterr().out
    run_examples("docs/inspector.md", "## Persistent slots")
    assert "3 texts" in capsys.readouterr().out
    run_examples("docs/inspector.md", "## Change memories while the model runs", **names)
    assert "Once upon a time there was a" in capsys.readouterr().out
