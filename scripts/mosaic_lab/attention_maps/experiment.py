"""Measures all models at all contexts on the same sequences, and leaves what was found in a folder."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from modeling_mosaic.memory_norms import SCALAR_GAIN
from mosaic_lab.attention_maps.options import MapsArguments, choose_contexts
from mosaic_lab.attention_maps.report import ARRAYS, write_report
from mosaic_lab.attention_maps.scores import average_scores
from mosaic_lab.attention_maps.windows import Windows, spread_windows
from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import make_folder, write_arrays
from mosaic_lab.core.work import ARRAYS as POINT_ARRAYS
from mosaic_lab.core.work import Point, leave_group, work_through
from mosaic_lab.evaluation.models import Contestant, load_contestants
from mosaic_lab.training.corpus import load_stories
from mosaic_lab.training.options import DataArguments
from mosaic_lab.training.rows import pack_rows


def measure_all(models: list[str], maps: MapsArguments, data: DataArguments) -> str:
    """Measures what is not measured yet; then writes summary and pictures into `output_dir`.

    Several processes share the work; what is done is kept when the same is asked for again.

    Returns:
        `str`: what to print.

    Raises:
        InputError: for models, data or a folder that cannot be used, or if no model has the positions.
    """
    leave_group()
    contexts = choose_contexts(maps, data)
    contestants, tokenizer = load_contestants(models, maps.device, maps.dtype)
    work = {}
    for context in contexts:
        stream = read_stream(data, tokenizer, context)
        windows = spread_windows(stream, context, maps.num_sequences)
        for contestant in fitting(contestants, context):
            options = {"dataset": data.dataset, "dtype": maps.dtype, **describe(contestant, windows)}
            work[Point(f"{contestant.name}/{context}", options)] = contestant, windows
    if not work:
        raise InputError(f"contexts {contexts}: no model has so many positions")
    folder = make_folder(maps.output_dir)
    results = work_through(list(work), folder, lambda point, place: measure(*work[point], maps, place))
    if None in results:
        return f"{results.count(None)} measurements are left to other processes; the last one of them reports"
    with FileLock(folder / "lock"):
        arrays = {}
        for result in results:
            with np.load(folder / result["name"] / POINT_ARRAYS) as saved:
                arrays |= {f"{result['name']}/{name}": saved[name] for name in saved.files}
        write_arrays(folder / ARRAYS, arrays)
        return write_report(folder, results, data.block_size)


def read_stream(data: DataArguments, tokenizer: PreTrainedTokenizerBase, context: int) -> np.ndarray:
    """The validation stories as packed for training, all rows of `context` tokens in a row.

    Raises:
        InputError: if there are no validation stories, or too few for one row.
    """
    _, stories = load_stories(data)
    if stories is None:
        raise InputError(f"{data.dataset}: has no validation stories; set validation_fraction above 0")
    rows = pack_rows(stories, tokenizer, context, data.preprocessing_workers)
    return rows.with_format("numpy")[:]["input_ids"].ravel()


def fitting(contestants: list[Contestant], context: int) -> list[Contestant]:
    """Those that have positions for `context` tokens; says who has not."""
    fit = [contestant for contestant in contestants if contestant.has_positions(context)]
    for contestant in contestants:
        if contestant not in fit:
            print(f"{contestant.name} has no positions for {context} tokens: left out there")
    return fit


def describe(contestant: Contestant, windows: Windows) -> dict[str, Any]:
    """For the summary: the model, its sequences, and the length of the stream that they are cut from."""
    return {
        "contestant": contestant.name,
        "architecture": contestant.architecture,
        "context": windows.context,
        "num_sequences": len(windows),
        "num_tokens": len(windows.stream_L),
    }


def measure(contestant: Contestant, windows: Windows, maps: MapsArguments, folder: Path) -> dict[str, Any]:
    """Leaves mean and spread of the scores `(layers, heads, context)` and a mosaic's lambda in `folder`."""
    label = f"{contestant.name}, {windows.context} tokens"
    mean_NHT, std_NHT = average_scores(contestant.model, windows, maps.batch_size, maps.chunk_size, label)
    arrays = {"mean": mean_NHT, "std": std_NHT}
    if contestant.model.config.model_type == "mosaic":
        arrays["lambda"] = read_coefficients(contestant.model)
    write_arrays(folder / POINT_ARRAYS, arrays)
    return {}


def read_coefficients(model: PreTrainedModel) -> np.ndarray:
    """How much of the average of its keys each contextual memory keeps, `lambda (layers, heads)`."""
    norms = [layer.contextual_memory.key_extractor.leaky_norm for layer in model.base_model.layers]
    leak_NH = SCALAR_GAIN * torch.stack([norm.leak.detach().cpu().double() for norm in norms])
    return torch.exp(-leak_NH.abs()).numpy()
