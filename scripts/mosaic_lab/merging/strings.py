"""Merging on RegBench: strings of a language read apart, and the next ones predicted."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mosaic_lab.core.devices import find_device
from mosaic_lab.core.errors import InputError
from mosaic_lab.core.fingerprint import hash_weights
from mosaic_lab.core.work import Experiment, Run, share
from mosaic_lab.evaluation.models import describe_architecture, expand_patterns, short_names
from mosaic_lab.memories.checks import check_memories
from mosaic_lab.merging.measure import measure_ways
from mosaic_lab.merging.options import MergingArguments, check_strings
from mosaic_lab.merging.report import write_report
from mosaic_lab.regbench.automata import SEPARATOR, VOCAB_SIZE
from mosaic_lab.regbench.data import Sizes, load
from mosaic_lab.regbench.metrics import measure
from mosaic_lab.regbench.options import LanguageArguments
from mosaic_lab.training.model import load_trained

# Strings whose symbols are predicted after those that are read.
NUM_PREDICTED = 2


def plan_runs(merging: MergingArguments, strings: LanguageArguments) -> list[Run]:
    """Plans a run for each model.

    Raises:
        InputError: for a model that cannot be used, or too many strings to read.
    """
    try:
        check_strings(merging)
    except ValueError as error:
        raise InputError(error) from error
    paths = expand_patterns(merging.models)
    runs = []
    for path, name in zip(paths, short_names(paths), strict=True):
        model = load_trained(path, dtype=merging.dtype)
        check_memories(path, model.config)
        if model.config.vocab_size != VOCAB_SIZE:
            raise InputError(f"model {path}: was not trained on RegBench, which has {VOCAB_SIZE} tokens")
        options = {
            "model": name,
            "architecture": describe_architecture(model),
            "model_type": model.config.model_type,
            "num_layers": model.config.num_hidden_layers,
            "text": "RegBench",
            "weights": hash_weights(model),
            "dtype": merging.dtype,
            "num_parts": merging.num_parts,
            "num_sequences": merging.num_sequences,
            "max_string_length": strings.max_string_length,
            "language_seed": strings.language_seed,
        }
        runs.append(Run(name, options, inputs=model.eval().to(find_device(merging.device))))
    return runs


def run_one(run: Run, folder: Path, merging: MergingArguments, strings: LanguageArguments) -> dict[str, Any]:
    """Measures accuracy and total variation distance of the next strings, see `measure_ways`."""
    sequences = list(draw_sequences(merging, strings))
    return measure_ways(run.inputs, sequences, merging.num_parts, folder, run.name)


def draw_sequences(merging: MergingArguments, strings: LanguageArguments) -> Iterator[tuple]:
    """Test sequences cut in front of separators, as `measure_ways` wants them.

    Test languages are the first ones of the endless sequence of a seed, whatever the numbers of others.
    """
    data = load(Sizes(1, 1, merging.num_sequences, strings.max_string_length, False, strings.language_seed))
    for row in data["test"]:
        ids = np.array(row["input_ids"])
        edges = [0, *np.flatnonzero(ids == SEPARATOR)]
        num_read = max(merging.num_parts)
        end = [*edges, len(ids)][num_read + NUM_PREDICTED]
        distribution = np.asarray(row["distribution"])[edges[num_read] : end]

        def make_metrics(logits, distribution=distribution):
            legal, distance = measure(torch.from_numpy(logits).softmax(1).numpy(), distribution)
            return {"accuracy": legal.mean(), "distance": distance.mean()}

        yield ids[:end].tolist(), edges[: num_read + 1], make_metrics


EXPERIMENT = Experiment(
    description="Measures mosaics on RegBench whose strings were read apart and merged.",
    groups=(MergingArguments, LanguageArguments),
    carry_out=share(plan_runs, run_one, write_report),
)
