"""The least loss on repeated names, against stories told many times over."""

import random

import numpy as np
import pytest

from mosaic_lab.stories.grammar import begin_sentences, expand_fork, realise
from mosaic_lab.stories.loading import embedded_grammar
from mosaic_lab.stories.name_floor import chance_of, repeated_name_losses
from mosaic_lab.stories.names import find_names

NUM_TOLD = 4000


@pytest.mark.parametrize("number", range(4))
def test_chances_are_those_of_telling_a_beat_again_and_again(number):
    """At each name of a beat: how often what was told up to there goes on with it."""
    rng = random.Random(f"beat/{number}")
    plot = embedded_grammar().plots[5 * number]
    cast = plot.draw_cast(rng)
    compared = 0
    for wordings in expand_fork(plot.beats, cast):
        told = [begin_sentences(realise(rng.choice(wordings), cast, rng)) for _ in range(NUM_TOLD)]
        for end in (name.end() for name in find_names(told[0])[:2]):
            chance = np.mean([chance_of(told[0][:end], wording, cast) for wording in wordings])
            found = np.mean([text.startswith(told[0][:end]) for text in told])
            assert found == pytest.approx(chance, abs=4 * (chance / NUM_TOLD) ** 0.5)
            compared += 1
    assert compared > 3


def test_what_is_sure_costs_nothing_and_the_rest_is_little():
    """As documented: names are all but given by the plot, the cast and the words before."""
    losses = [
        loss for number in range(300) for loss in repeated_name_losses(random.Random(f"floor/{number}"))
    ]
    assert min(losses) == 0 and np.mean(np.array(losses) == 0) > 0.5
    assert np.mean(losses) == pytest.approx(0.10, abs=0.015)
