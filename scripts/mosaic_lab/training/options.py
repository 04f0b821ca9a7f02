"""The options of `train.py`, and the YAML recipes that preset them."""

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments as HfTrainingArguments

from mosaic_lab.core.errors import InputError
from mosaic_lab.training.trainer import is_complete, last_checkpoint

EMBEDDED_CORPUS = "stories"
ON_HUB = "the Hub"
# The Trainer's options that say what came of a run.
RECORDED = (
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "optim",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "max_grad_norm",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "bf16",
    "fp16",
    "seed",
)


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
    preprocessing_workers: int | None = field(default=None, metadata={"help": "Processes that tokenise."})

    def __post_init__(self):
        if self.block_size < 2:
            raise ValueError(f"block_size must be at least 2 tokens, not {self.block_size}")
        if self.num_stories < 1:
            raise ValueError(f"num_stories must be at least 1, not {self.num_stories}")
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
            # The Trainer pickles its options, and uploads them.
            raise ValueError("hub_token would be uploaded with training_args.bin; set HF_TOKEN instead")
        if self.push_to_hub and self.hub_revision is not None:
            raise ValueError(f"hub_revision {self.hub_revision}: only the main branch is uploaded to")
        super().__post_init__()
        # Pinning needs a device to pin for, and warns without one.
        self.dataloader_pin_memory &= torch.accelerator.is_available()


def describe_recipe(
    model: ModelArguments, data: DataArguments, training: TrainingArguments
) -> dict[str, Any]:
    """The options that say what came of a run, without the places of files on this machine."""
    recipe = {"dataset": data.dataset}
    if data.dataset == EMBEDDED_CORPUS:
        recipe |= {"dataset_from": "the embedded grammar", "num_stories": data.num_stories}
    elif Path(data.dataset).expanduser().exists():
        recipe |= {"dataset": Path(data.dataset).absolute().name, "dataset_from": "local files"}
    else:
        recipe["dataset_from"] = ON_HUB
    recipe["model"] = model.model if not Path(model.model).exists() else Path(model.model).absolute().name
    if model.train_tokenizer is not None:
        recipe["train_tokenizer"] = model.train_tokenizer
    options = training.to_dict()
    return recipe | {
        "block_size": data.block_size,
        **{name: options[name] for name in RECORDED},
        "devices": training.world_size,
    }


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
    """Makes sure that processes which were started together will train together.

    Raises:
        InputError: if they would not, each of them training the whole model on a CPU.
    """
    num_started = int(os.environ.get("WORLD_SIZE", 1))
    if num_started != arguments.world_size:
        raise InputError(
            f"use_cpu must be true: {num_started} processes have been started, and there is no GPU"
        )
