import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from mosaic_lab.core.errors import InputError
from mosaic_lab.evaluation.models import load_contestants, make_models_parser, short_names
from mosaic_lab.evaluation.options import EvaluationArguments


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


def test_options_may_stand_anywhere():
    parser = make_models_parser(EvaluationArguments, description="")
    options, others = parser.parse(["one", "two", "--num_rows", "7"])
    assert others.models == ["one", "two"] and options.num_rows == 7
    with pytest.raises(InputError, match="required: models"):
        parser.parse(["--num_rows", "7"])


def test_architectures_are_told_apart_by_their_configs(trained, tmp_path):
    """Equal sizes do not make models the same."""
    model = AutoModelForCausalLM.from_pretrained(trained)
    for name, scale in (("seed1", model.config.logit_scale), ("loud", 1.0), ("loud2", 1.0)):
        model.config.logit_scale = scale
        model.save_pretrained(tmp_path / name)
        AutoTokenizer.from_pretrained(trained).save_pretrained(tmp_path / name)
    folders = [str(trained), *(str(tmp_path / name) for name in ("seed1", "loud", "loud2"))]
    contestants, _ = load_contestants(folders, "cpu", "auto")
    first, same, loud, also_loud = (contestant.architecture for contestant in contestants)
    assert first == same and loud == also_loud == f"{first} (loud)"
