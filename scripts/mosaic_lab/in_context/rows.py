"""What the tasks have in common: rows of tokens, some of which answer questions, drawn by seed.

Shapes: N rows, T tokens.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

IGNORED = -100
NO_ANSWER = -1


class Row(NamedTuple):
    """Tokens, which of them are answers, and the place of each answer: what accuracy is split by."""

    ids: np.ndarray
    answers: np.ndarray
    places: np.ndarray


class Task(Protocol):
    """A task that can only be solved from what a row says."""

    vocab_size: int
    # What `count` is the number of, and what the place of an answer is.
    counted: str
    place: str

    def check(self, length: int, count: int) -> None:
        """Raises a `ValueError` if `count` things do not fit into rows of `length` tokens."""

    def draw_row(self, rng: np.random.Generator, length: int, count: int) -> Row:
        """Draws a row of `length` tokens with `count` things."""


@dataclass(frozen=True)
class Rows(Dataset):
    """Rows of one length, for the Trainer.

    Args:
        ids_NT (`torch.Tensor`): tokens.
        place_NT (`torch.Tensor`): the place of each answer, and `NO_ANSWER` elsewhere.
    """

    ids_NT: torch.Tensor
    place_NT: torch.Tensor

    def __len__(self) -> int:
        return len(self.ids_NT)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Tokens, and labels that leave out all but the answers."""
        ids_T = self.ids_NT[index]
        return {"input_ids": ids_T, "labels": ids_T.where(self.place_NT[index] != NO_ANSWER, IGNORED)}


def draw_rows(task: Task, seed: list[int], number: int, length: int, counts: list[int]) -> Rows:
    """Draws `number` rows, each with one of `counts`, evenly; a row depends on `seed` and its index alone."""
    ids_NT = np.zeros((number, length), dtype=np.int64)
    place_NT = np.full((number, length), NO_ANSWER)
    for index in range(number):
        rng = np.random.default_rng([*seed, index])
        row = task.draw_row(rng, length, counts[index % len(counts)])
        ids_NT[index] = row.ids
        place_NT[index, row.answers] = row.places
    return Rows(torch.from_numpy(ids_NT), torch.from_numpy(place_NT))
