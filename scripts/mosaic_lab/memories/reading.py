"""Many texts into one memory, in batches that processes share and that are never read twice."""

import shutil
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from modeling_mosaic import MosaicMemory, merge, read
from modeling_mosaic.model_fingerprint import fingerprint
from mosaic_lab.core.devices import find_device
from mosaic_lab.core.errors import InputError
from mosaic_lab.core.fingerprint import hash_texts
from mosaic_lab.core.work import Run, work_through
from mosaic_lab.memories.options import ReadingArguments
from mosaic_lab.memories.texts import load_texts
from mosaic_lab.training.model import load_with_tokenizer

PART = "memory.safetensors"


def read_files(name: str, files: list[str], options: ReadingArguments) -> MosaicMemory | None:
    """Reads texts apart from each other, merges their memories in the order of the files, and saves them.

    Batches that are done lie in a folder beside the output until all are: the same command reads the others.
    Processes that accelerate's launcher or torchrun started share them.

    Args:
        name (`str`): folder or Hub id of a mosaic.
        files (`list[str]`): texts, or tables of texts.
        options (`ReadingArguments`): see there.

    Returns:
        `MosaicMemory`: what was saved; `None` in processes but the first.

    Raises:
        InputError: for a model, files or an output that cannot be used.
    """
    output = Path(options.output)
    if output.exists():
        raise InputError(f"output {output}: there is something already; name another file")
    texts = load_texts(files, options.text_column)
    model, tokenizer = load_with_tokenizer(name, dtype=options.dtype)
    device = find_device(options.device)
    state = PartialState(cpu=device.type == "cpu")
    # Each process has a device of its own.
    model.to(device if state.num_processes == 1 else state.device)
    runs = plan_batches(model, texts, options)
    folder = output.with_name(f"{output.name}.partial")
    with state.split_between_processes(runs) as mine:
        work_through(mine, folder, lambda run, place: read_batch(run, place, model, tokenizer, options))
    state.wait_for_everyone()
    if not state.is_main_process:
        return None
    memory = merge([MosaicMemory.load(folder / run.name / PART) for run in runs])
    memory.save(output)
    shutil.rmtree(folder)
    print(f"{memory}\nin {output}, {output.stat().st_size:,} bytes")
    return memory


def plan_batches(model: PreTrainedModel, texts: dict[str, str], options: ReadingArguments) -> list[Run]:
    """A run for each `batch_size` texts, in their order."""
    reader = {"model": fingerprint(model), "dtype": str(model.dtype)}
    items, runs = list(texts.items()), []
    for first in range(0, len(items), options.batch_size):
        batch = dict(items[first : first + options.batch_size])
        made_from = {**reader, "texts": list(batch), "sha256": hash_texts(batch.values())}
        runs.append(Run(f"{len(runs):06}", made_from, inputs=batch))
    return runs


def read_batch(
    run: Run,
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    options: ReadingArguments,
) -> dict[str, Any]:
    """Leaves the memory of a batch in `folder`."""
    memory = read(model, tokenizer, run.inputs, batch_size=options.batch_size, progress=True)
    memory.save(folder / PART)
    return {"num_pairs": len(memory)}
