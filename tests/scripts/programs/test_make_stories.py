"""From a recipe to a data set, with the grammar, with a tiny model and with a stub of one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from huggingface_hub import DatasetCard
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer
from transformers.utils import is_bitsandbytes_available

from mosaic_lab.babistories import pipeline
from mosaic_lab.babistories.card import size_category
from mosaic_lab.babistories.options import StoryArguments
from mosaic_lab.babistories.prompts import StoryPrompt
from mosaic_lab.babistories.writer import ModelWriter
from mosaic_lab.core.command import CommandParser
from mosaic_lab.programs import make_stories
from mosaic_lab.stories.grammar import tell_stories
from mosaic_lab.training.corpus import load_stories
from mosaic_lab.training.options import DataArguments

ROOT = Path(__file__).parents[3]
RECIPES = sorted((ROOT / "configuration" / "stories").glob("*.yaml"))
GRAMMAR = {
    "model": "grammar", "num_stories": 60, "shard_size": 16, "validation_fraction": 0.2,
    "train_tokenizer": 320, "block_size": 64,
}  # fmt: skip


def write_recipe(folder: Path, **options) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(options))
    return path


def make(folder: Path, **options) -> Path:
    """Runs the program; returns the folder of the data set."""
    folder.mkdir(parents=True, exist_ok=True)
    make_stories.main([str(write_recipe(folder, output_dir=str(folder / "tales"), **options))])
    return folder / "tales"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data set of the grammar."""
    return make(tmp_path_factory.mktemp("made"), **GRAMMAR)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny GPT-2 that writes some words and dots, and prompts for it."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = GPT2Tokenizer().train_new_from_iterator(tell_stories(100), 512, show_progress=False)
    torch.manual_seed(0)
    network = GPT2LMHeadModel(
        GPT2Config(vocab_size=len(tokenizer), n_positions=512, n_embd=16, n_layer=1, n_head=2)
    )
    words = [token for token in sorted(tokenizer.get_vocab()) if len(token) > 3 and token[1:].isalpha()][-20:]
    spoken = set(tokenizer.convert_tokens_to_ids([*words, "."]))
    network.generation_config.suppress_tokens = [i for i in range(len(tokenizer)) if i not in spoken]
    network.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    with (folder / "prompts.jsonl").open("w") as file:
        for number in range(7):
            prompt = StoryPrompt("run", "cat", "red", ("moral",) * (number % 2), "Tom", f"Story {number} is")
            file.write(json.dumps(prompt.as_record()) + "\n")
    return folder


@pytest.fixture(scope="module")
def of_model(model):
    return {
        "model": str(model / "model"), "prompts": str(model / "prompts.jsonl"), "num_stories": 21,
        "shard_size": 6, "batch_size": 4, "max_new_tokens": 60, "validation_fraction": 0.3,
        "train_tokenizer": 300, "block_size": 32,
    }  # fmt: skip


def test_datasets_and_training_read_what_is_made(made):
    splits = datasets.load_dataset(str(made))
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 48, "validation": 12}
    assert splits["train"].column_names == ["text"]
    train, validation = load_stories(DataArguments(dataset=str(made)))
    assert train["text"][:] == splits["train"]["text"][:]
    assert validation["text"][:] == splits["validation"]["text"][:]
    # Those that training with the embedded stories sees.
    assert sorted([*train["text"], *validation["text"]]) == sorted(tell_stories(60))


def test_card_and_statistics_agree_with_the_stories(made):
    card = DatasetCard.load(made / "README.md")
    statistics = json.loads((made / "statistics.json").read_text())
    assert card.data.language == "en" and card.data.license == "apache-2.0"
    assert card.data.size_categories == ["n<1K"] and card.data.task_categories == ["text-generation"]
    texts = {
        split: pq.read_table(made / "data" / f"{split}-00000-of-00001.parquet")["text"].to_pylist()
        for split in ("train", "validation")
    }
    for split, stories in texts.items():
        row = statistics["splits"][split]
        mean = sum(map(len, stories)) / len(stories)
        assert row["stories"] == len(stories) and row["mean_characters"] == round(mean, 1)
        assert f"| {split} | {len(stories)} | {row['tokens']:,} | {row['mean_characters']} |" in card.text
    assert statistics["counts"]["kept"] == sum(map(len, texts.values()))
    assert f"| kept | {statistics['counts']['kept']} |" in card.text
    assert f"{statistics['distinct_4_grams']:,} different runs" in card.text
    for order, loss in statistics["ngram_losses"].items():
        assert f"| {order} | {loss} |" in card.text
    recipe = yaml.safe_load(card.text.split("```yaml\n")[1].split("```")[0])
    assert recipe == statistics["recipe"] and recipe["num_stories"] == 60
    assert "{{" not in card.content and "{%" not in card.content and "\n\n\n" not in card.content
    assert "The only column is `text`." in card.text and "was asked" not in card.text


def test_going_on_after_an_interruption_gives_the_same_bytes(made, tmp_path, monkeypatch):
    shards = iter(range(10))

    def stop(*arguments):
        if next(shards) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    original = pipeline._tell
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_tell", stop)
        with pytest.raises(SystemExit) as stopped:
            make(tmp_path, **GRAMMAR)
    assert stopped.value.code == 130
    assert not (tmp_path / "tales").exists()
    shards = tmp_path / "tales.shards"
    assert sorted(path.name for path in shards.iterdir()) == ["stories-00000", "stories-00001"]
    stamps = {path: path.stat().st_mtime_ns for path in shards.glob("*/*.json*")}
    assert {path.name for path in stamps} == {"options.json", "records.jsonl", "result.json"}
    again = make(tmp_path, **GRAMMAR)
    assert contents(again) == contents(made)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_a_finished_data_set_can_be_finished_otherwise(made, tmp_path, monkeypatch, capsys):
    """Once it is moved away, without telling a story again; with the same options, nothing is done."""
    folder = make(tmp_path, **GRAMMAR)
    stamp = (folder / "README.md").stat().st_mtime_ns
    monkeypatch.setattr(pipeline, "_tell", lambda *arguments: pytest.fail("told again"))
    capsys.readouterr()
    assert contents(make(tmp_path, **GRAMMAR)) == contents(made)
    assert (folder / "README.md").stat().st_mtime_ns == stamp and "kept: 60" in capsys.readouterr().out
    folder.rename(tmp_path / "moved")
    make(tmp_path, **{**GRAMMAR, "validation_fraction": 0})
    assert contents(tmp_path / "moved") == contents(made)
    assert [path.name for path in (folder / "data").iterdir()] == ["train-00000-of-00001.parquet"]
    assert json.loads((folder / "statistics.json").read_text())["ngram_losses"] is None
    assert "n-gram models of the training split" not in (folder / "README.md").read_text()


def test_datasets_does_not_mistake_one_folder_for_another(made, tmp_path):
    """Its cache goes by the folder's name and, if the card lists them, the names of the files."""
    datasets.load_dataset(str(made))
    smaller = make(tmp_path, **{**GRAMMAR, "num_stories": 50})
    assert sum(map(len, datasets.load_dataset(str(smaller)).values())) == 50


def test_a_folder_with_other_contents_is_refused(made, tmp_path, read_error):
    def error(**options):
        recipe = write_recipe(tmp_path, **{"output_dir": str(made), **GRAMMAR, **options})
        return read_error(make_stories.main, recipe)

    before = contents(made)
    assert "was finished with other options: num_stories 60, not 61" in error(num_stories=61)
    assert "was finished with other options: validation_fraction 0.2, not 0.1;" in error(
        validation_fraction=0.1
    )
    assert contents(made) == before
    # The stories are left, of which another data set could be made.
    copy = tmp_path / "copy"
    shutil.copytree(made.with_name("tales.shards"), copy.with_name("copy.shards"))
    assert "stories-00000 was begun with other options: seed 0, not 1;" in error(seed=1, output_dir=str(copy))
    shutil.rmtree(copy.with_name("copy.shards"))
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    (other / "statistics.json").write_text("[]")
    assert f"folder {other}: there is something already" in error(output_dir=str(other))
    assert sorted(tmp_path.iterdir()) == [other, tmp_path / "recipe.yaml"]


def test_a_model_writes_what_the_prompts_ask_for(model, of_model, tmp_path):
    folder = make(tmp_path, **of_model)
    rows = datasets.load_dataset(str(folder))
    statistics = json.loads((folder / "statistics.json").read_text())
    assert statistics["counts"]["asked for"] == 21
    assert statistics["counts"]["kept"] == sum(map(len, rows.values())) > 10
    for row in rows["train"]:
        assert row["text"].startswith(row["opening"]) and row["text"].endswith(".")
        assert len(row["text"]) > len(row["opening"]) + 10
        assert (row["verb"], row["name"]) == ("run", "Tom") and "[INST]" not in row["text"]
        assert row["features"] in ([], ["moral"])
    columns = ["text", "verb", "noun", "adjective", "features", "name", "opening"]
    assert rows["train"].column_names == columns
    card = (folder / "README.md").read_text()
    assert "what was asked for: `verb`, `noun`, `adjective`, `features`, `name`, `opening`." in card
    # Stories that were asked for alike differ.
    assert len(set(rows["train"]["text"][:])) == len(rows["train"])


def test_a_model_goes_on_after_an_interruption(of_model, tmp_path, monkeypatch):
    calls = iter(range(100))

    def stop(self, texts):
        if next(calls) == 3:
            raise KeyboardInterrupt
        return original(self, texts)

    original = ModelWriter._continue
    with monkeypatch.context() as patch:
        patch.setattr(ModelWriter, "_continue", stop)
        with pytest.raises(SystemExit):
            make(tmp_path / "stopped", **of_model)
    assert len(list((tmp_path / "stopped" / "tales.shards").glob("stories-*"))) == 1
    whole, resumed = (make(tmp_path / name, **of_model) for name in ("whole", "stopped"))
    assert contents(whole) == contents(resumed)


def test_a_batch_is_as_good_as_one_at_a_time(of_model):
    """With the likeliest tokens only, padding must change nothing."""
    requests = ["Write!", "Write a long story about a cat, and do not forget the dog!", "Write a story!"]
    openings = ["Once", "One day, a cat", "It"]
    options = StoryArguments(output_dir="none", **{**of_model, "top_k": 1, "batch_size": 3})
    writer = ModelWriter(options)
    together = writer.answer(requests, "0", openings)
    alone = [
        writer.answer([request], "0", [opening])[0]
        for request, opening in zip(requests, openings, strict=True)
    ]
    assert together == alone
    assert all(text.startswith(opening) for text, opening in zip(together, openings, strict=True))


def test_seeds_change_what_a_model_writes(of_model):
    writer = ModelWriter(StoryArguments(output_dir="none", **of_model))
    first, again, other = (writer.answer(["Write!"] * 3, seed) for seed in ("a", "a", "b"))
    assert first == again and not set(first) & set(other) and len(set(first)) == 3


def test_names_and_openings_come_from_the_model(of_model, tmp_path, monkeypatch):
    asked = []

    def answer(self, requests, seed, openings=None):
        if openings is not None:
            return [f"{opening} cat sat on mat {seed[-1]} number {i}." for i, opening in enumerate(openings)]
        asked.extend(requests)
        return [f"1. Ann\n2. Bob\n3. A long way off {i}" for i in range(len(requests))]

    monkeypatch.setattr(ModelWriter, "answer", answer)
    options = {**of_model, "num_name_requests": 5, "num_opening_requests": 6}
    del options["prompts"]
    folder = make(tmp_path, **options, near_duplicate=1.0)
    assert len(asked) == 11 and len(set(asked)) == 3
    names = {row["name"] for row in datasets.load_dataset(str(folder), split="train")}
    assert names == {"Ann", "Bob"}
    shards = folder.with_name("tales.shards")
    assert {path.name for path in shards.glob("[no]*-*")} == {
        *(f"names-{shard:05}" for shard in range(2)),
        *(f"openings-{shard:05}" for shard in range(2)),
    }


def test_what_a_user_gets_wrong_is_named(model, of_model, tmp_path, read_error):
    def error(**options):
        folder = tmp_path / f"wrong-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        options = {"output_dir": str(folder / "a"), "model": "grammar", **options}
        return read_error(make_stories.main, write_recipe(folder, **options))

    assert "model /none/there: there is no such folder" in error(model="/none/there")
    assert "model must name a text-generation model, or be grammar" in error(model="")
    assert "prompts missing.jsonl: cannot be read" in error(**{**of_model, "prompts": "missing.jsonl"})
    assert "prompts a.jsonl: needs a model; the grammar follows no prompts" in error(prompts="a.jsonl")
    assert "num_stories must be at least 1, not 0" in error(num_stories=0)
    assert "temperature" in error(temperature=0.0)
    assert "positions are fewer" in error(**{**of_model, "max_new_tokens": 500})
    assert "there are no names in its answers" in error(
        **{**of_model, "prompts": None, "num_name_requests": 1, "num_opening_requests": 2}
    )
    if not is_bitsandbytes_available():
        assert "load_in_4bit: the package bitsandbytes is missing" in error(**of_model, load_in_4bit=True)
    assert "holds out 1 of the 1 stories and leaves none to train on" in error(num_stories=1)
    (tmp_path / "file").write_text("")
    assert "there is something already" in error(output_dir=str(tmp_path / "file"))
    assert "Not a directory" in error(output_dir=str(tmp_path / "file" / "a"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_are_valid(recipe):
    options, _ = CommandParser(StoryArguments, description="", recipes="stories").parse([str(recipe)])
    for name, value in yaml.safe_load(recipe.read_text()).items():
        assert getattr(options, name) == value and type(getattr(options, name)) is type(value)


def test_the_protocol_of_babistories():
    options, _ = CommandParser(StoryArguments, description="", recipes="stories").parse(
        [str(ROOT / "configuration/stories/babistories.yaml")]
    )
    assert options.model == "mistralai/Mixtral-8x7B-Instruct-v0.1"
    sampling = (options.top_p, options.top_k, options.temperature, options.max_new_tokens)
    assert sampling == (1.0, 0, 1.0, 512)


def test_size_categories():
    sizes = {1: "n<1K", 999: "n<1K", 1000: "1K<n<10K", 20_000: "10K<n<100K", 2_200_000: "1M<n<10M"}
    assert {size: size_category(size) for size in sizes} == sizes


def test_prompts_of_another_content_are_refused(of_model, tmp_path, read_error):
    prompts = tmp_path / "prompts.jsonl"
    shutil.copy(of_model["prompts"], prompts)
    made = make(tmp_path, **{**of_model, "prompts": str(prompts)})
    prompts.write_text(prompts.read_text().replace("cat", "dog"))
    assert "prompts_sha256" in read_error(make_stories.main, tmp_path / "recipe.yaml")
    made.rename(tmp_path / "moved")
    assert "prompts_sha256" in read_error(make_stories.main, tmp_path / "recipe.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "one by one"])
def test_two_processes_make_what_one_makes(made, tmp_path, launcher):
    """One of them makes the data set, whether a launcher groups them or not; the other one waits."""
    recipe = write_recipe(tmp_path, output_dir=str(tmp_path / "tales"), **GRAMMAR)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "scripts")))}
    program = [str(ROOT / "scripts" / "make_stories.py"), str(recipe)]
    if launcher == "torchrun":
        group = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        commands = [[sys.executable, *group, *program]]
    else:
        commands = [[sys.executable, *program]] * 2
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for command in commands
    ]
    printed = "".join(process.communicate()[0] for process in processes)
    assert not any(process.returncode for process in processes)
    # The second one may have begun after the first one's end, and then finds the data set at its start.
    assert printed.count("kept: 60") + printed.count("another process has finished it") == 2
    assert contents(tmp_path / "tales") == contents(made)
