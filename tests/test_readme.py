"""The README's examples run, one after the other, as they stand there."""

import re


def test_examples(demo, run_readme, capsys):
    names = run_readme("## Three uses")
    assert "Once upon a time" in capsys.readouterr().out
    assert (demo / "runs" / "cats" / "model.safetensors").exists()
    losses = [entry["train_loss"] for entry in names["trainer"].state.log_history if "train_loss" in entry]
    assert 0 < losses[-1] < 6


def test_tables_name_what_exists(request):
    """Every class, function and file that the README names is there."""
    root = request.config.rootpath
    text = (root / "README.md").read_text()
    sources = "".join(path.read_text() for path in (root / "modeling_mosaic").glob("*.py"))
    for name in re.findall(r"`(Mosaic\w+|leaky_average\w*|create_\w+|eager_\w+)`", text):
        assert f"class {name}" in sources or f"def {name}" in sources, name
    for path in re.findall(r"`((?:modeling_mosaic|scripts|tests|configuration)/[\w./]+)`", text):
        assert (root / path).exists(), path
