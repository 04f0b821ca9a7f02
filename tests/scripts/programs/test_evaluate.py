"""`evaluate.py` as a user runs it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mosaic_lab.programs import evaluate, train
from mosaic_lab.training.corpus import load_stories
from mosaic_lab.training.options import DataArguments
from mosaic_lab.training.rows import pack_rows

# As the recipe in conftest.py has it.
DATA = ("--dataset", "stories", "--num_stories", "100", "--validation_fraction", "0.1", "--block_size", "64")
SHORT = (*DATA, "--num_segments", "6", "--segment_size", "12", "--max_new_tokens", "4", "--device", "cpu")


@pytest.fixture(scope="module")
def gpt2(recipe, tmp_path_factory):
    """A GPT-2 with the tokenizer of the recipe."""
    folder = tmp_path_factory.mktemp("gpt2")
    config = {
        "model_type": "gpt2",
        "vocab_size": 320,
        "n_embd": 32,
        "n_layer": 1,
        "n_head": 4,
        "n_positions": 200,
    }
    (folder / "config").mkdir()
    (folder / "config" / "model.json").write_text(json.dumps(config))
    model = ["--model", str(folder / "config" / "model.json")]
    train.main([str(recipe), *model, "--output_dir", str(folder / "gpt2"), "--save_strategy", "no"])
    return folder / "gpt2"


@pytest.fixture(scope="module")
def other_text(tmp_path_factory):
    path = tmp_path_factory.mktemp("news") / "news.txt"
    path.write_text("\n\n".join(f"Number {number} is not a story but a fact." for number in range(200)))
    return path


@pytest.fixture(scope="module")
def evaluated(trained, gpt2, other_text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    options = (*SHORT, "--other_text", str(other_text), "--output_dir", str(folder))
    evaluate.main([str(trained), str(gpt2), *options])
    return folder


def test_what_is_left(evaluated, trained, gpt2):
    names = "evaluation.json evaluation.md evaluation.npz positions.png prompts.html prompts.json prompts.md"
    assert sorted(path.name for path in evaluated.iterdir()) == names.split()
    results = json.loads((evaluated / "evaluation.json").read_text())
    assert list(results["architectures"]) == [trained.name, gpt2.name]
    assert [text["name"].split("/")[-1] for text in results["texts"]] == ["stories", "news.txt"]
    prompts = json.loads((evaluated / "prompts.json").read_text())
    assert all(len(records) == 24 for records in prompts.values())
    assert "| tokens behind | 1 to 50 | 51 to 63 |" in (evaluated / "evaluation.md").read_text()


def test_losses_are_the_models(evaluated, trained):
    """By document and by position, against the model's own loss on each document and row."""
    tokenizer = AutoTokenizer.from_pretrained(trained)
    model = AutoModelForCausalLM.from_pretrained(trained)
    data = DataArguments(num_stories=100, validation_fraction=0.1, block_size=64)
    _, stories = load_stories(data)
    total = count = 0
    end = [tokenizer.eos_token_id]
    for story in stories["text"]:
        ids = end + tokenizer(story)["input_ids"] + end
        for start in range(0, len(ids) - 1, 63):
            piece = torch.tensor([ids[start : start + 64]])
            with torch.no_grad():
                total += float(model(input_ids=piece, labels=piece).loss) * (piece.shape[1] - 1)
            count += piece.shape[1] - 1
    text = json.loads((evaluated / "evaluation.json").read_text())["texts"][0]
    assert text["num_tokens"] == count
    assert text["models"][trained.name]["loss"]["mean"] == pytest.approx(total / count, rel=1e-5)
    rows = torch.tensor(pack_rows(stories, tokenizer, 64)["input_ids"][:])
    with torch.no_grad():
        mean = float(model(input_ids=rows, labels=rows).loss)
    with np.load(evaluated / "evaluation.npz") as arrays:
        assert arrays[f"text0/{trained.name}"].mean() == pytest.approx(mean, rel=1e-5)


def test_differences_are_those_of_the_means(evaluated, trained, gpt2):
    for text in json.loads((evaluated / "evaluation.json").read_text())["texts"]:
        means = [text["models"][name]["loss"]["mean"] for name in (trained.name, gpt2.name)]
        (difference,) = text["differences"].values()
        assert difference["mean"] == pytest.approx(means[1] - means[0], abs=1e-6)
        # Pairing by document makes it more certain than two independent samples would.
        losses = [text["models"][name]["loss"] for name in (trained.name, gpt2.name)]
        widths = [loss["high"] - loss["low"] for loss in losses]
        assert difference["high"] - difference["low"] < np.hypot(*widths)
        for stretch in text["stretches"]:
            ours, theirs = (stretch["models"][name]["mean"] for name in (trained.name, gpt2.name))
            (record,) = stretch["differences"].values()
            assert record["mean"] == pytest.approx(theirs - ours, abs=1e-6)


def test_seeds_are_averaged(trained, recipe, tmp_path):
    """Two models of one architecture are not compared with each other but together with a third."""
    train.main([str(recipe), "--seed", "7", "--output_dir", str(tmp_path / "seed7")])
    options = (*DATA, "--num_segments", "0", "--max_new_tokens", "0", "--device", "cpu")
    evaluate.main([str(trained), str(tmp_path / "seed7"), *options, "--output_dir", str(tmp_path / "out")])
    results = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert results["texts"][0]["differences"] == {} and not results["induction"]
    assert len(results["texts"][0]["models"]) == 2
    assert not list((tmp_path / "out").glob("prompts*"))


@pytest.mark.parametrize(
    "options, message",
    [
        (["--other_text", "nowhere/at-all"], "nowhere/at-all: neither a file nor a dataset on the Hub"),
        (["--segment_size", "1"], "segment_size must be at least 2, not 1"),
        (["--temperature", "0"], "temperature must be above 0, not 0.0"),
        (["--validation_fraction", "0"], "no validation stories"),
        (["--block_size", "100000"], "do not fill one row of block_size 100000 tokens"),
        (["--dvice", "cpu"], "unrecognized arguments: --dvice"),
        (["--device", "nowhere"], "device nowhere"),
    ],
)
def test_wrong_options(options, message, trained, tmp_path, read_error):
    error = read_error(evaluate.main, trained, *SHORT, "--output_dir", tmp_path / "out", *options)
    assert message in error
    assert not (tmp_path / "out").exists()


def test_wrong_models(trained, gpt2, recipe, tmp_path, read_error):
    assert "named twice" in read_error(evaluate.main, trained, trained, *SHORT)
    message = read_error(evaluate.main, trained, gpt2, *SHORT, "--block_size", "201")
    assert "gpt2: its positions are fewer than the 201 that rows need" in message
    other = tmp_path / "other"
    train.main([str(recipe), "--train_tokenizer", "310", "--output_dir", str(other), "--max_steps", "1"])
    assert "different tokenizers" in read_error(evaluate.main, trained, other, *SHORT)
    assert "there is no such folder" in read_error(evaluate.main, Path("/nowhere"), *SHORT)
