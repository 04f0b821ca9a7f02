"""Bounded memories on texts: losses by position, and recall of planted facts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from mosaic_lab.bounding.facts import plant_facts, recall_of_facts
from mosaic_lab.bounding.measure import Rows, measure_rows, measure_texts, plan_memories
from mosaic_lab.bounding.options import BoundingArguments, TextArguments, check_facts
from mosaic_lab.bounding.report import WINDOW, write_report
from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import write_arrays
from mosaic_lab.core.work import ARRAYS, Experiment, Run, share
from mosaic_lab.evaluation.models import load_models
from mosaic_lab.evaluation.texts import load_in_distribution, load_other
from mosaic_lab.training.options import DataArguments


def plan_runs(bounding: BoundingArguments, texts: TextArguments, data: DataArguments) -> list[Run]:
    """Plans a run for each model and each memory.

    Raises:
        InputError: for models or data that cannot be used.
    """
    try:
        check_facts(bounding, texts)
    except ValueError as error:
        raise InputError(error) from error
    models, tokenizer = load_models(bounding.models, bounding.device, bounding.dtype)
    rows = replace(data, block_size=bounding.context)
    sizes = {"num_rows": bounding.num_rows, "num_documents": 1}
    found = [load_in_distribution(rows, tokenizer, **sizes)]
    if texts.other_text is not None:
        found.append(load_other(texts.other_text, rows, tokenizer, **sizes))
    measured = [Rows.of_text(text.name, text.rows_NT, text.sha256) for text in found]
    planted = {"lead": texts.lead, "num_facts": texts.num_facts, "size": texts.fact_size}
    facts = {
        distance: plant_facts(tokenizer, found[0].rows_NT, distance=distance, seed=distance, **planted)
        for distance in texts.distances
    }
    about = {"block_size": data.block_size, "distances": texts.distances, "fact_size": texts.fact_size}
    about |= {"num_facts": texts.num_facts, "lead": texts.lead}
    runs = plan_memories(models, bounding, measured, about)
    return [replace(run, inputs=(run.inputs, measured, facts)) for run in runs]


def run_one(
    run: Run, folder: Path, bounding: BoundingArguments, texts: TextArguments, data: DataArguments
) -> dict[str, Any]:
    """Leaves the losses by text, row and position, and the recall of each fact, in `folder`."""
    predict, measured, facts = run.inputs
    arrays = measure_texts(predict, measured, bounding.batch_size)
    for distance, ids_NT in facts.items():
        if run.options["policy"] == WINDOW:
            # All that a window sees before the losses that count.
            ids_NT = ids_NT[:, -(run.options["bound"] + texts.fact_size) :]
        (losses_NT,) = measure_rows(predict, Rows.of_text("facts", ids_NT), bounding.batch_size)
        arrays[f"recall{distance}"] = recall_of_facts(losses_NT, texts.fact_size)
    write_arrays(folder / ARRAYS, arrays)
    return {}


EXPERIMENT = Experiment(
    description="Measures what bounded memories cost on texts, by policy, bound and position.",
    groups=(BoundingArguments, TextArguments, DataArguments),
    carry_out=share(plan_runs, run_one, write_report),
)
