"""The parts of an inspection against slow computations, and what a run of all of it leaves."""

import json
import shutil

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from modeling_mosaic import (
    MemoryEdit,
    MosaicConfig,
    MosaicForCausalLM,
    MosaicV2Config,
    MosaicV2ForCausalLM,
    record_memories,
)
from modeling_mosaic.inspector.pairs import UnitKind
from mosaic_lab.inspection import copying, report
from mosaic_lab.inspection.heads import BINS, Heads, first_layer_auc_of_gpt2, heads_of_gpt2, heads_of_record
from mosaic_lab.inspection.units import classify, inspect_units, known_sequences
from mosaic_lab.programs import reproduce

TIME = 40


@pytest.fixture
def gpt2():
    torch.manual_seed(0)
    sizes = dict(n_embd=32, n_layer=2, n_head=4, vocab_size=61, n_positions=64, initializer_range=0.3)
    return GPT2LMHeadModel(GPT2Config(**sizes)).eval()


@pytest.fixture
def mosaic():
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, persistent_memory_size=20)
    return MosaicForCausalLM(MosaicConfig(vocab_size=61, bos_token_id=0, eos_token_id=0, **sizes)).eval()


@pytest.fixture
def ids():
    return torch.randint(30, (TIME,), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def test_heads_answer_as_the_model_does(gpt2, mosaic, ids):
    gpt2.set_attn_implementation("eager")
    attentions = gpt2(ids[None], output_attentions=True).attentions
    for heads, attention in zip(heads_of_gpt2(gpt2, ids), attentions, strict=True):
        # Query t of a memory is the head's query t - 1.
        expected = attention[0, :, :-1] @ heads.values_HtD
        torch.testing.assert_close(heads.answers()[:, 1:], expected)
    record = record_memories(mosaic, None, ids.tolist(), ablate=False)
    for layer, heads in enumerate(heads_of_record(record)):
        answers = torch.stack([record.answers(layer, unit) for unit in range(4)])
        torch.testing.assert_close(heads.answers(), answers)


@torch.no_grad()
def test_auc_of_gpt2(gpt2, ids):
    """The value that each token of the text would have in the next place, by running the model on it."""
    ids = ids[:12]
    heads = heads_of_gpt2(gpt2, ids)[0]
    found = first_layer_auc_of_gpt2(gpt2, ids, heads)
    answers, expected = heads.answers(), []
    tokens = ids.unique()
    for place in range(1, len(ids)):
        values = []
        for token in tokens:
            other = torch.cat([ids[:place], token[None]])
            values.append(heads_of_gpt2(gpt2, other)[0].values_HtD[:, place])
        for head in range(4):
            scores = [F.cosine_similarity(answers[head, place], value[head], dim=0) for value in values]
            counts = [int((ids == token).sum()) for token in tokens]
            mine = scores[tokens.tolist().index(int(ids[place]))]
            others = [number for number, token in enumerate(tokens) if token != ids[place]]
            below = sum(counts[number] for number in others if scores[number] < mine)
            expected.append(below / sum(counts[number] for number in others))
    torch.testing.assert_close(found, torch.tensor(expected).view(-1, 4).mean(0), rtol=0, atol=1e-5)


def test_retrieval_by_pairs():
    """Values that follow from a unit's own keys are retrieved by these, and the more pairs the better."""
    torch.manual_seed(0)
    keys = 8 * F.normalize(torch.randn(2, 300, 3), dim=-1)
    found = Heads(keys, keys, keys.clone(), 2 * [UnitKind("unit")]).retrieve()
    assert found.shape == (len(BINS), 4, 2)
    own = torch.stack([found[:, unit, unit] for unit in range(2)], 1)
    across = torch.stack([found[:, 1 - unit, unit] for unit in range(2)], 1)
    assert (own[1:] > 0.8).all() and (own[1:] > across[1:] + 0.5).all()
    assert (own[:-1].mean(1) < own[1:].mean(1)).all()
    assert report.specialisation(found[-1].numpy()) == pytest.approx((own[-1] - across[-1]).numpy())


@torch.no_grad()
def test_copying_is_measured_and_what_is_forgotten_has_no_effect(gpt2, mosaic):
    rows = copying.repeat_segments(np.ones(30), 3, 20, 0)
    assert rows.shape == (3, 40) and rows[:, :20].equal(rows[:, 20:])
    for model in (gpt2, mosaic):
        found = copying.measure_copying(model, rows)
        losses = F.cross_entropy(model(rows).logits[:, :-1].transpose(1, 2), rows[:, 1:], reduction="none")
        places = np.linspace(22, 38, 8).astype(int)
        assert found["second"] == pytest.approx(losses[:, places].mean().item(), abs=1e-5)
        assert found["first"] == pytest.approx(losses[:, places - 20].mean().item(), abs=1e-5)
        assert found["forgotten"] != pytest.approx(found["second"], abs=1e-5)
    # A transformer's later tokens do not depend on the position that is hidden, but by what others noted.
    one_layer = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=4, vocab_size=61)).eval()
    changed = rows.clone()
    changed[:, 6] = 55
    place, pair = 30, 5
    both = [copying._forget_in_gpt2(one_layer, some, place, pair)[:, 7:] for some in (rows, changed)]
    torch.testing.assert_close(*both)
    assert (copying._losses(one_layer, rows) - copying._losses(one_layer, changed))[:, 7:].abs().max() > 1e-4
    with MemoryEdit().delete(pairs=[5]).applied(mosaic):
        expected = copying._losses(mosaic, rows)
    torch.testing.assert_close(copying._forget_in_mosaic(mosaic, rows, 30, 5), expected)


def test_classes_of_tokens():
    training = np.array([[1, 2, 3, 4, 5, 6], [7, 8, 9, 1, 2, 3]])
    known = known_sequences(training, 50)
    assert len(known) == 6
    row = np.array([[7, 8, 9, 1, 2, 8, 9, 1, 2, 3, 4, 5]])
    # Of the token after each: training has 7 8 9 1, 8 9 1 2, which comes twice and is familiar both times,
    # 9 1 2 3, 1 2 3 4 and 2 3 4 5; the row repeats 8 9 and 9 1.
    assert classify(row, known, 50).tolist() == [[-1, -1, 0, 0, 2, 1, 1, 0, 0, 0, 0, -1]]


def test_units(mosaic):
    rows = np.random.default_rng(0).integers(1, 30, (2, TIME))
    classes = np.random.default_rng(1).integers(0, 3, (2, TIME))
    found = inspect_units(mosaic, rows, classes, "")
    records = [record_memories(mosaic, None, row) for row in rows]
    for name in ("error", "next_token_auc", "ablation_cost", "peek_share"):
        expected = torch.stack([record.unit_measure(name) for record in records]).mean(0)
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6)
    assert found["class_tokens"].sum() == 2 * (TIME - 1) and found["retrieval"].shape == (2, 4, 6, 4)
    direct = sum(record.measure("direct_logit")[..., :-1].sum().item() for record in records)
    assert found["class_logit"][0].sum() == pytest.approx(direct, rel=1e-4)
    # Ablating one kind as a whole, summed over classes, is the change of the total loss.
    edit, total = MemoryEdit(), 0
    for record in records:
        edit = MemoryEdit()
        for layer in range(2):
            for unit in range(4):
                mean = record.tensors["persistent.mean_answer"][layer, unit]
                edit.ablate(layer=layer, unit=unit, answer=mean, memory="persistent")
        ids = record.tensors["token_ids"]
        with edit.applied(mosaic), torch.no_grad():
            losses = F.cross_entropy(mosaic(ids[None]).logits[0, :-1], ids[1:], reduction="sum")
        total += losses.item() - record.tensors["loss"].nansum().item()
    assert found["class_cost"][1].sum() == pytest.approx(total, rel=1e-3, abs=1e-3)
    shuffled = found["shuffled_auc"]
    assert shuffled.shape == (4,) and abs(shuffled - 0.5).max() < 0.15


@pytest.mark.slow
def test_what_an_inspection_leaves(trained, tmp_path, capsys):
    tokenizer = AutoTokenizer.from_pretrained(trained)
    sizes = dict(vocab_size=320, n_embd=32, n_layer=1, n_head=4, bos_token_id=0, eos_token_id=0)
    for name, positions in (("gpt2-1-seed0", 64), ("short", 32)):
        GPT2LMHeadModel(GPT2Config(**sizes, n_positions=positions)).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    v2 = MosaicV2Config(vocab_size=320, hidden_size=32, num_hidden_layers=1, num_attention_heads=4)
    MosaicV2ForCausalLM(v2).save_pretrained(tmp_path / "v2")
    tokenizer.save_pretrained(tmp_path / "v2")
    other = tmp_path / "other.txt"
    other.write_text("The tower is made of iron.\n" * 60)
    shutil.copytree(trained, tmp_path / "again")
    models = [trained, tmp_path / "again", tmp_path / "gpt2-1-seed0", tmp_path / "short", tmp_path / "v2"]
    data = ["--num_stories", "100", "--validation_fraction", "0.1", "--block_size", "64", "--device", "cpu"]
    options = ["--num_rows", "2", "--num_segments", "2", "--segment_size", "16", "--other_text", str(other)]
    folder = tmp_path / "inspection"
    command = [
        "inspection/small",
        "--models",
        *map(str, models),
        "--output_dir",
        str(folder),
        *data,
        *options,
    ]
    reproduce.main(command)
    printed = capsys.readouterr().out
    assert "short: has no positions for 64 tokens, left out" in printed
    assert "v2: its model_type is mosaic_v2, not mosaic or gpt2, left out" in printed
    names = {name for model in models[:3] for name in (model.name, f"{model.name}-untrained")}
    left = {path.name for path in folder.iterdir()} - {"lock"}
    assert left == names | {"results.md", "results.json", "figures.npz", "predictions.png"}
    results = {result["name"]: result for result in json.loads((folder / "results.json").read_text())}
    assert set(results) == names and results[trained.name]["losses"].keys() == {"stories", "other"}
    twin = results[f"{trained.name}-untrained"]
    assert twin["losses"]["stories"] > results[trained.name]["losses"]["stories"]
    # Equal models have different twins.
    assert results["again"]["losses"] == results[trained.name]["losses"]
    assert results["again-untrained"]["losses"] != twin["losses"]
    text = (folder / "results.md").read_text()
    assert text == report.redraw(folder).split("\nin ")[0] and text.count("Claim") == 5
    before = (folder / "results.json").read_bytes()
    reproduce.main(command)
    assert (folder / "results.json").read_bytes() == before
