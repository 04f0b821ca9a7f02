"""One run of an experiment with the Trainer, which goes on from its last checkpoint if there is one."""

from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from typing import Any

from torch.utils.data import Dataset
from transformers import PreTrainedModel

from mosaic_lab.training.options import TrainingArguments
from mosaic_lab.training.run import save
from mosaic_lab.training.trainer import Trainer, last_checkpoint

# Options of the Trainer that change what is learned.
_LEARNING = (
    "learning_rate",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "max_steps",
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "bf16",
    "fp16",
    "eval_strategy",
    "eval_steps",
    "load_best_model_at_end",
)


def learning_options(arguments: TrainingArguments) -> dict[str, Any]:
    """The Trainer's options that a result depends on, as JSON has them."""
    options = arguments.to_dict()
    return {name: options[name] for name in _LEARNING}


def train(
    network: PreTrainedModel,
    arguments: TrainingArguments,
    folder: Path,
    datasets: tuple[Dataset, Dataset],
    changes: dict[str, Any],
    **trainer_options,
) -> Trainer:
    """Trains `network` from the last complete checkpoint in `folder`, if any.

    Args:
        network (`PreTrainedModel`): new.
        arguments (`TrainingArguments`): those of the recipe.
        folder (`Path`): of this run.
        datasets (`tuple[Dataset, Dataset]`): to train and to validate on.
        changes (`dict`): options in which this run differs from the recipe.
        trainer_options: further arguments of the `Trainer`.

    Returns:
        `Trainer`: with the trained network.
    """
    trainer = Trainer(
        network,
        replace(arguments, output_dir=str(folder), resume_from_checkpoint=None, **changes),
        train_dataset=datasets[0],
        eval_dataset=datasets[1],
        **trainer_options,
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    return trainer


def finish(trainer: Trainer, folder: Path) -> None:
    """Saves the trained model in `folder`, where its checkpoints were, and deletes them."""
    save(trainer, folder)
    for checkpoint in folder.glob("checkpoint-*"):
        rmtree(checkpoint)


def training_seconds(trainer: Trainer) -> float:
    """How long training took, evaluation included, since it was last resumed."""
    return next(entry["train_runtime"] for entry in trainer.state.log_history if "train_runtime" in entry)
