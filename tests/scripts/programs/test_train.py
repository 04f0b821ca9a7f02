import json
import math
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from mosaic_lab.programs import train
from mosaic_lab.training import corpus
from mosaic_lab.training.options import DataArguments
from mosaic_lab.training.rows import collate_rows, pack_rows
from process_group import run_group

SCRIPTS = Path(__file__).parents[3] / "scripts"


def read_weights(folder):
    return load_file(folder / "model.safetensors")


def test_losses_of_a_run(trained):
    curve = json.loads((trained / "loss_curve.json").read_text())
    assert curve["train"]["step"] == [1, 2, 4, 6, 8, 10, 12]
    assert curve["validation"]["step"] == [6, 12]
    assert curve["tokens_per_step"] == 64 * 64
    assert curve["train"]["loss"][0] == pytest.approx(math.log(320), rel=0.05)
    assert curve["train"]["loss"][-1] < 0.9 * curve["train"]["loss"][0]
    assert 2 < curve["bigram_loss"] < math.log(320)


def test_folder_loads_with_the_auto_classes(trained):
    tokenizer = AutoTokenizer.from_pretrained(trained)
    model = AutoModelForCausalLM.from_pretrained(trained)
    assert len(tokenizer) == model.config.vocab_size == 320
    assert (
        model.config.eos_token_id
        == tokenizer.eos_token_id
        == tokenizer.convert_tokens_to_ids("<|endoftext|>")
    )
    assert model.config.max_position_embeddings == 64
    assert (trained / "loss_curve.png").read_bytes().startswith(b"\x89PNG")
    assert model.config.use_cache and AutoConfig.from_pretrained(trained / "checkpoint-6").use_cache
    left = {path.name for path in trained.rglob("*")}
    assert not left & {"saving", "training_args.bin", "_lock"}


def test_resumed_run_ends_with_the_same_weights(trained, recipe, tmp_path):
    shutil.copytree(trained / "checkpoint-6", tmp_path / "checkpoint-6")
    train.main([str(recipe), "--output_dir", str(tmp_path), "--resume_from_checkpoint"])
    resumed, straight = read_weights(tmp_path), read_weights(trained)
    assert resumed.keys() == straight.keys()
    for name, weight in straight.items():
        assert torch.equal(resumed[name], weight), name
    halfway = read_weights(trained / "checkpoint-6")
    assert not any(torch.equal(halfway[name], weight) for name, weight in straight.items())


def test_second_run_takes_the_tokens_of_the_first(trained, recipe, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("tokenised again")

    monkeypatch.setattr("mosaic_lab.training.rows.pack_batch", refuse)
    monkeypatch.setattr(corpus, "_tell", refuse)
    refuse.__name__ = "_tell"
    train.main([str(recipe), "--output_dir", str(tmp_path), "--max_steps", "1", "--save_strategy", "no"])
    assert json.loads((tmp_path / "results.json").read_text())["steps"] == 1


def test_continues_a_trained_model_with_its_tokenizer(trained, recipe, tmp_path):
    short = recipe.read_text().replace("train_tokenizer: 320", "")
    (tmp_path / "recipe.yaml").write_text(short)
    options = ["--model", str(trained), "--max_steps", "1", "--eval_strategy", "no", "--save_strategy", "no"]
    train.main([str(tmp_path / "recipe.yaml"), "--output_dir", str(tmp_path / "out"), *options])
    curve = json.loads((tmp_path / "out" / "loss_curve.json").read_text())
    before = json.loads((trained / "loss_curve.json").read_text())
    assert curve["train"]["loss"][0] == pytest.approx(before["train"]["loss"][-1], rel=0.1)


def test_new_tokenizer_for_a_trained_model_is_refused(trained, recipe, tmp_path, read_error):
    error = read_error(train.main, recipe, "--output_dir", tmp_path / "out", "--model", trained)
    assert f"train_tokenizer 320: for new models only; {trained} is neither" in error
    assert not list(tmp_path.iterdir())


def test_stories_are_apart_in_validation(recipe, tmp_path):
    """The loss of a model that learns nothing is that of the held-out rows, each story by itself."""
    config = json.loads(recipe.with_name("model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(config | {"logit_scale": 1}))
    options = ["--document_masking", "true", "--max_steps", "1", "--learning_rate", "0"]
    options += ["--model", str(tmp_path / "model.json"), "--output_dir", str(tmp_path / "out")]
    train.main([str(recipe), *options])
    curve = json.loads((tmp_path / "out" / "loss_curve.json").read_text())
    kinds = (AutoModelForCausalLM, AutoTokenizer)
    model, tokenizer = (kind.from_pretrained(tmp_path / "out") for kind in kinds)
    _, held_out = corpus.load_stories(DataArguments(num_stories=100, validation_fraction=0.1))
    rows = list(pack_rows(held_out, tokenizer, 64))
    apart, together = (
        model.eval()(**collate_rows(rows, end), use_cache=False).loss.item()
        for end in (tokenizer.eos_token_id, None)
    )
    assert curve["validation"]["loss"][-1] == pytest.approx(apart, rel=1e-5)
    assert apart != pytest.approx(together, rel=1e-4)


@pytest.mark.parametrize("model_type", ["bloom", "rwkv"])
def test_models_that_read_a_row_as_one_text_are_refused(recipe, tmp_path, read_error, model_type):
    config = tmp_path / "model.json"
    config.write_text(json.dumps({"model_type": model_type, "hidden_size": 32, "num_hidden_layers": 2}))
    options = ["--model", config, "--output_dir", tmp_path / "out", "--document_masking", "true"]
    error = read_error(train.main, recipe, *options)
    assert f"document_masking: a model of type {model_type} reads a row as one text" in error
    assert list(tmp_path.iterdir()) == [config]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "single_plot_stories (5) come first: train_sampling_strategy must be sequential, not random"),
        (
            ["--dataset", "tales.txt"],
            "single_plot_stories (5) are embedded ones: dataset must be stories",
        ),
    ],
)
def test_stories_whose_order_would_be_lost_are_refused(recipe, tmp_path, read_error, options, problem):
    error = read_error(
        train.main, recipe, "--output_dir", tmp_path / "out", "--single_plot_stories", 5, *options
    )
    assert problem in error
    assert not list(tmp_path.iterdir())


def test_program_trains_gpt2_on_a_folder(recipe, tmp_path):
    """The real program in a process of its own: GPT-2 by config, JSON lines and parquet, no validation."""
    stories = "\n".join(json.dumps({"tale": f"Once there were {i} dogs and a cat."}) for i in range(200))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tales.jsonl").write_text(stories)
    config = {
        "model_type": "gpt2",
        "vocab_size": 64,
        "n_embd": 16,
        "n_layer": 1,
        "n_head": 2,
        "n_positions": 32,
    }
    (tmp_path / "gpt2.json").write_text(json.dumps(config))
    options = f"""--dataset {tmp_path}/data --text_column tale --validation_fraction 0 --eval_strategy no
        --model {tmp_path}/gpt2.json --block_size 32 --max_steps 3 --output_dir {tmp_path}/out
        --save_strategy no"""
    result = subprocess.run(
        [sys.executable, SCRIPTS / "train.py", recipe, *options.split()],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "tokens/s" in result.stdout and "loss_curve.png" in result.stdout
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path / "out")).__name__ == "GPT2LMHeadModel"


def test_bad_data_leaves_nothing_behind(recipe, tmp_path, read_error):
    (tmp_path / "empty.txt").touch()
    out = tmp_path / "runs" / "out"
    for data, problem in (("empty.txt", "holds no story"), ("missing.jsonl", "cannot be read: No such file")):
        error = read_error(train.main, recipe, "--output_dir", out, "--dataset", tmp_path / data)
        assert error.startswith("train: error: ") and data in error and problem in error
    assert [path.name for path in tmp_path.iterdir()] == ["empty.txt"]


def test_output_folder_is_checked_before_any_work(recipe, tmp_path, read_error, monkeypatch):
    monkeypatch.setattr("mosaic_lab.training.run.load_rows", None)
    (tmp_path / "file").write_text("in the way")
    assert "file/out: cannot be written" in read_error(
        train.main, recipe, "--output_dir", tmp_path / "file" / "out"
    )
    assert "output_dir must name" in read_error(train.main, recipe)
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3" / "complete.json").write_text("{}")
    assert "checkpoint-3 of an earlier run" in read_error(train.main, recipe, "--output_dir", tmp_path)
    resume = ["--output_dir", tmp_path / "new", "--resume_from_checkpoint"]
    assert "no complete checkpoint in output_dir" in read_error(train.main, recipe, *resume)
    error = read_error(train.main, recipe, *resume, tmp_path / "file")
    assert "not the folder of a complete checkpoint" in error
    assert not (tmp_path / "new").exists()


def test_wrong_models_are_named(recipe, tmp_path, read_error):
    (tmp_path / "typo.json").write_text('{"model_type": "mosaic", "hiden_size": 32}')
    (tmp_path / "odd.json").write_text(
        '{"model_type": "mosaic", "hidden_size": 30, "num_attention_heads": 4}'
    )
    (tmp_path / "short.json").write_text(
        '{"model_type": "gpt2", "n_embd": 8, "n_head": 1, "n_positions": 63}'
    )
    out = tmp_path / "out"
    for name, problem in (
        ("typo.json", "hiden_size"),
        ("odd.json", "hidden_size (30)"),
        ("short.json", "63 positions are fewer than block_size 64"),
        ("none.json", "none.json"),
    ):
        error = read_error(train.main, recipe, "--output_dir", out, "--model", tmp_path / name)
        assert problem in error
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "regional", "tolerance"),
    [
        (["--bf16"], "false", 1e-2),
        (["--activation_checkpointing"], "false", 1e-6),
        (["--torch_compile"], "false", 1e-4),
        (["--torch_compile"], "true", 1e-4),
    ],
)
def test_options_of_the_trainer_give_the_same_losses(
    recipe, short_recipe, tmp_path, monkeypatch, options, regional, tolerance
):
    """Without dropout, whose masks a compiler draws in another way."""
    monkeypatch.setenv("ACCELERATE_DYNAMO_USE_REGIONAL_COMPILATION", regional)
    config = json.loads((recipe.parent / "model.json").read_text())
    still = tmp_path / "model.json"
    still.write_text(json.dumps({**config, "attention_dropout": 0.0, "hidden_dropout": 0.0}))
    losses = []
    for folder, added in ((tmp_path / "plain", []), (tmp_path / "other", options)):
        short = ["--output_dir", str(folder), "--max_steps", "3", "--logging_steps", "1"]
        train.main([str(short_recipe), "--model", str(still), *short, "--save_strategy", "no", *added])
        losses.append(json.loads((folder / "loss_curve.json").read_text())["train"]["loss"])
    assert len(losses[0]) == 3 and losses[1] == pytest.approx(losses[0], rel=tolerance)


def read_tensorboard(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder)).Reload()
    return [event.step for event in events.Scalars("train/loss")]


def read_trackio(folder):
    with sqlite3.connect(next(folder.glob("*.db"))) as database:
        rows = [json.loads(row) for (row,) in database.execute("select metrics from metrics")]
    return sorted(row["train/global_step"] for row in rows if "train/loss" in row)


@pytest.mark.parametrize("tracker", ["tensorboard", "trackio"])
def test_trackers_see_the_losses(short_recipe, tmp_path, tracker):
    """In a process of its own: they leave threads behind."""
    pytest.importorskip(tracker)
    options = ["--output_dir", tmp_path / "out", "--max_steps", "4", "--save_strategy", "no"]
    places = {"TENSORBOARD_LOGGING_DIR": tmp_path / "seen", "TRACKIO_DIR": tmp_path / "seen"}
    argv = [short_recipe, *options, "--report_to", tracker]
    assert run_group(argv, tmp_path / "log", environment=places) == [0], (tmp_path / "log").read_text()
    assert {"tensorboard": read_tensorboard, "trackio": read_trackio}[tracker](tmp_path / "seen") == [1, 2, 4]
