"""Random probabilistic automata, the languages of RegBench (Akyürek et al., "In-context language learning").

In each state one to three symbols are legal, all equally likely; each leads to a state of its own. Every
string starts in state 0, and may end anywhere. Symbols are the token ids 1 to 18, the letters a to r.
"""

from dataclasses import dataclass

import numpy as np

NUM_SYMBOLS = 18
# Token ids, in the order of their characters: "." fills rows, "|" stands between strings.
PADDING, SEPARATOR = 0, NUM_SYMBOLS + 1
VOCAB_SIZE = NUM_SYMBOLS + 2

# Bounds of what is drawn, both included.
STATES, ALPHABET, OUT_DEGREE = (4, 12), (4, NUM_SYMBOLS), (1, 3)


@dataclass(frozen=True)
class Automaton:
    """Arcs: `transitions[state][symbol]` is the next state, for legal symbols only; state 0 is the first."""

    transitions: tuple[dict[int, int], ...]

    def draw_string(self, rng: np.random.Generator, length: int) -> tuple[list[int], list[int]]:
        """`length` symbols, and the state after each."""
        symbols, states, state = [], [], 0
        for chance in rng.random(length):
            arcs = list(self.transitions[state].items())
            symbol, state = arcs[int(chance * len(arcs))]
            symbols.append(symbol)
            states.append(state)
        return symbols, states


def draw_automaton(rng: np.random.Generator) -> Automaton:
    """A random automaton in its smallest form, as RegBench draws them.

    4 to 12 states and 4 to 18 symbols; from each state 1 to 3 arcs with different symbols to different other
    states.
    """
    num_states = int(rng.integers(STATES[0], STATES[1] + 1))
    num_symbols = int(rng.integers(ALPHABET[0], ALPHABET[1] + 1))
    alphabet = np.sort(rng.choice(NUM_SYMBOLS, num_symbols, replace=False)) + 1
    transitions = []
    for state in range(num_states):
        degree = int(rng.integers(OUT_DEGREE[0], OUT_DEGREE[1] + 1))
        symbols = rng.choice(alphabet, degree, replace=False)
        targets = rng.choice(np.delete(np.arange(num_states), state), degree, replace=False)
        transitions.append(
            {int(symbol): int(target) for symbol, target in zip(symbols, targets, strict=True)}
        )
    return minimise(Automaton(tuple(transitions)))


def minimise(automaton: Automaton) -> Automaton:
    """The smallest automaton with the same language, in a form that depends on the language alone.

    States from which the same strings are legal become one (Moore's partition refinement), others than can be
    reached go, and the rest are numbered as a breadth-first walk in the order of the symbols meets them. As
    equal legal symbols are equally likely, the same strings stay equally likely too.
    """
    block = [0] * len(automaton.transitions)
    while True:
        behaviours = [
            (block[state], *sorted((symbol, block[target]) for symbol, target in arcs.items()))
            for state, arcs in enumerate(automaton.transitions)
        ]
        numbers = {behaviour: number for number, behaviour in enumerate(sorted(set(behaviours)))}
        refined = [numbers[behaviour] for behaviour in behaviours]
        if len(numbers) == len(set(block)):
            break
        block = refined
    representative = {number: state for state, number in reversed(list(enumerate(block)))}
    order, walk = {block[0]: 0}, [block[0]]
    transitions = []
    for number in walk:
        arcs = sorted(automaton.transitions[representative[number]].items())
        for _, target in arcs:
            if block[target] not in order:
                order[block[target]] = len(order)
                walk.append(block[target])
        transitions.append({symbol: order[block[target]] for symbol, target in arcs})
    return Automaton(tuple(transitions))


def language(automaton: Automaton) -> tuple[tuple[tuple[int, int], ...], ...]:
    """A key that two automata in smallest form share if and only if they have the same language."""
    return tuple(tuple(sorted(arcs.items())) for arcs in automaton.transitions)
