"""Answers of recorded units in words and numbers: the pairs and slots behind them, and what a unit does.

Shapes: S pairs that a query sees, D head size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from . import measures
from .catalogue import MEASURES

if TYPE_CHECKING:
    from .record import MemoryRecord

# Characters of the text in front of a pair that are quoted.
QUOTED = 24
# Where a unit may look, by its measures.
_PLACES = {
    "newest_mass": "the pair just completed",
    "mass_2_8": "pairs 2 to 8 tokens old",
    "mass_9_64": "pairs 9 to 64 tokens old",
    "mass_65": "pairs older than 64 tokens",
}
# From which share of weight on a pattern, below which share of news, and above which AUC a unit is called so.
_MOSTLY, _KNOWN, _FORESEES = 0.5, 0.1, 0.55


@dataclass(frozen=True)
class PairShare:
    """A pair's part in an answer.

    Attributes:
        pair (`int`): its number, that of the token whose key it has.
        after, came (`str`): the text up to that token, and the token that came next: "after «the little
            girl» came « smiled»".
        weight (`float`): its weight in the answer.
        share_of_answer (`float`): its part of the answer, in the answer's direction; all sum to 1.
        share_of_logit (`float`): what it adds to the true next token's logit directly, above the mean logit.
        error_if_forgotten (`float`): the prediction error without it, exactly; NaN without a target.
    """

    pair: int
    after: str
    came: str
    weight: float
    share_of_answer: float
    share_of_logit: float
    error_if_forgotten: float


@dataclass(frozen=True)
class Explanation:
    """A unit's answer at a token, with the pairs behind it, the heaviest first.

    Attributes:
        layer, unit, token (`int`): where.
        error, certainty, peek_share (`float`): the unit's prediction error and certainty here, and the share
            of news in its targets.
        pairs (`list[PairShare]`): the pairs; none where the memory is empty.
        rest (`float`): weight of all other pairs.
    """

    layer: int
    unit: int
    token: int
    error: float
    certainty: float
    peek_share: float
    pairs: list[PairShare]
    rest: float

    def __str__(self) -> str:
        lines = [
            f"layer {self.layer}, unit {self.unit}, token {self.token}: error {self.error:.2f}, "
            f"certainty {self.certainty:.2f}, news in the target {self.peek_share:.0%}"
        ]
        for pair in self.pairs:
            lines.append(
                f"{pair.weight:6.1%} after «{pair.after}» came «{pair.came}» (pair {pair.pair}): "
                f"{pair.share_of_answer:.0%} of the answer, {pair.share_of_logit:+.2f} logits, "
                f"error without it {pair.error_if_forgotten:.2f}"
            )
        return "\n".join([*lines, f"{self.rest:6.1%} all other pairs"])


@dataclass(frozen=True)
class SlotShare:
    """A trained pair's weight in an answer of a persistent unit, its use over the text, and its tokens.

    `tokens` are those whose logits its value raises most; empty unless it is among the most used of its unit.
    """

    slot: int
    weight: float
    use: float
    tokens: list[str]


def explain_pairs(record: MemoryRecord, layer: int, unit: int, token: int, most: int) -> Explanation:
    """See [`MemoryRecord.explain`]."""
    seen = record.kinds[unit].pairs_at(token)
    weights_S = record.weights(layer, unit, token)[0, seen.start : seen.stop]
    values_SD = record.tensors["contextual.values"][layer, unit, seen.start : seen.stop]
    share_S = measures.shares_of_answer(weights_S[None], values_SD)[0]
    logit_S = weights_S * (values_SD @ _read_next(record, layer, unit, token))
    error_S = _errors_without(record, layer, unit, token, weights_S, values_SD)
    by_pair = (weights_S, share_S, logit_S, error_S)
    top = weights_S.topk(min(most, len(seen)))
    pairs = [
        PairShare(
            seen[place], *_quote(record, seen[place]), *(float(numbers_S[place]) for numbers_S in by_pair)
        )
        for place in top.indices.tolist()
    ]
    return Explanation(
        layer,
        unit,
        token,
        error=record.measure("error")[layer, unit, token].item(),
        certainty=record.measure("certainty")[layer, unit, token].item(),
        peek_share=record.measure("peek_share")[layer, unit].item(),
        pairs=pairs,
        rest=max(0.0, 1 - top.values.sum().item()) if seen else 0.0,
    )


def _quote(record: MemoryRecord, pair: int) -> tuple[str, str]:
    """The text up to a pair's token, and the token that came next."""
    end = record.offsets[pair][1]
    return record.text[max(0, end - QUOTED) : end] or record.tokens[pair], record.tokens[pair + 1]


def _read_next(record: MemoryRecord, layer: int, unit: int, token: int) -> torch.Tensor:
    """What turns a value into the direct logit of the true next token, `(head_dim,)`; NaN at the last."""
    output_CD = record.tensors["contextual.output"][layer, unit]
    if token == record.num_tokens - 1:
        return torch.full(output_CD.shape[1:], torch.nan)
    row = torch.searchsorted(record.tensors["readout.token_ids"], record.tensors["token_ids"][token + 1])
    return record.tensors["final_scale"][token] * record.tensors["readout.rows"][row] @ output_CD


def _errors_without(record, layer: int, unit: int, token: int, weights_S, values_SD) -> torch.Tensor:
    """The prediction error without each pair, `(pairs,)`; NaN without a target."""
    if token in (0, record.num_tokens - 1):
        return torch.full_like(weights_S, torch.nan)
    target_D = record.tensors["contextual.values"][layer, unit, token]
    return measures.relative_error(measures.leave_one_out(weights_S[None], values_SD)[0], target_D)


def explain_slots(record: MemoryRecord, layer: int, unit: int, token: int) -> list[SlotShare]:
    """See [`MemoryRecord.explain_slots`]."""
    use_M, most_used_n, tokens_nk, index_n, weight_n = (
        record.tensors[f"persistent.{name}"][layer, unit]
        for name in ("slot_use", "slot_most_used", "slot_tokens", "slot_index", "slot_weight")
    )
    spoken = dict(zip(most_used_n.tolist(), tokens_nk.tolist(), strict=True))
    return [
        SlotShare(slot, weight, use_M[slot].item(), [record.token_text(t) for t in spoken.get(slot, ())])
        for slot, weight in zip(index_n[token].tolist(), weight_n[token].tolist(), strict=True)
        if slot >= 0
    ]


def describe_unit(record: MemoryRecord, layer: int, unit: int) -> str:
    """See [`MemoryRecord.sentence`]."""
    names = [name for name in record.measures if _is_of_contextual_units(name)]
    found = {name: record.unit_measure(name)[layer, unit].item() for name in names}
    masses = {place: found[name] for name, place in _PLACES.items() if not math.isnan(found[name])}
    if not masses:
        return "the text is too short to say anything"
    place = max(masses, key=masses.get)
    looks = f"looks at {place} ({masses[place]:.0%})"
    if found["same_token_mass"] > _MOSTLY:
        looks += f", mostly where the same token stood before ({found['same_token_mass']:.0%})"
    news = f"{found['peek_share']:.0%} of its target is news"
    if found["peek_share"] < _KNOWN:
        news = f"its target is known beforehand ({news}): it carries the past on"
    elif found["next_token_auc"] > _FORESEES:
        news += f"; the true next token fits its answer better than {found['next_token_auc']:.0%} of others"
    else:
        news += ", which it hardly foresees"
    if "ablation_cost" not in found:
        return f"{looks}; {news}"
    # Adding 0 makes 0 of -0.
    return f"{looks}; {news}; removing it costs {round(found['ablation_cost'], 2) + 0:.2f} nats a token"


def _is_of_contextual_units(name: str) -> bool:
    return MEASURES[name].memory == "contextual" and MEASURES[name].shape != "relation"
