"""Makes a corpus as BabiStories was made: names and openings, prompts, stories, cleaning, the data set."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, List, Value
from filelock import FileLock

from mosaic_lab.babistories import names_and_openings
from mosaic_lab.babistories.card import make_card
from mosaic_lab.babistories.cleaning import clean_stories
from mosaic_lab.babistories.duplicates import find_exact, find_near
from mosaic_lab.babistories.measures import count_distinct_grams, measure_losses, measure_split
from mosaic_lab.babistories.options import GRAMMAR, StoryArguments
from mosaic_lab.babistories.prompts import StoryPrompt, draw_prompt, read_prompts
from mosaic_lab.babistories.shards import Make, Records, make_records
from mosaic_lab.babistories.writer import ModelWriter
from mosaic_lab.core.dataset_folder import STATISTICS, check_free, write_dataset
from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import describe_difference, read_json
from mosaic_lab.core.work import LOCK, leave_group
from mosaic_lab.stories.grammar import tell_story
from mosaic_lab.training.corpus import count_held_out
from mosaic_lab.training.tokenizer import load_tokenizer

_FEATURES = {"features": List(Value("string"))}

# Makes all records of a stage from its name, their number, the shard size, and how a shard is made.
RunStage = Callable[[str, int, int, Make], Iterator[dict[str, Any]]]


def make_stories(options: StoryArguments) -> dict[str, Any] | None:
    """Writes stories and makes a data set of them; resumes what an earlier run with these options began.

    Any number of processes may share the work: several that are started with the same options, or those of
    `accelerate launch` or `torchrun`.

    Returns:
        `dict`: the statistics; `None` if another process made the data set of them meanwhile.

    Raises:
        InputError: for options that cannot be used, and for an `output_dir` that holds something else.
    """
    leave_group()
    folder = Path(options.output_dir).absolute()
    shards = folder.with_name(f"{folder.name}.shards")
    asked = read_prompts(options.prompts) if options.prompts else []
    if options.validation_fraction:
        # Of all of them; how many are kept is not known yet.
        count_held_out(options.num_stories, options.validation_fraction)
    statistics = read_finished(folder, options)
    if statistics is not None:
        return statistics
    run_stage = partial(make_records, shards, options)
    if options.model == GRAMMAR:
        write = partial(_tell, options.seed)
    else:
        write = _prepare_writing(options, asked, ModelWriter(options), run_stage)
    stories = run_stage("stories", options.num_stories, options.shard_size, write)
    # All processes find all stories written, and one of them makes the data set.
    with FileLock(shards / LOCK):
        if read_finished(folder, options) is not None:
            return None
        return finish(options, list(stories))


def read_finished(folder: Path, options: StoryArguments) -> dict[str, Any] | None:
    """The statistics of the data set in `folder`; `None` if there is none yet.

    Raises:
        InputError: if it was made with other options, or if there is something else.
    """
    statistics = read_json(folder / STATISTICS) if folder.is_dir() else None
    if not isinstance(statistics, dict) or "recipe" not in statistics:
        check_free(folder)
        return None
    before, now = (
        {**recipe, "prompts_sha256": prompts_sha256}
        for recipe, prompts_sha256 in (
            (statistics["recipe"], statistics.get("prompts_sha256")),
            (options.as_recipe(), options.hash_prompts()),
        )
    )
    if before != now:
        raise InputError(
            f"output_dir {options.output_dir} was finished with other options: "
            f"{describe_difference(before, now)}; name another one, or move it away"
        )
    return statistics


def _tell(seed: int, numbers: range, _: str) -> Records:
    """Stories of the embedded grammar: those of `tell_stories`, but without telling repeated ones again."""
    return [{"text": tell_story(random.Random(f"{seed}/{number}/0"))} for number in numbers]


def _prepare_writing(
    options: StoryArguments, asked: list[StoryPrompt], writer: ModelWriter, run_stage: RunStage
) -> Make:
    """Finds names and openings, and returns how a shard of stories is made with them."""
    names, openings = _find_names_and_openings(options, asked, writer, run_stage)

    def prompt_of(number: int) -> StoryPrompt:
        rng = random.Random(f"{options.seed}/prompts/{number}")
        return draw_prompt(rng, names, openings, asked[number % len(asked)] if asked else None)

    def write(numbers: range, seed: str) -> Records:
        prompts = [prompt_of(number) for number in numbers]
        texts = writer.answer(
            [prompt.text for prompt in prompts], seed, [prompt.opening for prompt in prompts]
        )
        return [{"text": text, **prompt.as_record()} for text, prompt in zip(texts, prompts, strict=True)]

    return write


def _find_names_and_openings(
    options: StoryArguments, asked: list[StoryPrompt], writer: ModelWriter, run_stage: RunStage
) -> tuple[list[str], list[str]]:
    """Asks the model for names and openings; not where all prompts have their own."""

    def ask(kind: str, requests: tuple[str, ...], num_requests: int, parse: Callable) -> list[str]:
        if asked and all(getattr(prompt, kind) for prompt in asked):
            return []

        def make(numbers: range, seed: str) -> Records:
            texts = writer.answer([requests[number % len(requests)] for number in numbers], seed)
            return [{"text": text} for text in texts]

        answers = run_stage(f"{kind}s", num_requests, options.batch_size, make)
        found = parse(answer["text"] for answer in answers)
        if not found:
            raise InputError(
                f"model {options.model}: there are no {kind}s in its answers; take a model that follows "
                "instructions, or prompts that have them"
            )
        return found

    names_request = (names_and_openings.NAMES_REQUEST,)
    return (
        ask("name", names_request, options.num_name_requests, names_and_openings.parse_names),
        ask(
            "opening",
            names_and_openings.OPENINGS_REQUESTS,
            options.num_opening_requests,
            names_and_openings.parse_openings,
        ),
    )


def finish(options: StoryArguments, records: Records) -> dict[str, Any]:
    """Cleans the stories, drops repeated ones, measures what remains and writes the data set."""
    kept, counts = select(records, options.near_duplicate)
    splits = split_records(kept, options.validation_fraction, options.seed)
    texts = {split: [record["text"] for record in part] for split, part in splits.items()}
    train = texts["train"]
    batches = (train[start : start + 1000] for start in range(0, len(train), 1000))
    tokenizer, origin = load_tokenizer(options.tokenizer, options.train_tokenizer, batches)
    statistics = {
        "recipe": options.as_recipe(),
        "prompts_sha256": options.hash_prompts(),
        "counts": counts,
        "splits": {split: measure_split(part, tokenizer) for split, part in texts.items()},
        "tokenizer": origin,
        "distinct_4_grams": count_distinct_grams(record["text"] for record in kept),
        "ngram_losses": None,
    }
    if "validation" in texts:
        statistics["ngram_losses"] = measure_losses(train, texts["validation"], tokenizer, options.block_size)
    columns = list(kept[0])
    features = Features({column: _FEATURES.get(column, Value("string")) for column in columns})
    folder = Path(options.output_dir).absolute()
    write_dataset(
        folder,
        {split: Dataset.from_list(part, features) for split, part in splits.items()},
        str(make_card(folder.name, statistics, columns, options.license)),
        statistics,
    )
    return statistics


def select(records: Records, near_duplicate: float) -> tuple[Records, dict[str, int]]:
    """Cleans the stories and drops repeated ones; counts the stories that each rule changed or dropped.

    Raises:
        InputError: if none remains.
    """
    stories, rules = clean_stories([record["text"] for record in records])
    kept = [
        {**record, "text": story} for record, story in zip(records, stories, strict=True) if story is not None
    ]
    repeated = Counter()
    for rule, find in (
        ("dropped: told before", find_exact),
        ("dropped: nearly told before", lambda texts: find_near(texts, near_duplicate)),
    ):
        is_repeated = find([record["text"] for record in kept])
        kept = [record for record, drop in zip(kept, is_repeated, strict=True) if not drop]
        repeated[rule] = int(is_repeated.sum())
    if not kept:
        raise InputError(f"none of {len(records):,} stories is left after cleaning: {dict(rules)}")
    return kept, {"asked for": len(records), **dict(sorted(rules.items())), **repeated, "kept": len(kept)}


def split_records(records: Records, validation_fraction: float, seed: int) -> dict[str, Records]:
    """Holds out a random fraction for validation; both splits keep the order of the records."""
    if validation_fraction == 0:
        return {"train": records}
    num_held_out = count_held_out(len(records), validation_fraction)
    is_held_out = np.zeros(len(records), dtype=bool)
    is_held_out[np.random.default_rng(seed).permutation(len(records))[:num_held_out]] = True
    parts = {"train": ~is_held_out, "validation": is_held_out}
    return {
        split: [record for record, chosen in zip(records, mask, strict=True) if chosen]
        for split, mask in parts.items()
    }
