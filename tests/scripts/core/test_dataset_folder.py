import json

import datasets
import pytest
from datasets import Dataset

from mosaic_lab.core import dataset_folder
from mosaic_lab.core.dataset_folder import write_dataset
from mosaic_lab.core.errors import InputError

SPLITS = {
    "train": Dataset.from_dict({"text": [f"Story {number}." for number in range(7)]}),
    "validation": Dataset.from_dict({"text": ["The end."]}),
}


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_datasets_reads_what_is_written_in_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_folder, "ROWS_PER_FILE", 3)
    (tmp_path / "tales").mkdir()
    write_dataset(tmp_path / "tales", SPLITS, "# Tales", {"stories": 8})
    train = [f"train-{number:05}-of-00003.parquet" for number in range(3)]
    files = {f"data/{name}" for name in (*train, "validation-00000-of-00001.parquet")}
    assert set(contents(tmp_path / "tales")) == {"README.md", "statistics.json", *files}
    loaded = datasets.load_dataset(str(tmp_path / "tales"))
    assert {split: rows["text"][:] for split, rows in loaded.items()} == {
        split: rows["text"][:] for split, rows in SPLITS.items()
    }
    assert json.loads((tmp_path / "tales" / "statistics.json").read_text()) == {"stories": 8}
    assert (tmp_path / "tales" / "README.md").read_text() == "# Tales\n"


def test_nothing_of_the_user_is_replaced(tmp_path):
    """Not even what has the name of something unfinished."""
    for name in ("tales", "tales.partial", "partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    before = contents(tmp_path)
    for name in ("tales", "file", "link"):
        with pytest.raises(InputError, match=f"{name}: there is something already"):
            write_dataset(tmp_path / name, SPLITS, "# Tales")
    assert contents(tmp_path) == before
    write_dataset(tmp_path / "new", SPLITS, "# Tales")
    assert {name: data for name, data in contents(tmp_path).items() if not name.startswith("new/")} == before


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    class Unwritable(Exception):
        pass

    def fail(path, text):
        raise Unwritable

    monkeypatch.setattr(dataset_folder, "write_text", fail)
    with pytest.raises(Unwritable):
        write_dataset(tmp_path / "tales", SPLITS, "# Tales")
    assert list(tmp_path.iterdir()) == []
