from collections import Counter
from itertools import product

import numpy as np
import pytest

from mosaic_lab.regbench.automata import NUM_SYMBOLS, Automaton, draw_automaton, language, minimise
from mosaic_lab.regbench.data import draw_automata, draw_sequence


def is_legal(automaton, string):
    state = 0
    for symbol in string:
        if symbol not in automaton.transitions[state]:
            return False
        state = automaton.transitions[state][symbol]
    return True


def legal_strings(automaton, length):
    """All legal strings of up to `length` symbols, by trying every string."""
    symbols = sorted({symbol for arcs in automaton.transitions for symbol in arcs})
    return {
        string
        for count in range(length + 1)
        for string in product(symbols, repeat=count)
        if is_legal(automaton, string)
    }


def draw_raw(rng, num_states, num_symbols):
    """Any automaton: loops, states that cannot be reached, states that do the same."""
    return Automaton(
        tuple(
            {
                int(symbol): int(rng.integers(num_states))
                for symbol in rng.choice(num_symbols, rng.integers(1, num_symbols + 1), replace=False)
            }
            for _ in range(num_states)
        )
    )


@pytest.mark.parametrize("seed", range(30))
def test_smallest_form_against_brute_force(seed):
    """The same strings are legal, no two states do the same, and all can be reached."""
    raw = draw_raw(np.random.default_rng(seed), num_states=4, num_symbols=2)
    small = minimise(raw)
    # Two of n states that differ do so within n - 1 symbols.
    assert legal_strings(small, 7) == legal_strings(raw, 7)
    reached = {0}
    for _ in small.transitions:
        reached |= {target for state in reached for target in small.transitions[state].values()}
    assert reached == set(range(len(small.transitions)))
    behaviours = []
    for state in range(len(small.transitions)):
        swap = {0: state, state: 0}
        rooted = tuple(
            {symbol: swap.get(target, target) for symbol, target in small.transitions[swap.get(i, i)].items()}
            for i in range(len(small.transitions))
        )
        behaviours.append(frozenset(legal_strings(Automaton(rooted), 7)))
    assert len(set(behaviours)) == len(behaviours)


@pytest.mark.parametrize("seed", range(10))
def test_equal_languages_have_equal_keys(seed):
    rng = np.random.default_rng(seed)
    automaton = draw_automaton(rng)
    order = np.array([0, *(1 + rng.permutation(len(automaton.transitions) - 1))])
    renamed = [None] * len(order)
    for state, arcs in enumerate(automaton.transitions):
        renamed[order[state]] = {symbol: int(order[target]) for symbol, target in reversed(arcs.items())}
    twin = [*renamed, dict(renamed[0])]
    twin[0] = {symbol: target or len(order) for symbol, target in twin[0].items()}
    assert language(minimise(Automaton(tuple(twin)))) == language(automaton)
    changed = [dict(arcs) for arcs in automaton.transitions]
    changed[0][next(iter(changed[0]))] = len(changed) - 1
    changed[0].pop(next(reversed(changed[0])), None)
    assert language(minimise(Automaton(tuple(changed)))) != language(automaton)


def test_statistics_of_regbench():
    """377 tokens, 14.5 strings, 7.0 states and 7.4 symbols in the mean, as measured for the original."""
    automata = list(draw_automata(0, 400))
    sequences = [draw_sequence(a, np.random.default_rng(i), 49)[0] for i, a in enumerate(automata)]
    lengths = [len(ids) for ids in sequences]
    assert np.mean(lengths) == pytest.approx(377, rel=0.04)
    assert 100 < min(lengths) and max(lengths) <= 19 * 50 - 1
    assert np.mean([ids.count(NUM_SYMBOLS + 1) + 1 for ids in sequences]) == pytest.approx(14.5, rel=0.03)
    assert np.mean([len(a.transitions) for a in automata]) == pytest.approx(7.0, rel=0.05)
    symbols = [len({symbol for arcs in a.transitions for symbol in arcs}) for a in automata]
    assert np.mean(symbols) == pytest.approx(7.4, rel=0.05)
    for automaton in automata:
        assert all(1 <= len(arcs) <= 3 for arcs in automaton.transitions)
        assert len({symbol for arcs in automaton.transitions for symbol in arcs}) <= NUM_SYMBOLS
    assert {len(a.transitions) for a in automata} >= {1, 2, 7, 12}


@pytest.mark.parametrize("seed", range(5))
def test_next_symbols_are_equally_likely(seed):
    """Frequencies over many strings against the automaton, and their states against a walk by hand."""
    automaton, rng = draw_automaton(np.random.default_rng(seed)), np.random.default_rng(seed)
    counts = Counter()
    for _ in range(3000):
        symbols, states = automaton.draw_string(rng, 10)
        state = 0
        for symbol, after in zip(symbols, states, strict=True):
            counts[state, symbol] += 1
            state = automaton.transitions[state][symbol]
            assert state == after
    for state, arcs in enumerate(automaton.transitions):
        total = sum(counts[state, symbol] for symbol in arcs)
        for symbol in arcs:
            assert counts[state, symbol] / total == pytest.approx(1 / len(arcs), abs=3 / total**0.5)
