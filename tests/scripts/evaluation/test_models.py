import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from mosaic_lab.core.errors import InputError
from mosaic_lab.evaluation.models import expand_patterns, load_models, short_names
from mosaic_lab.programs.evaluate import make_parser


@pytest.mark.parametrize(
    "models, names",
    [
        (["runs/a", "runs/b"], ["a", "b"]),
        (["runs/1/a", "runs/2/a", "runs/1/b"], ["1/a", "2/a", "1/b"]),
        (["runs/a", "runs/b/"], ["a", "b"]),
    ],
)
def test_short_names(models, names):
    assert short_names(models) == names


def test_patterns_of_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b-seed1", "b-seed0", "a-seed0"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    (tmp_path / "runs" / "b-seed.json").touch()
    assert expand_patterns(["runs/b-seed*", "somebody/a"]) == ["runs/b-seed0", "runs/b-seed1", "somebody/a"]
    with pytest.raises(InputError, match=r"models: no folder fits runs/c\*"):
        expand_patterns(["runs/c*"])


def test_options_may_stand_anywhere():
    options, _, others = make_parser().parse(["one", "two", "--num_rows", "7"])
    assert others.models == ["one", "two"] and options.num_rows == 7
    with pytest.raises(InputError, match="required: models"):
        make_parser().parse(["--num_rows", "7"])


def test_architectures_are_told_apart_by_their_configs(trained, tmp_path):
    """Equal sizes do not make models the same."""
    model = AutoModelForCausalLM.from_pretrained(trained)
    for name, scale in (("seed1", model.config.logit_scale), ("loud", 2.0), ("loud2", 2.0)):
        model.config.logit_scale = scale
        model.save_pretrained(tmp_path / name)
        AutoTokenizer.from_pretrained(trained).save_pretrained(tmp_path / name)
    folders = [str(trained), *(str(tmp_path / name) for name in ("seed1", "loud", "loud2"))]
    models, _ = load_models(folders, "cpu", "auto")
    first, same, loud, also_loud = (each.architecture for each in models)
    assert first == same and loud == also_loud == f"{first} (loud)"
