import numpy as np
import pytest

from mosaic_lab.regbench.automata import SEPARATOR, VOCAB_SIZE
from mosaic_lab.regbench.data import draw_automata, draw_sequence
from mosaic_lab.regbench.metrics import score, score_all
from mosaic_lab.regbench.ngram import predict_ngram


def make_row(automaton, seed, longest=49):
    ids, states = draw_sequence(automaton, np.random.default_rng(seed), longest)
    table = np.zeros((len(automaton.transitions), VOCAB_SIZE))
    for state, arcs in enumerate(automaton.transitions):
        table[state, list(arcs)] = 1 / len(arcs)
    return {"input_ids": ids, "distribution": table[states]}


def test_by_hand():
    distribution = np.zeros((3, VOCAB_SIZE))
    distribution[0, [1, 2]] = 0.5
    distribution[1, 4] = distribution[2, 5] = 1
    prediction = np.zeros((3, VOCAB_SIZE))
    prediction[0, [1, 7]] = 0.75, 0.25
    prediction[1, SEPARATOR] = 1
    prediction[2, 5] = 1
    legal, distance = score(prediction, distribution)
    assert legal.tolist() == [True, False, True]
    assert distance == pytest.approx([0.5, 1, 0])


def test_the_automaton_itself_is_perfect_and_a_uniform_guess_is_not():
    rows = [make_row(automaton, i) for i, automaton in enumerate(draw_automata(0, 20))]
    perfect = score_all(rows, [row["distribution"] for row in rows])
    assert perfect["accuracy"] == 1 and perfect["tvd"] == 0
    uniform = score_all(rows, [np.full((len(row["input_ids"]), VOCAB_SIZE), 1 / VOCAB_SIZE) for row in rows])
    out_degrees = np.concatenate([(row["distribution"][:-1] > 0).sum(1) for row in rows])
    assert uniform["tvd"] == pytest.approx(np.mean(1 - out_degrees / VOCAB_SIZE))


def test_places():
    """Means by position and by string are those over a plain walk through all rows."""
    rng = np.random.default_rng(0)
    rows = [make_row(automaton, i, 5) for i, automaton in enumerate(draw_automata(1, 12))]
    predictions = [rng.dirichlet(np.ones(VOCAB_SIZE), len(row["input_ids"]) + 3) for row in rows]
    scores = score_all(rows, predictions)
    found = {"position": {}, "string": {}}
    for row, prediction in zip(rows, predictions, strict=True):
        string = 0
        for t, token in enumerate(row["input_ids"][:-1]):
            string += token == SEPARATOR
            exact = row["distribution"][t]
            entry = (exact[prediction[t].argmax()] > 0, abs(prediction[t] - exact).sum() / 2)
            found["position"].setdefault(t, []).append(entry)
            found["string"].setdefault(string, []).append(entry)
    for place, entries in found.items():
        for number, values in entries.items():
            accuracy, tvd = np.mean(values, 0)
            assert scores[f"accuracy_by_{place}"][number] == pytest.approx(accuracy)
            assert scores[f"tvd_by_{place}"][number] == pytest.approx(tvd)
            assert scores[f"count_by_{place}"][number] == len(values)
        assert len(entries) == len(scores[f"tvd_by_{place}"])


def test_ngrams_of_a_short_sequence():
    """The 2-gram after "ab|a" with a = 1, b = 2: a was met twice, once before b, and once is open."""
    predictions = predict_ngram([1, 2, SEPARATOR, 1], 2)
    assert predictions[0, 1] == 1
    assert predictions[3, 2] == pytest.approx(0.5) and predictions[3, 1] == pytest.approx(0.5)
    # After the separator: one of two strings has begun, with a; what is left goes to b.
    assert predictions[2, 1] == pytest.approx(0.5) and predictions[2, 2] == pytest.approx(0.5)


def count(pattern, texts):
    windows = (text[i : i + len(pattern)] for text in texts for i in range(len(text) - len(pattern) + 1))
    return sum(window == pattern for window in windows)


def slow_ngram(strings, order):
    """The definition, with all counts taken anew, in strings with as many marks in front as it needs."""
    texts = [[0] * (order - 1) + string for string in strings]
    seen = sorted({symbol for string in strings for symbol in string})
    if order == 1:
        return {symbol: count([symbol], texts) / sum(map(len, strings)) for symbol in seen}
    history = texts[-1][len(texts[-1]) - order + 1 :]
    shorter = slow_ngram(strings, order - 1)
    known = {symbol: count([*history, symbol], texts) / count(history, texts) for symbol in seen}
    left = 1 - sum(known.values())
    rest = sum(shorter[symbol] for symbol in seen if not known[symbol])
    if not rest:
        return {symbol: known[symbol] / (1 - left) for symbol in seen}
    return {symbol: known[symbol] or left * shorter[symbol] / rest for symbol in seen}


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", [5, 6])
def test_ngrams_against_counting_again(order, seed):
    ids = make_row(next(draw_automata(seed, 1)), seed, 12)["input_ids"][:60]
    predictions = predict_ngram(ids, order)
    for t in range(len(ids)):
        strings = [[]]
        for token in ids[: t + 1]:
            if token == SEPARATOR:
                strings.append([])
            else:
                strings[-1].append(token)
        expected = np.zeros(VOCAB_SIZE)
        for symbol, probability in slow_ngram(strings, order).items():
            expected[symbol] = probability
        assert expected.sum() == pytest.approx(1)
        np.testing.assert_allclose(predictions[t], expected, atol=1e-12)


def test_ngrams_check_the_metric():
    """RegBench's own figures are .938 and .265 for 3-grams, .835 and .337 for 2-grams."""
    rows = [make_row(automaton, 1000 + i) for i, automaton in enumerate(draw_automata(0, 100))]
    scores = {n: score_all(rows, (predict_ngram(row["input_ids"], n) for row in rows)) for n in (2, 3)}
    assert scores[3]["accuracy"] == pytest.approx(0.938, abs=0.02)
    assert scores[3]["tvd"] == pytest.approx(0.265, abs=0.02)
    assert scores[2]["accuracy"] == pytest.approx(0.835, abs=0.03)
    assert scores[2]["tvd"] == pytest.approx(0.337, abs=0.02)
