"""What of a record goes into a page: safetensors files in gzip and base64, more important ones first."""

import base64
import gzip
import json
import math
from collections.abc import Iterable
from dataclasses import replace

import numpy
import torch
from safetensors.numpy import save

from .catalogue import MEASURES
from .pairs import StoredPairs

# Half precision is enough for keys if it moves no weight by more than this: one of the last digit shown.
MAX_WEIGHT_ERROR = 1e-3
# Measures along the text that come first where not all have a place.
FIRST_MEASURES = (
    "error",
    "ablation_cost",
    "certainty",
    "direct_logit",
    "next_token_rank",
    "newest_mass",
)
# Measures and units that have their place before the strongest pairs of all units.
MEASURES_BEFORE_PAIRS, UNITS_BEFORE_PAIRS = 3, 3
# How many of the strongest pairs of a unit and token, the more the better.
PAIRS = (8, 4, 2, 1)
MODEL = (
    "token_ids",
    "loss",
    "entropy",
    "top_ids",
    "top_logprobs",
    "final_scale",
    "contextual.mix",
    "contextual.value_scale",
)
SLOTS = ("use", "most_used", "tokens", "token_logits", "callers", "caller_weights")
READOUT = ("readout.token_ids", "readout.rows", "readout.raw_values")


class Packs(dict):
    """The packs of a page, by name; `room` is what more they may take, in bytes."""

    def __init__(self, room: float):
        self.room = room

    def add(self, name: str, arrays: dict, metadata: dict | None = None, room: float = math.inf) -> bool:
        """Takes a pack if it is no larger than `room`; says whether it is there."""
        data = {key: numpy.ascontiguousarray(array) for key, array in arrays.items()}
        pack = as_base64(gzip.compress(save(data, metadata=metadata), compresslevel=6, mtime=0))
        if len(pack) <= room:
            self[name] = pack
            self.room -= len(pack)
        return name in self


def pack_record(record, units: str | Iterable, room: int, slots=None) -> Packs:
    """The packs of a record. Named units are always there, the rest as far as there is room.

    `record` is what the page cannot do without, `corpus` what slots do over many texts (`SlotStatistics`),
    `unit.LAYER.UNIT` keys and values, `readout` what turns answers into logits, `pairs` the strongest pairs
    of units without keys; the others are measures.
    """
    every = [(layer, unit) for layer in range(record.num_layers) for unit in range(record.num_units)]
    named = [_known(unit, every) for unit in ([] if units == "auto" else every if units == "all" else units)]
    packs = Packs(room)
    packs.add("record", _small_arrays(record), record.metadata)
    if slots is not None:
        packs.add("corpus", *_corpus(slots))
    for layer, unit in named:
        packs.add(f"unit.{layer}.{unit}", _unit_arrays(record, layer, unit))
    measures = sorted(_along_text(record), key=lambda name: (*FIRST_MEASURES, name).index(name))
    left = [unit for unit in _dearest_first(record, every) if unit not in named]
    wanted = left if units == "auto" else []

    def add_measures(names: list):
        for name in names:
            packs.add(name, {f"measure.{name}": _half(record.measure(name))}, room=packs.room)

    def add_units(units: list):
        for layer, unit in units:
            if not packs.add(f"unit.{layer}.{unit}", _unit_arrays(record, layer, unit), room=packs.room):
                break

    add_measures(measures[:MEASURES_BEFORE_PAIRS])
    add_units(wanted[:UNITS_BEFORE_PAIRS])
    if left and (units != "auto" or packs.room < _size_of_units(record)):
        pairs = _strongest(record, max(PAIRS))
        for count in PAIRS:
            if packs.add(
                "pairs", {name: array[..., :count] for name, array in pairs.items()}, room=packs.room
            ):
                break
    packs.add("readout", {name: _half(record.tensors[name]) for name in READOUT}, room=packs.room)
    add_measures(measures[MEASURES_BEFORE_PAIRS:])
    add_units(wanted[UNITS_BEFORE_PAIRS:])
    return packs


def as_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _known(unit: tuple, every: list) -> tuple:
    unit = tuple(unit)
    if unit not in every:
        raise ValueError(f"units: there is no unit {unit}; they reach from {every[0]} to {every[-1]}")
    return unit


def _along_text(record) -> list[str]:
    """Measures with a number for each token."""
    return [name for name in record.measures if MEASURES[name].shape == "token"]


def _half(tensor: torch.Tensor) -> numpy.ndarray:
    """In half precision, integers as they are but no wider than needed."""
    if not tensor.is_floating_point():
        return tensor.to(torch.int32).numpy()
    most = torch.finfo(torch.float16).max
    return tensor.float().clamp(-most, most).half().numpy()


def _small_arrays(record) -> dict:
    """What the page cannot do without, with the means of the measures along the text."""
    names = [*MODEL, *(f"persistent.slot_{name}" for name in SLOTS)]
    arrays = {name: _half(record.tensors[name]) for name in names if name in record.tensors}
    if "persistent.slot_most_used" in record.tensors:
        most_used = record.tensors["persistent.slot_most_used"]
        for name in ("persistent.slot_length", "persistent.slot_shift"):
            arrays[name] = _half(record.tensors[name].gather(-1, most_used))
    for name in ("loss", "entropy", "final_scale", "top_logprobs", "persistent.slot_worth"):
        if name in record.tensors:
            arrays[name] = record.tensors[name].float().numpy()
    for name in record.measures:
        if MEASURES[name].shape == "token":
            arrays[f"mean.{name}"] = record.unit_measure(name).float().numpy()
        else:
            arrays[f"measure.{name}"] = record.measure(name).float().numpy()
    return arrays


def _corpus(slots) -> tuple[dict, dict]:
    """Statistics of slots as arrays and metadata."""
    tensors = dict(slots.tensors)
    for name in ("length", "shift"):
        tensors[name] = tensors[name].take_along_dim(tensors["most_used"], -1)
    shown = {name: slots.details[name] for name in ("contexts", "vocabulary", "num_texts", "num_tokens")}
    return {f"corpus.slot_{name}": _half(tensor) for name, tensor in tensors.items()}, {
        "corpus": json.dumps(shown)
    }


def _dearest_first(record, every: list) -> list:
    """Units by what removing them costs, or by their share of the logit where that was not measured."""
    name = next(name for name in ("ablation_cost", "logit_share") if name in record.measures)
    worth = record.unit_measure(name).nan_to_num(-math.inf)
    return sorted(every, key=lambda unit: -worth[unit])


def _size_of_units(record) -> float:
    """About how many bytes of base64 the keys and values of all units take."""
    return 2 * 2 * 1.3 * record.tensors["contextual.keys"].numel()


def _unit_arrays(record, layer: int, unit: int) -> dict:
    """Keys, values and output projection of a unit; keys in single precision where half moves its weights."""
    stored = record.stored(layer, unit)
    keys = stored.keys_HTD[0]
    return {
        "contextual.keys": (keys.half() if _weight_error(stored) <= MAX_WEIGHT_ERROR else keys).numpy(),
        "contextual.query_scale": record.tensors["contextual.query_scale"][layer, unit].numpy(),
        "contextual.values": _half(record.tensors["contextual.values"][layer, unit]),
        "contextual.output": _half(record.tensors["contextual.output"][layer, unit]),
    }


def _weight_error(stored: StoredPairs, block: int = 256) -> float:
    """The largest change of any weight when keys are kept in half precision."""
    worst, time = 0.0, stored.keys_HTD.shape[1]
    keys = stored.keys_HTD.half().float()
    scale = (stored.queries_HTD.norm(dim=-1) / stored.keys_HTD.norm(dim=-1)).nan_to_num(1)
    rounded = replace(stored, keys_HTD=keys, queries_HTD=scale[..., None] * keys)
    for start in range(0, time, block):
        exact, kept = (
            some.block_scores(start, min(start + block, time)).softmax(-1).nan_to_num(0)
            for some in (stored, rounded)
        )
        worst = max(worst, (exact - kept).abs().max().item() if exact.numel() else 0.0)
    return worst


def _strongest(record, count: int) -> dict:
    """The strongest pairs of every unit and token, with what they are worth: no weight without its effect."""
    index = record.tensors["contextual.pair_index"][..., :count]
    weight = record.tensors["contextual.pair_weight"][..., :count]
    layers, units = range(record.num_layers), range(record.num_units)
    effect = [[_effects(record, layer, unit, index[layer, unit]) for unit in units] for layer in layers]
    small = index.shape[2] <= torch.iinfo(torch.int16).max
    return {
        "contextual.pair_index": index.to(torch.int16 if small else torch.int32).numpy(),
        "contextual.pair_weight": _half(weight),
        "contextual.pair_effect": _half(torch.stack([torch.stack(row) for row in effect])),
    }


def _effects(record, layer: int, unit: int, index: torch.Tensor) -> torch.Tensor:
    """What forgetting a pair does to the error: `(|v - y'|^2 - |v - y|^2) / |v|^2`; positive if it helps.

    Without pair i the answer is `y' = (y - w_i v_i) / (1 - w_i)`. `index` and result are `(time, pairs)`; NaN
    where there is no such pair, or no target yet.
    """
    target = record.tensors["contextual.values"][layer, unit].double()
    index, known = index[:-1].long().clamp(min=0), index[:-1] >= 0
    scores = record.stored(layer, unit).double().scores(torch.arange(len(target)), len(target))[0]
    weights = scores.softmax(-1).nan_to_num(0)
    answer, weight = (weights @ target)[:, None], weights.gather(1, index)[..., None]
    without = ((answer - weight * target[index]) / (1 - weight)).masked_fill(weight == 1, 0)
    change = [(target[:, None] - given).square().sum(-1) for given in (without, answer)]
    change = (change[0] - change[1]) / target.square().sum(-1, keepdim=True)
    change = change.masked_fill(~known, math.nan)
    return torch.nn.functional.pad(change, (0, 0, 0, 1), value=math.nan)
