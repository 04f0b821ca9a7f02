"""RegBench as datasets: one sequence of strings from each random automaton."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict, Features, List, Value
from datasets.fingerprint import Hasher
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from mosaic_lab.regbench import automata
from mosaic_lab.regbench.automata import (
    PADDING,
    SEPARATOR,
    VOCAB_SIZE,
    Automaton,
    draw_automaton,
    language,
)

# Strings of a sequence, both bounds included.
NUM_STRINGS = (10, 19)
# More symbols or sequences would take days.
LONGEST_STRING, MOST_SEQUENCES = 1000, 10_000_000
IGNORED = -100
# Third part of the seed of `draw_long_rows`; the splits have 1, 2 and 3.
LONG_ROWS = 4
FEATURES = Features(
    {
        "input_ids": List(Value("int8")),
        "states": List(Value("int8")),
        "symbols": List(List(Value("int8"))),
    }
)


@dataclass(frozen=True)
class Sizes:
    """Numbers of automata, and the longest string."""

    num_train: int
    num_validation: int
    num_test: int
    max_string_length: int
    in_distribution: bool
    seed: int


def draw_automata(seed: int, number: int, start: int = 0) -> Iterator[Automaton]:
    """Automata `start` to `start + number - 1` of an endless sequence in which no two have the same language.

    The sequence depends on `seed` alone: a larger data set continues a smaller one.
    """
    seen, index = set(), 0
    while len(seen) < start + number:
        automaton = draw_automaton(np.random.default_rng([seed, index]))
        index += 1
        key = language(automaton)
        if key not in seen:
            seen.add(key)
            if len(seen) > start:
                yield automaton


def draw_sequence(
    automaton: Automaton, rng: np.random.Generator, max_string_length: int
) -> tuple[list[int], list[int]]:
    """10 to 19 strings, see `draw_strings`."""
    return draw_strings(
        automaton, rng, max_string_length, int(rng.integers(NUM_STRINGS[0], NUM_STRINGS[1] + 1))
    )


def draw_strings(
    automaton: Automaton, rng: np.random.Generator, max_string_length: int, num_strings: int
) -> tuple[list[int], list[int]]:
    """Strings of 1 to `max_string_length` symbols, joined by separators.

    Returns:
        `tuple[list[int], list[int]]`: token ids, and the state after each; 0 after a separator.
    """
    ids, states = [], []
    for number in range(num_strings):
        if number:
            ids.append(SEPARATOR)
            states.append(0)
        symbols, after = automaton.draw_string(rng, int(rng.integers(1, max_string_length + 1)))
        ids += symbols
        states += after
    return ids, states


def longest_sequence(max_string_length: int) -> int:
    """The largest number of tokens in a sequence."""
    return NUM_STRINGS[1] * (max_string_length + 1) - 1


def load(sizes: Sizes) -> DatasetDict:
    """The splits `train`, `validation` and `test`, from datasets' cache if they were made before.

    Columns: `input_ids`; `states`, the automaton's state after each token; `symbols`, the legal symbols of
    each state; and, computed from these when a row is read, `distribution`, the exact one of the symbol after
    each token, float32 `(time, 20)`.

    No two splits share an automaton, and test and validation stay the same for any number of training
    automata. With `in_distribution` (paper, table 4) all splits draw from the same automata, each its own
    sequences.
    """
    start = {"test": 0, "validation": sizes.num_test, "train": sizes.num_test + sizes.num_validation}
    number = {"test": sizes.num_test, "validation": sizes.num_validation, "train": sizes.num_train}
    # datasets only looks at the generator itself.
    code = [Path(module.__file__).read_bytes() for module in (automata, sys.modules[__name__])]
    splits = DatasetDict()
    for split in ("train", "validation", "test"):
        arguments = {
            "split": split,
            "number": number[split],
            "start": 0 if sizes.in_distribution else start[split],
            "num_automata": sizes.num_train if sizes.in_distribution else number[split],
            "max_string_length": sizes.max_string_length,
            "seed": sizes.seed,
        }
        fingerprint = Hasher.hash([code, arguments])
        rows = Dataset.from_generator(
            _generate, FEATURES, gen_kwargs=arguments, split=split, fingerprint=fingerprint
        )
        splits[split] = rows.with_transform(add_distributions)
    return splits


def draw_long_rows(
    num_rows: int, length: int, max_string_length: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of as many strings as fill them, of the first test languages, a row each.

    Args:
        num_rows (`int`): number of rows.
        length (`int`): tokens in a row; its last string may be cut.
        max_string_length (`int`): longest string.
        seed (`int`): `language_seed` of the data set.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: token ids, int64 `(rows, length)`, and the exact distribution of the
        symbol after each, float32 `(rows, length, 20)`.
    """
    rows, distributions = [], []
    for number, automaton in enumerate(draw_automata(seed, num_rows)):
        rng = np.random.default_rng([seed, number, LONG_ROWS])
        # A string has one symbol and its separator at least.
        ids, states = draw_strings(automaton, rng, max_string_length, length // 2 + 1)
        rows.append(ids[:length])
        distributions.append(_look_up([sorted(arcs) for arcs in automaton.transitions], states[:length]))
    return np.array(rows), np.stack(distributions)


def _generate(
    split: str, number: int, start: int, num_automata: int, max_string_length: int, seed: int
) -> Iterator[dict[str, Any]]:
    drawn = draw_automata(seed, num_automata, start)
    languages = list(tqdm(drawn, total=num_automata, desc=f"{split} automata"))
    stream = ("train", "validation", "test").index(split)
    for index in range(number):
        automaton = languages[index % num_automata]
        rng = np.random.default_rng([seed, start + index, 1 + stream])
        ids, states = draw_sequence(automaton, rng, max_string_length)
        yield {
            "input_ids": ids,
            "states": states,
            "symbols": [sorted(arcs) for arcs in automaton.transitions],
        }


def add_distributions(batch: dict[str, list]) -> dict[str, list]:
    """The columns and `distribution`, the exact one of the symbol after each token, float32 `(time, 20)`."""
    tables = zip(batch["symbols"], batch["states"], strict=True)
    return {**batch, "distribution": [_look_up(symbols, states) for symbols, states in tables]}


def _look_up(symbols: list[list[int]], states: list[int]) -> np.ndarray:
    table = np.zeros((len(symbols), VOCAB_SIZE), dtype=np.float32)
    for state, legal in enumerate(symbols):
        table[state, legal] = 1 / len(legal)
    return table[states]


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """A batch, padded at the right; separators and padding are no labels, as in RegBench."""
    ids = [torch.tensor(row["input_ids"]) for row in rows]
    input_ids = pad_sequence(ids, batch_first=True, padding_value=PADDING)
    is_symbol = (input_ids != PADDING) & (input_ids != SEPARATOR)
    return {
        "input_ids": input_ids,
        "attention_mask": (input_ids != PADDING).long(),
        "labels": input_ids.where(is_symbol, IGNORED),
    }
