"""Searching memories: how much an index scans in each model, and what searching saves and costs by size."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from modeling_mosaic.memories.searched_cache import BLOCK_SIZE, import_faiss
from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import write_arrays
from mosaic_lab.core.fingerprint import hash_texts, hash_weights
from mosaic_lab.core.work import ARRAYS, Experiment, Run, share
from mosaic_lab.evaluation.models import TrainedModel, check_context, load_models
from mosaic_lab.searching.decode import measure_decoding
from mosaic_lab.searching.options import SearchingArguments
from mosaic_lab.searching.report import write_report
from mosaic_lab.searching.scan import collect_pairs, measure_scan, spread
from mosaic_lab.training.corpus import load_stories
from mosaic_lab.training.options import DataArguments
from mosaic_lab.training.rows import pack_rows

KINDS = ("mosaic", "gpt2")


def plan_runs(searching: SearchingArguments, data: DataArguments) -> list[Run]:
    """Plans a run of scans for each model, and one of decoding for each mosaic of one layer and each size.

    Raises:
        InputError: for models or data that cannot be used.
    """
    try:
        import_faiss()
    except ImportError as error:
        raise InputError(str(error)) from error
    models, tokenizer = load_models(searching.models, "cpu", "float32")
    for model in models:
        if (kind := model.network.config.model_type) not in KINDS:
            raise InputError(
                f"models: {model.name}: its model_type is {kind}, and scans are of {' and '.join(KINDS)}"
            )
    check_context(models, data.block_size)
    train, stories = load_stories(data)
    if stories is None:
        raise InputError(f"dataset {data.dataset}: has no validation stories; set validation_fraction")
    rows_NT = _as_array(pack_rows(stories, tokenizer, data.block_size))
    if len(rows_NT) < 2 * searching.num_rows:
        raise InputError(f"num_rows {searching.num_rows}: there are {len(rows_NT)} rows for twice as many")
    # Most stories have 200 tokens; too few are found out below.
    longest = max(searching.sizes) + BLOCK_SIZE
    train = train.select(range(min(len(train), longest // 100)))
    stream_T = _as_array(pack_rows(train, tokenizer, data.block_size)).ravel()
    if len(stream_T) < longest:
        raise InputError(f"sizes {max(searching.sizes)}: the stories have {len(stream_T)} tokens to read")
    runs = []
    for model in models:
        about = {"model": model.name, "architecture": model.architecture}
        about |= {"model_type": model.network.config.model_type, "weights": hash_weights(model.network)}
        about |= {"num_layers": model.network.config.num_hidden_layers, "sha256": hash_texts(stories["text"])}
        scan = {"kind": "scan", "num_rows": searching.num_rows, "num_queries": searching.num_queries}
        work = partial(_scan, model, rows_NT, searching)
        runs.append(Run(f"{model.name}/scan", about | scan | {"block_size": data.block_size}, work))
        if about["model_type"] != "mosaic" or about["num_layers"] > 1:
            continue
        options = {name: getattr(searching, name) for name in ("num_nearest", "num_probes", "tolerance")}
        for size in searching.sizes:
            decode = {"kind": "decode", "size": size, **options, "num_tokens": searching.num_tokens}
            memory_T, next_T = stream_T[:size], rows_NT.ravel()[: searching.num_tokens]
            work = partial(measure_decoding, model.network, memory_T, next_T, searching.num_timed, options)
            runs.append(
                Run(f"{model.name}/{size}", about | decode | {"num_timed": searching.num_timed}, work)
            )
    return runs


def _as_array(rows) -> np.ndarray:
    return rows.with_format("numpy")[:]["input_ids"].astype(np.int64)


def _scan(
    model: TrainedModel, rows_NT: np.ndarray, searching: SearchingArguments
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Shares of the pairs that each unit's index scans, by layer and head."""
    _, keys = collect_pairs(model.network, rows_NT[: searching.num_rows])
    queries, _ = collect_pairs(model.network, rows_NT[searching.num_rows : 2 * searching.num_rows])
    shares = [
        [
            measure_scan(query_QD, key_ND)
            for query_QD, key_ND in zip(spread(query_HND, searching.num_queries), key_HND, strict=True)
        ]
        for query_HND, key_HND in zip(queries, keys, strict=True)
    ]
    arrays = {name: np.array([[unit[name] for unit in layer] for layer in shares]) for name in shares[0][0]}
    return {"num_pairs": keys[0].shape[1]}, arrays


def run_one(run: Run, folder: Path, *_: Any) -> dict[str, Any]:
    """Measures, and leaves the arrays in `folder`."""
    result, arrays = run.inputs()
    write_arrays(folder / ARRAYS, arrays)
    return result


EXPERIMENT = Experiment(
    description="Measures how far memories can be searched instead of read, in share, time and loss.",
    groups=(SearchingArguments, DataArguments),
    carry_out=share(plan_runs, run_one, write_report),
)
