import json
import os

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mosaic_lab.core.errors import InputError
from mosaic_lab.stories.grammar import tell_stories
from mosaic_lab.training.corpus import load_stories, stream_stories
from mosaic_lab.training.options import DataArguments

STORIES = ["A cat sat.\n\nIt slept.", "A dog ran: « très vite ».", "The end."]


def load(dataset, **options):
    return load_stories(DataArguments(dataset=str(dataset), **{"validation_fraction": 0, **options}))


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def as_json_lines(stories, column="text"):
    return "\n".join(json.dumps({column: story, "id": 3}) for story in stories)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("marked.txt", "<|endoftext|>\n".join(STORIES), STORIES),
        ("inline.txt", "A.<|endoftext|>B.<|endoftext|>C\nc<|endoftext|>", ["A.", "B.", "C\nc"]),
        ("blank.txt", "A.\nAa.\n\nB.\n \n\nC.", ["A.\nAa.", "B.", "C."]),
        (
            "dialogue.txt",
            '"Oh!"\nA cat sat.\n\n"Hi," it said, "cat."',
            ['"Oh!"\nA cat sat.', '"Hi," it said, "cat."'],
        ),
        ("spoken.txt", '"A cat," she said.\n"B."\n\nC.', ['"A cat," she said.\n"B."', "C."]),
        ("objects.jsonl", as_json_lines(STORIES), STORIES),
        ("strings.json", "\n\n".join(json.dumps(story) for story in STORIES), STORIES),
        ("array.json", json.dumps([{"text": story, "source": "x"} for story in STORIES]), STORIES),
        ("indented.json", "\n" + json.dumps(STORIES, indent=1), STORIES),
    ],
)
def test_reads_files(tmp_path, name, content, expected):
    train, validation = load(write(tmp_path / name, content))
    assert train["text"][:] == expected
    assert validation is None


def test_reads_stories_with_their_instructions(tmp_path):
    """As TinyStories_all_data has them."""
    records = [{"story": f"\n\n{story}", "instruction": {"words": ["a"]}, "source": ""} for story in STORIES]
    for number, record in enumerate(records):
        write(tmp_path / f"data{number:02}.json", json.dumps([record]))
    assert load(tmp_path, text_column="story")[0]["text"][:] == STORIES


def test_reads_parquet_columns(tmp_path):
    pq.write_table(pa.table({"story": [*STORIES, None, " "], "text": [""] * 5}), tmp_path / "a.parquet")
    assert load(tmp_path / "a.parquet", text_column="story")[0]["text"][:] == STORIES


def test_folders_split_by_file_name(tmp_path):
    write(tmp_path / "train-1.jsonl", as_json_lines(["b"]))
    write(tmp_path / "train-0.txt", "a")
    write(tmp_path / "validation.jsonl", as_json_lines(["c"]))
    write(tmp_path / "test.txt", "d")
    write(tmp_path / "notes.md", "e")
    train, validation = load(tmp_path)
    assert (train["text"][:], validation["text"][:]) == (["a", "b"], ["c"])
    assert load(tmp_path, validation_split="test")[1]["text"][:] == ["d"]


def test_released_babistories(tmp_path):
    """The authors' files: a JSON string per line, and names of splits of their own."""
    write(tmp_path / "traindataset.txt", "\n" + "".join(json.dumps(story) + "\n" for story in STORIES))
    write(tmp_path / "valdataset.txt", json.dumps('"Oh!" said\nTom.', ensure_ascii=False))
    write(tmp_path / "babistories-dataset.7z.001", "7z")
    write(tmp_path / "train.bin", "what the authors' prepare.py writes")
    train, validation = load(tmp_path)
    assert (train["text"][:], validation["text"][:]) == (STORIES, ['"Oh!" said\nTom.'])
    assert load(tmp_path / "traindataset.txt")[0]["text"][:] == STORIES


def test_folder_without_split_names(tmp_path):
    write(tmp_path / "one" / "a.txt", "a")
    write(tmp_path / "two" / "b.txt", "b")
    assert load(tmp_path)[0]["text"][:] == ["a", "b"]


def test_held_out_share_is_seeded_and_disjoint(tmp_path):
    path = write(tmp_path / "a.txt", "\n\n".join(str(i) for i in range(200)))
    train, validation = load(path, validation_fraction=0.1, corpus_seed=3)
    assert len(validation) == 20 and sorted([*train["text"], *validation["text"]]) == sorted(
        map(str, range(200))
    )
    assert load(path, validation_fraction=0.1, corpus_seed=3)[1]["text"][:] == validation["text"][:]
    assert load(path, validation_fraction=0.1, corpus_seed=4)[1]["text"][:] != validation["text"][:]
    # At least one story, however small the share.
    assert len(load(path, validation_fraction=0.0001)[1]) == 1


def test_embedded_stories_depend_on_the_seed():
    first, second = (load("stories", num_stories=20, corpus_seed=seed)[0]["text"][:] for seed in (0, 1))
    assert len(set(first)) == 20 and not set(first) & set(second)


def test_stories_of_a_single_plot_come_first():
    options = {"dataset": "stories", "num_stories": 40, "validation_fraction": 0.1, "corpus_seed": 3}
    opening = list(tell_stories(7, seed=3, num_plots=1))
    train, validation = load_stories(DataArguments(**options))
    opened, held_out = load_stories(DataArguments(**options, single_plot_stories=7))
    assert opened["text"][:] == opening + train["text"][:]
    assert held_out["text"][:] == validation["text"][:]
    streamed, _ = stream_stories(DataArguments(**options, single_plot_stories=7))
    assert [story["text"] for story in streamed] == opening + list(tell_stories(40, seed=3))


def test_a_changed_file_is_read_again(tmp_path):
    path = write(tmp_path / "a.txt", "old")
    assert load(path)[0]["text"][:] == ["old"]
    write(path, "new")
    os.utime(path, ns=(1, 1))
    assert load(path)[0]["text"][:] == ["new"]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("empty.txt", b"", "empty.txt: holds no story"),
        ("blank.txt", b" \n\n<|endoftext|>\n", "blank.txt: holds no story"),
        ("latin.txt", "très".encode("latin-1"), "latin.txt: not text in UTF-8"),
        ("broken.jsonl", b'"a"\n{"text": "b"', "broken.jsonl, line 2: not JSON"),
        (
            "number.jsonl",
            b'{"text": 3}',
            "number.jsonl, line 1: neither a string nor an object with a string 'text'",
        ),
        ("other.jsonl", b'{"story": "b"}', "other.jsonl, line 1: neither"),
        ("other.json", b'["a",\n{"story": "b", "id": 3}]', "item 2: neither a string nor an object with a "),
        ("columns.json", b'[{"story": "b", "id": 3}]', "a string 'text', only story, id"),
        ("array.json", b'["a",\n"b"', "array.json, line 2: not JSON"),
        ("deep.json", b"[" * 100_000, "deep.json, line 1: nested too deeply"),
        ("deep.jsonl", b'"a"\n' + b'{"a":' * 100_000, "deep.jsonl, line 2: nested too deeply"),
        ("digits.jsonl", b'"a"\n' + b"1" * 5_000, "digits.jsonl, line 2: Exceeds the limit"),
        ("half.jsonl", b'"a"\n"a\\ud83d"', "half.jsonl, line 2: not Unicode: a lone surrogate, character 2"),
        ("half.json", b'["a", {"text": "\\ud83d"}]', "half.json, item 2: not Unicode: a lone surrogate"),
        ("half.txt", b'"a"\n"b"\n"c', "half.txt, line 3: not JSON"),
        ("fake.parquet", b"PAR1 it is not", "fake.parquet: not a parquet file"),
        ("zero.parquet", b"", "zero.parquet: not a parquet file"),
        ("image.png", b"\x89PNG", "image.png: unknown kind of data file"),
    ],
)
def test_wrong_files_are_named(tmp_path, name, content, problem):
    path = tmp_path / name
    path.write_bytes(content)
    for source in (path, tmp_path) if path.suffix != ".png" else (path,):
        with pytest.raises(InputError) as error:
            load(source)
        assert problem in str(error.value) and "\n" not in str(error.value)


def test_other_wrong_sources_are_named(tmp_path):
    pq.write_table(pa.table({"story": STORIES}), tmp_path / "a.parquet")
    write(tmp_path / "empty folder" / "notes.md", "nothing")
    write(tmp_path / "one.txt", "one")
    write(tmp_path / "ten.txt", "\n\n".join("abcdefghij"))
    write(tmp_path / "only" / "test.txt", "one")
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "number.parquet")
    for source, options, problem in (
        ("a.parquet", {}, "no text_column 'text', only story"),
        ("number.parquet", {}, "number.parquet: text_column 'text' holds int64, not text"),
        ("missing.txt", {}, "missing.txt: cannot be read: No such file"),
        ("empty folder", {}, "no data files"),
        ("one.txt", {"validation_fraction": 0.5}, "validation_fraction 0.5: holds out 1 of the 1 stories"),
        (
            "ten.txt",
            {"validation_fraction": 0.99},
            "validation_fraction 0.99: holds out 10 of the 10 stories",
        ),
        ("only", {}, "no split 'train', only test"),
    ):
        with pytest.raises(InputError) as error:
            load(tmp_path / source, **options)
        assert problem in str(error.value)


def test_unreachable_hub_dataset_is_named():
    with pytest.raises(InputError, match="dataset nobody/nothing: neither a file nor a dataset on the Hub"):
        load("nobody/nothing")


def test_hub_dataset(monkeypatch):
    """As the Hub would give it: several splits and columns."""
    splits = {
        name: datasets.Dataset.from_dict({"tale": [name], "id": [1]}) for name in ("train", "validation")
    }
    monkeypatch.setattr(
        "mosaic_lab.training.corpus.load_dataset", lambda name, config: datasets.DatasetDict(splits)
    )
    train, validation = load("some/tales", text_column="tale")
    assert (train[:], validation[:]) == ({"text": ["train"]}, {"text": ["validation"]})
    with pytest.raises(InputError, match="no text_column 'text' in train, only tale, id"):
        load("some/tales")
