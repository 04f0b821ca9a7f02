"""Persistent slots over many texts: how much each is used, what calls it, and the tokens that it speaks for.

Texts are read one after the other and forgotten; what is kept does not grow with them.

Shapes: L layers, T tokens, P persistent units, M slots of all banks, numbered bank after bank; n slots that
are listed, c contexts of each, W tokens of a context and the one that came next.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..complete_files import replacing
from ..model_fingerprint import fingerprint
from .anatomy import layers_of, memory_layers
from .readout import output_of
from .record import check_model
from .slots import NUM_READ, read_slots, recall_slots, slot_pairs
from .text import name_token

FORMAT, FORMAT_VERSION = "memory-mosaics-slots", "1"
# Tokens of a context, the one that came next included.
CONTEXT_TOKENS = 13
# Stands for no token.
NOTHING = -1


def scan_slots(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    texts: Iterable[str | Sequence[int]],
    *,
    max_tokens: int = 1024,
    num_contexts: int = 4,
) -> "SlotStatistics":
    """Runs a Memory Mosaic over texts and counts what its persistent slots do.

    Args:
        model (`PreTrainedModel`): a Memory Mosaic with slots, the first model, with a language model's head.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): not needed for token ids; contexts are ids then.
        texts (`Iterable`): texts, or their token ids, from a list or a stream; those without tokens are left
            out.
        max_tokens (`int`): longer texts are read in pieces, each for itself.
        num_contexts (`int`): how many contexts to keep of each slot, those in which it weighs most.

    Returns:
        `SlotStatistics`

    Raises:
        ValueError: for another model, or one without slots, numbers below 1, texts without a tokenizer, or no
            text at all.

    Costs a forward pass for each text, and about `16 + 60 num_contexts` bytes a slot, whatever the texts.
    """
    check_model(model)
    if layers_of(model)[0].persistent.num_slots == 0:
        raise ValueError("model: its persistent memories are feed-forward and have no slots to count")
    if max_tokens < 1 or num_contexts < 1:
        raise ValueError(f"max_tokens and num_contexts must be at least 1, not {max_tokens}, {num_contexts}")
    scan, was_training = _Scan(model, num_contexts), model.training
    model.eval()
    try:
        for text in tqdm(texts, desc="slots", unit=" texts", leave=False, disable=None):
            scan.read(_token_ids(tokenizer, text), max_tokens)
    finally:
        model.train(was_training)
    if scan.num_tokens == 0:
        raise ValueError("texts: there is no token in them")
    return scan.finish(tokenizer)


def _token_ids(tokenizer, text: str | Sequence[int]) -> Sequence[int]:
    if not isinstance(text, str):
        return text
    if tokenizer is None:
        raise ValueError("tokenizer must be given, unless texts are lists of token ids")
    return tokenizer(text)["input_ids"]


class _Scan:
    """Sums over texts, and the heaviest contexts so far, on the CPU."""

    @torch.no_grad()
    def __init__(self, model: PreTrainedModel, num_contexts: int):
        self.model, self.num_contexts = model, num_contexts
        self.memories = [layer.persistent_memory for layer in memory_layers(model)]
        self.pairs = [slot_pairs(memory) for memory in self.memories]
        banks, units, slots, _ = self.memories[0].memory_keys.shape
        shape = (len(self.memories), units, banks * slots)
        self.use_LPM, self.shift_LPM = torch.zeros(2, *shape, dtype=torch.float64)
        self.weight_LPMc = torch.zeros(*shape, num_contexts)
        self.context_LPMcW = torch.full((*shape, num_contexts, CONTEXT_TOKENS), NOTHING, dtype=torch.int32)
        self.scale_sum, self.num_texts, self.num_tokens = 0.0, 0, 0

    @torch.no_grad()
    def read(self, token_ids: Sequence[int], max_tokens: int) -> None:
        """Counts what the slots do on a text, in pieces of at most `max_tokens`."""
        self.num_texts += len(token_ids) > 0
        for first in range(0, len(token_ids), max_tokens):
            ids_T = torch.as_tensor(token_ids[first : first + max_tokens])
            with ExitStack() as stack:
                for number, memory in enumerate(self.memories):
                    handle = memory.key_extractor.register_forward_hook(self._count(number, ids_T))
                    stack.callback(handle.remove)
                handle = self.model.base_model.norm.register_forward_pre_hook(self._add_scale)
                stack.callback(handle.remove)
                self.model.base_model(input_ids=ids_T[None].to(self.model.device), use_cache=False)
            self.num_tokens += len(ids_T)

    def _count(self, number: int, ids_T: torch.Tensor):
        """A hook that counts what the slots of a layer do with its queries."""
        context_TW = F.pad(ids_T.int(), (CONTEXT_TOKENS - 2, 1), value=NOTHING).unfold(0, CONTEXT_TOKENS, 1)

        def hook(module, args, output):
            first = 0
            for answered in recall_slots(*self.pairs[number], output[0][0].float()):
                self.use_LPM[number] += answered.weights_PTM.sum(1).cpu()
                self.shift_LPM[number] += answered.shift_PTM.sum(1).cpu()
                weight_PMt = answered.weights_PTM.mT
                top = weight_PMt.topk(min(self.num_contexts, weight_PMt.shape[-1]))
                self._keep(number, top.values.cpu(), context_TW[first + top.indices.cpu()])
                first += weight_PMt.shape[-1]

        return hook

    def _keep(self, number: int, weight_PMc: torch.Tensor, context_PMcW: torch.Tensor) -> None:
        """Keeps the heaviest of these contexts and of those before them."""
        weight_PMc = torch.cat([self.weight_LPMc[number], weight_PMc], -1)
        context_PMcW = torch.cat([self.context_LPMcW[number], context_PMcW], -2)
        top = weight_PMc.topk(self.num_contexts)
        self.weight_LPMc[number] = top.values
        self.context_LPMcW[number] = context_PMcW.take_along_dim(top.indices[..., None], -2)

    def _add_scale(self, module, args) -> None:
        variance_T = args[0][0].float().var(-1, unbiased=False)
        self.scale_sum += (variance_T + self.model.config.layer_norm_eps).rsqrt().sum().item()

    @torch.no_grad()
    def finish(self, tokenizer) -> "SlotStatistics":
        """What was counted, the most used slots of each unit with their contexts and tokens."""
        use_LPM = (self.use_LPM / self.num_tokens).float()
        most_LPn = use_LPM.topk(min(NUM_READ, use_LPM.shape[2])).indices
        scale = torch.tensor(self.scale_sum / self.num_tokens)
        tensors = {
            "use": use_LPM,
            "shift": (self.shift_LPM / self.num_tokens).float(),
            "length": torch.stack(
                [keys.norm(dim=-1).transpose(0, 1).flatten(1) for keys, _ in self.pairs]
            ).cpu(),
            "most_used": most_LPn,
            "caller_weights": self.weight_LPMc.take_along_dim(most_LPn[..., None], 2),
            **self._read_tokens(most_LPn, scale),
        }
        context_LPncW = self.context_LPMcW.take_along_dim(most_LPn[..., None, None], 2)
        details = {
            "contexts": _as_words(tokenizer, context_LPncW.tolist()),
            "vocabulary": {str(i): name_token(tokenizer, i) for i in tensors["tokens"].unique().tolist()},
            "num_texts": self.num_texts,
            "num_tokens": self.num_tokens,
            "model_name": str(self.model.name_or_path),
            "model_fingerprint": fingerprint(self.model),
        }
        return SlotStatistics(tensors, details)

    def _read_tokens(self, most_LPn: torch.Tensor, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        """The tokens that slots speak for, and their logits."""
        found: dict[str, list[torch.Tensor]] = {}
        for memory, (_, values_NPME), most_Pn in zip(self.memories, self.pairs, most_LPn, strict=True):
            device = values_NPME.device
            read = read_slots(
                self.model, most_Pn.to(device), values_NPME, output_of(memory), scale.to(device)
            )
            for name, tensor in read.items():
                found.setdefault(name.removeprefix("persistent.slot_"), []).append(tensor.cpu())
        return {name: torch.stack(tensors) for name, tensors in found.items()}


def _as_words(tokenizer, context: Any) -> Any:
    """Contexts as pairs of texts, what led to a token and what came next, in lists as the tokens are."""
    if isinstance(context[0], list):
        return [_as_words(tokenizer, one) for one in context]
    *before, came = ([token] if token != NOTHING else [] for token in context)
    return [_join(tokenizer, sum(before, [])), _join(tokenizer, came)]


def _join(tokenizer, token_ids: list[int]) -> str:
    if tokenizer is None:
        return " ".join(f"[{token_id}]" for token_id in token_ids)
    return tokenizer.decode(token_ids)


@dataclass(frozen=True)
class SlotUse:
    """A trained pair of a persistent unit over many texts.

    Attributes:
        slot (`int`): its number; banks are numbered one after the other.
        use (`float`): its mean weight.
        shift (`float`): how far the unit's answer moves without it, relative to the answer; mean over tokens.
        length (`float`): of its key.
        tokens (`list[str]`): those whose logits its value raises most.
        contexts (`list[tuple[str, str, float]]`): where it weighs most: a text up to a token, what came next
            (empty at the end of a text), and the weight.
    """

    slot: int
    use: float
    shift: float
    length: float
    tokens: list[str]
    contexts: list[tuple[str, str, float]]

    def __str__(self) -> str:
        tokens = " ".join(f"«{token}»" for token in self.tokens)
        lines = [f"slot {self.slot}: use {self.use:.2%}, shift {self.shift:.1%}, speaks for {tokens}"]
        lines += [f"  {weight:6.1%} after «{before}» came «{came}»" for before, came, weight in self.contexts]
        return "\n".join(lines)


class SlotStatistics:
    """What persistent slots do over many texts; made by [`scan_slots`].

    Attributes:
        tensors (`dict[str, torch.Tensor]`): `use`, `shift` and `length` `(layers, units, slots)`; of the most
            used slots, `most_used` `(layers, units, n)`, their `tokens`, `token_logits` and `caller_weights`.
        contexts (`list`): texts of the callers, `[before, came]` in lists by layer, unit, slot and rank.
        num_texts, num_tokens (`int`): how much was read.
        model_name, model_fingerprint (`str`): as those of a record.
    """

    def __init__(self, tensors: dict[str, torch.Tensor], details: dict[str, Any]):
        self.tensors = tensors
        self.contexts: list = details["contexts"]
        self.vocabulary: dict[str, str] = details["vocabulary"]
        self.num_texts: int = details["num_texts"]
        self.num_tokens: int = details["num_tokens"]
        self.model_name: str = details["model_name"]
        self.model_fingerprint: str = details["model_fingerprint"]
        self.details = details

    def __repr__(self) -> str:
        return (
            f"SlotStatistics({self.model_name!r}: {self.num_tokens:,} tokens of {self.num_texts:,} texts, "
            f"{' x '.join(map(str, self.tensors['use'].shape))} layers, units and slots)"
        )

    def slots(self, layer: int, unit: int) -> list[SlotUse]:
        """The most used slots of a persistent unit, the most used one first.

        Raises:
            ValueError: for a layer or a unit that the model has not.
        """
        for name, number, bound in zip(
            ("layer", "unit"), (layer, unit), self.tensors["use"].shape[:2], strict=True
        ):
            if not 0 <= number < bound:
                raise ValueError(f"{name} {number}: the model has {name}s 0 to {bound - 1}")
        return list(self._list(layer, unit))

    def _list(self, layer: int, unit: int) -> Iterator[SlotUse]:
        for place, slot in enumerate(self.tensors["most_used"][layer, unit].tolist()):
            weights_c = self.tensors["caller_weights"][layer, unit, place].tolist()
            contexts = zip(self.contexts[layer][unit][place], weights_c, strict=True)
            yield SlotUse(
                slot,
                *(self.tensors[name][layer, unit, slot].item() for name in ("use", "shift", "length")),
                [self.vocabulary[str(i)] for i in self.tensors["tokens"][layer, unit, place].tolist()],
                [(before, came, weight) for (before, came), weight in contexts if weight > 0],
            )

    def rows(self) -> Iterator[dict[str, Any]]:
        """The most used slots of all units, as rows of a table."""
        layers, units, _ = self.tensors["use"].shape
        for layer, unit in ((layer, unit) for layer in range(layers) for unit in range(units)):
            for one in self._list(layer, unit):
                yield {
                    "layer": layer,
                    "unit": unit,
                    "slot": one.slot,
                    "use": one.use,
                    "shift": one.shift,
                    "key length": one.length,
                    "speaks for": " ".join(f"«{token}»" for token in one.tokens),
                    "called by": " ".join(f"«{before}» then «{came}»" for before, came, _ in one.contexts),
                }

    def save(self, path: str | os.PathLike) -> None:
        """Writes one safetensors file, which appears once it is complete."""
        details = {name: json.dumps(detail) for name, detail in self.details.items()}
        metadata = {"format": FORMAT, "version": FORMAT_VERSION, **details}
        with replacing(path) as partial:
            save_file({name: tensor.contiguous() for name, tensor in self.tensors.items()}, partial, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "SlotStatistics":
        """Reads what [`save`] wrote.

        Raises:
            ValueError: for a damaged file, or one that holds something else or is of another version.
            OSError: if there is no such file.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except SafetensorError as error:
            raise ValueError(f"{path}: not statistics of slots, or damaged: {error}") from error
        if (metadata.pop("format", None), metadata.pop("version", None)) != (FORMAT, FORMAT_VERSION):
            raise ValueError(f"{path}: not statistics of slots of version {FORMAT_VERSION}")
        return cls(tensors, {name: json.loads(text) for name, text in metadata.items()})
