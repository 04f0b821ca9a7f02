"""Merging on texts: a row's first tokens read in parts, and the loss on the others."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from mosaic_lab.core.errors import InputError
from mosaic_lab.core.fingerprint import hash_weights
from mosaic_lab.core.work import Experiment, Run, share
from mosaic_lab.evaluation.models import load_models
from mosaic_lab.evaluation.texts import load_in_distribution, load_other
from mosaic_lab.memories.checks import check_memories
from mosaic_lab.merging.measure import measure_ways
from mosaic_lab.merging.options import MergingArguments, TextArguments
from mosaic_lab.merging.report import write_report
from mosaic_lab.training.options import DataArguments


def plan_runs(merging: MergingArguments, texts: TextArguments, data: DataArguments) -> list[Run]:
    """Plans a run for each model and text.

    Raises:
        InputError: for models or texts that cannot be used, or a number of tokens to read that does not fit.
    """
    if texts.num_read > data.block_size - 2 or texts.num_read % max(merging.num_parts):
        raise InputError(
            f"num_read must be a multiple of {max(merging.num_parts)}, the largest of num_parts, and at most "
            f"block_size - 2, {data.block_size - 2}, not {texts.num_read}"
        )
    models, tokenizer = load_models(merging.models, merging.device, merging.dtype)
    for model in models:
        check_memories(model.name, model.network.config)
    measured = [load_in_distribution(data, tokenizer, merging.num_sequences, 1)]
    if texts.other_text is not None:
        measured.append(load_other(texts.other_text, data, tokenizer, merging.num_sequences, 1))
    runs = []
    for text in measured:
        for model in models:
            options = {
                "model": model.name,
                "architecture": model.architecture,
                "model_type": model.network.config.model_type,
                "num_layers": model.network.config.num_hidden_layers,
                "text": text.name,
                "sha256": text.sha256,
                "weights": hash_weights(model.network),
                "dtype": merging.dtype,
                "num_parts": merging.num_parts,
                "num_sequences": len(text.rows_NT),
                "num_read": texts.num_read,
                "block_size": data.block_size,
            }
            name = f"{model.name}-{text.name.replace('/', '-')}"
            runs.append(Run(name, options, inputs=(model.network, text.rows_NT)))
    return runs


def run_one(
    run: Run, folder: Path, merging: MergingArguments, texts: TextArguments, data: DataArguments
) -> dict[str, Any]:
    """Measures the loss on the tokens behind those that are read, see `measure_ways`."""
    network, rows_NT = run.inputs
    step = texts.num_read // max(merging.num_parts)
    edges = list(range(0, texts.num_read + 1, step))
    sequences = [(row_T.tolist(), edges, make_loss(row_T[texts.num_read + 1 :])) for row_T in rows_NT]
    return measure_ways(network, sequences, merging.num_parts, folder, run.name)


def make_loss(labels_T: np.ndarray):
    """What computes the mean loss, in nats, of logits that are one position longer than the labels."""

    def loss(logits_TV: np.ndarray) -> dict[str, float]:
        logits, labels = torch.from_numpy(logits_TV[:-1]).double(), torch.from_numpy(labels_T).long()
        return {"loss": F.cross_entropy(logits, labels).item()}

    return loss


EXPERIMENT = Experiment(
    description="Measures mosaics on texts that were read in parts and merged.",
    groups=(MergingArguments, TextArguments, DataArguments),
    carry_out=share(plan_runs, run_one, write_report),
)
