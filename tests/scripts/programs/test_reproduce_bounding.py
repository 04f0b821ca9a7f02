import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from mosaic_lab.bounding.facts import plant_facts, recall_of_facts
from mosaic_lab.bounding.predictions import bounded_logits, window_logits
from mosaic_lab.bounding.report import redraw
from mosaic_lab.core.work import load_gathered
from mosaic_lab.evaluation.losses import token_logits
from mosaic_lab.programs import reproduce
from mosaic_lab.regbench.automata import SEPARATOR, VOCAB_SIZE
from mosaic_lab.regbench.data import draw_automata, draw_long_rows

SMALL = "bounding/small"
DATA = ("--num_stories", "100", "--validation_fraction", "0.1", "--block_size", "64", "--device", "cpu")
SIZES = "--context 80 --bounds 8 32 --num_rows 2 --num_facts 2 --fact_size 6 --lead 9 --distances 30".split()


@pytest.fixture(scope="module")
def gpt2(trained, tmp_path_factory):
    """An untrained GPT-2 with 32 positions and the tokenizer of the trained mosaic."""
    sizes = {"vocab_size": 320, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}
    folder = tmp_path_factory.mktemp("gpt2") / "gpt2"
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **sizes)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(trained).save_pretrained(folder)
    return folder


def run(models, folder, *options):
    reproduce.main(
        [SMALL, "--models", *map(str, models), "--output_dir", str(folder), *DATA, *SIZES, *options]
    )


def test_what_a_run_leaves(trained, gpt2, tmp_path, capsys):
    options = ("--policies", "recent", "lru", "--distances", "10", "30")
    run([trained, gpt2], tmp_path / "out", *options)
    names = {path.name for path in (tmp_path / "out").iterdir()} - {"lock"}
    assert names == {trained.name, "gpt2", "bounds.png", "figures.npz", "results.json", "results.md"}
    results = {r["name"]: r for r in json.loads((tmp_path / "out" / "results.json").read_text())}
    memories = ["whole", "recent-8", "recent-32", "lru-8", "lru-32"]
    expected = [f"{trained.name}/{memory}" for memory in memories] + ["gpt2/window-8", "gpt2/window-32"]
    assert list(results) == expected
    for memory in memories[1:]:
        result = results[f"{trained.name}/{memory}"]
        difference = result["value"][0] - results[f"{trained.name}/whole"]["value"][0]
        assert result["cost"] == [pytest.approx(difference, abs=1e-5)] and len(result["recall"]) == 2
    table = (tmp_path / "out" / "results.md").read_text()
    (tmp_path / "out" / "results.md").unlink()
    assert redraw(tmp_path / "out").startswith(table)
    assert "out/results.md" not in capsys.readouterr().err


def test_wrong_options(trained, gpt2, tmp_path, read_error):
    out = str(tmp_path / "out")
    arguments = [SMALL, "--models", str(gpt2), "--output_dir", out, *DATA, *SIZES]
    assert "context must be more than twice the largest bound, 32" in read_error(
        reproduce.main, *arguments, "--context", "64"
    )
    assert "policies must be some of recent, lru" in read_error(
        reproduce.main, *arguments, "--policies", "oldest"
    )
    assert "bounds must be at least 1, not 0" in read_error(reproduce.main, *arguments, "--bounds", "0")
    assert "lead and distances must fit into the context of 80, not 109" in read_error(
        reproduce.main, *arguments, "--distances", "100"
    )
    assert "has no positions for a window of 33 tokens" in read_error(
        reproduce.main, *arguments, "--bounds", "33"
    )


def test_windows_see_what_they_should(gpt2):
    """Each token is predicted from the 24 to 31 tokens before it, read with positions from 0, or from all."""
    model = AutoModelForCausalLM.from_pretrained(gpt2).eval()
    ids_BT = np.random.default_rng(0).integers(0, 320, (2, 75))
    logits_BTV = window_logits(model, ids_BT, window=32, batch_size=3)
    torch.testing.assert_close(logits_BTV[:, :31], token_logits(model, ids_BT[:, :32]))
    for place in range(31, 74):
        starts = range(place - 30, place - 22)
        expected = [
            token_logits(model, ids_BT[:, start : place + 2])[:, -1] for start in starts if start >= 0
        ]
        distance = (torch.stack(expected) - logits_BTV[:, place]).abs().amax((1, 2)).min()
        assert distance < 1e-4, place


def test_facts_come_twice(trained):
    tokenizer = AutoTokenizer.from_pretrained(trained)
    rows_NT = np.arange(200).reshape(2, 100)
    ids_NT = plant_facts(tokenizer, rows_NT, lead=9, distance=30, num_facts=3, size=6, seed=0)
    assert ids_NT.shape == (6, 52)
    first_NT, between_NT, again_NT = ids_NT[:, 10:16], ids_NT[:, 16:46], ids_NT[:, 46:]
    assert (first_NT[:3] == again_NT[:3]).all() and (first_NT[3:] != again_NT[3:]).any(1).all()
    assert (again_NT[:3] == again_NT[3:]).all() and (np.diff(between_NT) == 1).all()
    losses_NT = np.zeros((6, 51))
    losses_NT[3:, -3:] = 2
    assert recall_of_facts(losses_NT, 6).tolist() == [2, 2, 2]


# Windows shorter than the rows, so that bounds count.
SHORT = {"short_memory_size": 9, "long_memory_delay": 5, "long_memory_delay_range": (5, 5)}
LEARNERS = {
    "mosaic": {"model_type": "mosaic", "persistent_memory_size": 8},
    "v2": {"model_type": "mosaic_v2", **SHORT},
    "window": {"model_type": "mosaic_v2", "use_long_memory": False},
    "gpt2": {"model_type": "gpt2", "n_positions": 32},
}


@pytest.fixture(scope="module")
def learners(tmp_path_factory):
    """Untrained models with RegBench's vocabulary."""
    folder = tmp_path_factory.mktemp("learners")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": VOCAB_SIZE}
    for name, fields in LEARNERS.items():
        torch.manual_seed(0)
        config = AutoConfig.for_model(**sizes, **fields)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / name)
    return folder


@pytest.mark.parametrize("kind", ["mosaic", "v2"])
def test_strings_are_measured_as_their_automata_have_it(learners, tmp_path, kind):
    """The measures at a bound, against those of the automaton's own states, position by position."""
    sizes = (
        "--context 80 --bounds 8 32 --num_rows 3 --batch_size 2 --max_string_length 4 --device cpu".split()
    )
    models = ["--models", str(learners / kind), str(learners / "gpt2"), "--policies", "lru"]
    out = tmp_path / "out"
    reproduce.main(["bounding/regbench", *models, "--output_dir", str(out), *sizes])
    runs = {result["name"]: (result, arrays) for result, arrays in load_gathered(out)}
    mine = [f"{kind}/whole", f"{kind}/lru-8", f"{kind}/lru-32"]
    assert list(runs) == [*mine, "gpt2/window-8", "gpt2/window-32"]
    ids_NT, distributions_NTV = draw_long_rows(3, 80, 4, seed=0)
    model = AutoModelForCausalLM.from_pretrained(learners / kind).eval()
    logits_NTV = bounded_logits(model, ids_NT, max_pairs=8, policy="lru", chunk_size=4)
    distances, illegal = [], []
    for automaton, ids_T, logits_TV, shown_TV in zip(
        draw_automata(0, 3), ids_NT, logits_NTV, distributions_NTV, strict=True
    ):
        state = 0
        for place, symbol in enumerate(ids_T[:-1]):
            state = 0 if symbol == SEPARATOR else automaton.transitions[state][symbol]
            legal = set(automaton.transitions[state])
            assert set(np.flatnonzero(shown_TV[place])) == legal
            probabilities = logits_TV[place].softmax(-1)
            expected = torch.zeros(VOCAB_SIZE)
            expected[list(legal)] = 1 / len(legal)
            distances.append(float((probabilities - expected).abs().sum() / 2))
            illegal.append(int(probabilities.argmax()) not in legal)
    _, arrays = runs[f"{kind}/lru-8"]
    assert not np.allclose(arrays["value0"], runs[f"{kind}/whole"][1]["value0"], atol=1e-5)
    for name, values in {"value0": distances, "value1": illegal}.items():
        values_NT = np.array(values, dtype=float).reshape(3, 79)
        expected_NS = np.stack([values_NT[:, :64].mean(1), values_NT[:, 64:].mean(1)], 1)
        np.testing.assert_allclose(arrays[name], expected_NS, atol=1e-5)
    result = runs["gpt2/window-8"][0]
    assert result["measures"] == ["total variation distance", "share of illegal symbols"]
    assert "Planted" not in (out / "results.md").read_text()


def test_models_whose_lines_would_be_the_same(learners, tmp_path, read_error):
    shutil.copytree(learners / "mosaic", tmp_path / "again")
    models = ["--models", str(learners / "mosaic"), str(tmp_path / "again")]
    said = read_error(reproduce.main, "bounding/regbench", *models, "--output_dir", str(tmp_path / "out"))
    assert "mosaic, again: at most one of each kind and depth" in said and not (tmp_path / "out").exists()
    models = ["--models", str(learners / "window")]
    said = read_error(reproduce.main, "bounding/regbench", *models, "--output_dir", str(tmp_path / "out"))
    assert "model window: use_long_memory is False" in said and not (tmp_path / "out").exists()
