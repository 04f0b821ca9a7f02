"""Inspection: what the memories of trained mosaics predict, against untrained twins and transformers."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM

from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import write_arrays
from mosaic_lab.core.fingerprint import hash_weights
from mosaic_lab.core.work import ARRAYS, Experiment, Run, share
from mosaic_lab.evaluation.losses import row_losses
from mosaic_lab.evaluation.models import TrainedModel, load_models
from mosaic_lab.evaluation.texts import Text, load_in_distribution, load_other
from mosaic_lab.inspection.copying import measure_copying, repeat_segments
from mosaic_lab.inspection.heads import first_layer_auc_of_gpt2, heads_of_gpt2
from mosaic_lab.inspection.options import InspectionArguments
from mosaic_lab.inspection.report import write_report
from mosaic_lab.inspection.units import classify, inspect_units, known_sequences
from mosaic_lab.training.corpus import load_stories
from mosaic_lab.training.options import DataArguments
from mosaic_lab.training.rows import pack_rows

KINDS = ("mosaic", "gpt2")
BATCH_SIZE = 8


@dataclass(frozen=True)
class Material:
    """What all models are inspected on."""

    texts: dict[str, Text]
    classes: dict[str, np.ndarray]
    segments_NT: torch.Tensor


def plan_runs(inspection: InspectionArguments, data: DataArguments) -> list[Run]:
    """Plans a run for each model, and one for a twin of it that is not trained.

    Raises:
        InputError: for models or data that cannot be used.
    """
    models, tokenizer = load_models(inspection.models, inspection.device, inspection.dtype)
    models = [model for model in models if _can_be_inspected(model, data.block_size)]
    if not models:
        raise InputError(
            f"models: none is of model_type {' or '.join(KINDS)} with {data.block_size} positions"
        )
    material = prepare(inspection, data, tokenizer)
    runs, twins = [], Counter()
    for model in models:
        # Twins of equal models differ in their weights.
        seed = inspection.inspection_seed + twins[model.architecture]
        twins[model.architecture] += 1
        for name, network in ((model.name, model.network), (f"{model.name}-untrained", None)):
            options = {
                "model": model.name,
                "architecture": model.architecture,
                "is_trained": network is not None,
                "weights": hash_weights(model.network) if network is not None else None,
                "dtype": inspection.dtype,
                "texts": {place: [text.name, text.sha256] for place, text in material.texts.items()},
                "num_rows": inspection.num_rows,
                "block_size": data.block_size,
                "segments": list(material.segments_NT.shape),
                "seed": inspection.inspection_seed,
                "twin_seed": None if network is not None else seed,
            }
            runs.append(Run(name, options, inputs=(model.network, material)))
    return runs


def _can_be_inspected(model: TrainedModel, context: int) -> bool:
    kind = model.network.config.model_type
    if kind not in KINDS:
        print(f"{model.name}: its model_type is {kind}, not {' or '.join(KINDS)}, left out")
    elif not model.has_positions(context):
        print(f"{model.name}: has no positions for {context} tokens, left out")
    return kind in KINDS and model.has_positions(context)


def prepare(inspection: InspectionArguments, data: DataArguments, tokenizer) -> Material:
    """Reads the texts, and what training has of them.

    Raises:
        InputError: if there are no stories to train and to validate on, or a text is too short.
    """
    texts = {"stories": load_in_distribution(data, tokenizer, inspection.num_rows, 1)}
    if inspection.other_text is not None:
        texts["other"] = load_other(inspection.other_text, data, tokenizer, inspection.num_rows, 1)
    stories, _ = load_stories(data)
    training = pack_rows(stories, tokenizer, data.block_size, data.preprocessing_workers)
    training_NT = training.with_format("numpy")[:]["input_ids"]
    vocabulary = len(tokenizer)
    known = known_sequences(training_NT, vocabulary)
    return Material(
        texts,
        {place: classify(text.rows_NT, known, vocabulary) for place, text in texts.items()},
        repeat_segments(
            np.bincount(training_NT.ravel(), minlength=vocabulary),
            inspection.num_segments,
            inspection.segment_size,
            inspection.inspection_seed,
        ),
    )


def run_one(run: Run, folder: Path, inspection: InspectionArguments, data: DataArguments) -> dict[str, Any]:
    """Leaves means over rows in `folder`; returns losses and what copying hangs on."""
    network, material = run.inputs
    if not run.options["is_trained"]:
        network = _untrained(network, run.options["twin_seed"])
    inspect = inspect_units if network.config.model_type == "mosaic" else _inspect_gpt2
    arrays, losses = {}, {}
    for place, text in material.texts.items():
        losses[place] = float(np.mean(row_losses(network, text.rows_NT, BATCH_SIZE, run.name)))
        found = inspect(network, text.rows_NT, material.classes[place], f"{run.name}, {place}")
        arrays |= {f"{place}.{name}": array for name, array in found.items()}
    write_arrays(folder / ARRAYS, arrays)
    return {
        "model_type": network.config.model_type,
        "num_layers": network.config.num_hidden_layers,
        "losses": losses,
        "copying": measure_copying(network, material.segments_NT),
    }


def _untrained(network, seed: int):
    """A model of the same config with new weights."""
    torch.manual_seed(seed)
    twin = AutoModelForCausalLM.from_config(network.config, dtype=network.dtype)
    return twin.eval().to(network.device)


def _inspect_gpt2(network, rows_NT: np.ndarray, classes_NT, label: str) -> dict[str, np.ndarray]:
    """Heads read as memories whose target is the next token's value: retrieval, and AUC of the first layer.

    Classes of tokens are for memories of two kinds.
    """
    retrieval, auc = [], []
    for ids_T in tqdm(torch.from_numpy(rows_NT), desc=label, leave=False):
        layers = heads_of_gpt2(network, ids_T)
        retrieval.append(torch.stack([heads.retrieve() for heads in layers]))
        auc.append(first_layer_auc_of_gpt2(network, ids_T, layers[0]))
    mean_auc_1H = torch.stack(auc).mean(0)[None]
    return {"retrieval": torch.stack(retrieval).nanmean(0).numpy(), "next_token_auc": mean_auc_1H.numpy()}


EXPERIMENT = Experiment(
    description="Measures what the memories of trained mosaics predict, store and are worth.",
    groups=(InspectionArguments, DataArguments),
    carry_out=share(plan_runs, run_one, write_report),
)
