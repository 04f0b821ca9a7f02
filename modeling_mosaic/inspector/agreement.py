"""Measures of how the units of a layer share the work: retrieval for each other, dependence, predictability.

Units of different kinds see different pairs, and from different queries on: `starts_H` is the first of the T
queries at which each of them has any.

Shapes: H units, R rows of retrieval (H units, then all of a kind as one joint memory, then uniform weights),
T queries, D head size, C = H D.
"""

from collections.abc import Callable, Sequence

import torch


class CrossRetrieval:
    """`X[a, b]`: anomaly correlation of unit b's targets with what unit a's weights make of unit b's values.

    Specialised units have the largest entries of their columns on the diagonal: each retrieves its own values
    best. The joint row adds the scores of all units of the column's kind (one memory with all their keys),
    the uniform one is the mean of the values that the column's unit sees. Sums over blocks of queries, so
    that no `(time, time)` matrix is held.

    Args:
        targets_HTD (`torch.Tensor` of shape `(units, time, head_dim)`): all targets, for their means.
        starts_H (`torch.Tensor` of shape `(units,)`, *optional*): where rows begin to count; the last two
            where their column does. At the first query if `None`.
    """

    def __init__(self, targets_HTD: torch.Tensor, starts_H: torch.Tensor | None = None):
        units = len(targets_HTD)
        starts_H = torch.zeros(units, dtype=torch.long) if starts_H is None else starts_H
        self.starts_RH = torch.cat([starts_H[:, None].expand(-1, units), starts_H.expand(2, -1)])
        self.starts_RH = self.starts_RH.to(targets_HTD.device)
        means = {start: targets_HTD[:, start:].mean(1, keepdim=True) for start in starts_H.tolist()}
        own = [means[start] for start in starts_H.tolist()]
        by_column = torch.stack([mean_H1D[unit] for unit, mean_H1D in enumerate(own)])
        self.mean_RH1D = torch.stack([*own, by_column, by_column])
        self.product_RH, self.answers_RH, self.targets_RH = targets_HTD.new_zeros(
            3, units + 2, units, dtype=torch.float64
        )
        self.num_queries = 0

    def add(self, answers_RHTD: torch.Tensor, targets_HTD: torch.Tensor) -> None:
        """Adds the next queries: answers about each unit's values by each row of weights, and targets."""
        step_T = torch.arange(targets_HTD.shape[1], device=targets_HTD.device) + self.num_queries
        self.num_queries += len(step_T)
        counts_RHT1 = (step_T >= self.starts_RH[..., None])[..., None]
        anomaly_RHTD, target_RHTD = (
            (states - self.mean_RH1D).masked_fill(~counts_RHT1, 0) for states in (answers_RHTD, targets_HTD)
        )
        self.product_RH += (anomaly_RHTD * target_RHTD).sum((-1, -2)).double()
        self.answers_RH += anomaly_RHTD.square().sum((-1, -2)).double()
        self.targets_RH += target_RHTD.square().sum((-1, -2)).double()

    def result(self) -> torch.Tensor:
        """`(rows, units)`."""
        return (self.product_RH / (self.answers_RH * self.targets_RH).sqrt()).float()


def retrieve_across(
    scores_HTS: torch.Tensor, values_HSD: torch.Tensor, kinds: Sequence[slice] = (slice(None),)
) -> torch.Tensor:
    """Answers `(rows, units, time, head_dim)` about all units' values with all units' weights.

    `scores_HTS` are the logarithms of the weights, `-inf` where a pair is not seen; `kinds` are the units
    that see the same pairs, one kind after the other.
    """
    own_HHTD = _answer_all(scores_HTS, values_HSD)
    together = []
    for units in kinds:
        own_1TS = scores_HTS[units][:1]
        uniform_1TS = torch.zeros_like(own_1TS).masked_fill(own_1TS == -torch.inf, -torch.inf)
        rows_2TS = torch.cat([scores_HTS[units].sum(0, keepdim=True), uniform_1TS])
        together.append(_answer_all(rows_2TS, values_HSD[units]))
    return torch.cat([own_HHTD, torch.cat(together, 1)])


def _answer_all(scores_RTS: torch.Tensor, values_HSD: torch.Tensor) -> torch.Tensor:
    units, pairs, size = values_HSD.shape
    answers_RTC = scores_RTS.softmax(-1) @ values_HSD.transpose(0, 1).reshape(pairs, units * size)
    return answers_RTC.unflatten(-1, (units, size)).transpose(1, 2)


def on_common_queries(
    relation: Callable[[torch.Tensor], torch.Tensor], states: torch.Tensor, starts_H: torch.Tensor
) -> torch.Tensor:
    """A relation of each two units, `(units, units)`, on the queries at which both of them have pairs."""
    later_HH = torch.maximum(starts_H[:, None], starts_H)
    found_HH = torch.full_like(later_HH, torch.nan, dtype=states.dtype)
    for start in later_HH.unique().tolist():
        found_HH = torch.where(later_HH == start, relation(states[:, start:]), found_HH)
    return found_HH


def linear_cka(states_HTD: torch.Tensor) -> torch.Tensor:
    """Linear CKA of each two units, `(units, units)` (Kornblith et al. 2019).

    `|X^T Y|_F^2 / (|X^T X|_F |Y^T Y|_F)` of centred X and Y `(time, head_dim)`: 1 if one is a rotation of the
    other, times a number; 0 if they are uncorrelated.
    """
    units, _, size = states_HTD.shape
    states_TC = (states_HTD - states_HTD.mean(1, keepdim=True)).transpose(0, 1).flatten(1)
    gram_HDHD = (states_TC.mT @ states_TC).view(units, size, units, size)
    overlap_HH = gram_HDHD.square().sum((1, 3))
    own_H = overlap_HH.diagonal().sqrt()
    return overlap_HH / (own_H[:, None] * own_H)


def predictability(states_HTD: torch.Tensor, ridge: float = 1e-2) -> torch.Tensor:
    """Held-out R^2 of each unit's states from those of all others, `(units,)` (Schmidhuber 1992).

    Linear regression fitted on the first half of the queries, with `ridge` times the mean variance on the
    diagonal, measured on the second half; NaN if a half has fewer queries than there are other states.
    """
    units, time, size = states_HTD.shape
    if time // 2 <= (units - 1) * size or units == 1:
        return states_HTD.new_full((units,), torch.nan)
    states_TC = states_HTD.transpose(0, 1).flatten(1).double()
    states_TC = states_TC - states_TC[: time // 2].mean(0)
    fit_TC, test_TC = states_TC[: time // 2], states_TC[time // 2 :]
    gram_CC = fit_TC.mT @ fit_TC
    gram_CC.diagonal().add_(ridge * gram_CC.diagonal().mean())
    shares = []
    for unit in range(units):
        own = torch.zeros(units * size, dtype=torch.bool, device=gram_CC.device)
        own[unit * size : (unit + 1) * size] = True
        map_CD = torch.linalg.solve(gram_CC[~own][:, ~own], gram_CC[~own][:, own])
        missed = (test_TC[:, own] - test_TC[:, ~own] @ map_CD).square().sum()
        shares.append(1 - missed / (test_TC[:, own] - test_TC[:, own].mean(0)).square().sum())
    return torch.stack(shares).to(states_HTD.dtype)


def correlations(series_HT: torch.Tensor) -> torch.Tensor:
    """Pearson's correlation of each two rows, `(units, units)`; of errors: do units fail together?"""
    centred_HT = series_HT - series_HT.mean(1, keepdim=True)
    unit_HT = torch.nn.functional.normalize(centred_HT, dim=1)
    return unit_HT @ unit_HT.mT
