"""Wrong text in the grammar's files is named with its file and plot, before a story is told from it."""

import shutil

import pytest
import yaml

from mosaic_lab.core.errors import InputError
from mosaic_lab.stories.loading import embedded_grammar, read_grammar, text_folder


@pytest.fixture
def folder(tmp_path):
    """A copy of the vocabulary, with a single plot file to put mistakes in."""
    shutil.copy(text_folder() / "vocabulary.yaml", tmp_path / "vocabulary.yaml")
    text = (tmp_path / "vocabulary.yaml").read_text()
    start, end = text.index("plot_files:"), text.index("\n", text.index("plot_files:"))
    (tmp_path / "vocabulary.yaml").write_text(f"{text[:start]}plot_files: [mine]{text[end:]}")
    return tmp_path


def write(folder, roles=None, beats=(), tables=None):
    roles = {"hero": "child", "end": {"draw": "one_of", "pool": ["well", "ill"]}, **(roles or {})}
    content = {"plots": {"a walk": {"roles": roles, "beats": list(beats)}}, "tables": tables or {}}
    (folder / "mine.yaml").write_text(yaml.safe_dump(content))


def fork(**branches):
    return {"fork": "end", "branches": branches}


def test_reads_a_plot(folder):
    rows = [{"name": "oak", "fact": "[tall|old], as {hero} knew"}]
    write(
        folder,
        roles={"tree": {"draw": "one_of", "pool": "trees"}, "bush": {"draw": "one_of", "pool": rows}},
        beats=[["<intro> {hero.he} saw {tree.name}."], fork(well=[["{bush.fact}"]], ill=[])],
        tables={"trees": rows},
    )
    assert [plot.name for plot in read_grammar(folder).plots] == ["a walk"]


@pytest.mark.parametrize(
    ("roles", "beats", "problem"),
    [
        ({}, [["{villain} laughed."]], "unknown role 'villain' in '{villain} laughed.'"),
        ({}, [["{hero.color} was red."]], "no attribute 'color' in '{hero.color} was red.'"),
        ({}, [["<bored>"]], "unknown phrase <bored> in '<bored>'"),
        ({}, [fork(well=[["{villain}"]], ill=[])], "unknown role 'villain'"),
        ({}, [fork(well=[])], "fork 'end': the branches well are not its values"),
        ({}, [["{hero was here."]], "in '{hero was here.'"),
        ({}, [["[a|b was here."]], "a mark has no end in '[a|b was here.'"),
        ({}, ["Once."], "a beat is a fork or a list of wordings, not 'Once.'"),
        ({}, [[]], "a beat is a fork or a list of wordings, not []"),
        ({"cat": "animal"}, [], "role 'cat': unknown drawer 'animal'"),
        ({"cat": "_name"}, [], "role 'cat': unknown drawer '_name'"),
        ({"cat": {"draw": "child", "age": 3}}, [], "role 'cat': drawer 'child': "),
        ({"cat": {"draw": "child", "unlike": "dog"}}, [], "role 'cat': unknown role or table 'dog'"),
        ({"cat": {"draw": "one_of", "pool": "cats"}}, [], "role 'cat': unknown role or table 'cats'"),
        ({"cat": {"draw": "item", "pool": "hero.toys"}}, [], "role 'cat': "),
        ({"cat": {"draw": "one_of", "pool": ["{dog}"]}}, [], "unknown role 'dog' in '{dog}'"),
        ({"cat": {"draw": "one_of", "pool": [{"a": "x"}, {"b": "y"}]}}, [], "has not the fields a"),
    ],
)
def test_wrong_plots_are_named(folder, roles, beats, problem):
    write(folder, roles, beats)
    with pytest.raises(InputError) as error:
        read_grammar(folder)
    assert str(error.value).startswith(f"{folder / 'mine.yaml'}, plot 'a walk': ")
    assert problem in str(error.value) and "\n" not in str(error.value)


def test_wrong_tables_and_files_are_named(folder):
    def error():
        with pytest.raises(InputError) as error:
            read_grammar(folder)
        return str(error.value)

    assert "mine.yaml: cannot be read: No such file" in error()
    write(folder, tables={"trees": [{"name": "oak"}, {"height": "3"}]})
    assert "mine.yaml, table 'trees': {'height': '3'} has not the fields name" in error()
    write(folder, tables={"girls": ["Ann"]})
    assert "mine.yaml: there is a table 'girls' already" in error()
    (folder / "mine.yaml").write_text("plots: [a")
    assert "mine.yaml: not YAML: " in error()
    (folder / "mine.yaml").write_text("plot: {}")
    assert "mine.yaml: must be made of tables, plots" in error()


def test_the_embedded_grammar_is_read_once():
    assert embedded_grammar() is embedded_grammar()
