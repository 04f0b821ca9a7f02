import json

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from mosaic_lab.programs import run_attention_maps

DATA = ("--num_stories", "100", "--validation_fraction", "0.1", "--block_size", "64", "--device", "cpu")


@pytest.fixture(scope="module")
def transformers_too(trained, tmp_path_factory):
    """Untrained models with the tokenizer of the trained mosaic: GPT-2 with 64 positions, and Bloom."""
    folders = []
    sizes = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    for name, options in (("gpt2", {"n_positions": 64}), ("bloom", {})):
        folders.append(tmp_path_factory.mktemp(name) / name)
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(
            AutoConfig.for_model(name, **sizes, **options, bos_token_id=0, eos_token_id=0)
        ).save_pretrained(folders[-1])
        AutoTokenizer.from_pretrained(trained).save_pretrained(folders[-1])
    return folders


def run(models, folder, *options):
    run_attention_maps.main([*map(str, models), "--output_dir", str(folder), *DATA, *options])


def test_what_a_run_leaves(trained, transformers_too, tmp_path, capsys):
    run([trained, *transformers_too], tmp_path / "maps", "--num_sequences", "10")
    assert "gpt2 has no positions for 192 tokens" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "maps").iterdir()}
    pictures = {f"{kind}-{context}.png" for kind in ("maps", "recency") for context in (64, 192)}
    models = {trained.name, "gpt2", "bloom"}
    assert names == pictures | models | {"scores.npz", "summary.json", "summary.md", "lock"}
    results = json.loads((tmp_path / "maps" / "summary.json").read_text())["results"]
    name = trained.name
    assert [(result["contestant"], result["context"]) for result in results] == [
        *((each, 64) for each in (name, "gpt2", "bloom")),
        *((each, 192) for each in (name, "bloom")),
    ]
    assert all(result["num_sequences"] == 10 for result in results)
    with np.load(tmp_path / "maps" / "scores.npz") as arrays:
        for result in results:
            mean_NHT = arrays[f"{result['name']}/mean"]
            num_layers = 2 if result["contestant"] == name else 1
            assert mean_NHT.shape == (num_layers, 4, result["context"])
            # float32 weights, each rounded, as is each term of the sum that softmax divides by.
            tolerance = result["context"] * np.finfo(np.float32).eps
            np.testing.assert_allclose(mean_NHT.sum(-1), 1, rtol=0, atol=tolerance)
        assert arrays[f"{name}/64/lambda"].shape == (2, 4)


def test_what_is_measured_is_kept_and_not_mixed(trained, tmp_path, read_error):
    run([trained], tmp_path, "--contexts", "64", "--num_sequences", "10")
    kept = tmp_path / trained.name / "64" / "arrays.npz"
    before = kept.stat().st_mtime_ns
    run([trained], tmp_path, "--contexts", "64", "128", "--num_sequences", "10")
    assert kept.stat().st_mtime_ns == before
    contexts = [
        result["context"] for result in json.loads((tmp_path / "summary.json").read_text())["results"]
    ]
    assert contexts == [64, 128]
    argv = (trained, "--output_dir", tmp_path, *DATA, "--contexts", "64", "--num_sequences", "9")
    assert "num_sequences 10, not 9" in read_error(run_attention_maps.main, *argv)


def test_small_data_gives_all_its_windows(trained, tmp_path):
    run([trained], tmp_path, "--contexts", "64", "--num_sequences", "100000", "--batch_size", "256")
    result = json.loads((tmp_path / "summary.json").read_text())["results"][0]
    assert result["num_sequences"] == result["num_tokens"] - 63 < 100_000


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("--contexts 64 64", "contexts must name each length once, not [64, 64]"),
        ("--contexts 63", "contexts must be at least 64 tokens, not 63"),
        ("--block_size 16", "contexts must be at least 64 tokens, not 16"),
        ("--num_sequences 0", "num_sequences must be at least 1, not 0"),
        ("--batch_size 0", "batch_size must be at least 1, not 0"),
        ("--chunk_size 0", "chunk_size must be at least 1, not 0"),
        ("--validation_fraction 0", "stories: has no validation stories"),
        ("--contexts 100000", "do not fill one row"),
        ("--colour red", "--colour"),
    ],
)
def test_wrong_options_are_named(trained, tmp_path, read_error, options, problem):
    argv = (trained, "--output_dir", tmp_path / "out", *DATA, *options.split())
    assert problem in read_error(run_attention_maps.main, *argv) and not (tmp_path / "out").exists()


def test_no_model_fits(transformers_too, tmp_path, read_error):
    argv = (transformers_too[0], "--output_dir", tmp_path, *DATA, "--contexts", "65")
    assert "contexts [65]: no model has so many positions" in read_error(run_attention_maps.main, *argv)


def test_folder_that_cannot_be_written(trained, tmp_path, read_error):
    (tmp_path / "file").touch()
    argv = (trained, "--output_dir", tmp_path / "file", *DATA)
    assert "output_dir" in read_error(run_attention_maps.main, *argv)
