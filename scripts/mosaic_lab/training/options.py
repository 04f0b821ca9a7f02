"""The options of `train.py`, and the YAML recipes that preset them."""

import json
import os
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments as HfTrainingArguments

from mosaic_lab.core.command import check_least, check_range
from mosaic_lab.core.errors import InputError
from mosaic_lab.training.trainer import is_complete, last_checkpoint

EMBEDDED_CORPUS = "stories"
# What starts `train` in a process of its own, behind the interpreter.
TRAIN = ("-m", "mosaic_lab.programs.train")
# More would take days to tell, and a disk of their own.
MOST_STORIES = 100_000_000
ON_HUB = "the Hub"
# The Trainer's options that change what is learned: recorded with results, on cards and in checkpoints.
LEARNING = (
    "learning_rate",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "max_steps",
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "auto_find_batch_size",
    "average_tokens_across_devices",
    "optim",
    "optim_args",
    "optim_target_modules",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "label_smoothing_factor",
    "neftune_noise_alpha",
    "bf16",
    "fp16",
    "tf32",
    "seed",
    "data_seed",
    "accelerator_config",
    "dataloader_drop_last",
    "train_sampling_strategy",
    "ignore_data_skip",
    "load_best_model_at_end",
)
# Those that do so where the best model is taken.
SELECTING = (
    "metric_for_best_model",
    "greater_is_better",
    "eval_strategy",
    "eval_steps",
    "eval_delay",
    "save_strategy",
    "save_steps",
)
# Those in which a run that is resumed may differ from its beginning: it ends earlier or later.
LENGTHS = ("max_steps", "num_train_epochs")


@dataclass
class ModelArguments:
    """What is trained, and on which tokens."""

    model: str = field(
        default="mosaic-tiny",
        metadata={
            "help": "A new model: the name of a preset in configuration/model, or a config JSON of any"
            " causal model. A trained one to continue: its folder, or its Hub id."
        },
    )
    attn_implementation: str | None = field(
        default=None,
        metadata={"help": "eager, sdpa, flex_attention or flash_attention_2; the model's own default."},
    )
    tokenizer: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub id of a tokenizer; that of a model to continue, else GPT-2's, by default."
        },
    )
    train_tokenizer: int | None = field(
        default=None,
        metadata={"help": "Trains a byte-level BPE like GPT-2's with so many tokens on the stories."},
    )

    def __post_init__(self):
        if self.train_tokenizer is not None and self.train_tokenizer < 257:
            raise ValueError(
                f"train_tokenizer must be at least 257 (bytes and end of text), not {self.train_tokenizer}"
            )
        if self.train_tokenizer is not None and self.tokenizer is not None:
            raise ValueError("tokenizer and train_tokenizer exclude each other")


@dataclass
class DataArguments:
    """The stories, and how they become rows of tokens."""

    dataset: str = field(
        default=EMBEDDED_CORPUS,
        metadata={
            "help": "A .txt, .jsonl or .parquet file, a folder of them, or a Hub dataset id; "
            f"'{EMBEDDED_CORPUS}' is the embedded generator of children's stories."
        },
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of a Hub dataset."})
    text_column: str = field(
        default="text", metadata={"help": "Column of the stories in JSON lines and parquet."}
    )
    train_split: str = field(
        default="train", metadata={"help": "Split to train on (folders and Hub datasets)."}
    )
    validation_split: str = field(
        default="validation",
        metadata={"help": "Split to validate on; held out of the other one if there is none."},
    )
    validation_fraction: float = field(
        default=0.02, metadata={"help": "Share of the stories to hold out if there is no validation split."}
    )
    num_stories: int = field(default=20_000, metadata={"help": "Number of embedded stories to tell."})
    single_plot_stories: int = field(
        default=0,
        metadata={
            "help": "Number of further embedded stories, all of one plot, that come before the others. Names"
            " are soon all that is left to learn in them. For rows in sequential order, or streamed ones."
        },
    )
    corpus_seed: int = field(
        default=0, metadata={"help": "Seed of the embedded stories and of the held-out share."}
    )
    streaming: bool = field(
        default=False,
        metadata={
            "help": "Reads the stories while training, for data larger than memory or disk; max_steps tells"
            " when to end. Only a validation split is validated on."
        },
    )
    block_size: int = field(
        default=512, metadata={"help": "Tokens a row: the context the model is trained with."}
    )
    document_masking: bool = field(
        default=False,
        metadata={
            "help": "Memories, or attention, end where stories do, in training as in validation. Otherwise"
            " each row is one text."
        },
    )
    preprocessing_workers: int | None = field(default=None, metadata={"help": "Processes that tokenise."})

    def __post_init__(self):
        if not self.dataset.strip():
            raise ValueError("dataset must name a file, a folder or a Hub dataset, not an empty string")
        check_least(self, preprocessing_workers=1)
        check_range(self, corpus_seed=(0, 2**32 - 1), num_stories=(1, MOST_STORIES), block_size=(2, 2**24))
        check_range(self, single_plot_stories=(0, MOST_STORIES))
        if self.single_plot_stories and self.dataset != EMBEDDED_CORPUS:
            raise ValueError(
                f"single_plot_stories ({self.single_plot_stories}) are embedded ones: dataset must be"
                f" {EMBEDDED_CORPUS}, not {self.dataset}"
            )
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(f"validation_fraction must lie in [0, 1), not {self.validation_fraction}")


@dataclass
class TrainingArguments(HfTrainingArguments):
    """transformers' own, with an `output_dir` that must be given."""

    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={
            "nargs": "?",
            "const": "true",
            "help": "Continues from this checkpoint folder, or, without a name, the last one in output_dir.",
        },
    )

    def __post_init__(self):
        if not self.output_dir:
            raise ValueError("output_dir must name the folder for the trained model")
        if self.hub_token is not None:
            # The Trainer pickles its options before it uploads.
            raise ValueError("hub_token would be written to the disk; set HF_TOKEN instead")
        if self.push_to_hub and self.hub_revision is not None:
            raise ValueError(f"hub_revision {self.hub_revision}: only the main branch is uploaded to")
        super().__post_init__()
        # It would be missed at the first evaluation.
        if (self.metric_for_best_model or "loss") not in ("loss", "eval_loss"):
            raise ValueError(f"metric_for_best_model must be loss, not {self.metric_for_best_model}")
        # Pinning needs a device to pin for, and warns without one.
        self.dataloader_pin_memory &= torch.accelerator.is_available()
        # None are unused here, and looking for them costs time and a warning for each process.
        if self.ddp_find_unused_parameters is None:
            self.ddp_find_unused_parameters = False
        # It would turn NaN into 0; the Trainer here stops instead.
        self.logging_nan_inf_filter = False


def learning_options(training: TrainingArguments) -> dict[str, Any]:
    """The Trainer's options that change what is learned, as JSON has them."""
    options = training.to_dict()
    names = LEARNING + (SELECTING if training.load_best_model_at_end else ())
    return json.loads(json.dumps({name: options[name] for name in names if name in options}))


def describe_recipe(
    model: ModelArguments, data: DataArguments, training: TrainingArguments
) -> dict[str, Any]:
    """All options that change what is learned, without the places of files on this machine.

    As a recipe it trains the same model again, on as many devices, where its files are.
    """
    recipe = {
        **asdict(data),
        "dataset": _strip_folder(data.dataset),
        "model": _strip_folder(model.model),
        "tokenizer": model.tokenizer and _strip_folder(model.tokenizer),
        "train_tokenizer": model.train_tokenizer,
        **learning_options(training),
    }
    del recipe["preprocessing_workers"]
    if data.dataset != EMBEDDED_CORPUS:
        del recipe["num_stories"], recipe["single_plot_stories"]
    return recipe


def describe_source(dataset: str) -> str:
    """Where stories come from: the embedded grammar, local files, or the Hub."""
    if dataset == EMBEDDED_CORPUS:
        return "the embedded grammar"
    return "local files" if Path(dataset).expanduser().exists() else ON_HUB


def _strip_folder(name: str) -> str:
    path = Path(name).expanduser()
    return path.absolute().name if path.exists() else name


def check_output_dir(arguments: TrainingArguments) -> None:
    """Makes sure, before any work and without a trace, that `output_dir` can be written and is free.

    Replaces a `resume_from_checkpoint` that names no folder by the last complete checkpoint in
    `output_dir`.

    Raises:
        InputError: if it cannot be written, if it holds checkpoints that nobody asked to continue, or if
            there is no checkpoint to continue.
    """
    folder = Path(arguments.output_dir)
    try:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with tempfile.NamedTemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise InputError(f"output_dir {folder}: cannot be written: {error.strerror}") from error
    last = last_checkpoint(folder)
    resume = arguments.resume_from_checkpoint
    if resume is None or resume.lower() in ("false", "no"):
        arguments.resume_from_checkpoint = None
        if last is not None:
            raise InputError(
                f"output_dir {folder} holds {os.path.basename(last)} of an earlier run: continue it with "
                "--resume_from_checkpoint, or name another folder"
            )
    elif resume.lower() in ("true", "yes"):
        if last is None:
            raise InputError(f"resume_from_checkpoint: no complete checkpoint in output_dir {folder}")
        arguments.resume_from_checkpoint = last
    elif not is_complete(resume):
        raise InputError(f"resume_from_checkpoint {resume}: not the folder of a complete checkpoint")


def check_processes(arguments: TrainingArguments) -> None:
    """Makes sure that processes which were started together will train together, on what they were meant for.

    Raises:
        InputError: in the first process, if each of them would train the whole model on a CPU, or if they
            were started for GPUs and there is none.
        SystemExit: in the others.
    """
    num_started = int(os.environ.get("WORLD_SIZE", 1))
    if num_started == 1 or torch.accelerator.is_available():
        return
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() == "false":
        problem = (
            f"{num_started} processes have been started for as many GPUs, and there is no GPU; on a CPU take "
            "configuration/accelerate/cpu-processes.yaml"
        )
    elif num_started != arguments.world_size:
        problem = f"use_cpu must be true: {num_started} processes have been started, and there is no GPU"
    else:
        return
    if os.environ.get("RANK", "0") != "0":
        sys.exit(2)
    raise InputError(problem)
