"""Pairs that units hold of a text, what asks for them, and which of them each query sees.

Shapes: H units, T tokens, t pairs, D head size; n queries, S pairs that are looked at. Pair i is the key of
token i and the value that peeks at token i + 1; its age at query T is T - i, 1 if it was just completed.
"""

from dataclasses import dataclass
from itertools import groupby

import torch


@dataclass(frozen=True)
class UnitKind:
    """Which pairs the contextual units of a kind see.

    Attributes:
        name (`str`): "contextual" in the first model, "short" or "long" in the second.
        youngest (`int`): least age of a pair that a query sees.
        oldest (`int`, *optional*): largest age; no bound if `None`.
    """

    name: str
    youngest: int = 1
    oldest: int | None = None

    def sees(self, age: torch.Tensor) -> torch.Tensor:
        """Whether pairs of these ages are seen."""
        is_seen = age >= self.youngest
        return is_seen if self.oldest is None else is_seen & (age <= self.oldest)

    def pairs_at(self, token: int) -> range:
        """The pairs that the query of a token sees."""
        first = 0 if self.oldest is None else max(0, token - self.oldest)
        return range(first, max(first, token - self.youngest + 1))


@dataclass(frozen=True)
class StoredPairs:
    """Queries, keys and values of some units; the score of pair i at query T is `queries[T] . keys[i]`."""

    queries_HTD: torch.Tensor
    keys_HTD: torch.Tensor
    values_HtD: torch.Tensor
    kinds: list[UnitKind]

    @property
    def groups(self) -> list[tuple[UnitKind, slice]]:
        """The kinds of these units, one after the other, and which units are of each."""
        found, start = [], 0
        for kind, units in groupby(self.kinds):
            found.append((kind, slice(start, start := start + len(list(units)))))
        return found

    @property
    def youngest_H(self) -> torch.Tensor:
        """The first query of each unit that sees a pair."""
        return torch.tensor([kind.youngest for kind in self.kinds], device=self.keys_HTD.device)

    def double(self) -> "StoredPairs":
        """The same in double precision."""
        return StoredPairs(
            self.queries_HTD.double(), self.keys_HTD.double(), self.values_HtD.double(), self.kinds
        )

    def scores(self, step_n: torch.Tensor, num_pairs: int) -> torch.Tensor:
        """Scores `(units, n, pairs)` of queries and the first pairs; `-inf` where a pair is not seen."""
        scores_HnS = self.queries_HTD[:, step_n] @ self.keys_HTD[:, :num_pairs].mT
        age_nS = step_n[:, None] - torch.arange(num_pairs, device=step_n.device)
        for kind, units in self.groups:
            scores_HnS[units] = scores_HnS[units].masked_fill(~kind.sees(age_nS), -torch.inf)
        return scores_HnS

    def block_scores(self, first: int, last: int) -> torch.Tensor:
        """Scores of the queries from `first` to before `last` and all pairs that any of them may see."""
        return self.scores(torch.arange(first, last, device=self.keys_HTD.device), max(last - 1, 0))

    def answers(self) -> torch.Tensor:
        """Answers `(units, time, head_dim)`; 0 where a query sees no pair."""
        scores_HTS = self.block_scores(0, self.queries_HTD.shape[1])
        return scores_HTS.softmax(-1).nan_to_num(0) @ self.values_HtD[:, : scores_HTS.shape[-1]]
