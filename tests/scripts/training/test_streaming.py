"""Stories that are read while training."""

import json
import multiprocessing
import resource
import shutil
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset, IterableDatasetDict, load_dataset
from safetensors.torch import load_file

from mosaic_lab.core.errors import InputError
from mosaic_lab.programs import train
from mosaic_lab.training import corpus, resume, story_files, streaming
from mosaic_lab.training.corpus import load_stories, stream_stories
from mosaic_lab.training.options import DataArguments
from mosaic_lab.training.story_files import cut
from mosaic_lab.training.story_files import read_stories as read_pieces
from mosaic_lab.training.streaming import STREAMED_PER_BATCH, RowStream
from mosaic_lab.training.tokenizer import load_tokenizer
from process_group import run_group

ALLOWANCE_MIB = 60


def tell(number):
    return f"Story {number}: " + " ".join(f"cat {number * word} sat." for word in range(8))


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(None, 300, [[tell(number) for number in range(50)]])[0]


def write_lines(path, numbers):
    with path.open("w") as file:
        file.writelines(json.dumps({"text": tell(number)}) + "\n" for number in numbers)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data").mkdir()
    write_lines(tmp_path / "data" / "train-0.jsonl", range(0, 200))
    write_lines(tmp_path / "data" / "train-1.jsonl", range(200, 300))
    write_lines(tmp_path / "data" / "validation.jsonl", range(300, 320))
    return tmp_path / "data"


def test_streamed_stories_are_those_that_are_loaded(folder):
    for dataset in (folder, folder / "train-1.jsonl", "stories"):
        arguments = DataArguments(dataset=str(dataset), num_stories=30, validation_fraction=0)
        streamed, held_out = stream_stories(arguments)
        loaded, expected = load_stories(arguments)
        assert [story["text"] for story in streamed] == loaded["text"][:]
        assert (held_out and held_out["text"][:]) == (expected and expected["text"][:])


def test_released_babistories(tmp_path):
    for name, numbers in (("traindataset.txt", range(5)), ("valdataset.txt", range(5, 7))):
        (tmp_path / name).write_text("".join(json.dumps(tell(number)) + "\n" for number in numbers))
    streamed, held_out = stream_stories(DataArguments(dataset=str(tmp_path)))
    assert [story["text"] for story in streamed] == [tell(number) for number in range(5)]
    assert held_out["text"][:] == [tell(5), tell(6)]


def test_hub_stories(monkeypatch):
    splits = {
        name: Dataset.from_dict({"tale": [name], "id": [1]}).to_iterable_dataset()
        for name in ("train", "validation")
    }

    def download(name, config, streaming):
        assert streaming
        return IterableDatasetDict(splits)

    monkeypatch.setattr("mosaic_lab.training.corpus.load_dataset", download)
    train_stories, validation = stream_stories(DataArguments(dataset="some/tales", text_column="tale"))
    assert list(train_stories) == [{"text": "train"}] and validation[:] == {"text": ["validation"]}


def test_every_story_comes_once_a_round_in_a_seeded_order(folder, tokenizer):
    stories, _ = stream_stories(DataArguments(dataset=str(folder / "train-1.jsonl")))
    rows = [RowStream(stories, tokenizer, 8, seed) for seed in (0, 0, 1)]
    length = sum(len(tokenizer(tell(number))["input_ids"]) + 1 for number in range(200, 300)) // 8
    first, again, other = (
        [list(map(int, row["input_ids"])) for row in islice(stream, 2 * length)] for stream in rows
    )
    assert first == again and first != other
    assert first[:length] == first[length:]
    told = tokenizer.decode([token for row in first[:length] for token in row]).split("<|endoftext|>")
    # Less than a row is missing at the end.
    assert len(told) in (100, 101) and len(set(told)) == len(told)
    assert set(told[:-1]) <= {tell(number) for number in range(200, 300)}


@pytest.fixture
def read_stories(monkeypatch):
    """The stories of JSON lines as they are read."""
    read, stories = story_files.READERS["lines"], []

    def note(piece, column):
        for story in read(piece, column):
            stories.append(story)
            yield story

    monkeypatch.setitem(story_files.READERS, "lines", note)
    return stories


def test_few_stories_are_read_ahead(tmp_path, tokenizer, read_stories):
    write_lines(tmp_path / "a.jsonl", range(20_000))
    stories, _ = stream_stories(DataArguments(dataset=str(tmp_path / "a.jsonl")))
    rows = RowStream(stories, tokenizer, 64, 0)
    next(iter(rows))
    # Once to see that there is a row, once to take it.
    assert 0 < len(read_stories) <= 2 * (STREAMED_PER_BATCH + 1)


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces of about ten stories, and batches of 16, which begin in any place of them."""
    monkeypatch.setattr(corpus, "PIECE_SIZE", 10 * (len(tell(100)) + 14))
    monkeypatch.setattr(streaming, "STREAMED_PER_BATCH", 16)


def open_files(folder):
    write_lines(folder / "a.jsonl", range(100))
    return stream_stories(DataArguments(dataset=str(folder / "a.jsonl")), is_shuffled=True)[0]


def open_hub(folder):
    """What `datasets` makes of files on the Hub."""
    for number in range(2):
        texts = [tell(50 * number + index) for index in range(50)]
        pq.write_table(pa.table({"text": texts}), folder / f"{number}.parquet", row_group_size=20)
    return load_dataset("parquet", data_files=str(folder / "*.parquet"), streaming=True)["train"]


@pytest.mark.parametrize("open_stories", [open_files, open_hub])
def test_stream_goes_on_at_any_place(tmp_path, tokenizer, small_pieces, read_stories, open_stories):
    """With the same rows, in its second round too, and from files without what has been read."""
    stream = RowStream(open_stories(tmp_path), tokenizer, 32, 0)
    expected, places = [], []
    for row in islice(stream, 400):
        expected.append(list(map(int, row["input_ids"])))
        places.append(json.loads(json.dumps(stream.state_dict())))
    assert sum(row == expected[0] for row in expected) > 1
    for number in range(1, 380, 23):
        for ahead in (0, 5):
            stream = RowStream(open_stories(tmp_path), tokenizer, 32, 0)
            stream.load_state_dict(places[number - 1], number + ahead)
            read_stories.clear()
            rows = [list(map(int, row["input_ids"])) for row in islice(stream, 8)]
            assert rows == expected[number + ahead :][:8], number
            # Of the piece what is before the batch, the batch once more, and what these rows are made of.
            assert len(read_stories) <= 11 + 16 + 16


def test_resumed_run_reads_on(short_recipe, tmp_path, small_pieces, read_stories, monkeypatch):
    """And neither the stories before its checkpoint nor those that its tokenizer was trained on."""
    monkeypatch.setattr(resume, "_STREAMED_ROWS", 1)
    write_lines(tmp_path / "data.jsonl", range(200))
    out = tmp_path / "out"
    argv = [short_recipe, "--output_dir", out, "--streaming", "--dataset", tmp_path / "data.jsonl"]
    argv = [*map(str, argv), "--save_total_limit", "3", "--per_device_train_batch_size", "8"]
    train.main(argv)
    # All for the tokenizer, and twice the first batch, which shows whether the data are usable, and the same.
    trained_on = read_stories[200 + 2 * 16 :]
    expected = load_file(out / "model.safetensors")
    for path in (out / "checkpoint-6", out / "model.safetensors"):
        path.rename(tmp_path / path.name)
    read_stories.clear()
    train.main([*argv, "--resume_from_checkpoint"])
    resumed = load_file(out / "model.safetensors")
    assert all(torch.equal(resumed[name], weight) for name, weight in expected.items())
    read_on = read_stories[2 * 16 :]
    assert read_on == trained_on[-len(read_on) :] and len(read_on) <= len(trained_on) - 4 * 16


def test_pieces_of_a_file_have_its_stories_once(tmp_path):
    texts = {
        "marked.txt": "|A é.\nA\n|\n\nB|C| \n\nD\r\nd\n|".replace("|", "<|endoftext|>"),
        "blank.txt": "\nA é.\nAa.\n\n\nB.\n \n\nC.\r\n\r\nD\nd",
        "strings.txt": '\n"A é."\n\n"B\\n"\n"C"',
        "lines.jsonl": '\n{"text": "A é."}\n\n"B"\n"C"\n\n',
        "array.json": '\n["A é.",\n"B",\n{"text": "C"}]',
    }
    for name, text in texts.items():
        path = tmp_path / name
        path.write_bytes(text.encode())
        expected = [story["text"] for story in read_pieces(cut(path), "text")]
        assert expected[0].startswith("A é.") and expected[-1][0] in "CD", name
        for size in range(1, len(text) + 2):
            pieces = cut(path, size)
            assert [story["text"] for story in read_pieces(pieces, "text")] == expected, (name, size)
    pq.write_table(pa.table({"text": list("ABCDE")}), tmp_path / "groups.parquet", row_group_size=2)
    pieces = cut(tmp_path / "groups.parquet", 1)
    assert len(pieces) == 3 and [story["text"] for story in read_pieces(pieces, "text")] == list("ABCDE")


def test_mark_behind_the_beginning_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(story_files, "PIECE_SIZE", 20)
    (tmp_path / "a.txt").write_text("A long story begins.\n\n<|endoftext|>\n")
    with pytest.raises(InputError, match="has <|endoftext|>, but not in its first 20 bytes"):
        list(read_pieces(cut(tmp_path / "a.txt"), "text"))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--max_steps", "-1"], "streaming needs max_steps to know when to end, not -1"),
        (["--eval_strategy", "steps"], "there are no validation stories"),
        (["--block_size", "100000"], "do not fill one row of block_size 100000"),
        (["--dataset", "missing.txt"], "missing.txt: cannot be read: No such file"),
        (["--train_split", "training"], "no split 'training', only train, validation"),
    ],
)
def test_wrong_options_are_named(short_recipe, folder, tmp_path, read_error, options, problem):
    source = folder if "--train_split" in options else folder / "train-0.jsonl"
    argv = [short_recipe, "--output_dir", tmp_path / "out", "--streaming", "--dataset", source, *options]
    assert problem in read_error(train.main, *argv)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def exact_model(recipe):
    config = json.loads(recipe.with_name("model.json").read_text())
    path = recipe.with_name("streamed.json")
    path.write_text(json.dumps({**config, "attention_dropout": 0.0, "hidden_dropout": 0.0}))
    return path


@pytest.fixture
def train_on_stream(short_recipe, exact_model, tmp_path):
    """Trains on a stream of twenty lines, in one process or two; returns what they print."""
    data, log = tmp_path / "data.jsonl", tmp_path / "log"
    write_lines(data, range(20))
    argv = [short_recipe, "--streaming", "--dataset", data, "--model", exact_model, "--logging_steps", 1]
    argv += ["--save_total_limit", 3, "--eval_strategy", "no"]

    def run(size, folder, *options):
        codes = run_group([*argv, "--output_dir", tmp_path / folder, *options], log, size)
        assert codes == [0] * size, log.read_text()
        return log.read_text()

    return run


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def test_resumed_and_shared_streams(train_on_stream, tmp_path):
    """A run that is resumed in the second round of its data, and two processes, see the same rows."""
    assert "a stream of rows of 64 tokens" in train_on_stream(1, "alone")
    (tmp_path / "resumed").mkdir()
    (tmp_path / "alone" / "checkpoint-4").rename(tmp_path / "resumed" / "checkpoint-4")
    train_on_stream(1, "resumed", "--resume_from_checkpoint")
    expected, weights = weights_of(tmp_path / "alone"), weights_of(tmp_path / "resumed")
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    train_on_stream(2, "two", "--per_device_train_batch_size", 2)
    curves = [json.loads((tmp_path / name / "loss_curve.json").read_text()) for name in ("alone", "two")]
    assert curves[1]["train"]["loss"] == pytest.approx(curves[0]["train"]["loss"], rel=1e-5)


@pytest.mark.slow
def test_two_processes_resume_their_streams(train_on_stream, tmp_path):
    train_on_stream(2, "two")
    expected = weights_of(tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "checkpoint-6")
    train_on_stream(2, "two", "--resume_from_checkpoint")
    weights = weights_of(tmp_path / "two")
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def measure_peak(path, results):
    tokenizer = load_tokenizer(None, 300, [[tell(number) for number in range(50)]])[0]
    stories, _ = stream_stories(DataArguments(dataset=str(path)))
    rows = RowStream(stories, tokenizer, 512, 0)
    size = 0
    for row in rows:
        size += len(row["input_ids"])
        if size > path.stat().st_size / 4:
            break
    results.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_memory_does_not_grow_with_the_data(tmp_path):
    context = multiprocessing.get_context("spawn")
    results, peaks = context.Queue(), []
    for mebibytes in (20, 200):
        path = tmp_path / "data.jsonl"
        write_lines(path, range(mebibytes * 2**20 // (len(tell(10**5)) + 14)))
        process = context.Process(target=measure_peak, args=(path, results))
        process.start()
        peaks.append(results.get(timeout=1500))
        process.join()
    print(peaks)
    assert peaks[1] < peaks[0] + ALLOWANCE_MIB
