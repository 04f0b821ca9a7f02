"""Records of what each memory of a Memory Mosaic stored, answered, got wrong and is worth on a text.

Shapes: L layers, H contextual and P persistent units, T tokens, D head size, C hidden size, M slots. Query t
sees pairs before it, which ones its unit's kind tells; pair i is the key of token i and the value that peeks
at token i + 1. The names of a record's tensors are listed in docs/inspector.md.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ..complete_files import replacing
from ..model_fingerprint import fingerprint
from .anatomy import layers_of
from .catalogue import MEASURES
from .explanation import Explanation, SlotShare, describe_unit, explain_pairs, explain_slots
from .pairs import StoredPairs, UnitKind
from .summary import constant_answer, summarise
from .text import decode_tokens, encode_text, name_token
from .trace import trace

if TYPE_CHECKING:
    from .slot_scan import SlotStatistics

FORMAT, FORMAT_VERSION = "memory-mosaics-record", "2"


def record_memories(
    model: PreTrainedModel | str | os.PathLike,
    tokenizer: PreTrainedTokenizerBase | None,
    text: str | Sequence[int],
    *,
    max_tokens: int = 4096,
    ablate: bool = True,
) -> "MemoryRecord":
    """Runs a Memory Mosaic over a text and records what its memories do.

    One forward pass, listened to by hooks, in any attention implementation and precision; measures are
    computed in float32. A text that a model has written is recorded like any other, by one pass over it.

    Args:
        model (`PreTrainedModel`, `str` or `os.PathLike`): a model, or its folder or Hub id.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): that of the folder or Hub id if `None`.
        text (`str` or `Sequence[int]`): the text, or its token ids.
        max_tokens (`int`): longest text, in tokens.
        ablate (`bool`): whether to run the model once more for each unit, without it, for what it is worth.
            That takes most of the time.

    Returns:
        `MemoryRecord`

    Raises:
        ValueError: for a model that is no Memory Mosaic with a language model's head, a text without tokens
            or longer than `max_tokens`, or a text without a tokenizer.

    Costs memory of O(layers time hidden), see docs/inspector.md.
    """
    name = model if isinstance(model, str) else str(getattr(model, "name_or_path", model))
    if not isinstance(model, PreTrainedModel):
        name = os.fspath(model)
        tokenizer = AutoTokenizer.from_pretrained(name) if tokenizer is None else tokenizer
        model = AutoModelForCausalLM.from_pretrained(name)
    check_model(model)
    token_ids, tokens, offsets, text = _read_text(tokenizer, text)
    if not 0 < len(token_ids) <= max_tokens:
        raise ValueError(f"text must have 1 to {max_tokens} tokens (max_tokens), not {len(token_ids)}")
    was_training = model.training
    model.eval()
    try:
        heard = trace(model, torch.tensor(token_ids, device=model.device))
        summary = summarise(heard, ablate)
    finally:
        model.train(was_training)
    tensors = summary.stack()
    parts = layers_of(model)[0]
    details = {
        "tokens": tokens,
        "offsets": offsets,
        "text": text,
        "sources": [{"first": 0, "name": "text"}],
        "kinds": [asdict(kind) for kind in parts.kinds],
        "num_persistent_units": parts.count("persistent"),
        "config": json.loads(model.config.to_json_string(use_diff=False)),
        "model_name": name,
        "model_fingerprint": fingerprint(model),
        "self_check": summary.self_check,
        "vocabulary": _name_tokens(tokenizer, tensors),
        "versions": {"transformers": transformers.__version__, "memory-mosaics": _own_version()},
    }
    return MemoryRecord(tensors, details)


def check_model(model: PreTrainedModel) -> None:
    """Raises a `ValueError` for a model whose memories cannot be read as tokens."""
    layers_of(model)
    if not hasattr(model, "lm_head"):
        raise ValueError(f"model must predict tokens (MosaicForCausalLM), unlike {type(model).__name__}")
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ValueError("model must be in memory as a whole, not offloaded")


def _read_text(tokenizer, text: str | Sequence[int]):
    """Token ids, tokens, their places, and the text."""
    if isinstance(text, str):
        if tokenizer is None:
            raise ValueError("tokenizer must be given, unless text is a list of token ids")
        return *encode_text(tokenizer, text), text
    token_ids = [int(token_id) for token_id in text]
    text, tokens, offsets = decode_tokens(tokenizer, token_ids)
    return token_ids, tokens, offsets, text


def _name_tokens(tokenizer, tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    """The texts of all tokens that the record names by their ids."""
    names = [name for name in ("readout.token_ids", "persistent.slot_tokens") if name in tensors]
    named = torch.cat([tensors[name].flatten() for name in names]).unique()
    return {str(token_id): name_token(tokenizer, token_id) for token_id in named.tolist()}


def _own_version() -> str:
    try:
        return version("memory-mosaics")
    except PackageNotFoundError:
        return "unknown"


class _LazyTensors(Mapping):
    """The tensors of a file, read when they are asked for."""

    def __init__(self, path: str | os.PathLike):
        self._file = safe_open(path, framework="pt")
        self._names = list(self._file.keys())

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._names:
            raise KeyError(name)
        return self._file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class MemoryRecord:
    """What each memory stored, answered, got wrong and is worth on a text; made by [`record_memories`].

    Attributes:
        tensors (`Mapping[str, torch.Tensor]`): all tensors by name; read from the file when they are needed.
        tokens (`list[str]`): each token as it stands in the text.
        offsets (`list[list[int]]`): first character of each token in `text`, and the one after its last.
        text (`str`): the text.
        sources (`list[dict]`): which tokens come from where: the first of them, and the `name` of the text.
        kinds (`list[UnitKind]`): of each contextual unit of a layer, which pairs its queries see.
        num_persistent_units (`int`): of a layer.
        config (`dict`): the model's config.
        model_name, model_fingerprint (`str`): where the model came from, and a digest of its parameters, as a
            `MosaicMemory` has it.
        self_check (`dict[str, float]`): how far the record is from the model, see docs/inspector.md.
        vocabulary (`dict[str, str]`): texts of the token ids that tensors name.
        versions (`dict[str, str]`): of the packages that it was made with.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], details: dict[str, Any]):
        self.tensors = tensors
        self.tokens: list[str] = details["tokens"]
        self.offsets: list[list[int]] = details["offsets"]
        self.text: str = details["text"]
        self.sources: list[dict[str, Any]] = details["sources"]
        self.kinds = [UnitKind(**kind) for kind in details["kinds"]]
        self.num_persistent_units: int = details["num_persistent_units"]
        self.config: dict[str, Any] = details["config"]
        self.model_name: str = details["model_name"]
        self.model_fingerprint: str = details["model_fingerprint"]
        self.self_check: dict[str, float] = details["self_check"]
        self.vocabulary: dict[str, str] = details["vocabulary"]
        self.versions: dict[str, str] = details["versions"]
        self._details = details

    def __repr__(self) -> str:
        return (
            f"MemoryRecord({self.model_name!r}: {self.num_tokens} tokens, {self.num_layers} layers of "
            f"{self.num_units} contextual and {self.num_persistent_units} persistent units)"
        )

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @property
    def num_layers(self) -> int:
        return self.config["num_hidden_layers"]

    @property
    def num_units(self) -> int:
        return len(self.kinds)

    @property
    def measures(self) -> list[str]:
        """Names of the measures that the record holds."""
        return [name for name in MEASURES if f"measure.{name}" in self.tensors]

    @property
    def metadata(self) -> dict[str, str]:
        """All but the tensors, as the file's metadata: each entry as JSON. Pages show its sentences."""
        layers, units = range(self.num_layers), range(self.num_units)
        sentences = [[self.sentence(layer, unit) for unit in units] for layer in layers]
        details = self._details | {"sentences": sentences}
        details = {name: json.dumps(detail) for name, detail in details.items()}
        return {"format": FORMAT, "version": FORMAT_VERSION, **details}

    def save(self, path: str | os.PathLike) -> None:
        """Writes the record as one safetensors file, which appears once it is complete."""
        with replacing(path) as partial:
            save_file(dict(self.tensors), partial, self.metadata)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "MemoryRecord":
        """Opens a record; its tensors are mapped into memory, and read when they are needed.

        Raises:
            ValueError: for a truncated or damaged file, or one that is no record, or of another version.
            OSError: if there is no such file.
        """
        try:
            tensors = _LazyTensors(path)
        except SafetensorError as error:
            raise ValueError(f"{path}: not a record of memories, or damaged: {error}") from error
        metadata = tensors._file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise ValueError(f"{path}: not a record of memories, but another safetensors file")
        if metadata["version"] != FORMAT_VERSION:
            raise ValueError(
                f"{path}: a record of version {metadata['version']}, not {FORMAT_VERSION}; record it again"
            )
        details = {name: text for name, text in metadata.items() if name not in ("format", "version")}
        try:
            return cls(tensors, {name: json.loads(text) for name, text in details.items()})
        except (KeyError, ValueError) as error:
            raise ValueError(f"{path}: a damaged record: {error}") from error

    def measure(self, name: str) -> torch.Tensor:
        """A measure by its name in [`MEASURES`].

        Returns:
            `torch.Tensor`: `(layers, units)`, `(layers, units, time)` or `(layers, rows, units)`, by its
            shape; NaN where nothing can be observed.

        Raises:
            ValueError: for an unknown measure, or one that the record was made without.
        """
        if f"measure.{name}" not in self.tensors:
            kind = "was made without" if name in MEASURES else "has no measure"
            raise ValueError(f"the record {kind} {name!r}; it has {', '.join(self.measures)}")
        return self.tensors[f"measure.{name}"]

    def unit_measure(self, name: str) -> torch.Tensor:
        """A measure as one number a unit, `(layers, units)`: its mean where it can be observed.

        Raises:
            ValueError: as [`measure`], and for a relation between units.
        """
        values = self.measure(name)
        if MEASURES[name].shape == "relation":
            raise ValueError(f"{name!r} relates units to each other and has no single number for each")
        return values if MEASURES[name].shape == "unit" else values.nanmean(-1)

    def token_text(self, token_id: int) -> str:
        """The text of a token id that one of the tensors names."""
        return self.vocabulary.get(str(int(token_id)), f"[{int(token_id)}]")

    def weights(
        self, layer: int, unit: int, queries: slice | int | Sequence[int] = slice(None)
    ) -> torch.Tensor:
        """Weights `(queries, time)` of a contextual unit's pairs, recomputed exactly from its keys.

        0 where a query does not see a pair; a row of zeros where the memory is empty, as for the first query.
        """
        stored = self.stored(layer, unit)
        chosen_n = torch.arange(self.num_tokens)[queries].reshape(-1)
        return stored.scores(chosen_n, self.num_tokens)[0].softmax(-1).nan_to_num(0)

    def answers(self, layer: int, unit: int) -> torch.Tensor:
        """Answers `(time, head_dim)` of a contextual unit, recomputed exactly; 0 where it sees no pair."""
        return self.stored(layer, unit).answers()[0]

    def stored(self, layer: int, unit: int | None = None) -> StoredPairs:
        """Queries, keys and values of a contextual unit, or of all of a layer."""
        if unit is not None:
            self.check_unit(layer, unit)
        units = slice(None) if unit is None else slice(unit, unit + 1)
        keys_HTD, values_HtD, scale_HT = (
            self.tensors[f"contextual.{name}"][layer, units] for name in ("keys", "values", "query_scale")
        )
        return StoredPairs(scale_HT[..., None] * keys_HTD, keys_HTD, values_HtD, self.kinds[units])

    def ablated_answer(self, layer: int, unit: int, memory: str, time: int | None = None) -> torch.Tensor:
        """What mean ablation puts in place of a unit's answers, `(time, size)`: for [`MemoryEdit.ablate`].

        Args:
            layer, unit (`int`), memory (`str`): which unit; "contextual" or "persistent".
            time (`int`, *optional*): of another text.
        """
        self.check_unit(layer, unit, memory)
        youngest = self.kinds[unit].youngest if memory == "contextual" else 0
        mean_D = self.tensors[f"{memory}.mean_answer"][layer, unit]
        return constant_answer(mean_D, youngest, self.num_tokens if time is None else time)

    def explain(self, layer: int, unit: int, token: int, most: int = 16) -> Explanation:
        """The pairs behind a contextual unit's answer at a token, in words and numbers.

        Args:
            layer, unit, token (`int`): where.
            most (`int`): pairs to list, the heaviest first.

        Raises:
            ValueError: for a layer, unit or token that the record has not.
        """
        self.check_unit(layer, unit)
        return explain_pairs(self, layer, unit, self._find_token(token), most)

    def explain_slots(self, layer: int, unit: int, token: int) -> list[SlotShare]:
        """The trained pairs behind a persistent unit's answer at a token, the heaviest first.

        Raises:
            ValueError: as [`explain`], and for a model whose persistent memories have no trained pairs.
        """
        self.check_unit(layer, unit, "persistent")
        if "persistent.slot_use" not in self.tensors:
            raise ValueError("the model's persistent memories have no trained pairs: they are feed-forward")
        return explain_slots(self, layer, unit, self._find_token(token))

    def sentence(self, layer: int, unit: int) -> str:
        """A contextual unit in words: where it looks, whether its target is news, and what it is worth."""
        self.check_unit(layer, unit)
        return describe_unit(self, layer, unit)

    def write_page(
        self,
        path: str | os.PathLike,
        *,
        units="auto",
        compare: "MemoryRecord | None" = None,
        slots: "SlotStatistics | None" = None,
    ) -> None:
        """Writes the record as one HTML file, which needs no network.

        Args:
            path (`str` or `os.PathLike`): of the file.
            units: whose keys and values the page holds, so that pairs can be deleted there: "auto", "all", or
                a list of `(layer, unit)`.
            compare (`MemoryRecord`, *optional*): another record, shown beside this one.
            slots (`SlotStatistics`, *optional*): the model's persistent slots over many texts, see
                `scan_slots`.
        """
        from .page import write_page

        write_page(self, path, units=units, compare=compare, slots=slots)

    def _repr_html_(self) -> str:
        from .page import notebook_html

        return notebook_html(self)

    def check_unit(self, layer: int, unit: int, memory: str = "contextual") -> None:
        """Raises a `ValueError` for a layer or a unit that the model has not."""
        units = self.num_units if memory == "contextual" else self.num_persistent_units
        for name, number, bound in (("layer", layer, self.num_layers), ("unit", unit, units)):
            if not 0 <= number < bound:
                raise ValueError(f"{name} {number}: the record has {name}s 0 to {bound - 1}")

    def _find_token(self, token: int) -> int:
        if not -self.num_tokens <= token < self.num_tokens:
            raise ValueError(f"token {token}: the text has tokens 0 to {self.num_tokens - 1}")
        return token % self.num_tokens
