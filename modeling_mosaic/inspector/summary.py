"""Makes the tensors of a record from a trace: what each memory stored, answered, got wrong, and is worth.

Everything goes through blocks of queries, so that memory grows with layers, tokens and width, never with the
square of the tokens.

Shapes: L layers, T tokens, C hidden size; H contextual units with D dimensions, S pairs; P persistent units.
"""

from dataclasses import dataclass, field

import torch
from torch.nn import functional as F
from tqdm.auto import tqdm

from . import measures
from .agreement import (
    CrossRetrieval,
    correlations,
    linear_cka,
    on_common_queries,
    predictability,
    retrieve_across,
)
from .anatomy import LayerParts, PersistentPart, layers_of
from .blocks import Joined
from .expectation import choose_places, expect_deeper, expect_first
from .pairs import StoredPairs, UnitKind
from .readout import Readout, direct_of_the_rest, output_of, read_text
from .slots import NUM_WEIGHED, TOP, query_block, strongest, summarise_persistent
from .trace import LayerTrace, Trace

Tensors = dict[str, torch.Tensor]


@dataclass
class Summary:
    """Tensors of a record by name, those of layers as lists until `stack`, and its self-check."""

    tensors: Tensors = field(default_factory=dict)
    layers: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    self_check: dict[str, float] = field(default_factory=dict)

    def add_layer(self, tensors: Tensors) -> None:
        """Keeps tensors of the next layer."""
        for name, tensor in tensors.items():
            self.layers.setdefault(name, []).append(tensor.detach().cpu())

    def stack(self) -> Tensors:
        """All tensors, contiguous and on the CPU, as files want them; the summary is empty afterwards."""
        for name in list(self.layers):
            self.tensors[name] = torch.stack(self.layers.pop(name))
        return {name: self.tensors.pop(name).detach().cpu().contiguous() for name in list(self.tensors)}


@torch.no_grad()
def summarise(heard: Trace, ablate: bool) -> Summary:
    """Computes all tensors of a record.

    Args:
        heard (`Trace`): a forward pass.
        ablate (`bool`): whether to run the model once more for each unit, without it.
    """
    summary, layers = Summary(), layers_of(heard.model)
    summary.tensors, readout = read_text(heard)
    passes = sum(layer.count(memory) for layer in layers for memory in ("contextual", "persistent"))
    total = len(layers) + ablate * passes
    with tqdm(total=total, desc="recording", leave=False, disable=None) as bar:
        _summarise_layers(heard, summary, readout, bar)
        if ablate:
            _ablate(heard, summary, bar)
            _weigh_slots(heard, summary, bar)
    return summary


def _summarise_layers(heard: Trace, summary: Summary, readout: Readout, bar) -> None:
    """Adds the tensors of all layers but those of ablation, and the self-check."""
    direct_T, layers = direct_of_the_rest(heard, readout), layers_of(heard.model)
    asked, worst = [], []
    for layer, parts in enumerate(layers):
        layer_trace = heard.listen(layer)
        contextual, states, deviation_HTD = _summarise_contextual(heard, layer, parts, layer_trace, readout)
        deviations = [deviation_HTD]
        if parts.persistent.query_module is None:
            persistent = _summarise_answers(parts.persistent, layer_trace, readout)
        else:
            persistent, deviation_PTE = summarise_persistent(heard, layer, layer_trace, readout)
            deviations.append(deviation_PTE)
        summary.add_layer(contextual | persistent)
        asked.append(states)
        for direct in ("measure.direct_logit", "measure.persistent_direct_logit"):
            direct_T = direct_T + (contextual | persistent)[direct].sum(0)
        worst += [(float(deviation.max()), float(deviation.mean())) for deviation in deviations]
        bar.update()
    if len(asked) > 1:
        places, auc_LHn = choose_places(len(direct_T)), expect_deeper(heard, asked)
        observed_HT = _observed(layers[0].kinds, len(direct_T))
        for auc_HT, auc_Hn in zip(summary.layers["measure.next_token_auc"][1:], auc_LHn[1:], strict=True):
            auc_HT[:, places] = auc_Hn.masked_fill(~observed_HT[:, places], torch.nan)
    summary.self_check = _check(heard, summary.tensors["loss"], direct_T - readout.next_logit_T, worst)


def _summarise_contextual(
    heard: Trace, layer: int, parts: LayerParts, layer_trace: LayerTrace, readout: Readout
):
    """Tensors of a layer's contextual units, what candidates are compared with, and deviations of answers."""
    keys_HTD, raw_HTD, values_HtD = (
        states.float()
        for states in (layer_trace.keys_HTD, layer_trace.raw_values_HTD, layer_trace.values_HtD)
    )
    queries_HTD = layer_trace.query_scale_HT[..., None] * keys_HTD
    stored = StoredPairs(queries_HTD, keys_HTD, values_HtD, parts.kinds)
    mix_H, scale_H = map(torch.cat, zip(*(part.value_scalars() for part in parts.contextual), strict=True))
    answers_HTD, tensors = _recall(stored, heard.token_ids)
    output_HCD = torch.cat([output_of(part) for part in parts.contextual])
    direct_HT = readout.direct(answers_HTD, output_HCD, readout.next_TC)
    tensors |= {
        "contextual.keys": keys_HTD,
        "contextual.query_scale": layer_trace.query_scale_HT,
        "contextual.values": values_HtD,
        "contextual.mix": mix_H,
        "contextual.value_scale": scale_H,
        "contextual.output": output_HCD,
        "contextual.mean_answer": _mean_answer(answers_HTD, parts.kinds),
        "measure.mix": mix_H,
        "measure.value_scale": scale_H,
        "measure.half_life": measures.half_life(layer_trace.leak_H),
        "measure.key_scale": (queries_HTD[:, -1].norm(dim=-1) * keys_HTD[:, -1].norm(dim=-1)).sqrt(),
        "measure.direct_logit": direct_HT,
        "measure.direct_logit_difference": direct_HT
        - readout.direct(answers_HTD, output_HCD, readout.runner_up_TC),
        "measure.logit_share": readout.share(direct_HT),
        **_compare(answers_HTD, stored, raw_HTD, mix_H, scale_H),
        **_expect(heard, layer, stored.kinds, answers_HTD, raw_HTD, mix_H),
    }
    places = choose_places(len(heard.token_ids))
    states = {"answers": answers_HTD[:, places], "raw_values": raw_HTD[:, places], "mix": mix_H}
    return tensors, states, (answers_HTD - layer_trace.answers_HTD.float()).abs()


def _mean_answer(answers_HTD: torch.Tensor, kinds: list[UnitKind]) -> torch.Tensor:
    """The mean answer of each unit, `(units, head_dim)`, over the queries that find pairs; 0 if none does."""
    return torch.stack(
        [states_TD[kind.youngest :].mean(0) for states_TD, kind in zip(answers_HTD, kinds, strict=True)]
    ).nan_to_num(0)


def _expect(heard: Trace, layer: int, kinds: list[UnitKind], answers_HTD, raw_HTD, mix_H) -> Tensors:
    """How well answers pick the true next token: in closed form in the first layer, unknown yet in others."""
    unknown_HT = torch.full_like(answers_HTD[..., 0], torch.nan)
    if layer > 0:
        return {f"measure.next_token_{name}": unknown_HT.clone() for name in ("auc", "rank")}
    observed_HT = _observed(kinds, len(heard.token_ids)).to(unknown_HT.device)
    return {
        name: tensor.masked_fill(~observed_HT, torch.nan)
        for name, tensor in expect_first(heard, answers_HTD, raw_HTD, mix_H).items()
    }


def _observed(kinds: list[UnitKind], time: int) -> torch.Tensor:
    """Which queries see a pair and have a target, `(units, time)`."""
    step_T = torch.arange(time)
    return torch.stack([(step_T >= kind.youngest) & (step_T < time - 1) for kind in kinds])


def _summarise_answers(part: PersistentPart, layer_trace: LayerTrace, readout: Readout) -> Tensors:
    """Tensors of persistent units without trained pairs: what they add, and nothing about slots."""
    answers_PTE = layer_trace.persistent_answers_PTE.float()
    direct_PT = readout.direct(answers_PTE, output_of(part), readout.next_TC)
    return {
        "persistent.mean_answer": answers_PTE.mean(1),
        "measure.persistent_direct_logit": direct_PT,
        "measure.persistent_logit_share": readout.share(direct_PT),
    }


def _recall(stored: StoredPairs, token_ids_T) -> tuple[torch.Tensor, Tensors]:
    """Answers `(units, time, head_dim)`, and what can be said from weights alone, block by block."""
    values_HtD, kinds = stored.values_HtD, [units for _, units in stored.groups]
    num_units, time = stored.keys_HTD.shape[:2]
    tensors = Joined(time, dim=1)
    retrieval = CrossRetrieval(values_HtD[:, 1:], stored.youngest_H - 1)
    block = query_block(num_units, time)
    for first in range(0, time, block):
        last = min(first + block, time)
        scores_HTS = stored.block_scores(first, last)
        across_RHTD = retrieve_across(scores_HTS, values_HtD[:, : last - 1], kinds).nan_to_num(0)
        seen = slice(int(first == 0), min(last, time - 1) - first)
        retrieval.add(
            across_RHTD[:, :, seen], values_HtD[:, first + seen.start : first + max(seen.start, seen.stop)]
        )
        units = torch.arange(num_units, device=values_HtD.device)
        tensors.write(first, {"answers": across_RHTD[units, units]})
        tensors.write(first, weigh(scores_HTS, token_ids_T, first, last))
    tensors["measure.cross_retrieval"] = retrieval.result()
    return tensors.pop("answers"), tensors


def weigh(scores_HTS: torch.Tensor, token_ids_T: torch.Tensor, first: int, last: int) -> Tensors:
    """The measures of a block of weights, its strongest pairs, and what normalises it."""
    normaliser_HT = scores_HTS.logsumexp(-1)
    weights_HTS = scores_HTS.softmax(-1).nan_to_num(0)
    top_HT = weights_HTS.topk(min(TOP, weights_HTS.shape[-1])).values.sum(-1)
    same_TS, after_TS = (
        measures.same_token(token_ids_T, first, last, offset)[:, : last - 1] for offset in (0, 1)
    )
    found = {
        "effective_pairs": measures.effective_pairs(weights_HTS),
        "participation": measures.participation(weights_HTS),
        "pairs_for_90": measures.pairs_for(weights_HTS, 0.9),
        "age": measures.mean_age(weights_HTS, first),
        "newest_mass": measures.mass_at_ages(weights_HTS, 1, 1, first),
        "mass_2_8": measures.mass_at_ages(weights_HTS, 2, 8, first),
        "mass_9_64": measures.mass_at_ages(weights_HTS, 9, 64, first),
        "mass_65": measures.mass_at_ages(weights_HTS, 65, last, first),
        "same_token_mass": measures.mass_on(weights_HTS, same_TS),
        "after_same_token_mass": measures.mass_on(weights_HTS, after_TS),
    }
    return {
        "contextual.log_normaliser": normaliser_HT,
        **strongest(weights_HTS, "contextual.pair"),
        "contextual.rest_weight": (weights_HTS.sum(-1) - top_HT).clamp(min=0),
        **{f"measure.{name}": tensor for name, tensor in found.items()},
    }


def _compare(answers_HTD, stored: StoredPairs, raw_HTD, mix_H, scale_H) -> Tensors:
    """The measures that compare answers with targets; NaN where there is none of the two."""
    time, values_HtD = answers_HTD.shape[1], stored.values_HtD
    by_kind: dict[str, list[torch.Tensor]] = {}
    for kind, units in stored.groups:
        states = (states[units] for states in (answers_HTD, values_HtD, raw_HTD))
        for name, tensor in _compare_kind(kind, *states, mix_H[units], scale_H[units]).items():
            by_kind.setdefault(name, []).append(tensor)
    found = {name: torch.cat(tensors) for name, tensors in by_kind.items()}
    # As far as all units have targets.
    targets_HTD, answers_HTD = values_HtD[:, 1:], answers_HTD[:, 1 : max(1, time - 1)]
    starts_H = stored.youngest_H - 1
    found |= {
        "context_gain": measures.context_gain(found["error"]),
        "predictability": predictability(targets_HTD),
        "target_cka": linear_cka(targets_HTD),
        "residual_cka": on_common_queries(linear_cka, targets_HTD - answers_HTD, starts_H),
        "error_correlation": on_common_queries(
            correlations, found["error"][:, 1 : max(1, time - 1)], starts_H
        ),
    }
    return {f"measure.{name}": tensor for name, tensor in found.items()}


def _compare_kind(kind: UnitKind, answers_HTD, values_HtD, raw_HTD, mix_H, scale_H) -> Tensors:
    """Those of units of a kind, over the queries that see a pair."""
    time, first = answers_HTD.shape[1], kind.youngest
    mix_H11, scale_H11 = mix_H[:, None, None], scale_H[:, None, None]
    # None where the text is too short.
    seen = slice(first, max(first, time - 1))
    answer_HTD, target_HTD, raw_seen_HTD = answers_HTD[:, seen], values_HtD[:, seen], raw_HTD[:, seen]
    error_HT = measures.relative_error(answer_HTD, target_HTD)
    known_HTD = measures.known_part(raw_seen_HTD, mix_H11, scale_H11)
    certainty_HT = measures.certainty(answer_HTD, scale_H11)
    stated_HT = measures.expected_error(certainty_HT)
    by_token = {
        "error": error_HT,
        "cosine": measures.cosine(answer_HTD, target_HTD),
        "certainty": certainty_HT,
        "expected_error": stated_HT,
        "surprise": measures.surprise(error_HT, certainty_HT),
        "known_error": measures.relative_error(known_HTD, target_HTD),
    }
    padding = (min(first, time), time - min(first, time) - error_HT.shape[1])
    mean_HTD = measures.mean_of_stored(values_HtD, first, kind.oldest)
    newest_HTD = values_HtD[:, : target_HTD.shape[1]]
    by_unit = {
        "peek_share": measures.peek_share(raw_HTD[:, 1:-1], raw_HTD[:, 2:], mix_H11).mean(-1),
        "skill_over_mean": measures.skill(answer_HTD, target_HTD, mean_HTD),
        "skill_over_newest": measures.skill(answer_HTD, target_HTD, newest_HTD),
        "skill_over_known": measures.skill(answer_HTD, target_HTD, known_HTD),
        "r_squared": measures.r_squared(answer_HTD, target_HTD),
        "anomaly_correlation": measures.anomaly_correlation(answer_HTD, target_HTD),
        "conditional_bias": measures.conditional_bias(answer_HTD, target_HTD),
        "calibration": measures.correlation(stated_HT, error_HT),
    }
    return {name: F.pad(tensor, padding, value=torch.nan) for name, tensor in by_token.items()} | by_unit


def _ablate(heard: Trace, summary: Summary, bar) -> None:
    """What each unit is worth at each token: one more pass for each, from its layer on."""
    time = len(heard.token_ids)
    for layer, parts in enumerate(layers_of(heard.model)):
        for memory, prefix in (("contextual", ""), ("persistent", "persistent_")):
            costs = []
            for unit, mean_D in enumerate(summary.layers[f"{memory}.mean_answer"][layer]):
                youngest = parts.kinds[unit].youngest if memory == "contextual" else 0
                answer_TD = constant_answer(mean_D, youngest, time)
                losses_T = heard.losses_without(layer, unit, memory, answer_TD)
                costs.append(losses_T - summary.tensors["loss"])
                bar.update()
            summary.add_layer({f"measure.{prefix}ablation_cost": torch.stack(costs)})


def constant_answer(mean_D: torch.Tensor, youngest: int, time: int) -> torch.Tensor:
    """The mean in place of each answer, `(time, head_dim)`; where a memory is empty it still answers 0."""
    return mean_D * (torch.arange(time, device=mean_D.device) >= youngest)[:, None]


def _weigh_slots(heard: Trace, summary: Summary, bar) -> None:
    """What the most used slots are worth, `persistent.slot_worth`, NaN for the others that are listed.

    By a pass without each. The gradient of the loss does not tell: near its minimum it hardly has any in the
    direction of a trained pair, whatever the loss without it.
    """
    most_LPn = summary.layers.get("persistent.slot_most_used", [])
    bar.total += sum(most_Pn[:, :NUM_WEIGHED].numel() for most_Pn in most_LPn)
    for layer, most_Pn in enumerate(most_LPn):
        worth_Pn = torch.full(most_Pn.shape, torch.nan)
        for unit, slots in enumerate(most_Pn[:, :NUM_WEIGHED].tolist()):
            for number, slot in enumerate(slots):
                losses_T = heard.losses_without_slot(layer, unit, slot)
                worth_Pn[unit, number] = (losses_T - summary.tensors["loss"]).nanmean()
                bar.update()
        summary.add_layer({"persistent.slot_worth": worth_Pn})


def _check(heard: Trace, loss_T: torch.Tensor, missing_T: torch.Tensor, deviations) -> dict[str, float]:
    """How far the record is from the model: its answers, sums of direct logits, and losses."""
    own_n = heard.own_positions[heard.own_positions < len(loss_T) - 1].to(loss_T.device)
    own_loss_n = F.cross_entropy(heard.own_logits[: len(own_n)], heard.token_ids[own_n + 1], reduction="none")
    return {
        "answer_max": max(largest for largest, _ in deviations),
        "answer_mean": sum(mean for _, mean in deviations) / len(deviations),
        "logits_max": max(missing_T[:-1].abs().tolist(), default=0.0),
        "loss_max": max((own_loss_n - loss_T[own_n]).abs().tolist(), default=0.0),
    }
