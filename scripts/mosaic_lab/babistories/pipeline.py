"""The recipe of BabiStories: names and openings, prompts, stories, what is kept of them, the data set."""

import random
from collections import Counter
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState

from mosaic_lab.babistories import ideas
from mosaic_lab.babistories.cleaning import clean_stories
from mosaic_lab.babistories.duplicates import find_exact, find_near
from mosaic_lab.babistories.measures import count_distinct_grams, measure_losses, measure_split
from mosaic_lab.babistories.options import GRAMMAR, StoryArguments
from mosaic_lab.babistories.prompted import tell_prompted
from mosaic_lab.babistories.prompts import StoryPrompt, draw_prompt, read_prompts
from mosaic_lab.babistories.publish import publish
from mosaic_lab.babistories.shards import Records, Stage, read_stage, run_stage
from mosaic_lab.babistories.writer import ModelWriter
from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import describe_difference, read_json, write_json
from mosaic_lab.training.tokenizer import load_tokenizer

OPTIONS, SHARDS = "options.json", "shards"
# Stories of the grammar whose beginnings are the openings of others.
GRAMMAR_OPENINGS = 2_000
# Processes wait for each other as long as a shard takes.
_PATIENCE = timedelta(days=30)


def make_stories(options: StoryArguments) -> dict[str, Any] | None:
    """Writes stories and makes a data set of them; goes on where an earlier run with these options stopped.

    Any number of processes, started by `accelerate launch` or `torchrun`, share the work.

    Returns:
        `dict`: the statistics; `None` on all processes but the first.

    Raises:
        InputError: for options that cannot be used, and for an `output_dir` with stories of other ones.
    """
    folder = Path(options.output_dir)
    asked = read_prompts(options.prompts) if options.prompts else []
    # Processes without an accelerator form a group only if they are told that they have none.
    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=_PATIENCE)
    _claim(folder, options, state)
    writer = None if options.model == GRAMMAR else ModelWriter(options, state)
    names, openings = _find_ideas(options, asked, writer, folder / SHARDS, state)

    def prompt_of(number: int) -> StoryPrompt:
        rng = random.Random(f"{options.seed}/prompts/{number}")
        return _draw_fitting(rng, names, openings, asked[number % len(asked)] if asked else None)

    def write(numbers: range, seed: str) -> Records:
        prompts = [prompt_of(number) for number in numbers]
        if writer is None:
            texts = tell_prompted(prompts, [f"{options.seed}/stories/{number}" for number in numbers])
        else:
            requests, begun = zip(*((prompt.text, prompt.opening) for prompt in prompts), strict=True)
            texts = writer.answer(requests, seed, begun)
        return [{"text": text, **prompt.as_record()} for text, prompt in zip(texts, prompts, strict=True)]

    stage = Stage("stories", options.num_stories, options.shard_size, write)
    run_stage(stage, folder / SHARDS, options.seed, state)
    return finish(options, list(read_stage(stage, folder / SHARDS))) if state.is_main_process else None


def _claim(folder: Path, options: StoryArguments, state: PartialState) -> None:
    """Refuses a folder that was begun with other options, or cannot be written; begins it otherwise."""
    try:
        before, now = read_json(folder / OPTIONS), options.for_stories()
        if before is not None and before != now:
            raise InputError(
                f"output_dir {folder} was begun with other options: {describe_difference(before, now)}; "
                "name another one, or move that folder away"
            )
        if state.is_main_process:
            (folder / SHARDS).mkdir(parents=True, exist_ok=True)
            write_json(folder / OPTIONS, now)
    except OSError as error:
        raise InputError(f"output_dir {folder}: cannot be written: {error.strerror}") from error
    state.wait_for_everyone()


def _find_ideas(
    options: StoryArguments,
    asked: list[StoryPrompt],
    writer: ModelWriter | None,
    folder: Path,
    state: PartialState,
) -> tuple[list[str], list[str]]:
    """Names and openings; none where the prompts have their own."""
    needs_names = not asked or not all(prompt.name for prompt in asked)
    needs_openings = not asked or not all(prompt.opening for prompt in asked)
    if writer is None:
        return ideas.grammar_names(), ideas.grammar_openings(GRAMMAR_OPENINGS, options.seed)

    def ask(kind: str, requests: tuple[str, ...], num_requests: int) -> list[str]:
        def make(numbers: range, seed: str) -> Records:
            texts = writer.answer([requests[number % len(requests)] for number in numbers], seed)
            return [{"text": text} for text in texts]

        stage = Stage(kind, num_requests, options.batch_size, make)
        run_stage(stage, folder, options.seed, state)
        return [record["text"] for record in read_stage(stage, folder)]

    names = openings = []
    if needs_names:
        names = ideas.parse_names(ask("names", (ideas.NAMES_REQUEST,), options.num_name_requests))
    if needs_openings:
        answers = ask("openings", ideas.OPENINGS_REQUESTS, options.num_opening_requests)
        openings = ideas.parse_openings(answers)
    for kind, needed, found in (("names", needs_names, names), ("openings", needs_openings, openings)):
        if needed and not found:
            raise InputError(
                f"model {options.model}: there are no {kind} in its answers; take a model that follows "
                "instructions, or prompts that have them"
            )
    return names, openings


def _draw_fitting(
    rng: random.Random, names: list[str], openings: list[str], asked: StoryPrompt | None
) -> StoryPrompt:
    """A prompt whose opening and name agree, if one comes up soon."""
    for _ in range(20):
        prompt = draw_prompt(rng, names, openings, asked)
        if ideas.fits_gender(prompt):
            break
    return prompt


def finish(options: StoryArguments, records: Records) -> dict[str, Any]:
    """Cleans the stories, drops those that are told twice, measures and publishes what is left."""
    kept, counts = select(records, options.near_duplicate)
    splits = split_records(kept, options.validation_fraction, options.seed)
    texts = {split: [record["text"] for record in part] for split, part in splits.items()}
    train = texts["train"]
    batches = (train[start : start + 1000] for start in range(0, len(train), 1000))
    tokenizer, origin = load_tokenizer(options.tokenizer, options.train_tokenizer, batches)
    recipe = {name: value for name, value in asdict(options).items() if name != "output_dir"}
    statistics = {
        "recipe": {name: value for name, value in recipe.items() if value is not None},
        "counts": counts,
        "splits": {split: measure_split(part, tokenizer) for split, part in texts.items()},
        "tokenizer": origin,
        "distinct_4_grams": count_distinct_grams(record["text"] for record in kept),
        "ngram_losses": None,
    }
    if "validation" in texts:
        statistics["ngram_losses"] = measure_losses(train, texts["validation"], tokenizer, options.block_size)
    publish(Path(options.output_dir), splits, statistics, options.license)
    return statistics


def select(records: Records, near_duplicate: float) -> tuple[Records, dict[str, int]]:
    """The records with clean stories that are told once, and how many stories each rule changed or dropped.

    Raises:
        InputError: if none is left.
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
    """Training and validation records, each in their order; no validation split of a share of 0."""
    if validation_fraction == 0:
        return {"train": records}
    if len(records) < 2:
        raise InputError("one story is left, none to hold out; set validation_fraction to 0")
    num_held_out = max(1, round(validation_fraction * len(records)))
    is_held_out = np.zeros(len(records), dtype=bool)
    is_held_out[np.random.default_rng(seed).permutation(len(records))[:num_held_out]] = True
    parts = {"train": ~is_held_out, "validation": is_held_out}
    return {
        split: [record for record, chosen in zip(records, mask, strict=True) if chosen]
        for split, mask in parts.items()
    }
