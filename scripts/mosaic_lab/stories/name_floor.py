"""What is left to chance in the names of the embedded stories: the least loss that a model can have on them.

A beat is told in one of several wordings, and these name different people. Whoever knows the plot, all of its
roles and where each beat begins knows all but the draw. A model, which reads only the text, can do no better.
"""

import math
import random
import re
from collections.abc import Sequence

from mosaic_lab.stories.grammar import begin_sentences, expand_fork, realise
from mosaic_lab.stories.loading import CHOICE, PHRASE, embedded_grammar
from mosaic_lab.stories.names import find_names
from mosaic_lab.stories.roles import Cast

_MARK = re.compile(f"{PHRASE.pattern}|{CHOICE.pattern}")


def repeated_name_losses(rng: random.Random) -> list[float]:
    """Tells a story as `grammar.compose_story` does, and computes what each name that it repeats costs.

    Args:
        rng (`random.Random`): the only source of chance.

    Returns:
        `list[float]`: minus the logarithm of each name's probability where it stands, in nats.
    """
    plot = rng.choice(embedded_grammar().plots)
    cast = plot.draw_cast(rng)
    losses, known = [], set()
    for wordings in expand_fork(plot.beats, cast):
        told = begin_sentences(realise(rng.choice(wordings), cast, rng))
        for name in find_names(told):
            if name[0] in known:
                before, with_it = (
                    math.fsum(chance_of(told[:end], wording, cast) for wording in wordings)
                    for end in name.span()
                )
                losses.append(math.log(before / with_it))
            known.add(name[0])
    return losses


def chance_of(beginning: str, wording: str, cast: Cast) -> float:
    """The probability that a wording, once all of its marks are replaced, begins in this way."""
    while "{" in wording:
        wording = wording.format_map(cast)
    mark = _MARK.search(wording)
    fixed = begin_sentences(wording[: mark.start()] if mark else wording)
    if not (fixed.startswith(beginning) or beginning.startswith(fixed)):
        return 0.0
    if mark is None or len(fixed) >= len(beginning):
        return float(len(fixed) >= len(beginning))
    alternatives = _alternatives(mark)
    return math.fsum(
        chance_of(beginning, wording[: mark.start()] + alternative + wording[mark.end() :], cast)
        for alternative in alternatives
    ) / len(alternatives)


def _alternatives(mark: re.Match) -> Sequence[str]:
    phrase, choice = mark.groups()
    return embedded_grammar().phrases[phrase] if phrase else choice.split("|")
