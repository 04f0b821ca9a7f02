"""`mosaic reproduce speedrun/stories` with recipes of a few steps."""

import json

import pytest
import yaml

from mosaic_lab.programs import reproduce


@pytest.fixture(scope="module")
def recipes(recipe, tmp_path_factory):
    """The recipe of the tests, and one of half the steps with a larger vocabulary."""
    folder = tmp_path_factory.mktemp("recipes")
    options = yaml.safe_load(recipe.read_text())
    options["dataset"] = "stories"
    for name, changes in {"first": {}, "half": {"max_steps": 2, "train_tokenizer": 340}}.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**options, "max_steps": 4, **changes}))
    changed = {**options, "num_stories": 60}
    (folder / "other.yaml").write_text(yaml.safe_dump(changed))
    return folder


@pytest.mark.slow
def test_times_and_bits_per_byte(recipes, tmp_path):
    names = [str(recipes / "first.yaml"), str(recipes / "half.yaml")]
    reproduce.main(["speedrun/stories", "--recipes", *names, "--target", "7", "--output_dir", str(tmp_path)])
    first, half = results = json.loads((tmp_path / "results.json").read_text())
    assert [result["steps"] for result in results] == [4, 2] and first["tokens"] == 2 * half["tokens"]
    lines = [line.split("|")[1:-1] for line in (tmp_path / "results.md").read_text().splitlines()[2:]]
    assert f"{half['seconds'] / first['seconds']:.2f}" == lines[1][7].strip()
    curve = json.loads((tmp_path / "half-seed0" / "loss_curve.json").read_text())["validation"]
    assert [half["loss"]] == curve["loss"] and [half["bits_per_byte"]] == curve["bits_per_byte"]
    assert [line[-1].strip() for line in lines] == [
        "yes" if r["bits_per_byte"] <= 7 else "no" for r in results
    ]


def test_recipes_hold_out_the_same_stories(recipes, tmp_path, read_error):
    names = [str(recipes / "first.yaml"), str(recipes / "other.yaml")]
    out = ["--output_dir", tmp_path / "out"]
    error = read_error(reproduce.main, "speedrun/stories", "--recipes", *names, *out)
    assert "num_stories must be 100, not 60" in error and not (tmp_path / "out").exists()
    error = read_error(reproduce.main, "speedrun/stories", "--target", "0", *out)
    assert "target must be above 0 bits per byte, not 0.0" in error
