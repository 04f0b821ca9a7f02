from dataclasses import dataclass, field, fields

import pytest
from transformers import TrainingArguments

from mosaic_lab.core.bounds import TRAINER_BOUNDS
from mosaic_lab.core.command import CommandParser
from mosaic_lab.core.errors import InputError
from mosaic_lab.programs import evaluate


@dataclass
class Arguments:
    output_dir: str
    num_rows: int = 5
    rate: float = 0.5
    sizes: list[int] = field(default_factory=lambda: [1])
    is_quick: bool = True


@pytest.fixture
def parse(tmp_path):
    """Parses a command line and a recipe, which is named in front of it or by an option."""

    def parse(recipe, *argv, is_option):
        parser = CommandParser(Arguments, description="", recipes="train", recipe_is_option=is_option)
        if is_option:
            parser.add_argument("models", nargs="+")
        path = tmp_path / "recipe.yaml"
        path.write_bytes(recipe.encode("latin-1"))
        return parser.parse([*(["--recipe"] if is_option else []), str(path), *argv])

    return parse


@pytest.mark.parametrize("is_option", [False, True])
def test_recipes_give_what_is_required(parse, is_option):
    models = ("--num_rows", "9", "c") if is_option else ("--num_rows", "9")
    recipe = "output_dir: out\nsizes: [3, 4]\nnum_rows: 7\nis_quick: no\n"
    options, others = parse(recipe, *models, is_option=is_option)
    assert options == Arguments("out", 9, 0.5, [3, 4], False)
    assert others.recipe.endswith("recipe.yaml") and getattr(others, "models", ["c"]) == ["c"]


def test_a_recipe_may_name_the_models(parse):
    recipe = "output_dir: out\nmodels: [a, b]\n"
    assert parse(recipe, is_option=True)[1].models == ["a", "b"]
    assert parse(recipe, "--sizes", "2", "--rate=1", "c", is_option=True)[1].models == ["c"]
    with pytest.raises(InputError, match="required: models"):
        parse("output_dir: out", is_option=True)
    with pytest.raises(InputError, match="unknown option 'models'"):
        parse(recipe, is_option=False)
    with pytest.raises(InputError, match="required: --output_dir"):
        parse("rate: 1", "a", is_option=True)


@pytest.mark.parametrize(
    ("recipe", "problem"),
    [
        ("num_rows: 99999999999999999999", "num_rows: 99999999999999999999 does not fit into 64 bits"),
        ("rate: .nan", "rate: must be a finite number, not nan"),
        ("rate: -.inf", "rate: must be a finite number"),
        ("sizes: [1, x]", "sizes: invalid int value: 'x'"),
        ("help: true", "unknown option 'help'"),
        ("recipe: other", "unknown option 'recipe'"),
        ('output_dir: "a\\0b"', "output_dir holds a NUL character"),
        ('output_dir: "\\ud800"', "not text in UTF-8"),
        ("sizes: &a [1]\nrate: *a", "no aliases"),
        ("[" * 100_000, "nested deeper than 20 levels"),
        ("rate: 2020-99-99", "not YAML"),
        ("# \xff", "not YAML"),
        ("# " + "x" * 2**17, "too large"),
    ],
)
def test_hostile_recipes(parse, recipe, problem):
    with pytest.raises(InputError) as error:
        parse(recipe, "--output_dir", "out", is_option=False)
    assert problem in str(error.value) and "recipe.yaml: " in str(error.value)


def test_words_are_unicode():
    with pytest.raises(InputError, match=r"argument 'a\\udcff': not text in UTF-8 at character 1"):
        evaluate.make_parser().parse(["model", "a\udcff", "--output_dir", "out"])


def test_one_spelling():
    spellings = [name for action in evaluate.make_parser()._actions for name in action.option_strings]
    assert "--output_dir" in spellings and not [name for name in spellings if "-" in name.lstrip("-")]
    with pytest.raises(InputError, match="unrecognized arguments: --num_row"):
        evaluate.make_parser().parse(["model", "--num_row", "3"])


def test_structured_options_hold_finite_numbers():
    options = ["--output_dir", "out", "--lr_scheduler_type", "cosine_with_min_lr"]
    parser = CommandParser(TrainingArguments, description="")
    with pytest.raises(InputError, match="lr_scheduler_kwargs must hold finite numbers"):
        parser.parse([*options, "--lr_scheduler_kwargs", '{"min_lr": NaN}'])


def test_bounds_are_of_options_and_admit_the_defaults():
    defaults = {option.name: option.default for option in fields(TrainingArguments)}
    for name, (least, most) in TRAINER_BOUNDS.items():
        assert defaults[name] is None or least <= defaults[name] <= most
        parser = CommandParser(TrainingArguments, description="")
        with pytest.raises(InputError, match=name):
            parser.parse(["--output_dir", "out", f"--{name}={least - 1}"])
