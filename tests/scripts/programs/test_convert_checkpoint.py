"""The program that converts checkpoints of the original code."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from mosaic_lab.programs import convert_checkpoint
from original_reference import checkpoint_file, cut, largest_difference, random_checkpoint

SCRIPT = Path(__file__).parents[3] / "scripts" / "convert_checkpoint.py"


def run_script(*arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_converts(tmp_path):
    state_dict, config = random_checkpoint("regular", vocab=70)
    path = tmp_path / "model.safetensors"
    save_file({"_orig_mod." + key: tensor.clone() for key, tensor in state_dict.items()}, path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"implementation": "x", "ic_dropout": 0.1}))
    done = run_script(path, "--output_dir", tmp_path / "new" / "out", "--config", tmp_path / "config.json")
    assert done.returncode == 0, done.stderr
    assert "Library regular" in done.stdout and str(tmp_path / "new" / "out") in done.stdout
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["out"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "new" / "out")
    assert (model.config.max_position_embeddings, model.config.attention_dropout) == (20, 0.1)
    assert largest_difference(model, state_dict, config, 30) < 1e-6


def test_one_line_for_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    checkpoint_file(Path("a.pt"))
    shutil.copy("a.pt", "short.pt")
    cut(Path("short.pt"), 0.7)
    Path("full").mkdir()
    Path("full/mine.txt").write_text("mine")
    Path("bad.json").write_text("{")
    before = sorted(Path().rglob("*"))
    for arguments, message in [
        (["a.pt", "--output_dir", "full"], "full is not empty"),
        (["a.pt", "--output_dir", "a.pt"], "a.pt exists and is not a folder"),
        (["a.pt", "--output_dir", "a.pt/out"], "Not a directory"),
        (["short.pt", "--output_dir", "out"], "short.pt is truncated"),
        (["a.pt", "--output_dir", "out", "--config", "bad.json"], "cannot read the configuration"),
    ]:
        monkeypatch.setattr(sys, "argv", ["convert_checkpoint.py", *arguments])
        with pytest.raises(SystemExit) as exit:
            convert_checkpoint.main()
        assert exit.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith("convert_checkpoint: error: ") and error.count("\n") == 1
        assert message in error
    assert sorted(Path().rglob("*")) == before


def test_one_line_for_an_error_in_a_process(tmp_path):
    done = run_script(tmp_path / "none.pt", "--output_dir", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr == f"convert_checkpoint: error: there is no file {tmp_path / 'none.pt'}\n"
    assert not list(tmp_path.iterdir())
