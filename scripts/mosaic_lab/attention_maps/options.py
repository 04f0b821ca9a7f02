"""Options of the experiment `attention_maps` in addition to those of the data."""

from dataclasses import dataclass, field

from mosaic_lab.attention_maps.scores import EAGER_CHUNK
from mosaic_lab.core.command import check_each_once, check_least
from mosaic_lab.core.errors import InputError
from mosaic_lab.core.model_options import ModelsOnDeviceArguments
from mosaic_lab.training.options import DataArguments

# Fewer positions have no room for a recency bump and for two halves in front of it.
LEAST_CONTEXT = 64


@dataclass
class MapsArguments(ModelsOnDeviceArguments):
    """The contexts over which scores are measured, and how."""

    contexts: list[int] | None = field(
        default=None,
        metadata={"help": "Lengths of the sequences, in tokens; block_size and three times that by default."},
    )
    num_sequences: int = field(
        default=5000,
        metadata={"help": "Sequences to average over at each context, or all if there are fewer."},
    )
    batch_size: int = field(default=4, metadata={"help": "Sequences at a time."})
    chunk_size: int | None = field(
        default=None,
        metadata={
            "help": "Tokens of each sequence at a time: less memory, the same scores; by default all where "
            f"the model has sdpa, else {EAGER_CHUNK}."
        },
    )

    def __post_init__(self):
        super().__post_init__()
        check_least(self, num_sequences=1, batch_size=1, chunk_size=1)
        if self.contexts is not None:
            check_each_once(self, "contexts")


def choose_contexts(maps: MapsArguments, data: DataArguments) -> list[int]:
    """Chooses the contexts to measure at.

    Raises:
        InputError: if one is too short to be split into recent positions and others.
    """
    contexts = maps.contexts or [data.block_size, 3 * data.block_size]
    if min(contexts) < LEAST_CONTEXT:
        raise InputError(f"contexts must be at least {LEAST_CONTEXT} tokens, not {min(contexts)}")
    return contexts
