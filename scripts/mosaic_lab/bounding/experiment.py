"""Bounded memories: each run measures one model with one bound and policy, on all texts and planted facts."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mosaic_lab.bounding.facts import plant_facts, recall_of_facts
from mosaic_lab.bounding.losses import bounded_losses, in_bins, window_losses
from mosaic_lab.bounding.options import BoundingArguments
from mosaic_lab.bounding.report import BIN, WHOLE, WINDOW, write_report
from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import write_arrays
from mosaic_lab.core.fingerprint import hash_weights
from mosaic_lab.core.work import ARRAYS, Experiment, Run, share
from mosaic_lab.evaluation.losses import token_losses
from mosaic_lab.evaluation.models import TrainedModel, load_models
from mosaic_lab.evaluation.texts import load_in_distribution, load_other
from mosaic_lab.training.options import DataArguments


def plan_runs(bounding: BoundingArguments, data: DataArguments) -> list[Run]:
    """Plans a run for each model and each memory: the whole one, and those of all bounds and policies.

    Raises:
        InputError: for models or data that cannot be used.
    """
    models, tokenizer = load_models(bounding.models, bounding.device, bounding.dtype)
    rows = replace(data, block_size=bounding.context)
    sizes = {"num_rows": bounding.num_rows, "num_documents": 1}
    texts = [load_in_distribution(rows, tokenizer, **sizes)]
    if bounding.other_text is not None:
        texts.append(load_other(bounding.other_text, rows, tokenizer, **sizes))
    planted = {"lead": bounding.lead, "num_facts": bounding.num_facts, "size": bounding.fact_size}
    facts = {
        distance: plant_facts(tokenizer, texts[0].rows_NT, distance=distance, seed=distance, **planted)
        for distance in bounding.distances
    }
    runs = []
    for model in models:
        about = {"model": model.name, "architecture": model.architecture, "dtype": bounding.dtype}
        about |= {"model_type": model.network.config.model_type, "weights": hash_weights(model.network)}
        about |= {"num_layers": model.network.config.num_hidden_layers, "block_size": data.block_size}
        about |= {"context": bounding.context, "num_rows": [len(text.rows_NT) for text in texts]}
        about |= {"texts": [text.name for text in texts], "sha256": [text.sha256 for text in texts]}
        about |= {"distances": bounding.distances, "fact_size": bounding.fact_size}
        about |= {"num_facts": bounding.num_facts, "lead": bounding.lead}
        for memory, measure in list_memories(model, bounding):
            name = memory["policy"] if memory["bound"] is None else f"{memory['policy']}-{memory['bound']}"
            runs.append(Run(f"{model.name}/{name}", about | memory, inputs=(measure, texts, facts)))
    return runs


def list_memories(
    model: TrainedModel, bounding: BoundingArguments
) -> list[tuple[dict[str, Any], Callable[[np.ndarray], np.ndarray]]]:
    """What is recorded of each memory of a model, and the function that computes losses with it.

    Raises:
        InputError: for a model that is neither a mosaic nor has positions for the windows.
    """
    if model.network.config.model_type != "mosaic":
        if not model.has_positions(max(bounding.bounds)):
            raise InputError(f"{model.name}: has no positions for a window of {max(bounding.bounds)} tokens")
        return [
            (
                {"policy": WINDOW, "bound": bound, "chunk_size": None},
                partial(window_losses, model.network, window=bound, batch_size=bounding.batch_size),
            )
            for bound in bounding.bounds
        ]
    memories = [({"policy": WHOLE, "bound": None, "chunk_size": None}, partial(token_losses, model.network))]
    for policy in bounding.policies:
        for bound in bounding.bounds:
            options = {"policy": policy, "chunk_size": bounding.chunk_size}
            measure = partial(bounded_losses, model.network, max_pairs=bound, **options)
            memories.append(({**options, "bound": bound}, measure))
    return memories


def run_one(run: Run, folder: Path, bounding: BoundingArguments, data: DataArguments) -> dict[str, Any]:
    """Leaves the losses by text, row and position, and the recall of each fact, in `folder`."""
    measure, texts, facts = run.inputs
    arrays = {
        f"loss{number}": in_bins(_in_batches(measure, text.rows_NT, bounding.batch_size), BIN)
        for number, text in enumerate(texts)
    }
    for distance, ids_NT in facts.items():
        if run.options["policy"] == WINDOW:
            # All that a window sees before the losses that count.
            ids_NT = ids_NT[:, -(run.options["bound"] + bounding.fact_size) :]
        losses_NT = _in_batches(measure, ids_NT, bounding.batch_size)
        arrays[f"recall{distance}"] = recall_of_facts(losses_NT, bounding.fact_size)
    write_arrays(folder / ARRAYS, arrays)
    return {}


def _in_batches(measure, rows_NT: np.ndarray, batch_size: int) -> np.ndarray:
    batches = tqdm(range(0, len(rows_NT), batch_size), desc="rows", leave=False)
    return np.concatenate([measure(rows_NT[start : start + batch_size]) for start in batches])


EXPERIMENT = Experiment(
    description="Measures what bounded memories cost, by policy, bound and position.",
    groups=(BoundingArguments, DataArguments),
    carry_out=share(plan_runs, run_one, write_report),
)
