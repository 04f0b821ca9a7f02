"""Bounded memories on RegBench: many strings of an unknown language in a row."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from mosaic_lab.bounding.measure import Rows, measure_texts, plan_memories
from mosaic_lab.bounding.options import BoundingArguments
from mosaic_lab.bounding.report import write_report
from mosaic_lab.core.devices import find_device
from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import write_arrays
from mosaic_lab.core.work import ARRAYS, Experiment, Run, share
from mosaic_lab.evaluation.models import TrainedModel, describe_architecture, expand_patterns, short_names
from mosaic_lab.regbench.automata import VOCAB_SIZE
from mosaic_lab.regbench.data import draw_long_rows
from mosaic_lab.regbench.metrics import measure
from mosaic_lab.regbench.options import LanguageArguments
from mosaic_lab.training.model import load_trained


def plan_runs(bounding: BoundingArguments, languages: LanguageArguments) -> list[Run]:
    """Plans a run for each model and each memory.

    Raises:
        InputError: for a model that cannot be used.
    """
    models = load_models(bounding)
    about = {"distances": [], "max_string_length": languages.max_string_length}
    about |= {"language_seed": languages.language_seed}
    return plan_memories(models, bounding, [draw_rows(bounding, languages)], about)


def run_one(
    run: Run, folder: Path, bounding: BoundingArguments, languages: LanguageArguments
) -> dict[str, Any]:
    """Leaves both metrics by row and position in `folder`."""
    texts = [draw_rows(bounding, languages)]
    write_arrays(folder / ARRAYS, measure_texts(run.inputs, texts, bounding.batch_size))
    return {}


def load_models(bounding: BoundingArguments) -> list[TrainedModel]:
    """The models, in evaluation mode.

    Raises:
        InputError: for a model that cannot be loaded or was not trained on RegBench.
    """
    paths, models = expand_patterns(bounding.models), []
    for path, name in zip(paths, short_names(paths), strict=True):
        model = load_trained(path, dtype=bounding.dtype)
        if model.config.vocab_size != VOCAB_SIZE:
            raise InputError(f"model {path}: was not trained on RegBench, which has {VOCAB_SIZE} tokens")
        network = model.eval().to(find_device(bounding.device))
        models.append(TrainedModel(name, describe_architecture(model), network))
    return models


def draw_rows(bounding: BoundingArguments, languages: LanguageArguments) -> Rows:
    """Strings of test languages, a language for each row, with the metrics of RegBench."""
    ids_NT, distributions_NTV = draw_long_rows(
        bounding.num_rows, bounding.context, languages.max_string_length, languages.language_seed
    )

    def score(logits_BTV: torch.Tensor, rows: slice) -> list[np.ndarray]:
        predictions_BTV = logits_BTV.softmax(-1).cpu().numpy()
        pairs = zip(predictions_BTV, distributions_NTV[rows, :-1], strict=True)
        legal_BT, distance_BT = map(np.stack, zip(*(measure(*pair) for pair in pairs), strict=True))
        return [distance_BT, 1 - legal_BT]

    return Rows("RegBench", ids_NT, ["total variation distance", "share of illegal symbols"], score)


EXPERIMENT = Experiment(
    description="Measures what bounded memories cost on RegBench, by policy, bound and position.",
    groups=(BoundingArguments, LanguageArguments),
    carry_out=share(plan_runs, run_one, write_report),
)
