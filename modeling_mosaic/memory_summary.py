"""Makes the tensors of a record from a trace: what each memory stored, answered, got wrong, and is worth.

Everything goes through blocks of queries, so that memory grows with layers, tokens and width, never with the
square of the tokens.

Shapes: L layers, T tokens, C hidden size, V vocabulary; H contextual units with D dimensions, S pairs; P
persistent units with E dimensions, M slots of all banks; K tokens whose logits can be read.
"""

from dataclasses import dataclass, field

import torch
from tqdm.auto import tqdm

from . import memory_measures as measures
from .memory_agreement import CrossRetrieval, correlations, linear_cka, predictability, retrieve_across
from .memory_edit import memory_layers
from .memory_norms import SCALAR_GAIN
from .memory_trace import Trace, candidate_raw_values, logit_blocks, token_losses

QUERY_BLOCK = 256
# Pairs and slots that are listed of each unit and token, and slots of each unit that are read as tokens.
TOP = 16
TOP_TOKENS = 10
# Tokens of the vocabulary whose scores are held at a time.
VOCABULARY_BLOCK = 4096
# In deeper layers, candidates for the next token are tried at this many places, this many at each.
CANDIDATE_PLACES, CANDIDATES = 32, 32

Tensors = dict[str, torch.Tensor]


@dataclass
class Summary:
    """Tensors of a record by name, those of layers as lists until `stack`, and its self-check."""

    tensors: Tensors = field(default_factory=dict)
    layers: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    self_check: dict[str, float] = field(default_factory=dict)

    def add_layer(self, tensors: Tensors) -> None:
        for name, tensor in tensors.items():
            self.layers.setdefault(name, []).append(tensor.detach().cpu())

    def stack(self) -> Tensors:
        """All tensors, contiguous and on the CPU, as files want them."""
        stacked = {name: torch.stack(tensors) for name, tensors in self.layers.items()}
        return {name: tensor.cpu().contiguous() for name, tensor in (self.tensors | stacked).items()}


@dataclass
class Readout:
    """What turns an answer into logits: rows `r_b`, and those of the next token and the runner-up."""

    rows_KC: torch.Tensor
    next_TC: torch.Tensor
    runner_up_TC: torch.Tensor
    scale_T: torch.Tensor

    def direct(self, answers_HTD: torch.Tensor, output_HCD: torch.Tensor, rows_TC: torch.Tensor):
        """Direct logits `(units, time)` of answers through their part of `o_proj`; NaN at the last token."""
        return measures.direct_logit(answers_HTD, rows_TC @ output_HCD, self.scale_T)


@torch.no_grad()
def summarise(heard: Trace, ablate: bool) -> Summary:
    """Computes all tensors of a record but those that name the text.

    Args:
        heard (`Trace`): a forward pass.
        ablate (`bool`): whether to run the model once more for each unit, without it.
    """
    summary = Summary()
    readout = _read_text(heard, summary)
    config, deviations = heard.model.config, []
    passes = config.num_hidden_layers * (config.num_attention_heads + config.num_persistent_heads)
    bar = tqdm(total=config.num_hidden_layers + ablate * passes, desc="recording", leave=False, disable=None)
    direct_T = _direct_of_the_rest(heard, readout)
    for layer in range(config.num_hidden_layers):
        for summarise_memory in (_summarise_contextual, _summarise_persistent):
            tensors, deviation_HTD = summarise_memory(heard, layer, readout, summary)
            deviations.append(deviation_HTD)
            summary.add_layer(tensors)
        for name in ("measure.direct_logit", "measure.persistent_direct_logit"):
            direct_T = direct_T + summary.layers[name][-1].to(direct_T).sum(0)
        bar.update()
    if config.num_hidden_layers > 1:
        _try_candidates(heard, summary)
    if ablate:
        _ablate(heard, summary, bar)
    bar.close()
    _check(heard, summary, direct_T, deviations)
    return summary


def _read_text(heard: Trace, summary: Summary) -> Readout:
    """Losses, likely tokens and logits of the text, and the rows that read logits from answers."""
    model, ids_T = heard.model, heard.token_ids
    time = len(ids_T)
    found = {name: [] for name in ("entropy", "top_ids", "top_logprobs", "next_logit", "runner_up")}
    next_T = ids_T.roll(-1)
    for block, logits_nV in logit_blocks(model, heard.residual_TC):
        log_probs_nV = logits_nV.log_softmax(-1)
        top = log_probs_nV.topk(min(TOP_TOKENS, logits_nV.shape[-1]))
        found["entropy"].append(torch.special.entr(log_probs_nV.exp()).sum(-1))
        found["top_ids"].append(top.indices)
        found["top_logprobs"].append(top.values)
        next_n1 = next_T[block][:, None]
        found["next_logit"].append(logits_nV.gather(1, next_n1)[:, 0] - logits_nV.mean(-1))
        likeliest_n2 = top.indices[:, :2]
        is_next_n = likeliest_n2[:, :1] == next_n1
        found["runner_up"].append(torch.where(is_next_n, likeliest_n2[:, -1:], likeliest_n2[:, :1])[:, 0])
    found = {name: torch.cat(blocks) for name, blocks in found.items()}
    residual_TC = heard.residual_TC.float()
    variance_T = residual_TC.var(-1, unbiased=False)
    scale_T = (variance_T + model.config.layer_norm_eps).rsqrt()
    known_K = torch.cat([ids_T, found["top_ids"].flatten()]).unique()
    summary.tensors |= {
        "token_ids": ids_T,
        "loss": token_losses(model, heard.residual_TC, ids_T),
        **{name: found[name] for name in ("entropy", "top_ids", "top_logprobs")},
        "final_hidden": residual_TC,
        "final_scale": scale_T,
        "readout.token_ids": known_K,
        "readout.rows": _rows_of(model, known_K),
        "readout.raw_values": _first_raw_values(model, known_K),
        # Not the next token's: there is none.
        "next_logit": found["next_logit"].where(
            torch.arange(time, device=ids_T.device) < time - 1, torch.nan
        ),
    }
    next_TC, runner_up_TC = (_rows_of(model, ids) for ids in (next_T, found["runner_up"]))
    next_TC[-1] = runner_up_TC[-1] = torch.nan
    return Readout(summary.tensors["readout.rows"], next_TC, runner_up_TC, scale_T)


def _rows_of(model, ids_K: torch.Tensor) -> torch.Tensor:
    """`r_b = logit_scale (gamma o W_b)`, centred over dimensions, as the norm does, and over tokens."""
    weight_VC, gamma_C = model.lm_head.weight, model.base_model.norm.weight.float()
    rows_KC = (weight_VC[ids_K].float() - weight_VC.mean(0, dtype=torch.float32)) * gamma_C
    return model.config.logit_scale * (rows_KC - rows_KC.mean(-1, keepdim=True))


def _first_raw_values(model, ids_K: torch.Tensor) -> torch.Tensor:
    """Raw values `(units, tokens, head_dim)` in the first layer, where they depend on the token alone."""
    layer = memory_layers(model)[0]
    raw_KC = layer.contextual_memory.v_proj(layer.contextual_norm(model.get_input_embeddings()(ids_K)))
    return raw_KC.float().unflatten(-1, (layer.contextual_memory.num_heads, -1)).transpose(0, 1)


def _output_of(memory) -> torch.Tensor:
    """The part of `o_proj` of each unit, `(units, hidden, head_dim)`; called, as it may be quantised."""
    size = memory.o_proj.in_features
    weight = memory.o_proj.weight
    eye_CC = torch.eye(size, dtype=weight.dtype if weight.is_floating_point() else None, device=weight.device)
    output_CC = memory.o_proj(eye_CC).float() - memory.o_proj(torch.zeros_like(eye_CC[:1])).float()
    return output_CC.mT.unflatten(-1, (memory.num_heads, -1)).transpose(0, 1).contiguous()


def _direct_of_the_rest(heard: Trace, readout: Readout) -> torch.Tensor:
    """Direct logits `(time,)` of the next tokens that come from no unit: the embedding, and any biases."""
    rest_TC = heard.layers[0].hidden_1TC[0].float()
    model = heard.model
    for layer in memory_layers(model):
        for memory in (layer.contextual_memory, layer.persistent_memory):
            if memory.o_proj.bias is not None:
                rest_TC = rest_TC + memory.o_proj.bias.float()
    direct_T = (rest_TC * readout.next_TC).sum(-1) * readout.scale_T
    bias_C = model.base_model.norm.bias
    if bias_C is not None:
        weight_VC = model.lm_head.weight
        rows_TC = weight_VC[heard.token_ids.roll(-1)].float() - weight_VC.mean(0, dtype=torch.float32)
        direct_T = direct_T + model.config.logit_scale * rows_TC @ bias_C.float()
    return direct_T


def _summarise_contextual(heard: Trace, layer: int, readout: Readout, summary: Summary):
    """Tensors of a layer's contextual units, and how far their recomputed answers are from the model's."""
    layer_trace, module = heard.layers[layer], memory_layers(heard.model)[layer].contextual_memory
    keys_HTD, raw_HTD, values_HtD = (
        states.float()
        for states in (layer_trace.keys_HTD, layer_trace.raw_values_HTD, layer_trace.values_HtD)
    )
    mix_H, scale_H = _value_scalars(module)
    answers_HTD, tensors = _recall(keys_HTD, values_HtD, heard.token_ids)
    output_HCD = _output_of(module)
    tensors |= {
        "contextual.keys": keys_HTD,
        "contextual.values": values_HtD,
        "contextual.raw_values": raw_HTD,
        "contextual.answers": answers_HTD,
        "contextual.mix": mix_H,
        "contextual.value_scale": scale_H,
        "contextual.output": output_HCD,
        "measure.mix": mix_H,
        "measure.value_scale": scale_H,
        "measure.half_life": measures.half_life(
            SCALAR_GAIN * module.key_extractor.leaky_norm.leak.float().abs()
        ),
        "measure.key_scale": keys_HTD[:, -1].norm(dim=-1),
    }
    tensors |= _compare(answers_HTD, values_HtD, raw_HTD, mix_H, scale_H)
    direct_HT = readout.direct(answers_HTD, output_HCD, readout.next_TC)
    tensors["measure.direct_logit"] = direct_HT
    tensors["measure.direct_logit_difference"] = direct_HT - readout.direct(
        answers_HTD, output_HCD, readout.runner_up_TC
    )
    tensors["measure.logit_share"] = direct_HT.nansum(-1) / summary.tensors["next_logit"].nansum()
    if layer == 0:
        tensors |= _expect_first(heard, summary, answers_HTD, raw_HTD, mix_H)
    else:
        unknown_HT = torch.full(answers_HTD.shape[:2], torch.nan)
        tensors |= {"measure.next_token_auc": unknown_HT, "measure.next_token_rank": unknown_HT.clone()}
    return tensors, (answers_HTD - layer_trace.answers_HTD.float()).abs()


def _value_scalars(module) -> tuple[torch.Tensor, torch.Tensor]:
    """The mix c and the length alpha of a layer's values, `(units,)` each."""
    norm = module.peek_norm
    return norm.mix.float(), torch.exp(SCALAR_GAIN * norm.log_scale.float())


def _recall(keys_HTD, values_HtD, token_ids_T) -> tuple[torch.Tensor, Tensors]:
    """Answers `(units, time, head_dim)`, and what can be said from weights alone, block by block."""
    time = keys_HTD.shape[1]
    blocks: dict[str, list[torch.Tensor]] = {}
    retrieval = CrossRetrieval(values_HtD[:, 1:])
    for first in range(0, time, QUERY_BLOCK):
        last = min(first + QUERY_BLOCK, time)
        scores_HTS = masked_scores(keys_HTD, first, last)
        values_HSD = values_HtD[:, : last - 1]
        across_RHTD = retrieve_across(scores_HTS, values_HSD).nan_to_num(0)
        seen = slice(int(first == 0), min(last, time - 1) - first)
        retrieval.add(
            across_RHTD[:, :, seen], values_HtD[:, first + seen.start : first + max(seen.start, seen.stop)]
        )
        units = torch.arange(len(keys_HTD), device=keys_HTD.device)
        found = {"answers": across_RHTD[units, units], **weigh(scores_HTS, token_ids_T, first, last)}
        for name, tensor in found.items():
            blocks.setdefault(name, []).append(tensor)
    tensors = {name: torch.cat(tensor, 1) for name, tensor in blocks.items()}
    tensors["measure.cross_retrieval"] = retrieval.result()
    return tensors.pop("answers"), tensors


def masked_scores(keys_HTD: torch.Tensor, first: int, last: int) -> torch.Tensor:
    """`k_T . k_i` of the queries from `first` to before `last`, `-inf` where pair i is not stored yet."""
    scores_HTS = keys_HTD[:, first:last] @ keys_HTD[:, : max(last - 1, 0)].mT
    return scores_HTS.masked_fill(measures.ages(scores_HTS, first) < 1, -torch.inf)


def weigh(scores_HTS: torch.Tensor, token_ids_T: torch.Tensor, first: int, last: int) -> Tensors:
    """The measures of a block of weights, its strongest pairs, and what normalises it."""
    normaliser_HT = scores_HTS.logsumexp(-1)
    weights_HTS = scores_HTS.softmax(-1).nan_to_num(0)
    same_TS, after_TS = (
        measures.same_token(token_ids_T, first, last, offset)[:, : last - 1] for offset in (0, 1)
    )
    return {
        "contextual.log_normaliser": normaliser_HT,
        **_strongest(weights_HTS, "contextual.pair"),
        "contextual.rest_weight": (
            1 - weights_HTS.topk(min(TOP, weights_HTS.shape[-1])).values.sum(-1)
        ).clamp(0)
        * (normaliser_HT > -torch.inf),
        "measure.effective_pairs": measures.effective_pairs(weights_HTS),
        "measure.participation": measures.participation(weights_HTS),
        "measure.pairs_for_90": measures.pairs_for(weights_HTS, 0.9),
        "measure.age": measures.mean_age(weights_HTS, first),
        "measure.newest_mass": measures.mass_at_ages(weights_HTS, 1, 1, first),
        "measure.mass_2_8": measures.mass_at_ages(weights_HTS, 2, 8, first),
        "measure.mass_9_64": measures.mass_at_ages(weights_HTS, 9, 64, first),
        "measure.mass_65": measures.mass_at_ages(weights_HTS, 65, last, first),
        "measure.same_token_mass": measures.mass_on(weights_HTS, same_TS),
        "measure.after_same_token_mass": measures.mass_on(weights_HTS, after_TS),
    }


def _strongest(weights_HTS: torch.Tensor, name: str) -> Tensors:
    """The largest weights, `NAME_weight` `(units, time, 16)`, and their places, `NAME_index`; -1: none."""
    weight, index = weights_HTS.topk(min(TOP, weights_HTS.shape[-1]))
    index = index.masked_fill(weight == 0, -1)
    missing = (0, TOP - weight.shape[-1])
    return {
        f"{name}_index": torch.nn.functional.pad(index, missing, value=-1).int(),
        f"{name}_weight": torch.nn.functional.pad(weight, missing).half(),
    }


def _compare(answers_HTD, values_HtD, raw_HTD, mix_H, scale_H) -> Tensors:
    """The measures that compare answers with targets; NaN at the first and the last token."""
    time = answers_HTD.shape[1]
    mix_H11, scale_H11 = mix_H[:, None, None], scale_H[:, None, None]
    answer_HTD, target_HTD, raw_seen_HTD = answers_HTD[:, 1:-1], values_HtD[:, 1:], raw_HTD[:, 1:-1]
    error_HT = measures.relative_error(answer_HTD, target_HTD)
    certainty_HT = measures.certainty(answer_HTD, scale_H11)
    stated_HT = measures.expected_error(certainty_HT)
    by_token = {
        "error": error_HT,
        "cosine": measures.cosine(answer_HTD, target_HTD),
        "certainty": certainty_HT,
        "expected_error": stated_HT,
        "surprise": measures.surprise(error_HT, certainty_HT),
    }
    by_token = {name: _at_queries(tensor, time) for name, tensor in by_token.items()}
    by_unit = {
        "peek_share": measures.peek_share(raw_seen_HTD, raw_HTD[:, 2:], mix_H11).mean(-1),
        "skill_over_mean": measures.skill(answer_HTD, target_HTD, measures.mean_of_stored(values_HtD)),
        "skill_over_newest": measures.skill(answer_HTD, target_HTD, values_HtD[:, :-1]),
        "skill_over_known": measures.skill(
            answer_HTD, target_HTD, measures.known_part(raw_seen_HTD, mix_H11, scale_H11)
        ),
        "r_squared": measures.r_squared(answer_HTD, target_HTD),
        "anomaly_correlation": measures.anomaly_correlation(answer_HTD, target_HTD),
        "conditional_bias": measures.conditional_bias(answer_HTD, target_HTD),
        "calibration": measures.correlation(stated_HT, error_HT),
        "context_gain": measures.context_gain(by_token["error"]),
        "predictability": predictability(target_HTD),
        "target_cka": linear_cka(target_HTD),
        "residual_cka": linear_cka(target_HTD - answer_HTD),
        "error_correlation": correlations(error_HT),
    }
    return {f"measure.{name}": tensor for name, tensor in (by_token | by_unit).items()}


def _at_queries(values_HT: torch.Tensor, time: int) -> torch.Tensor:
    """Values of the observable queries, 1 to T - 2, at their places among all; NaN elsewhere."""
    all_HT = values_HT.new_full((values_HT.shape[0], time), torch.nan)
    all_HT[:, 1:-1] = values_HT
    return all_HT


def _expect_first(heard: Trace, summary: Summary, answers_HTD, raw_HTD, mix_H) -> Tensors:
    """How well the first layer's answers pick the true next token: against the text's, and all others."""
    ids_T, model = heard.token_ids, heard.model
    time = len(ids_T)
    text_K, frequency_K = ids_T.unique(return_counts=True)
    raw_HKD = _first_raw_values(model, text_K)
    actual_T = torch.searchsorted(text_K, ids_T[2:])
    auc_HT, higher_HT = torch.full((2, len(mix_H), max(time - 2, 0)), torch.nan, device=ids_T.device)
    higher_HT.zero_()
    own_HT = torch.zeros_like(higher_HT)
    for unit, mix in enumerate(mix_H):
        for first in range(0, time - 2, QUERY_BLOCK):
            block = slice(first, min(first + QUERY_BLOCK, time - 2))
            answer_TD, raw_TD = (states[unit, 1:-1][block] for states in (answers_HTD, raw_HTD))
            scores_TK = measures.candidate_scores(answer_TD, raw_TD, raw_HKD[unit], mix)
            auc_HT[unit, block] = measures.auc_of(scores_TK, actual_T[block], frequency_K.to(scores_TK))
            own_HT[unit, block] = scores_TK.gather(1, actual_T[block, None])[:, 0]
    for first in range(0, model.config.vocab_size, VOCABULARY_BLOCK):
        ids_K = torch.arange(
            first, min(first + VOCABULARY_BLOCK, model.config.vocab_size), device=ids_T.device
        )
        raw_HKD = _first_raw_values(model, ids_K)
        for unit, mix in enumerate(mix_H):
            for start in range(0, time - 2, QUERY_BLOCK):
                block = slice(start, start + QUERY_BLOCK)
                answer_TD, raw_TD = (states[unit, 1:-1][block] for states in (answers_HTD, raw_HTD))
                scores_TK = measures.candidate_scores(answer_TD, raw_TD, raw_HKD[unit], mix)
                scores_TK = scores_TK.masked_fill(ids_K == ids_T[2:][block, None], -torch.inf)
                higher_HT[unit, block] += (scores_TK > own_HT[unit, block, None]).sum(-1)
    return {
        "measure.next_token_auc": _at_queries(auc_HT, time),
        "measure.next_token_rank": _at_queries(1 + higher_HT, time),
    }


def _try_candidates(heard: Trace, summary: Summary) -> None:
    """The AUC of deeper layers at some places: the true next token against others, drawn by frequency."""
    ids_T = heard.token_ids
    places = (
        torch.linspace(1, len(ids_T) - 2, CANDIDATE_PLACES).long().unique().tolist() if len(ids_T) > 2 else []
    )
    chance = torch.Generator().manual_seed(0)
    text_K, frequency_K = ids_T.cpu().unique(return_counts=True)
    drawn = []
    for place in places:
        others_K = frequency_K.double() * (text_K != ids_T[place + 1].cpu())
        if others_K.sum() == 0:
            return
        picked_k = torch.multinomial(others_K, CANDIDATES - 1, replacement=True, generator=chance)
        drawn.append(torch.cat([ids_T[place + 1 : place + 2], text_K[picked_k].to(ids_T.device)]))
    for place, raw_LHKD in zip(places, candidate_raw_values(heard.model, ids_T, places, drawn), strict=True):
        for layer in range(1, len(raw_LHKD)):
            stored = {name: tensors[layer] for name, tensors in summary.layers.items()}
            for unit, mix in enumerate(stored["contextual.mix"]):
                scores_1K = measures.candidate_scores(
                    stored["contextual.answers"][unit, place : place + 1],
                    stored["contextual.raw_values"][unit, place : place + 1],
                    raw_LHKD[layer, unit].cpu(),
                    mix,
                )
                auc = measures.auc_of(scores_1K, torch.tensor([0]), torch.ones(scores_1K.shape[1]))
                stored["measure.next_token_auc"][unit, place] = auc[0]


def _summarise_persistent(heard: Trace, layer: int, readout: Readout, summary: Summary):
    """Tensors of a layer's persistent units, and how far their recomputed answers are from the model's."""
    layer_trace, module = heard.layers[layer], memory_layers(heard.model)[layer].persistent_memory
    queries_PTE = layer_trace.queries_PTE.float()
    keys_NPME, values_NPME = module.memory_keys.float(), module.memory_values.float()
    scale_P11 = torch.exp(SCALAR_GAIN * module.log_value_norm.float())[:, None, None]
    values_PME = scale_P11 * values_NPME.transpose(0, 1).flatten(1, 2)
    blocks: dict[str, list[torch.Tensor]] = {}
    use_PM = 0
    for queries_PnE in queries_PTE.split(QUERY_BLOCK, 1):
        weights_NPnM = (queries_PnE @ keys_NPME.mT).softmax(-1) / len(keys_NPME)
        weights_PnM = weights_NPnM.permute(1, 2, 0, 3).flatten(2)
        use_PM = use_PM + weights_PnM.sum(1)
        found = {
            "answers": weights_PnM @ values_PME,
            **_strongest(weights_PnM, "persistent.slot"),
            "measure.persistent_effective_slots": measures.effective_pairs(weights_PnM),
        }
        for name, tensor in found.items():
            blocks.setdefault(name, []).append(tensor)
    tensors = {name: torch.cat(tensor, 1) for name, tensor in blocks.items()}
    answers_PTE = tensors.pop("answers")
    use_PM = use_PM / queries_PTE.shape[1]
    output_PCE = _output_of(module)
    direct_PT = readout.direct(answers_PTE, output_PCE, readout.next_TC)
    tensors |= {
        "persistent.output": output_PCE,
        "persistent.slot_use": use_PM,
        "persistent.slot_length": keys_NPME.norm(dim=-1).transpose(0, 1).flatten(1),
        "measure.persistent_direct_logit": direct_PT,
        "measure.persistent_logit_share": direct_PT.nansum(-1) / summary.tensors["next_logit"].nansum(),
        "measure.persistent_dead_slots": (use_PM < 0.1 / use_PM.shape[1]).float().mean(1),
        **_read_slots(heard.model, use_PM, values_PME, output_PCE, readout),
    }
    return tensors, (answers_PTE - layer_trace.persistent_answers_PTE.float()).abs()


def _read_slots(model, use_PM, values_PME, output_PCE, readout: Readout) -> Tensors:
    """The tokens that the most used slots of each unit speak for: their values through the unembedding."""
    most_Pn = use_PM.topk(min(TOP, use_PM.shape[1])).indices
    value_PnE = values_PME.gather(1, most_Pn[..., None].expand(-1, -1, values_PME.shape[2]))
    added_PnC = value_PnE @ output_PCE.mT
    read_PnC = (added_PnC - added_PnC.mean(-1, keepdim=True)) * model.base_model.norm.weight.float()
    weight_VC = model.lm_head.weight
    logits_PnV = model.config.logit_scale * readout.scale_T.mean() * read_PnC @ weight_VC.float().mT
    top = (logits_PnV - logits_PnV.mean(-1, keepdim=True)).topk(min(TOP_TOKENS, logits_PnV.shape[-1]))
    return {
        "persistent.slot_most_used": most_Pn,
        "persistent.slot_tokens": top.indices,
        "persistent.slot_token_logits": top.values,
    }


def _ablate(heard: Trace, summary: Summary, bar) -> None:
    """What each unit is worth at each token: one more pass for each, from its layer on."""
    loss_T = summary.tensors["loss"]
    for layer, block in enumerate(memory_layers(heard.model)):
        costs = {}
        for memory, prefix in (("contextual", ""), ("persistent", "persistent_")):
            losses = []
            for unit in range(getattr(block, f"{memory}_memory").num_heads):
                losses.append(heard.losses_without(layer, unit, memory) - loss_T)
                bar.update()
            costs[f"measure.{prefix}ablation_cost"] = torch.stack(losses)
        summary.add_layer(costs)


def _check(heard: Trace, summary: Summary, direct_T: torch.Tensor, deviations: list[torch.Tensor]) -> None:
    """Notes how far the record is from the model: answers, sums of direct logits, and losses."""
    tensors = summary.tensors
    known = heard.own_positions[heard.own_positions < len(heard.token_ids) - 1].to(heard.token_ids.device)
    own_n = torch.nn.functional.cross_entropy(
        heard.own_logits[: len(known)], heard.token_ids[known + 1], reduction="none"
    )
    summary.self_check = {
        "answer_max": max(float(deviation.max()) for deviation in deviations),
        "answer_mean": sum(float(deviation.mean()) for deviation in deviations) / len(deviations),
        "logits_max": _largest((direct_T - tensors.pop("next_logit"))[:-1]),
        "loss_max": _largest(own_n - tensors["loss"][known]),
    }
    for name in ("contextual.answers", "contextual.raw_values"):
        summary.layers.pop(name)


def _largest(deviations: torch.Tensor) -> float:
    return float(deviations.abs().max()) if len(deviations) else 0.0
