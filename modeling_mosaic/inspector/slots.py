"""Persistent units on a text: which of their trained pairs they use, and the tokens that these speak for.

Shapes: T tokens, C hidden size, V vocabulary; P persistent units with E dimensions, N banks of pairs, M slots
of all banks, numbered bank after bank; n slots that are looked at.
"""

import torch
from torch.nn import functional as F

from ..memory_norms import SCALAR_GAIN
from . import measures
from .anatomy import memory_layers
from .readout import TOP_TOKENS, Readout, output_of
from .trace import LayerTrace, Trace

# Scores that are held at a time, of all units of a layer.
NUM_SCORES = 2**20
# Pairs or slots that are listed of each unit and token.
TOP = 16
# Slots of each unit that are read as tokens.
NUM_READ = 64
# Tokens of the text that are listed of each of these, by their weights.
NUM_CALLERS = 4

Tensors = dict[str, torch.Tensor]


def query_block(units: int, pairs: int) -> int:
    """How many queries to compute at a time, with so many units and pairs."""
    return max(1, NUM_SCORES // (units * pairs))


def strongest(weights_HTS: torch.Tensor, name: str) -> Tensors:
    """The largest weights, `NAME_weight` `(units, time, 16)`, and their places, `NAME_index`; -1: none."""
    weight, index = weights_HTS.topk(min(TOP, weights_HTS.shape[-1]))
    index = index.masked_fill(weight == 0, -1)
    missing = (0, TOP - weight.shape[-1])
    return {
        f"{name}_index": F.pad(index, missing, value=-1).int(),
        f"{name}_weight": F.pad(weight, missing).half(),
    }


def summarise_persistent(
    heard: Trace, layer: int, layer_trace: LayerTrace, readout: Readout
) -> tuple[Tensors, torch.Tensor]:
    """Tensors of a layer's persistent units, and how far their recomputed answers are from the model's."""
    module = memory_layers(heard.model)[layer].persistent_memory
    keys_NPME = module.memory_keys.float()
    scale_P11 = torch.exp(SCALAR_GAIN * module.log_value_norm.float())[:, None, None]
    values_PME = scale_P11 * module.memory_values.float().transpose(0, 1).flatten(1, 2)
    blocks: dict[str, list[torch.Tensor]] = {}
    use_PM = 0
    block = query_block(keys_NPME.shape[1], values_PME.shape[1])
    for queries_PTE in layer_trace.queries_PTE.float().split(block, 1):
        scores_NPTM = queries_PTE @ keys_NPME.mT
        weights_PTM = (scores_NPTM.softmax(-1) / len(keys_NPME)).permute(1, 2, 0, 3).flatten(2)
        use_PM = use_PM + weights_PTM.sum(1)
        found = {
            "answers": weights_PTM @ values_PME,
            "normaliser": scores_NPTM.logsumexp(-1).permute(1, 2, 0),
            **strongest(weights_PTM, "persistent.slot"),
            "measure.persistent_effective_slots": measures.effective_pairs(weights_PTM),
        }
        for name, tensor in found.items():
            blocks.setdefault(name, []).append(tensor)
    tensors = {name: torch.cat(tensor, 1) for name, tensor in blocks.items()}
    answers_PTE, normaliser_PTN = tensors.pop("answers"), tensors.pop("normaliser")
    use_PM = use_PM / answers_PTE.shape[1]
    most_Pn = use_PM.topk(min(NUM_READ, use_PM.shape[1])).indices
    output_PCE = output_of(module)
    direct_PT = readout.direct(answers_PTE, output_PCE, readout.next_TC)
    tensors |= {
        "persistent.output": output_PCE,
        "persistent.mean_answer": answers_PTE.mean(1),
        "persistent.slot_use": use_PM,
        "persistent.slot_length": keys_NPME.norm(dim=-1).transpose(0, 1).flatten(1),
        "measure.persistent_direct_logit": direct_PT,
        "measure.persistent_logit_share": readout.share(direct_PT),
        "measure.persistent_dead_slots": (use_PM < 0.1 / use_PM.shape[1]).float().mean(1),
        "persistent.slot_most_used": most_Pn,
        **_read_slots(heard.model, most_Pn, values_PME, output_PCE, readout.scale_T.mean()),
        **_find_callers(layer_trace.queries_PTE.float(), keys_NPME, normaliser_PTN, most_Pn),
    }
    return tensors, (answers_PTE - layer_trace.persistent_answers_PTE.float()).abs()


def _read_slots(model, most_Pn, values_PME, output_PCE, scale: torch.Tensor) -> Tensors:
    """The tokens that the most used slots of each unit speak for: their values through the unembedding."""
    value_PnE = values_PME.gather(1, most_Pn[..., None].expand(-1, -1, values_PME.shape[2]))
    added_PnC = value_PnE @ output_PCE.mT
    read_PnC = (added_PnC - added_PnC.mean(-1, keepdim=True)) * model.base_model.norm.weight.float()
    weight_CV = model.config.logit_scale * scale * model.lm_head.weight.float().mT
    tops = []
    # A unit at a time: the vocabulary is large.
    for read_nC in read_PnC:
        logits_nV = read_nC @ weight_CV
        tops.append((logits_nV - logits_nV.mean(-1, keepdim=True)).topk(min(TOP_TOKENS, logits_nV.shape[-1])))
    return {
        "persistent.slot_tokens": torch.stack([top.indices for top in tops]),
        "persistent.slot_token_logits": torch.stack([top.values for top in tops]),
    }


def _find_callers(queries_PTE, keys_NPME, normaliser_PTN, most_Pn) -> Tensors:
    """The tokens at which the most used slots of each unit have the largest weights."""
    bank_Pn = most_Pn // keys_NPME.shape[2]
    key_PME = keys_NPME.transpose(0, 1).flatten(1, 2)
    key_PnE = key_PME.gather(1, most_Pn[..., None].expand(-1, -1, key_PME.shape[2]))
    normaliser_PTn = normaliser_PTN.gather(2, bank_Pn[:, None].expand(-1, normaliser_PTN.shape[1], -1))
    weight_PTn = (queries_PTE @ key_PnE.mT - normaliser_PTn).exp() / len(keys_NPME)
    top = weight_PTn.mT.topk(min(NUM_CALLERS, weight_PTn.shape[1]))
    return {"persistent.slot_callers": top.indices, "persistent.slot_caller_weights": top.values}
