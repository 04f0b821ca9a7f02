"""What the experiments with bounded memories have in common: a run measures a model with one memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from mosaic_lab.bounding.options import BoundingArguments
from mosaic_lab.bounding.predictions import bounded_logits, window_logits
from mosaic_lab.bounding.report import BIN, WHOLE, WINDOW
from mosaic_lab.core.errors import InputError
from mosaic_lab.core.fingerprint import hash_weights
from mosaic_lab.core.work import Run
from mosaic_lab.evaluation.losses import losses_of, token_logits
from mosaic_lab.evaluation.models import TrainedModel
from mosaic_lab.memories.checks import check_memories

Predict = Callable[[np.ndarray], torch.Tensor]
Score = Callable[[torch.Tensor, slice], list[np.ndarray]]


@dataclass(frozen=True)
class Rows:
    """Rows of tokens, int64 `(rows, time)`, and what is measured on them.

    Attributes:
        name (`str`): what they are.
        ids_NT (`np.ndarray`): the tokens.
        measures (`Sequence[str]`): what is measured, with its unit; smaller is better.
        score (`Callable`): gets logits `(some rows, time - 1, vocab)` and which rows these are; returns the
            values of each measure, `(some rows, time - 1)`.
        sha256 (`str`, *optional*): fingerprint of the text.
    """

    name: str
    ids_NT: np.ndarray
    measures: Sequence[str]
    score: Score
    sha256: str | None = None

    @classmethod
    def of_text(cls, name: str, ids_NT: np.ndarray, sha256: str | None = None) -> "Rows":
        """Rows whose loss is measured."""

        def score(logits_BTV, rows):
            return [losses_of(logits_BTV, ids_NT[rows])]

        return cls(name, ids_NT, ["loss, nats per token"], score, sha256)


def plan_memories(
    models: Sequence[TrainedModel], bounding: BoundingArguments, texts: Sequence[Rows], about: dict[str, Any]
) -> list[Run]:
    """Plans a run for each model and each memory: the whole one, and those of all bounds and policies.

    Args:
        models (`Sequence[TrainedModel]`): mosaics of either kind, and GPT-2s, which get a sliding window.
        bounding (`BoundingArguments`): the memories.
        texts (`Sequence[Rows]`): what will be measured.
        about (`dict`): further options that all runs record.

    Returns:
        `list[Run]`: runs whose input is a function from tokens to logits.

    Raises:
        InputError: for a model that cannot be used, or several of a kind and depth, whose lines in the tables
            would be the same.
    """
    kinds = [(model.network.config.model_type, model.network.config.num_hidden_layers) for model in models]
    if repeated := [model.name for model, kind in zip(models, kinds, strict=True) if kinds.count(kind) > 1]:
        raise InputError(f"models: {', '.join(repeated)}: at most one of each kind and depth")
    measures = [(text, measure) for text in texts for measure in text.measures]
    about = {
        "dtype": bounding.dtype,
        "context": bounding.context,
        "texts": [text.name for text, _ in measures],
        "measures": [measure for _, measure in measures],
        "num_rows": [len(text.ids_NT) for text, _ in measures],
        "sha256": [text.sha256 for text, _ in measures],
        **about,
    }
    runs = []
    for model in models:
        config = model.network.config
        mine = {"model": model.name, "architecture": model.architecture, "model_type": config.model_type}
        mine |= {"num_layers": config.num_hidden_layers, "weights": hash_weights(model.network)}
        for memory, predict in list_memories(model, bounding):
            name = memory["policy"] if memory["bound"] is None else f"{memory['policy']}-{memory['bound']}"
            runs.append(Run(f"{model.name}/{name}", mine | about | memory, inputs=predict))
    return runs


def list_memories(model: TrainedModel, bounding: BoundingArguments) -> list[tuple[dict[str, Any], Predict]]:
    """What is recorded of each memory of a model, and the function that predicts with it.

    Raises:
        InputError: for a model that has neither memories to bound nor, as a GPT-2, positions for the windows.
    """
    if model.network.config.model_type == "gpt2":
        if not model.has_positions(max(bounding.bounds)):
            raise InputError(f"{model.name}: has no positions for a window of {max(bounding.bounds)} tokens")
        return [
            (
                {"policy": WINDOW, "bound": bound, "chunk_size": None},
                partial(window_logits, model.network, window=bound, batch_size=bounding.batch_size),
            )
            for bound in bounding.bounds
        ]
    check_memories(model.name, model.network.config)
    memories = [({"policy": WHOLE, "bound": None, "chunk_size": None}, partial(token_logits, model.network))]
    for policy in bounding.policies:
        for bound in bounding.bounds:
            options = {"policy": policy, "chunk_size": bounding.chunk_size}
            predict = partial(bounded_logits, model.network, max_pairs=bound, **options)
            memories.append(({**options, "bound": bound}, predict))
    return memories


def measure_texts(predict: Predict, texts: Sequence[Rows], batch_size: int) -> dict[str, np.ndarray]:
    """All measures of all texts, averaged over stretches of positions, `(rows, stretches)` each.

    Returns:
        `dict`: `value0`, `value1` and so on, in the order of the options `texts` and `measures`.
    """
    values = [values for text in texts for values in measure_rows(predict, text, batch_size)]
    return {f"value{number}": in_bins(values_NT, BIN) for number, values_NT in enumerate(values)}


def measure_rows(predict: Predict, text: Rows, batch_size: int) -> list[np.ndarray]:
    """Each measure of a text at each token but the first, `(rows, time - 1)`."""
    found = []
    for start in tqdm(range(0, len(text.ids_NT), batch_size), desc="rows", leave=False):
        rows = slice(start, start + batch_size)
        found.append(text.score(predict(text.ids_NT[rows]), rows))
    return [np.concatenate(values) for values in zip(*found, strict=True)]


def in_bins(values_NT: np.ndarray, size: int) -> np.ndarray:
    """Means over `size` positions each, `(rows, bins)`; the last bin may have fewer."""
    starts = range(0, values_NT.shape[1], size)
    return np.stack([values_NT[:, start : start + size].mean(1) for start in starts], 1)
