"""Stories that are read while training."""

import json
import multiprocessing
import resource

import pytest
import torch
from datasets import Dataset, IterableDatasetDict
from safetensors.torch import load_file

from mosaic_lab.programs import train
from mosaic_lab.training import corpus
from mosaic_lab.training.corpus import load_stories, stream_stories
from mosaic_lab.training.options import DataArguments
from mosaic_lab.training.rows import SHUFFLE_BUFFER, STREAMED_PER_BATCH, stream_rows
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
    rows = [stream_rows(stories, tokenizer, 8, seed) for seed in (0, 0, 1)]
    length = sum(len(tokenizer(tell(number))["input_ids"]) + 1 for number in range(200, 300)) // 8
    first, again, other = ([row["input_ids"].tolist() for row in stream.take(2 * length)] for stream in rows)
    assert first == again and first != other
    assert first[:length] == first[length:]
    told = tokenizer.decode([token for row in first[:length] for token in row]).split("<|endoftext|>")
    # Less than a row is missing at the end.
    assert len(told) in (100, 101) and len(set(told)) == len(told)
    assert set(told[:-1]) <= {tell(number) for number in range(200, 300)}


def test_few_stories_are_read_ahead(tmp_path, tokenizer, monkeypatch):
    write_lines(tmp_path / "a.jsonl", range(20_000))
    num_read = 0

    def count(path, column):
        nonlocal num_read
        for story in read(path, column):
            num_read += 1
            yield story

    read = corpus.READERS[".jsonl"]
    monkeypatch.setitem(corpus.READERS, ".jsonl", count)
    stories, _ = stream_stories(DataArguments(dataset=str(tmp_path / "a.jsonl")))
    rows = stream_rows(stories, tokenizer, 64, 0)
    next(iter(rows))
    # Once to see that there is a row, once to take it.
    assert 0 < num_read <= 2 * (STREAMED_PER_BATCH + SHUFFLE_BUFFER + 1)


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


def test_resumed_and_shared_streams(short_recipe, exact_model, tmp_path):
    """A run that is resumed in the second round of its data, and two processes, see the same rows."""
    data = tmp_path / "data.jsonl"
    write_lines(data, range(20))
    options = ["--streaming", "--dataset", data, "--model", exact_model, "--logging_steps", 1]
    options += ["--save_total_limit", 3, "--eval_strategy", "no"]
    log, alone = tmp_path / "log", tmp_path / "alone"
    assert run_group([short_recipe, "--output_dir", alone, *options], log) == [0], log.read_text()
    assert "a stream of rows of 64 tokens" in log.read_text()
    (tmp_path / "resumed").mkdir()
    (alone / "checkpoint-4").rename(tmp_path / "resumed" / "checkpoint-4")
    resume = ["--output_dir", tmp_path / "resumed", "--resume_from_checkpoint"]
    assert run_group([short_recipe, *options, *resume], log) == [0], log.read_text()
    expected, weights = (load_file(tmp_path / name / "model.safetensors") for name in ("alone", "resumed"))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    halves = ["--output_dir", tmp_path / "two", "--per_device_train_batch_size", 2]
    assert run_group([short_recipe, *options, *halves], log, 2) == [0, 0], log.read_text()
    curves = [json.loads((tmp_path / name / "loss_curve.json").read_text()) for name in ("alone", "two")]
    assert curves[1]["train"]["loss"] == pytest.approx(curves[0]["train"]["loss"], rel=1e-5)


def measure_peak(path, results):
    tokenizer = load_tokenizer(None, 300, [[tell(number) for number in range(50)]])[0]
    stories, _ = stream_stories(DataArguments(dataset=str(path)))
    rows = stream_rows(stories, tokenizer, 512, 0)
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
