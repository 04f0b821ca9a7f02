"""What the lines of a training say."""

import json
import math

import pytest
import torch
from datasets import Dataset
from transformers import AutoConfig, AutoModelForCausalLM, TrainerCallback
from transformers.trainer_utils import TrainOutput

from mosaic_lab.programs import train as train_program
from mosaic_lab.training import watched
from mosaic_lab.training.options import TrainingArguments
from mosaic_lab.training.rows import bytes_per_token, collate_rows, pack_rows
from mosaic_lab.training.speed import count_operations
from mosaic_lab.training.tokenizer import load_gpt2_tokenizer, load_tokenizer
from mosaic_lab.training.watched import WatchedTrainer

TEXTS = [f"Élan {number} drank {number * 7} cups of café au lait – twice." for number in range(40)]
PEAK = 1e12


def build(vocab_size=256):
    shape = {"n_layer": 1, "n_embd": 16, "n_head": 2, "n_positions": 16, "vocab_size": vocab_size}
    return AutoModelForCausalLM.from_config(
        AutoConfig.for_model("gpt2", bos_token_id=0, eos_token_id=0, **shape)
    )


class Clock:
    """Time goes by in training steps (2 s), evaluations (100 s) and checkpoints (1,000 s) only."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(watched.time, "perf_counter", lambda: self.now)

    def spend(self, monkeypatch, name, seconds):
        method = getattr(WatchedTrainer, name)

        def spent(*args, **kwargs):
            self.now += seconds
            return method(*args, **kwargs)

        monkeypatch.setattr(WatchedTrainer, name, spent)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock(monkeypatch)
    for name, seconds in (("training_step", 1), ("evaluate", 100), ("_save_checkpoint", 1000)):
        clock.spend(monkeypatch, name, seconds)
    return clock


class Collect(TrainerCallback):
    def __init__(self):
        self.lines = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.lines.append(logs)


def train(tmp_path, rows, checkpoint=None):
    collect, model = Collect(), build()
    arguments = TrainingArguments(
        str(tmp_path), use_cpu=True, per_device_train_batch_size=2, gradient_accumulation_steps=2,
        max_steps=6, logging_steps=2, eval_strategy="steps", eval_steps=3, save_steps=5, report_to="none",
        disable_tqdm=False,
    )  # fmt: skip
    trainer = WatchedTrainer(model, arguments, train_dataset=rows, eval_dataset=rows, callbacks=[collect])
    assert isinstance(trainer.train(resume_from_checkpoint=checkpoint), TrainOutput)
    return trainer, [line for line in collect.lines if "loss" in line]


def test_speed_is_that_of_training_alone(tmp_path, clock, monkeypatch, capsys):
    monkeypatch.setattr(watched, "_find_peak", lambda device, dtype: PEAK)
    rows = [{"input_ids": [row] * 16, "labels": [row] * 16} for row in range(8)]
    trainer, lines = train(tmp_path, rows)
    # Four rows of 16 tokens a step of two seconds, whatever happens between steps.
    assert [line["tokens_per_second"] for line in lines] == [32, 32, 32]
    operations = 2 * count_operations(build(), 16)
    assert [line["mfu"] for line in lines] == pytest.approx([operations / PEAK] * 3)
    # Evaluations and checkpoints will come again.
    assert [line["minutes_left"] * 60 for line in lines] == pytest.approx([8, 2 * (100 + 3 * 2) / 3, 0])
    assert trainer.state.total_flos == 6 * 2 * operations
    assert "32 tokens/s, MFU 0%" in capsys.readouterr().err


def test_padding_does_not_count_and_unknown_peaks_are_left_out(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(watched, "_find_peak", lambda device, dtype: None)
    mask = [1] * 12 + [0] * 4
    rows = [{"input_ids": [row] * 16, "labels": [row] * 16, "attention_mask": mask} for row in range(8)]
    _, lines = train(tmp_path, rows)
    assert [line["tokens_per_second"] for line in lines] == [24, 24, 24]
    assert not any("mfu" in line for line in lines)


def test_resumed_training_counts_the_time_before(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(watched, "_find_peak", lambda device, dtype: None)
    rows = [{"input_ids": [row] * 16, "labels": [row] * 16} for row in range(8)]
    whole = 6 * 2 + 2 * 100 + 2 * 1000
    trainer, _ = train(tmp_path, rows)
    assert trainer.seconds == whole
    checkpoint = tmp_path / "checkpoint-5"
    assert train(tmp_path, rows, checkpoint)[0].seconds == whole
    # Trained anew, not on.
    trainer.train()
    assert trainer.seconds == whole
    # As transformers' own Trainer leaves it.
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    del state["stateful_callbacks"]["TrainingTime"]
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    assert train(tmp_path, rows, checkpoint)[0].seconds == 2 + 100 + 1000


@pytest.mark.parametrize("size", [None, 257, 300])
def test_uniform_model_needs_as_many_bits_as_its_tokens(tmp_path, size):
    """Of the text that follows the first token of each row; ends of texts are no bytes."""
    tokenizer, _ = load_tokenizer(None, size, [TEXTS]) if size else load_gpt2_tokenizer()
    rows = pack_rows(Dataset.from_dict({"text": TEXTS}), tokenizer, 16)
    model = build(len(tokenizer))
    torch.nn.init.zeros_(model.lm_head.weight)
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none", disable_tqdm=True)
    trainer = WatchedTrainer(
        model,
        arguments,
        data_collator=collate_rows,
        eval_dataset=rows,
        bytes_per_token=bytes_per_token(rows, tokenizer),
    )
    metrics = trainer.evaluate()
    num_bytes = len("".join(TEXTS).encode())
    if size == 257:
        # Each token is a byte, or the end of a text.
        ends = sum(token == tokenizer.eos_token_id for row in rows["input_ids"] for token in row[1:])
        num_bytes = 15 * len(rows) - ends
    else:
        stream = [token for row in rows["input_ids"] for token in row]
        text = tokenizer.decode(stream).replace("<|endoftext|>", "")
        assert "".join(TEXTS).startswith(text)
        # Those at the beginnings of rows are not predicted.
        first = tokenizer.convert_ids_to_tokens(stream[::16])
        num_bytes = len(text.encode()) - sum(len(token) for token in first if token != "<|endoftext|>")
    expected = math.log2(len(tokenizer)) * 15 * len(rows) / num_bytes
    assert metrics["eval_loss"] == pytest.approx(math.log(len(tokenizer)), rel=1e-6)
    assert metrics["eval_bits_per_byte"] == pytest.approx(expected, rel=1e-6)
    assert trainer.state.log_history[-1]["eval_bits_per_byte"] == metrics["eval_bits_per_byte"]


def test_bits_per_byte_are_reported(trained):
    curve = json.loads((trained / "loss_curve.json").read_text())["validation"]
    history = json.loads((trained / "trainer_state.json").read_text())["log_history"]
    logged = {line["step"]: line["eval_bits_per_byte"] for line in history if "eval_loss" in line}
    assert list(logged) == curve["step"] and list(logged.values()) == curve["bits_per_byte"]


@pytest.mark.parametrize("option", [("dataloader_drop_last", "true"), ("label_smoothing_factor", "0.1")])
def test_bits_per_byte_are_left_out(short_recipe, tmp_path, option):
    """It is not known which rows are evaluated, or the loss is not one of bits."""
    argv = [str(short_recipe), "--max_steps", "1", "--save_strategy", "no", "--output_dir", str(tmp_path)]
    train_program.main([*argv, f"--{option[0]}", option[1]])
    curve = json.loads((tmp_path / "loss_curve.json").read_text())["validation"]
    assert len(curve["loss"]) == 1 and "bits_per_byte" not in curve
