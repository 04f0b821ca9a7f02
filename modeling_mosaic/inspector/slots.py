"""Persistent units on a text: which of their trained pairs they use, and the tokens that these speak for.

Shapes: T tokens (t of a block), C hidden size, V vocabulary; P persistent units with E dimensions, N banks of
pairs, M slots of a bank or of all banks, numbered bank after bank; n slots that are looked at.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ..memory_norms import SCALAR_GAIN
from . import measures
from .anatomy import memory_layers
from .blocks import Joined
from .readout import TOP_TOKENS, Readout, output_of
from .trace import LayerTrace, Trace

# Scores that are held at a time, of all units of a layer.
NUM_SCORES = 2**20
# Pairs or slots that are listed of each unit and token.
TOP = 16
# Slots of each unit that are read as tokens.
NUM_READ = 64
# Slots of each unit that the model is run without, where units are ablated.
NUM_WEIGHED = 4
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


@dataclass
class Answered:
    """What a layer's persistent units do at some queries.

    Attributes:
        weights_PTM (`torch.Tensor`): weights of the slots, which sum to 1 over all banks.
        answers_PTE (`torch.Tensor`): answers.
        normaliser_PTN (`torch.Tensor`): log of the sum that normalises a bank's weights.
        shift_PTM (`torch.Tensor`): how far the answer moves without each slot, relative to its length.
    """

    weights_PTM: torch.Tensor
    answers_PTE: torch.Tensor
    normaliser_PTN: torch.Tensor
    shift_PTM: torch.Tensor


def slot_pairs(memory) -> tuple[torch.Tensor, torch.Tensor]:
    """Trained keys `(banks, units, slots of a bank, dimensions)` and values, scaled as they are recalled."""
    scale_P11 = torch.exp(SCALAR_GAIN * memory.log_value_norm.float())[:, None, None]
    return memory.memory_keys.float(), scale_P11 * memory.memory_values.float()


def recall_slots(keys_NPME, values_NPME, queries_PTE) -> Iterator[Answered]:
    """Asks trained pairs again, block by block of queries."""
    banks, units, slots, _ = keys_NPME.shape
    for queries_PtE in queries_PTE.split(query_block(units, banks * slots), 1):
        scores_NPtM = queries_PtE @ keys_NPME.mT
        weights_NPtM = scores_NPtM.softmax(-1)
        answers_PtE = (weights_NPtM @ values_NPME).mean(0)
        length_Pt1 = answers_PtE.norm(dim=-1, keepdim=True)
        moved_NPtM = measures.distance_without(scores_NPtM, values_NPME)
        yield Answered(
            _join_banks(weights_NPtM / banks),
            answers_PtE,
            scores_NPtM.logsumexp(-1).permute(1, 2, 0),
            _join_banks(moved_NPtM / banks / length_Pt1),
        )


def _join_banks(numbers_NPTM: torch.Tensor) -> torch.Tensor:
    """`(banks, units, time, slots)` to `(units, time, slots of all banks)`."""
    return numbers_NPTM.permute(1, 2, 0, 3).flatten(2)


def summarise_persistent(
    heard: Trace, layer: int, layer_trace: LayerTrace, readout: Readout
) -> tuple[Tensors, torch.Tensor]:
    """Tensors of a layer's persistent units, and how far their recomputed answers are from the model's."""
    module = memory_layers(heard.model)[layer].persistent_memory
    keys_NPME, values_NPME = slot_pairs(module)
    queries_PTE = layer_trace.queries_PTE.float()
    tensors = Joined(queries_PTE.shape[1], dim=1)
    use_PM, shift_PM, first = 0, 0, 0
    for answered in recall_slots(keys_NPME, values_NPME, queries_PTE):
        use_PM = use_PM + answered.weights_PTM.sum(1)
        shift_PM = shift_PM + answered.shift_PTM.sum(1)
        found = {
            "answers": answered.answers_PTE,
            "normaliser": answered.normaliser_PTN,
            **strongest(answered.weights_PTM, "persistent.slot"),
            "measure.persistent_effective_slots": measures.effective_pairs(answered.weights_PTM),
        }
        tensors.write(first, found)
        first += answered.answers_PTE.shape[1]
    answers_PTE, normaliser_PTN = tensors.pop("answers"), tensors.pop("normaliser")
    use_PM, shift_PM = (sum_PM / answers_PTE.shape[1] for sum_PM in (use_PM, shift_PM))
    most_Pn = use_PM.topk(min(NUM_READ, use_PM.shape[1])).indices
    output_PCE = output_of(module)
    direct_PT = readout.direct(answers_PTE, output_PCE, readout.next_TC)
    tensors |= {
        "persistent.output": output_PCE,
        "persistent.mean_answer": answers_PTE.mean(1),
        "persistent.slot_use": use_PM,
        "persistent.slot_shift": shift_PM,
        "persistent.slot_length": keys_NPME.norm(dim=-1).transpose(0, 1).flatten(1),
        "measure.persistent_direct_logit": direct_PT,
        "measure.persistent_logit_share": readout.share(direct_PT),
        "measure.persistent_dead_slots": (use_PM < 0.1 / use_PM.shape[1]).float().mean(1),
        "persistent.slot_most_used": most_Pn,
        **read_slots(heard.model, most_Pn, values_NPME, output_PCE, readout.scale_T.mean()),
        **_find_callers(queries_PTE, keys_NPME, normaliser_PTN, most_Pn),
    }
    return tensors, (answers_PTE - layer_trace.persistent_answers_PTE.float()).abs()


def read_slots(model, most_Pn, values_NPME, output_PCE, scale: torch.Tensor) -> Tensors:
    """The tokens that the most used slots of each unit speak for: their values through the unembedding."""
    values_PME = values_NPME.transpose(0, 1).flatten(1, 2)
    value_PnE = values_PME.gather(1, most_Pn[..., None].expand(-1, -1, values_PME.shape[2]))
    added_PnC = value_PnE @ output_PCE.mT
    read_PnC = (added_PnC - added_PnC.mean(-1, keepdim=True)) * model.base_model.norm.weight.float()
    read_PnC = read_PnC * (model.config.logit_scale * scale)
    # No copy in single precision: the vocabulary is large.
    weight_CV = model.lm_head.weight.float().mT
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
