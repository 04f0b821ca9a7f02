import json

import numpy as np
import pytest

from mosaic_lab.core.errors import InputError
from mosaic_lab.evaluation.texts import load_in_distribution, load_other
from mosaic_lab.training.options import DataArguments
from mosaic_lab.training.tokenizer import load_tokenizer

STORIES = [f"Story {number} tells of {number} cats. " * (1 + number % 7) + "The end." for number in range(60)]


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(None, 300, [STORIES])[0]


def write(path, stories):
    path.write_text("".join(json.dumps({"text": story}) + "\n" for story in stories))


@pytest.fixture
def data(tmp_path):
    write(tmp_path / "train.jsonl", STORIES[:2])
    write(tmp_path / "validation.jsonl", STORIES)
    return DataArguments(dataset=str(tmp_path), block_size=32)


def test_every_token_of_a_document_is_predicted_once(data, tokenizer):
    text = load_in_distribution(data, tokenizer, 1000, 1000)
    assert max(map(len, text.documents_N)) == 32 and min(map(len, text.documents_N)) >= 2
    predicted = np.concatenate([piece[1:] for piece in text.documents_N])
    end = tokenizer.eos_token_id
    whole = [token for story in STORIES for token in (*tokenizer(story)["input_ids"], end)]
    assert predicted.tolist() == whole
    assert text.num_characters == sum(map(len, STORIES))
    assert text.rows_NT.ravel().tolist() == whole[: text.rows_NT.size]
    assert len(whole) - text.rows_NT.size < 32


def test_limits(data, tokenizer):
    text = load_in_distribution(data, tokenizer, 3, 5)
    assert text.rows_NT.shape == (3, 32)
    assert len(text.documents_N) == 5
    told = "".join(tokenizer.decode(piece[1:], skip_special_tokens=True) for piece in text.documents_N)
    assert "".join(STORIES).startswith(told) and text.num_characters == len(told)


def test_other_text_is_one_stream_without_ends(data, tokenizer, tmp_path):
    path = tmp_path / "news.txt"
    path.write_text("\n\n".join(STORIES))
    text = load_other(str(path), data, tokenizer, 1000, 1000)
    told = tokenizer.decode(text.rows_NT.ravel())
    assert "\n\n".join(story.strip() for story in STORIES).startswith(told.rstrip())
    assert text.name == f"{tmp_path.name}/news.txt"


def test_held_out_split_of_another_collection(data, tokenizer, tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    write(folder / "train.jsonl", ["Training. " * 100])
    write(folder / "test.jsonl", ["Testing. " * 100])
    text = load_other(str(folder), data, tokenizer, 1000, 1000)
    assert "Testing" in tokenizer.decode(text.rows_NT[0]) and "Train" not in tokenizer.decode(text.rows_NT[0])


def test_too_short(data, tokenizer, tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("Short.")
    with pytest.raises(InputError, match=r"short.txt: fewer than two rows of block_size 32"):
        load_other(str(path), data, tokenizer, 10, 10)
