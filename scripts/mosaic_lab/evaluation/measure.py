"""Evaluation: each run measures one model on one text, or with one probe."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from mosaic_lab.core.files import write_arrays
from mosaic_lab.core.fingerprint import hash_weights
from mosaic_lab.core.work import ARRAYS, Run, leave_group, share
from mosaic_lab.evaluation.losses import row_losses, sequence_losses
from mosaic_lab.evaluation.models import TrainedModel, check_context, load_models
from mosaic_lab.evaluation.name_units import NUM_STORIES, measure_name_units
from mosaic_lab.evaluation.names import measure_names
from mosaic_lab.evaluation.options import EvaluationArguments
from mosaic_lab.evaluation.probes import measure_halves, measure_induction, repeat_segments
from mosaic_lab.evaluation.prompts import PROMPTS, continue_prompts
from mosaic_lab.evaluation.report import write_report
from mosaic_lab.evaluation.texts import Text, load_in_distribution, load_other
from mosaic_lab.training.options import DataArguments

# Documents shorter than this are not cut in halves, which would hold too little.
LEAST_TOKENS = 64

Measured = tuple[dict[str, Any], dict[str, np.ndarray]]


def evaluate(models: list[str], evaluation: EvaluationArguments, data: DataArguments) -> None:
    """Measures the models side by side, and writes tables, pictures and their data.

    Models of the same architecture, which differ in their seeds, are averaged where architectures are
    compared; the first model's architecture is the one that others are compared with. Measurements that
    `output_dir` holds already are kept.

    Raises:
        InputError: for models that cannot be loaded or compared, or text that cannot be read or is too short.
    """
    leave_group()
    share(plan_runs, run_one, write_report)(models, evaluation, data)


def plan_runs(names: list[str], evaluation: EvaluationArguments, data: DataArguments) -> list[Run]:
    """Plans, for each model, a run on each text, and one each of the induction probe, prompts and names."""
    models, tokenizer = load_models(names, evaluation.device, evaluation.dtype)
    check_context(models, longest_row(tokenizer, evaluation, data))
    sizes = {"num_rows": evaluation.num_rows, "num_documents": evaluation.num_documents}
    texts = [load_in_distribution(data, tokenizer, **sizes)]
    if evaluation.other_text is not None:
        texts.append(load_other(evaluation.other_text, data, tokenizer, **sizes))
    seed, batch_size = evaluation.evaluation_seed, evaluation.batch_size
    segments = {"num_segments": evaluation.num_segments, "segment_size": evaluation.segment_size}
    prompts = {"max_new_tokens": evaluation.max_new_tokens, "temperature": evaluation.temperature}
    names = {"num_tellings": evaluation.num_tellings, "temperature": evaluation.temperature}
    runs = []
    for model in models:
        about = {"model": model.name, "architecture": model.architecture, "dtype": evaluation.dtype}
        about |= {"weights": hash_weights(model.network), "block_size": data.block_size, "seed": seed}
        work = {
            f"text{number}": (
                {"text": text.name, "sha256": text.sha256, **sizes},
                partial(measure_text, model, text, batch_size),
            )
            for number, text in enumerate(texts)
        }
        if evaluation.num_segments:
            ids_NT = repeat_segments(tokenizer, **segments, seed=seed)
            work["induction"] = segments, partial(measure_induction, model, ids_NT, batch_size)
        if evaluation.max_new_tokens:
            work["prompts"] = prompts, partial(continue_prompts, model, tokenizer, **prompts, seed=seed)
        if evaluation.num_tellings:
            work["names"] = (
                {"text": texts[0].name, "sha256": texts[0].sha256, **sizes, **names},
                partial(measure_names, model, tokenizer, texts[0], **names, batch_size=batch_size, seed=seed),
            )
            if model.network.config.model_type == "mosaic":
                work["units"] = (
                    {"text": texts[0].name, "sha256": texts[0].sha256, "num_stories": NUM_STORIES},
                    partial(measure_name_units, model, tokenizer, texts[0]),
                )
        runs += [Run(f"{model.name}/{name}", about | own, inputs) for name, (own, inputs) in work.items()]
    return runs


def run_one(run: Run, folder: Path, *_: Any) -> dict[str, Any]:
    """Measures, and leaves the arrays in `folder`."""
    result, arrays = run.inputs()
    write_arrays(folder / ARRAYS, arrays)
    return result


def longest_row(
    tokenizer: PreTrainedTokenizerBase, evaluation: EvaluationArguments, data: DataArguments
) -> int:
    """Tokens of the longest row that a model will see."""
    lengths = [data.block_size]
    if evaluation.num_segments:
        lengths.append(2 * evaluation.segment_size + 1)
    if evaluation.max_new_tokens:
        longest = max(
            len(tokenizer(prompt)["input_ids"]) for prompts in PROMPTS.values() for prompt in prompts
        )
        lengths.append(longest + evaluation.max_new_tokens)
    return max(lengths)


def measure_text(model: TrainedModel, text: Text, batch_size: int) -> Measured:
    """Measures the losses of a model on one text.

    Returns:
        `tuple[dict, dict]`: `num_characters`; by document the sum of losses `loss` and `num_tokens`; by row
        and position `row_loss`; and the arrays of `measure_halves` for documents of 64 tokens or more.
    """
    label = f"{model.name}, {text.name}"
    losses_D = sequence_losses(model.network, text.documents_N, batch_size, label)
    arrays = {
        "loss": np.array([losses.sum() for losses in losses_D]),
        "num_tokens": np.array([len(document) - 1 for document in text.documents_N]),
        "row_loss": row_losses(model.network, text.rows_NT, batch_size, label),
    }
    long = [number for number, document in enumerate(text.documents_N) if len(document) >= LEAST_TOKENS]
    if long:
        documents, losses = ([values[number] for number in long] for values in (text.documents_N, losses_D))
        arrays |= measure_halves(model, documents, losses, batch_size)
    return {"num_characters": text.num_characters}, arrays
