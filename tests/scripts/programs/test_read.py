"""`read`: files into one memory, in batches that are never read twice, and what `generate` makes of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from modeling_mosaic import MosaicMemory, MosaicV2Config, MosaicV2ForCausalLM
from modeling_mosaic import read as read_texts
from mosaic_lab.memories import reading
from mosaic_lab.programs import generate, read

STORIES = ["Once upon a time there was a dog.", "The sun was warm.", "A girl found a red ball."]
SCRIPT = Path(__file__).parents[3] / "scripts" / "read.py"


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Two files of a text each, and a table of two texts, in the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("tom.txt").write_text(STORIES[0])
    Path("anna.md").write_text(STORIES[1])
    Path("more.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in STORIES[1:]))
    return ["tom.txt", "anna.md", "more.jsonl"]


def save_changed(trained, change, folder):
    """The model with other matrices."""
    model = AutoModelForCausalLM.from_pretrained(trained)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(change(parameter) if parameter.ndim > 1 else parameter)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(trained).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def second_model(trained, tmp_path):
    """The folder of a model of the second kind, with the same tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(trained)
    config = MosaicV2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        short_memory_size=8,
        long_memory_delay=4,
        long_memory_delay_range=(4, 4),
        eos_token_id=tokenizer.eos_token_id,
    )
    MosaicV2ForCausalLM(config).save_pretrained(tmp_path / "second")
    tokenizer.save_pretrained(tmp_path / "second")
    return tmp_path / "second"


def read_at_once(folder):
    """What reading all texts at once gives."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    names = ["tom.txt", "anna.md", "more.jsonl:0", "more.jsonl:1"]
    texts = dict(zip(names, [*STORIES[:2], *STORIES[1:]], strict=True))
    return read_texts(model, AutoTokenizer.from_pretrained(folder), texts)


@pytest.fixture
def expected(trained):
    return read_at_once(trained)


def assert_equal(memory, expected):
    assert memory.sources == expected.sources and torch.equal(memory.tokens, expected.tokens)
    for name in ("keys", "values"):
        torch.testing.assert_close(getattr(memory, name), getattr(expected, name), rtol=0, atol=1e-5)
    for found, state in zip(memory.window, expected.window, strict=True):
        torch.testing.assert_close(found, state, rtol=0, atol=1e-5)
    for found, state in zip(memory.states, expected.states, strict=True):
        torch.testing.assert_close(found, state, rtol=0, atol=1e-4)


def run(trained, files, *options):
    read.main([str(trained), *files, "--output", "all.safetensors", "--device", "cpu", *options])


@pytest.mark.parametrize("reader", ["trained", "second_model"])
def test_files_become_one_memory_that_generate_continues(request, reader, files, capsys):
    folder = request.getfixturevalue(reader)
    before = set(os.listdir())
    run(folder, files, "--batch_size", "3")
    memory = MosaicMemory.load("all.safetensors")
    assert_equal(memory, read_at_once(folder))
    assert repr(memory) in capsys.readouterr().out
    assert set(os.listdir()) == before | {"all.safetensors"}
    # What it says depends on all that it has read.
    lively = save_changed(folder, torch.randn_like, "lively")
    read.main([lively, *files, "--output", "lively.safetensors", "--device", "cpu"])
    for options in ([], ["--num_beams", "2"], ["--num_return_sequences", "2"]):
        argv = [lively, " The dog", "--max_new_tokens", "12", "--device", "cpu", *options]
        capsys.readouterr()
        generate.main([*argv, "--memory", "lively.safetensors"])
        remembered = capsys.readouterr().out
        generate.main(argv)
        assert remembered.startswith(" The dog") and remembered != capsys.readouterr().out


def test_what_was_read_is_not_read_again(trained, files, expected, monkeypatch):
    batches, read_batch = [], reading.read_batch

    def noted(run, *arguments):
        batches.append(run.name)
        return read_batch(run, *arguments)

    def interrupted(run, *arguments):
        if len(batches) == 2:
            raise KeyboardInterrupt
        return noted(run, *arguments)

    monkeypatch.setattr(reading, "read_batch", interrupted)
    with pytest.raises(SystemExit) as stop:
        run(trained, files, "--batch_size", "1")
    assert stop.value.code == 130 and not Path("all.safetensors").exists()
    monkeypatch.setattr(reading, "read_batch", noted)
    run(trained, files, "--batch_size", "1")
    assert batches == ["000000", "000001", "000002", "000003"]
    assert_equal(MosaicMemory.load("all.safetensors"), expected)


@pytest.mark.slow
def test_processes_share_the_files(trained, files, expected):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command = [*launcher, SCRIPT, trained, *files]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    options = ["--output", "all.safetensors", "--batch_size", "1", "--device", "cpu"]
    done = subprocess.run([*command, *options], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_equal(MosaicMemory.load("all.safetensors"), expected)
    assert done.stdout.count("in all.safetensors") == 1


def test_wrong_input_is_named(trained, second_model, files, tmp_path, read_error):
    output = ("--output", "all.safetensors")
    assert "none.txt: cannot be read" in read_error(read.main, trained, "none.txt", *output)
    assert "tom.txt is named twice" in read_error(read.main, trained, "tom.txt", "tom.txt", *output)
    Path("empty.txt").write_text(" \n")
    assert "empty.txt: there is no text" in read_error(read.main, trained, "empty.txt", *output)
    Path("latin.txt").write_bytes("é".encode("latin-1"))
    assert "latin.txt: not text in UTF-8" in read_error(read.main, trained, "latin.txt", *output)
    assert "there is something already" in read_error(read.main, trained, *files, "--output", "tom.txt")
    assert "batch_size" in read_error(read.main, trained, *files, *output, "--batch_size", "0")
    assert "output must be given" in read_error(read.main, trained, *files)
    assert "tom.txt: damaged, or no memory" in read_error(generate.main, trained, "A", "--memory", "tom.txt")
    assert "none.safetensors" in read_error(generate.main, trained, "A", "--memory", "none.safetensors")
    run(trained, files)
    other = save_changed(trained, lambda matrix: 1.01 * matrix, tmp_path / "other")
    error = read_error(generate.main, other, "A", "--memory", "all.safetensors")
    assert "this memory was read by another model" in error
    short = AutoModelForCausalLM.from_pretrained(second_model, use_long_memory=False)
    short.save_pretrained(second_model)
    assert "use_long_memory is False" in read_error(
        read.main, second_model, "tom.txt", "--output", "short.safetensors", "--device", "cpu"
    )
    assert not Path("short.safetensors").exists()
