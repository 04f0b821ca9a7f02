import pytest

from mosaic_lab.programs import reproduce
from mosaic_lab.programs.reproduce import list_all, parse


def test_help(capsys):
    """Without a recipe, it lists the recipes; with one, the options of that experiment."""
    reproduce.main([])
    listed = capsys.readouterr().out
    assert all(f"  {name}\n" in listed for name in list_all()) and "three_moons/grid" in list_all()
    reproduce.main(["--help"])
    assert capsys.readouterr().out == listed
    for recipe, option in (("three_moons/grid", "--periods"), ("attention_maps/small", "--contexts")):
        with pytest.raises(SystemExit) as stop:
            reproduce.main([recipe, "--help"])
        assert stop.value.code == 0 and option in capsys.readouterr().out


@pytest.mark.parametrize("name", list_all())
def test_recipes_are_found_by_name_from_anywhere(name, tmp_path, monkeypatch):
    """The folder of results is called like the recipe."""
    monkeypatch.chdir(tmp_path)
    options = parse([name])[1]
    assert next(group.output_dir for group in options if hasattr(group, "output_dir")) == f"runs/{name}"


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            "nowhere",
            "recipe nowhere: there is no such file, and no recipe of that name; shipped recipes:",
        ),
        ("train/demo", "recipe train/demo: there is no such file"),
        (
            "seeds: [0]",
            "experiment must be one of three_moons, regbench, regbench_data, in_context, comparison",
        ),
        ("experiment: [comparison]", "speedrun, not ['comparison']"),
        ("experiment: three_moons\ncolour: red", "unknown option 'colour'"),
        ("experiment: three_moons\noutput_dir: x\nlength: 7", "length must be at least 79, not 7"),
    ],
)
def test_wrong_recipes(recipe, message, tmp_path, read_error):
    path = recipe
    if ":" in recipe:
        path = tmp_path / "recipe.yaml"
        path.write_text(recipe)
    assert message in read_error(reproduce.main, path)


def test_unknown_options_are_refused(tmp_path, read_error):
    error = read_error(reproduce.main, "three_moons/grid", "--output_dir", tmp_path / "out", "--model", "x")
    assert "unrecognized arguments: --model x" in error and not (tmp_path / "out").exists()
