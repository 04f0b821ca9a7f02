import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import regbench
import torch

from mosaic_lab.regbench.automata import SEPARATOR, Automaton, language
from mosaic_lab.regbench.data import Sizes, collate, draw_automata, load, longest_sequence


def sizes(**changes):
    options = dict(
        num_train=30, num_validation=7, num_test=9, max_string_length=6, in_distribution=False, seed=0
    )
    return Sizes(**{**options, **changes})


def languages(rows):
    """What an automaton allows in the states that its sequence visits, read off the rows."""
    return {tuple(map(tuple, row["symbols"])) for row in rows}


def test_distribution_at_every_position():
    """Against a walk through the automaton that the row came from."""
    automata = list(draw_automata(0, 16))
    for split, start in (("test", 0), ("validation", 9)):
        for automaton, row in zip(automata[start:], load(sizes())[split], strict=False):
            state = 0
            for token, after in zip(row["input_ids"], row["distribution"], strict=True):
                state = 0 if token == SEPARATOR else automaton.transitions[state][token]
                expected = np.zeros(20)
                for symbol in automaton.transitions[state]:
                    expected[symbol] = 1 / len(automaton.transitions[state])
                np.testing.assert_allclose(after, expected, atol=1e-7)


def test_strings():
    for row in load(sizes(num_test=40))["test"]:
        strings = "".join(map(chr, row["input_ids"])).split(chr(SEPARATOR))
        assert 10 <= len(strings) <= 19
        assert all(1 <= len(string) <= 6 for string in strings)
        assert len(row["input_ids"]) <= longest_sequence(6)


def test_splits_share_no_automaton():
    automata = list(draw_automata(0, 30 + 7 + 9))
    keys = [language(automaton) for automaton in automata]
    assert len(set(keys)) == len(keys)
    drawn = load(sizes())
    order = [*drawn["test"], *drawn["validation"], *drawn["train"]]
    for automaton, row in zip(automata, order, strict=True):
        assert row["symbols"] == [sorted(arcs) for arcs in automaton.transitions]


def test_larger_sets_continue_smaller_ones():
    small, large = load(sizes()), load(sizes(num_train=50))
    for split in ("test", "validation"):
        assert small[split]["input_ids"] == large[split]["input_ids"]
    assert large["train"]["input_ids"][:30] == small["train"]["input_ids"]
    other = load(sizes(seed=1))
    assert other["test"]["input_ids"] != small["test"]["input_ids"]


def test_in_distribution_splits_share_automata_but_no_sequence():
    splits = load(sizes(num_train=10, in_distribution=True))
    assert languages(splits["test"]) <= languages(splits["train"]) >= languages(splits["validation"])
    sequences = [tuple(row["input_ids"]) for split in splits.values() for row in split]
    assert len(set(sequences)) == len(sequences) == 10 + 7 + 9


def test_independent_of_hash_order(tmp_path):
    """Two processes with different hash seeds and caches draw the same."""
    program = (
        "import hashlib; from regbench.data import Sizes, load;"
        "rows = [row for split in load(Sizes(20, 5, 5, 9, False, 3)).values() for row in split];"
        "text = repr([(row['input_ids'], row['states'], row['symbols']) for row in rows]);"
        "print(hashlib.sha256(text.encode()).hexdigest())"
    )
    digests = set()
    for seed in ("1", "2"):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": str(Path(next(iter(regbench.__path__))).parent),
            "HF_DATASETS_CACHE": str(tmp_path / seed),
            "HF_HUB_OFFLINE": "1",
        }
        command = [sys.executable, "-c", program]
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        digests.add(result.stdout.split()[-1])
    assert len(digests) == 1


def test_batches():
    batch = collate([{"input_ids": [3, 19, 5, 1]}, {"input_ids": [2, 4]}])
    assert batch["input_ids"].tolist() == [[3, 19, 5, 1], [2, 4, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["labels"].tolist() == [[3, -100, 5, 1], [2, 4, -100, -100]]
    assert batch["input_ids"].dtype == batch["labels"].dtype == torch.int64


def test_a_known_automaton():
    """Two states that take turns: a leads from 0 to 1, b and c lead back."""
    automaton = Automaton(({1: 1}, {2: 0, 3: 0}))
    symbols, states = automaton.draw_string(np.random.default_rng(0), 6)
    assert symbols[::2] == [1, 1, 1] and set(symbols[1::2]) <= {2, 3}
    assert states == [1, 0, 1, 0, 1, 0]
    with pytest.raises(KeyError):
        automaton.transitions[0][2]


def test_cache_is_used_until_the_code_changes(monkeypatch):
    first = load(sizes(seed=9))["test"]["input_ids"]
    monkeypatch.setattr("mosaic_lab.regbench.data.draw_sequence", lambda *args: ([1, 2], [0, 0]))
    assert load(sizes(seed=9))["test"]["input_ids"] == first
    monkeypatch.setattr(
        "mosaic_lab.regbench.data.Path", lambda name: SimpleNamespace(read_bytes=lambda: b"other code")
    )
    assert load(sizes(seed=9))["test"]["input_ids"] == [[1, 2]] * 9
