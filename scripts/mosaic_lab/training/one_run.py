"""One run of an experiment with the Trainer, resumed from its last checkpoint if there is one."""

from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from typing import Any

from torch.utils.data import Dataset
from transformers import PreTrainedModel

from mosaic_lab.training.options import TrainingArguments, learning_options
from mosaic_lab.training.run import save
from mosaic_lab.training.trainer import Trainer, last_checkpoint


def run_options(arguments: TrainingArguments) -> dict[str, Any]:
    """The Trainer's options that a result depends on, but for the seed, which each run has of its own."""
    return {name: value for name, value in learning_options(arguments).items() if name != "seed"}


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
