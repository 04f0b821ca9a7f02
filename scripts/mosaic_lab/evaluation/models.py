"""Trained models that are measured side by side."""

from dataclasses import dataclass
from glob import glob
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mosaic_lab.core.devices import find_device
from mosaic_lab.core.errors import InputError
from mosaic_lab.training.model import load_with_tokenizer


@dataclass(frozen=True)
class TrainedModel:
    """A trained model under a short name; models of the same `architecture` differ only in their weights."""

    name: str
    architecture: str
    network: PreTrainedModel

    def has_positions(self, context: int) -> bool:
        """Whether rows of `context` tokens fit into its table of positions, if it has one."""
        config = self.network.config
        return config.model_type != "gpt2" or config.n_positions >= context


def load_models(
    names: list[str], device: str | None, dtype: str, **options
) -> tuple[list[TrainedModel], PreTrainedTokenizerBase]:
    """Loads the models, in evaluation mode, and the tokenizer that they must share.

    Args:
        names (`list[str]`): folders, patterns of folders such as `runs/mosaic-*`, or Hub ids.
        device (`str`, *optional*): device; the accelerator if there is one, else the CPU, by default.
        dtype (`str`): dtype of the weights, as in `from_pretrained`.
        options: further options of `from_pretrained`.

    Raises:
        InputError: if a model is named twice or cannot be loaded, or if their tokenizers differ: their losses
            cannot be compared token by token then.
    """
    paths = expand_patterns(names)
    for path in paths:
        if paths.count(path) > 1:
            raise InputError(f"models: {path} is named twice")
    place = find_device(device)
    models = []
    for path, name in zip(paths, short_names(paths), strict=True):
        network, tokenizer = load_with_tokenizer(path, dtype=dtype, **options)
        network.eval()
        if not models:
            shared = tokenizer
        elif tokenizer.get_vocab() != shared.get_vocab():
            raise InputError(f"models: {paths[0]} and {path} have different tokenizers")
        network.to(place)
        models.append(TrainedModel(name, name_architecture(network, name, models), network))
    return models, shared


def expand_patterns(names: list[str]) -> list[str]:
    """The folders that fit each pattern, in alphabetical order, in its place; other names as they are.

    Raises:
        InputError: if no folder fits a pattern.
    """
    paths = []
    for name in names:
        fitting = sorted(path for path in glob(name) if Path(path).is_dir()) if "*" in name else [name]
        if not fitting:
            raise InputError(f"models: no folder fits {name}")
        paths += fitting
    return paths


def short_names(models: list[str]) -> list[str]:
    """The shortest ends of the paths that differ from each other."""
    parts = [Path(model).absolute().parts for model in models]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(path[-length:]) for path in parts]
        if len(set(names)) == len(names):
            break
    return names


def describe_architecture(model: PreTrainedModel) -> str:
    """Describes kind, depth and size of a model: "mosaic, 2 layers, 724,664 parameters".

    Of a second model with a change taken back, it says which: "mosaic_v2_ablated (gates), 1 layer, ...".
    """
    depth = model.config.num_hidden_layers
    layers = f"{depth} layer{'' if depth == 1 else 's'}"
    taken_back = getattr(model.config, "taken_back", None)
    kind = f"{model.config.model_type} ({taken_back})" if taken_back else model.config.model_type
    return f"{kind}, {layers}, {model.num_parameters():,} parameters"


def name_architecture(model: PreTrainedModel, name: str, others: list[TrainedModel]) -> str:
    """The architecture of a model with the same config, if any, else a description that no other has."""
    for other in others:
        if other.network.config.to_diff_dict() == model.config.to_diff_dict():
            return other.architecture
    description = describe_architecture(model)
    is_taken = description in (other.architecture for other in others)
    return f"{description} ({name})" if is_taken else description


def check_context(models: list[TrainedModel], context: int) -> None:
    """Refuses rows that a model has no positions for.

    Raises:
        InputError: if a model with a table of positions has fewer than `context` tokens need.
    """
    for model in models:
        if not model.has_positions(context):
            raise InputError(f"{model.name}: its positions are fewer than the {context} that rows need")
