"""The command line of programs that look at trained models, and the models that it names."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mosaic_lab.core.command import CommandParser
from mosaic_lab.core.errors import InputError
from mosaic_lab.training.model import load_with_tokenizer


def make_models_parser(*groups: type, description: str) -> CommandParser:
    """The command line of a program that looks at trained models, which are its arguments."""
    parser = CommandParser(*groups, description=description)
    parser.add_argument("models", nargs="+", help="folders or Hub ids of trained models")
    return parser


@dataclass(frozen=True)
class Contestant:
    """A trained model under a short name; models of the same `architecture` differ only in their weights."""

    name: str
    architecture: str
    model: PreTrainedModel

    def has_positions(self, context: int) -> bool:
        """Whether rows of `context` tokens fit into its table of positions, if it has one."""
        config = self.model.config
        return config.model_type != "gpt2" or config.n_positions >= context


def load_contestants(
    models: list[str], device: str | None, dtype: str, **options
) -> tuple[list[Contestant], PreTrainedTokenizerBase]:
    """Loads the models, in evaluation mode, and the tokenizer that they must share.

    Args:
        models (`list[str]`): folders or Hub ids.
        device (`str`, *optional*): where to; the accelerator if there is one, else the CPU.
        dtype (`str`): of the weights, as in `from_pretrained`.
        options: further ones for `from_pretrained`.

    Raises:
        InputError: if a model is named twice or cannot be loaded, or if their tokenizers differ: their losses
            cannot be compared token by token then.
    """
    for model in models:
        if models.count(model) > 1:
            raise InputError(f"models: {model} is named twice")
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    contestants = []
    for model, name in zip(models, short_names(models), strict=True):
        network, tokenizer = load_with_tokenizer(model, dtype=dtype, **options)
        network.eval()
        if not contestants:
            shared = tokenizer
        elif tokenizer.get_vocab() != shared.get_vocab():
            raise InputError(f"models: {models[0]} and {model} have different tokenizers")
        try:
            network.to(device or accelerator)
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"device {device}: {error}") from error
        contestants.append(Contestant(name, name_architecture(network, name, contestants), network))
    return contestants, shared


def short_names(models: list[str]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    parts = [Path(model).absolute().parts for model in models]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(path[-length:]) for path in parts]
        if len(set(names)) == len(names):
            break
    return names


def describe_architecture(model: PreTrainedModel) -> str:
    """Kind, depth and size of a model: "mosaic, 2 layers, 724,664 parameters"."""
    depth = model.config.num_hidden_layers
    layers = f"{depth} layer{'' if depth == 1 else 's'}"
    return f"{model.config.model_type}, {layers}, {model.num_parameters():,} parameters"


def name_architecture(model: PreTrainedModel, name: str, others: list[Contestant]) -> str:
    """That of a model with the same config if there is one, else a description that no other model has."""
    for other in others:
        if other.model.config.to_diff_dict() == model.config.to_diff_dict():
            return other.architecture
    description = describe_architecture(model)
    is_taken = description in (other.architecture for other in others)
    return f"{description} ({name})" if is_taken else description


def check_context(contestants: list[Contestant], context: int) -> None:
    """Refuses rows that a model has no positions for.

    Raises:
        InputError: if a model with a table of positions has fewer than `context` tokens need.
    """
    for contestant in contestants:
        if not contestant.has_positions(context):
            raise InputError(f"{contestant.name}: its positions are fewer than the {context} that rows need")
