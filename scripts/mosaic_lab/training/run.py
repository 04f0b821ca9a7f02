"""One training run, from the options to the folder with the trained model."""

import shutil
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, set_seed

from modeling_mosaic.complete_files import sync
from modeling_mosaic.push_callback import PushModelCode
from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import occupying
from mosaic_lab.core.hub_access import naming_hub_errors
from mosaic_lab.training.corpus import load_stories, stream_stories
from mosaic_lab.training.model import build_model, check_document_masking, is_trained, list_presets
from mosaic_lab.training.ngram import ngram_loss
from mosaic_lab.training.options import (
    DataArguments,
    ModelArguments,
    TrainingArguments,
    check_output_dir,
    check_processes,
    describe_recipe,
    describe_source,
)
from mosaic_lab.training.report import extract_curve, summarise, write_report
from mosaic_lab.training.resume import check_resumed, describe_run
from mosaic_lab.training.rows import bytes_per_token, collate_rows, pack_rows
from mosaic_lab.training.streaming import RowStream
from mosaic_lab.training.tokenizer import describe_trained, load_tokenizer
from mosaic_lab.training.trainer import Trainer

# The bigram model sees no more tokens than this: a few seconds, and it is as good as it gets.
BIGRAM_TOKENS = 20_000_000


def run(model: ModelArguments, data: DataArguments, training: TrainingArguments) -> dict[str, Any]:
    """Trains, evaluates and saves a model, draws its loss curve and prints a summary.

    Returns:
        `dict`: the figures of the summary, and `repo_id`, the repository that checkpoints were uploaded to.

    Raises:
        InputError: for options, data or models that cannot be used. Nothing has been written then.
    """
    check_output_dir(training)
    check_processes(training)
    if data.single_plot_stories and not data.streaming and training.train_sampling_strategy != "sequential":
        raise InputError(
            f"single_plot_stories ({data.single_plot_stories}) come first: train_sampling_strategy must be"
            f" sequential, not {training.train_sampling_strategy}"
        )
    if data.streaming and training.max_steps <= 0:
        raise InputError(f"streaming needs max_steps to know when to end, not {training.max_steps}")
    with occupying(training.output_dir) if training.process_index == 0 else nullcontext():
        return _run(model, data, training)


def _run(model: ModelArguments, data: DataArguments, training: TrainingArguments) -> dict[str, Any]:
    with training.main_process_first():
        tokenizer, origin, train_rows, validation_rows = load_rows(
            model, data, training.resume_from_checkpoint
        )
    set_seed(training.seed)
    network = build_model(model.model, tokenizer, data.block_size, model.attn_implementation)
    if data.document_masking:
        check_document_masking(network)
    if validation_rows is None and training.eval_strategy != "no":
        raise InputError(
            f"eval_strategy {training.eval_strategy}: there are no validation stories; set it to no"
        )
    recipe = describe_recipe(model, data, training)
    options = describe_run(recipe, training.world_size, train_rows, network.config)
    if training.resume_from_checkpoint is not None:
        check_resumed(training.resume_from_checkpoint, options)
    num_bytes = None
    # All rows must be evaluated, and by a loss that is one of bits.
    has_bits = not (training.dataloader_drop_last or training.label_smoothing_factor)
    if validation_rows is not None and has_bits:
        num_bytes = bytes_per_token(validation_rows, tokenizer)
    # With push_to_hub, it makes the repository.
    repo_id = training.hub_model_id or training.output_dir
    with naming_hub_errors(repo_id) if training.push_to_hub else nullcontext():
        trainer = Trainer(
            network,
            training,
            data_collator=partial(
                collate_rows, end=tokenizer.eos_token_id if data.document_masking else None
            ),
            train_dataset=train_rows,
            eval_dataset=validation_rows,
            processing_class=tokenizer,
            callbacks=[PushModelCode()],
            options=options,
            bytes_per_token=num_bytes,
        )
    if trainer.is_world_process_zero():
        number = "a stream of" if data.streaming else f"{len(train_rows):,}"
        print(f"{number} rows of {data.block_size} tokens to train on; tokenizer: {origin}", flush=True)
    trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    if validation_rows is not None:
        trainer.evaluate()
    save(trainer, Path(training.output_dir))
    tokens_per_step = trainer.get_total_train_batch_size(training) * data.block_size
    results = {
        "model": model.model,
        "num_parameters": network.num_parameters(),
        "tokenizer": origin,
        "steps": trainer.state.global_step,
        "seconds": trainer.seconds,
        "tokens_per_second": trainer.state.global_step * tokens_per_step / trainer.seconds,
        "dataset_from": describe_source(data.dataset),
        **options,
    }
    if trainer.is_world_process_zero():
        report(trainer, results, tokens_per_step, train_rows, validation_rows, len(tokenizer))
    return results | {"repo_id": trainer.hub_model_id if training.push_to_hub else None}


def load_rows(
    model: ModelArguments, data: DataArguments, checkpoint: str | None = None
) -> tuple[PreTrainedTokenizerBase, str, Dataset | RowStream, Dataset | None]:
    """The tokenizer, where it came from, and the rows to train and to validate on.

    A tokenizer that has been trained on a stream is that of the `checkpoint`, if there is one.
    """
    if model.train_tokenizer is not None and is_trained(model.model):
        raise InputError(
            f"train_tokenizer {model.train_tokenizer}: for new models only; {model.model} is neither a config"
            f" JSON nor a preset ({', '.join(list_presets())}), and a trained model's weights belong to the "
            "tokens of its own tokenizer"
        )
    train, validation = stream_stories(data, is_shuffled=True) if data.streaming else load_stories(data)
    name = model.tokenizer
    if name is None and model.train_tokenizer is None and is_trained(model.model):
        name = model.model
    if data.streaming and model.train_tokenizer is not None and checkpoint is not None:
        tokenizer, _ = load_tokenizer(checkpoint)
        origin = describe_trained(tokenizer)
    else:
        batches = (batch["text"] for batch in train.iter(batch_size=1000))
        tokenizer, origin = load_tokenizer(name, model.train_tokenizer, batches)
    if data.streaming:
        train_rows = RowStream(train, tokenizer, data.block_size, data.corpus_seed)
    else:
        train_rows = pack_rows(train, tokenizer, data.block_size, data.preprocessing_workers)
    if validation is None:
        return tokenizer, origin, train_rows, None
    return tokenizer, origin, train_rows, pack_rows(validation, tokenizer, data.block_size)


def save(trainer: Trainer, folder: Path) -> None:
    """Saves model and tokenizer beside the checkpoints in `folder`, file by file once all are complete."""
    if trainer.is_fsdp_enabled:
        # Checkpoints may be in shards, a model for `from_pretrained` is whole.
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    partial = folder / ".saving"
    # Not by the user's call, which would upload this folder.
    trainer.save_model(str(partial), _internal_call=True)
    if trainer.is_world_process_zero():
        for file in partial.iterdir():
            sync(file)
            file.replace(folder / file.name)
        shutil.rmtree(partial)
        trainer.save_state()


def report(
    trainer: Trainer,
    results: dict[str, Any],
    tokens_per_step: int,
    train_rows: Dataset | RowStream,
    validation_rows: Dataset | None,
    vocab_size: int,
) -> None:
    """Writes the loss curve and the results, and prints the summary; no bigram is fitted on a stream."""
    block_size = results["recipe"]["block_size"]
    bigram = None
    if validation_rows is not None and isinstance(train_rows, Dataset):
        fitted = train_rows.select(range(min(len(train_rows), BIGRAM_TOKENS // block_size)))
        bigram = ngram_loss(_as_array(fitted), _as_array(validation_rows), vocab_size, order=2)
    folder = trainer.args.output_dir
    curve = extract_curve(trainer.state.log_history, tokens_per_step, bigram)
    write_report(folder, curve, results)
    print(f"\n{summarise(folder, curve, results)}")


def _as_array(rows: Dataset) -> np.ndarray:
    return rows.with_format("numpy")[:]["input_ids"]
