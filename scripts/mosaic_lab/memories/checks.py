"""Which models have memories to merge, to bound or to search."""

from transformers import PreTrainedConfig

from modeling_mosaic.memories.layout import find_layout
from mosaic_lab.core.errors import InputError


def check_memories(name: str, config: PreTrainedConfig) -> None:
    """Refuses models without memories, or with nothing but a window.

    Raises:
        InputError: that names the model, and what is wrong with its config.
    """
    try:
        find_layout(config)
    except ValueError as error:
        raise InputError(f"model {name}: {error}") from error
