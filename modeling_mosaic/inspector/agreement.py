"""Measures of how the units of a layer share the work: retrieval for each other, dependence, predictability.

Shapes: H units, R rows of retrieval (H units, then all of them as one joint memory, then uniform weights),
T queries, D head size, C = H D.
"""

import torch


class CrossRetrieval:
    """`X[a, b]`: anomaly correlation of unit b's targets with what unit a's weights make of unit b's values.

    Specialised units have the largest entries of their columns on the diagonal: each retrieves its own values
    best. The joint row adds the scores of all units (one memory with all keys), the uniform one the mean of
    the stored values. Sums over blocks of queries, so that no `(time, time)` matrix is held.

    Args:
        targets_HTD (`torch.Tensor` of shape `(units, time, head_dim)`): all targets, for their means.
    """

    def __init__(self, targets_HTD: torch.Tensor):
        units = len(targets_HTD)
        self.mean_H1D = targets_HTD.mean(1, keepdim=True)
        self.product_RH, self.answers_RH = targets_HTD.new_zeros(2, units + 2, units, dtype=torch.float64)
        self.targets_H = (targets_HTD - self.mean_H1D).square().sum((1, 2)).double()

    def add(self, answers_RHTD: torch.Tensor, targets_HTD: torch.Tensor) -> None:
        """Adds a block of queries: answers about each unit's values by each row of weights, and targets."""
        anomaly_RHTD, target_HTD = answers_RHTD - self.mean_H1D, targets_HTD - self.mean_H1D
        self.product_RH += (anomaly_RHTD * target_HTD).sum((-1, -2)).double()
        self.answers_RH += anomaly_RHTD.square().sum((-1, -2)).double()

    def result(self) -> torch.Tensor:
        """`(rows, units)`."""
        return (self.product_RH / (self.answers_RH * self.targets_H).sqrt()).float()


def retrieve_across(scores_HTS: torch.Tensor, values_HSD: torch.Tensor) -> torch.Tensor:
    """Answers `(rows, units, time, head_dim)` about all units' values with all units' weights.

    `scores_HTS` are the logarithms of the weights, `-inf` where a pair is not stored.
    """
    uniform_1TS = torch.zeros_like(scores_HTS[:1]).masked_fill(scores_HTS[:1] == -torch.inf, -torch.inf)
    rows_RTS = torch.cat([scores_HTS, scores_HTS.sum(0, keepdim=True), uniform_1TS]).softmax(-1)
    units, pairs, size = values_HSD.shape
    answers_RTC = rows_RTS @ values_HSD.transpose(0, 1).reshape(pairs, units * size)
    return answers_RTC.unflatten(-1, (units, size)).transpose(1, 2)


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
