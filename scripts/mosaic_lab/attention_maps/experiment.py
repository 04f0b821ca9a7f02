"""Attention maps: each run measures one model at one context, all on the same sequences."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from modeling_mosaic.memory_norms import SCALAR_GAIN
from mosaic_lab.attention_maps.options import MapsArguments, choose_contexts
from mosaic_lab.attention_maps.report import write_report
from mosaic_lab.attention_maps.scores import average_scores
from mosaic_lab.attention_maps.windows import spread_windows
from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import write_arrays
from mosaic_lab.core.fingerprint import hash_texts, hash_weights
from mosaic_lab.core.work import ARRAYS, Experiment, Run, share
from mosaic_lab.evaluation.models import TrainedModel, load_models
from mosaic_lab.training.corpus import load_stories
from mosaic_lab.training.options import DataArguments
from mosaic_lab.training.rows import pack_rows


def plan_runs(maps: MapsArguments, data: DataArguments) -> list[Run]:
    """Plans a run for each model and each context that it has positions for.

    Raises:
        InputError: for models or data that cannot be used, or if no model has the positions.
    """
    contexts = choose_contexts(maps, data)
    models, tokenizer = load_models(maps.models, maps.device, maps.dtype)
    runs = []
    for context in contexts:
        stream, sha256 = read_stream(data, tokenizer, context)
        windows = spread_windows(stream, context, maps.num_sequences)
        for model in fitting(models, context):
            options = {
                "model": model.name,
                "architecture": model.architecture,
                "weights": hash_weights(model.network),
                "dtype": maps.dtype,
                "dataset": "/".join(Path(data.dataset).parts[-2:]),
                "sha256": sha256,
                "block_size": data.block_size,
                "context": context,
                "num_sequences": len(windows),
                "num_tokens": len(stream),
            }
            runs.append(Run(f"{model.name}/{context}", options, inputs=(model, windows)))
    if not runs:
        raise InputError(f"contexts {contexts}: no model has so many positions")
    return runs


def read_stream(
    data: DataArguments, tokenizer: PreTrainedTokenizerBase, context: int
) -> tuple[np.ndarray, str]:
    """Reads the validation stories as packed for training, all rows of `context` tokens in a row.

    Returns:
        `tuple[np.ndarray, str]`: the tokens, and the fingerprint of the stories.

    Raises:
        InputError: if there are no validation stories, or too few for one row.
    """
    _, stories = load_stories(data)
    if stories is None:
        raise InputError(f"{data.dataset}: has no validation stories; set validation_fraction above 0")
    rows = pack_rows(stories, tokenizer, context, data.preprocessing_workers)
    return rows.with_format("numpy")[:]["input_ids"].ravel(), hash_texts(stories["text"])


def fitting(models: list[TrainedModel], context: int) -> list[TrainedModel]:
    """The models that have positions for `context` tokens; prints the names of the others."""
    fit = [model for model in models if model.has_positions(context)]
    for model in models:
        if model not in fit:
            print(f"{model.name} has no positions for {context} tokens: left out there")
    return fit


def run_one(run: Run, folder: Path, maps: MapsArguments, data: DataArguments) -> dict[str, Any]:
    """Leaves mean and spread of the scores `(layers, heads, context)` and a mosaic's lambda in `folder`."""
    model, windows = run.inputs
    label = f"{model.name}, {windows.context} tokens"
    mean_NHT, std_NHT = average_scores(model.network, windows, maps.batch_size, maps.chunk_size, label)
    arrays = {"mean": mean_NHT, "std": std_NHT}
    if model.network.config.model_type == "mosaic":
        arrays["lambda"] = read_coefficients(model.network)
    write_arrays(folder / ARRAYS, arrays)
    return {}


def read_coefficients(model: PreTrainedModel) -> np.ndarray:
    """Reads lambda `(layers, heads)`: the share of its average of keys that a memory keeps per token."""
    norms = [layer.contextual_memory.key_extractor.leaky_norm for layer in model.base_model.layers]
    leak_NH = SCALAR_GAIN * torch.stack([norm.leak.detach().cpu().double() for norm in norms])
    return torch.exp(-leak_NH.abs()).numpy()


EXPERIMENT = Experiment(
    description="Measures the attention scores of the last position, averaged over sequences.",
    groups=(MapsArguments, DataArguments),
    carry_out=share(plan_runs, run_one, write_report),
)
