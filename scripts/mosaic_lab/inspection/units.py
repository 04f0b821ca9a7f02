"""What the units of a mosaic do on rows of text: means of their measures, and who carries which tokens.

Shapes: L layers, H units, T tokens, N rows; a class of tokens is where the text says whether the next one is
familiar from training, repeated in its row, or neither.
"""

import numpy as np
import torch
from tqdm import tqdm

from modeling_mosaic import MEASURES, MemoryEdit, MemoryRecord, record_memories
from modeling_mosaic.inspector import measures
from modeling_mosaic.inspector.trace import residual_of, token_losses
from mosaic_lab.inspection.heads import heads_of_record

# Queries from and to before which the worth of a unit is averaged: early and late in a row.
EARLY, LATE = (1, 64), (256, 512)
CLASSES = ("familiar", "repeated", "neither")
KINDS = ("contextual", "persistent")
# What is summed over rows, and not averaged.
SUMS = ("class_tokens", "class_cost", "class_logit")
# Tokens of a sequence that training has or has not, the next one included.
LENGTH = 4


def inspect_units(
    model, rows_NT: np.ndarray, classes_NT: np.ndarray | None, label: str
) -> dict[str, np.ndarray]:
    """Records rows, and averages over them.

    Args:
        model: a Memory Mosaic.
        rows_NT (`np.ndarray`): tokens.
        classes_NT (`np.ndarray`): number of the class of the token after each one, see `CLASSES`.
        label (`str`): of the progress bar.

    Returns:
        `dict`: each measure, `(layers, units)`; `worth_early` and `worth_late`; `shuffled_auc` of the first
        layer, with answers of another row; `retrieval` `(layers, bins, units + 2, units)`; `class_tokens`
        `(classes,)` and, of both kinds of memories, `class_cost` (all units of a kind
        replaced by their means) and `class_logit` (their direct logits), `(kinds, classes)`.
    """
    found: dict[str, list[torch.Tensor]] = {}
    before = None
    for row, ids_T in enumerate(tqdm(rows_NT, desc=label, leave=False)):
        record = record_memories(model, None, ids_T)
        numbers = _numbers_of(record)
        numbers["retrieval"] = torch.stack([heads.retrieve() for heads in heads_of_record(record)])
        if before is not None:
            numbers["shuffled_auc"] = _auc_of_other(record, before)
        numbers |= _by_class(model, record, torch.from_numpy(classes_NT[row]))
        for name, tensor in numbers.items():
            found.setdefault(name, []).append(tensor.double())
        before = record
    stacked = {name: torch.stack(tensors) for name, tensors in found.items()}
    return {
        name: (tensor.sum(0) if name in SUMS else tensor.nanmean(0)).numpy()
        for name, tensor in stacked.items()
    }


def _numbers_of(record: MemoryRecord) -> dict[str, torch.Tensor]:
    """Every measure that is one number for each unit, and the loss."""
    names = [name for name in record.measures if MEASURES[name].shape != "relation"]
    worth = record.measure("ablation_cost")
    return {
        **{name: record.unit_measure(name) for name in names},
        "loss": record.tensors["loss"].nanmean(),
        "worth_early": worth[..., slice(*EARLY)].nanmean(-1),
        "worth_late": worth[..., slice(*LATE)].nanmean(-1),
    }


def _auc_of_other(record: MemoryRecord, other: MemoryRecord) -> torch.Tensor:
    """The AUC of the first layer's units, `(units,)`, with the answers that another row got: a null."""
    ids_T = record.tensors["token_ids"]
    known_K, raw_HKD = record.tensors["readout.token_ids"], record.tensors["readout.raw_values"]
    text_K, frequency_K = ids_T.unique(return_counts=True)
    place_T, place_K = (torch.searchsorted(known_K, ids) for ids in (ids_T, text_K))
    found = []
    for unit, mix in enumerate(record.tensors["contextual.mix"][0]):
        answers_TD = other.answers(0, unit)[1:-1]
        raw_TD = raw_HKD[unit, place_T[1:-1]]
        scores_TK = measures.candidate_scores(answers_TD, raw_TD, raw_HKD[unit, place_K], mix)
        actual_T = torch.searchsorted(text_K, ids_T[2:])
        found.append(measures.auc_of(scores_TK, actual_T, frequency_K.float()).nanmean())
    return torch.stack(found)


def _by_class(model, record: MemoryRecord, class_T: torch.Tensor) -> dict[str, torch.Tensor]:
    """Sums over the tokens of each class: losses without all units of a kind, and direct logits."""
    of_class = torch.stack([class_T == number for number in range(len(CLASSES))])[:, :-1].double()
    ids_T = record.tensors["token_ids"].to(model.device)
    cost, logit = [], []
    for kind, prefix in zip(KINDS, ("", "persistent_"), strict=True):
        edit = MemoryEdit()
        answers = record.tensors[f"{kind}.mean_answer"]
        for layer in range(len(answers)):
            for unit in range(len(answers[layer])):
                edit.ablate(layer=layer, unit=unit, answer=answers[layer, unit], memory=kind)
        with edit.applied(model):
            losses_T = token_losses(model, residual_of(model, ids_T), ids_T).cpu()
        cost.append(of_class @ (losses_T - record.tensors["loss"])[:-1].double())
        logit.append(of_class @ record.measure(f"{prefix}direct_logit").sum((0, 1))[:-1].double())
    return {
        "class_tokens": of_class.sum(1),
        "class_cost": torch.stack(cost),
        "class_logit": torch.stack(logit),
    }


def known_sequences(rows_NT: np.ndarray, vocabulary: int) -> np.ndarray:
    """The codes of all sequences of four tokens in the training rows, sorted."""
    return np.unique(_sequences(rows_NT, vocabulary))


def classify(rows_NT: np.ndarray, known: np.ndarray, vocabulary: int) -> np.ndarray:
    """The class of the token after each one, `(rows, time)`; -1 where nothing can be said.

    Familiar: training has the four tokens that it completes. Repeated: it has not, but the row has the two
    that it completes. Neither: the rest.
    """
    classes_NT = np.full(rows_NT.shape, -1)
    is_known_Nt = np.isin(_sequences(rows_NT, vocabulary), known)
    for row, ids_T in enumerate(rows_NT):
        seen: set[tuple[int, int]] = set()
        for place in range(len(ids_T) - 1):
            bigram = (int(ids_T[place]), int(ids_T[place + 1]))
            if place >= LENGTH - 2:
                is_known = is_known_Nt[row, place + 2 - LENGTH]
                classes_NT[row, place] = 0 if is_known else 1 if bigram in seen else 2
            seen.add(bigram)
    return classes_NT


def _sequences(rows_NT: np.ndarray, vocabulary: int) -> np.ndarray:
    """A number for each run of four tokens; 64 bits hold those of vocabularies up to 55,000 tokens."""
    ids_NT = rows_NT.astype(np.int64)
    codes_Nt = np.zeros_like(ids_NT[:, LENGTH - 1 :])
    for offset in range(LENGTH):
        codes_Nt = codes_Nt * vocabulary + ids_NT[:, offset : ids_NT.shape[1] - LENGTH + 1 + offset]
    return codes_Nt
