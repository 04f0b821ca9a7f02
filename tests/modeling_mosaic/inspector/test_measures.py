"""Measures of memories against slow computations in float64, written as their formulas stand."""

import math

import pytest
import torch

from modeling_mosaic.inspector import measures as measures
from modeling_mosaic.inspector.agreement import (
    CrossRetrieval,
    correlations,
    linear_cka,
    predictability,
    retrieve_across,
)

UNITS, TIME, SIZE = 3, 23, 5


@pytest.fixture
def unit():
    """Keys on a sphere, values on another, and what follows from them by loops, for a few units."""
    torch.manual_seed(0)
    raw = torch.randn(UNITS, TIME, SIZE, dtype=torch.float64)
    mix, scale = torch.tensor([0.3, -0.4, 1.2]), torch.tensor([0.6, 1.3, 2.0])
    keys = 2 * torch.nn.functional.normalize(torch.randn_like(raw), dim=-1)
    values = torch.zeros(UNITS, TIME - 1, SIZE, dtype=torch.float64)
    weights = torch.zeros(UNITS, TIME, TIME - 1, dtype=torch.float64)
    answers = torch.zeros_like(raw)
    for h in range(UNITS):
        for t in range(TIME - 1):
            mixed = mix[h] * raw[h, t] + (1 - mix[h]) * raw[h, t + 1]
            values[h, t] = scale[h] * mixed / mixed.norm()
        for t in range(TIME):
            total = sum(math.exp(keys[h, t] @ keys[h, i]) for i in range(t))
            for i in range(t):
                weights[h, t, i] = math.exp(keys[h, t] @ keys[h, i]) / total
                answers[h, t] += weights[h, t, i] * values[h, i]
    return {"raw": raw, "mix": mix, "scale": scale, "keys": keys} | {
        "values": values,
        "weights": weights,
        "answers": answers,
        "seen": answers[:, 1:-1],
        "targets": values[:, 1:],
    }


def each(unit, *names):
    """For each unit and observable query, its tensors."""
    for h in range(UNITS):
        yield h, [unit[name][h] for name in names]


def sum_over(vectors):
    return sum(float(v @ v) for v in vectors)


def test_errors(unit):
    error, direction = (f(unit["seen"], unit["targets"]) for f in (measures.relative_error, measures.cosine))
    certain = measures.certainty(unit["seen"], unit["scale"][:, None, None])
    surprise = measures.surprise(error, certain)
    for h, (seen, targets) in each(unit, "seen", "targets"):
        for t, (y, v) in enumerate(zip(seen, targets, strict=True)):
            assert error[h, t].item() == pytest.approx(math.dist(y, v) / math.hypot(*v))
            assert direction[h, t].item() == pytest.approx(float(y @ v) / math.hypot(*y) / math.hypot(*v))
            # What the unit states: the mean squared distance of the values that it recalls.
            w, values = unit["weights"][h, t + 1, : t + 1], unit["values"][h, : t + 1]
            stated = sum(w[i] * math.dist(values[i], y) ** 2 for i in range(t + 1)) / unit["scale"][h] ** 2
            assert measures.expected_error(certain)[h, t].item() ** 2 == pytest.approx(
                float(stated), abs=1e-6
            )
            if t:
                expected = math.dist(y, v) ** 2 / unit["scale"][h].item() ** 2 / stated
                assert surprise[h, t].item() == pytest.approx(float(expected), rel=1e-5)
    assert surprise[:, 0].isnan().all(), "a single pair states no error"


def test_skill_over_trivial_predictors_and_its_decomposition(unit):
    raw, mix, scale = unit["raw"][:, 1:-1], unit["mix"][:, None, None], unit["scale"][:, None, None]
    references = {
        "mean": measures.mean_of_stored(unit["values"]),
        "newest": unit["values"][:, :-1],
        "known": measures.known_part(raw, mix, scale),
    }
    share = measures.peek_share(raw, unit["raw"][:, 2:], mix)
    for h, (values, seen, targets) in each(unit, "values", "seen", "targets"):
        c, own = unit["mix"][h].item(), unit["raw"][h]
        slow = {
            "mean": [values[: t + 1].mean(0) for t in range(TIME - 2)],
            "newest": [values[t] for t in range(TIME - 2)],
            "known": [unit["scale"][h] * c * own[t + 1] / (c * own[t + 1]).norm() for t in range(TIME - 2)],
        }
        missed = sum_over(seen - targets)
        for name, reference in references.items():
            expected = 1 - missed / sum_over(torch.stack(slow[name]) - targets)
            assert measures.skill(seen, targets, reference[h]).item() == pytest.approx(expected)
        for t in range(TIME - 2):
            known, news = sum_over([c * own[t + 1]]), sum_over([(1 - c) * own[t + 2]])
            assert share[h, t].item() == pytest.approx(news / (known + news))
        mean = targets.mean(0)
        correlation = sum(float((y - mean) @ (v - mean)) for y, v in zip(seen, targets, strict=True))
        correlation /= math.sqrt(sum_over(seen - mean) * sum_over(targets - mean))
        assert measures.anomaly_correlation(seen, targets).item() == pytest.approx(correlation)
    bias = measures.conditional_bias(unit["seen"], unit["targets"])
    potential = measures.anomaly_correlation(unit["seen"], unit["targets"]).square()
    torch.testing.assert_close(measures.r_squared(unit["seen"], unit["targets"]), potential - bias)


def test_weights(unit):
    weights = unit["weights"]
    ids = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6])
    found = {
        "effective": measures.effective_pairs(weights),
        "participation": measures.participation(weights),
        "for_90": measures.pairs_for(weights, 0.9),
        "age": measures.mean_age(weights),
        "newest": measures.mass_at_ages(weights, 1, 1),
        "middle": measures.mass_at_ages(weights, 2, 8),
        "same": measures.mass_on(weights, measures.same_token(ids, 0, TIME)[:, :-1]),
        "after": measures.mass_on(weights, measures.same_token(ids, 0, TIME, 1)[:, :-1]),
    }
    assert all(tensor[:, 0].isnan().all() for tensor in found.values()), "the first memory is empty"
    for h in range(UNITS):
        for t in range(1, TIME):
            w = weights[h, t, :t].tolist()
            ordered, held = sorted(w, reverse=True), 0
            while sum(ordered[:held]) < 0.9:
                held += 1
            expected = {
                "effective": math.exp(-sum(x * math.log(x) for x in w)),
                "participation": 1 / sum(x * x for x in w),
                "for_90": held,
                "age": sum(x * (t - i) for i, x in enumerate(w)),
                "newest": w[-1],
                "middle": sum(x for i, x in enumerate(w) if 2 <= t - i <= 8),
                "same": sum(x for i, x in enumerate(w) if ids[i] == ids[t]),
                "after": sum(x for i, x in enumerate(w) if i and ids[i - 1] == ids[t]),
            }
            assert {name: found[name][h, t].item() for name in found} == pytest.approx(expected)
    # The same, of a block of queries that begins later.
    for name, measure in (
        ("age", measures.mean_age),
        ("middle", lambda w, t: measures.mass_at_ages(w, 2, 8, t)),
    ):
        torch.testing.assert_close(measure(weights[:, 9:], 9), found[name][:, 9:])


def test_contributions(unit):
    weights, values, keys = unit["weights"][:, 1:], unit["values"], unit["keys"]
    share = measures.shares_of_answer(weights, values)
    without = measures.leave_one_out(weights, values)
    # A query for which one pair has all weight, to the last digit.
    scores = (keys[:, 1:] @ keys[:, :-1].mT).masked_fill(weights == 0, -torch.inf)
    scores[:, -1, 4] += 60
    sure = measures.leave_one_out(scores[:, -1:].softmax(-1), values)[:, 0]
    moved = measures.distance_without(scores, values)
    torch.testing.assert_close(moved[:, -1], (sure - (scores[:, -1:].softmax(-1) @ values)).norm(dim=-1))
    for h in range(UNITS):
        for t in range(1, TIME):
            y = unit["answers"][h, t]
            assert share[h, t - 1].sum().item() == pytest.approx(1, abs=1e-6)
            for i in range(t):
                expected = weights[h, t - 1, i] * float(values[h, i] @ y) / float(y @ y)
                assert share[h, t - 1, i].item() == pytest.approx(expected.item())
                others = [j for j in range(t) if j != i]
                scores = [math.exp(keys[h, t] @ keys[h, j]) for j in others]
                rest = sum(s / sum(scores) * values[h, j] for s, j in zip(scores, others, strict=True))
                rest = rest if others else torch.zeros_like(y)
                torch.testing.assert_close(without[h, t - 1, i], rest)
                if t < TIME - 1:
                    assert moved[h, t - 1, i].item() == pytest.approx(math.dist(rest, y), abs=1e-7)
    # Adding the last pair again to a memory without it gives the memory with it.
    last = TIME - 2
    scores = (keys[:, -1:] @ keys[:, :last].mT)[:, 0]
    before = scores.softmax(-1)[:, None] @ values[:, :last]
    for h in range(UNITS):
        added = measures.add_pair(
            before[h], scores[h].logsumexp(-1), keys[h, -1:], keys[h, last], values[h, last]
        )
        torch.testing.assert_close(added[0], unit["answers"][h, -1])


def test_expectations(unit):
    torch.manual_seed(1)
    candidates = torch.randn(11, SIZE, dtype=torch.float64)
    # Two that tie.
    candidates[7] = candidates[3]
    frequency = torch.randint(1, 9, (11,)).double()
    actual = torch.randint(0, 11, (TIME - 2,))
    actual[0] = 3
    for h in range(UNITS):
        c, own, seen = unit["mix"][h].double(), unit["raw"][h], unit["seen"][h]
        scores = measures.candidate_scores(seen, own[1:-1], candidates, c)
        auc = measures.auc_of(scores, actual, frequency)
        for t in range(TIME - 2):
            targets = [c * own[t + 1] + (1 - c) * candidate for candidate in candidates]
            slow = [float(seen[t] @ v / seen[t].norm() / v.norm()) for v in targets]
            assert scores[t].tolist() == pytest.approx(slow)
            mine, others = slow[actual[t]], [b for b in range(11) if b != actual[t]]
            # Ties count half.
            below = sum(frequency[b].item() * (slow[b] < mine) for b in others)
            below += sum(frequency[b].item() / 2 for b in others if slow[b] == mine)
            assert auc[t].item() == pytest.approx(below / sum(frequency[b].item() for b in others))


def test_series(unit):
    first, second = torch.randn(2, UNITS, 600, dtype=torch.float64)
    expected = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(first, second, strict=True)]
    torch.testing.assert_close(measures.correlation(first, second), torch.stack(expected))
    torch.testing.assert_close(correlations(first), torch.corrcoef(first))
    gain = measures.context_gain(first)
    torch.testing.assert_close(gain, first[:, 400:500].mean(1) - first[:, 40:50].mean(1))
    assert measures.context_gain(first[:, :499]).isnan().all()
    assert measures.half_life(torch.tensor(0.1)).item() == pytest.approx(math.log(2) / 0.1)


def test_cross_retrieval(unit):
    keys, values = unit["keys"], unit["values"]
    retrieval = CrossRetrieval(unit["targets"])
    for first, last in ((1, 9), (9, TIME - 1)):
        scores = (keys[:, first:last] @ keys[:, : last - 1].mT).masked_fill(
            torch.arange(last - 1) >= torch.arange(first, last)[:, None], -torch.inf
        )
        retrieval.add(retrieve_across(scores, values[:, : last - 1]), values[:, first:last])
    found = retrieval.result()
    rows = [*(keys[a : a + 1] for a in range(UNITS)), keys, torch.zeros_like(keys)]
    for a, asked in enumerate(rows):
        for b in range(UNITS):
            answers = []
            for t in range(1, TIME - 1):
                scores = [math.exp(sum(float(k[t] @ k[i]) for k in asked)) for i in range(t)]
                answers.append(sum(s * values[b, i] for i, s in enumerate(scores)) / sum(scores))
            expected = measures.anomaly_correlation(torch.stack(answers), unit["targets"][b])
            assert found[a, b].item() == pytest.approx(expected.item(), abs=1e-6)


def test_dependence():
    torch.manual_seed(2)
    states = torch.randn(3, 400, 4, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    states[1] = 3 * states[0] @ rotation + 1
    cka = linear_cka(states)
    for a in range(3):
        for b in range(3):
            x, y = (states[h] - states[h].mean(0) for h in (a, b))
            # The same by the Gram matrices of the samples (Kornblith et al. 2019).
            grams = [z @ z.T for z in (x, y)]
            expected = (grams[0] * grams[1]).sum() / (grams[0].norm() * grams[1].norm())
            assert cka[a, b].item() == pytest.approx(expected.item())
    assert cka[0, 1].item() == pytest.approx(1)
    foreseen = predictability(states)
    assert foreseen[0] > 0.99 and foreseen[1] > 0.99 and foreseen[2] < 0.1
    x = torch.cat([states[0], states[1]], 1)
    x = x - x[:200].mean(0)
    y = states[2] - states[2][:200].mean(0)
    ridge = 1e-2 * torch.cat([x[:200], y[:200]], 1).square().sum(0).mean()
    mapped = torch.linalg.inv(x[:200].T @ x[:200] + ridge * torch.eye(8)) @ x[:200].T @ y[:200]
    missed = sum_over(y[200:] - x[200:] @ mapped) / sum_over(y[200:] - y[200:].mean(0))
    assert foreseen[2].item() == pytest.approx(1 - missed)
    assert predictability(states[:, :16]).isnan().all(), "too few queries"
