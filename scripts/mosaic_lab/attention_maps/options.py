"""The options of `run_attention_maps.py` besides those of the data."""

from dataclasses import dataclass, field

from mosaic_lab.attention_maps.scores import EAGER_CHUNK
from mosaic_lab.core.errors import InputError
from mosaic_lab.training.options import DataArguments

# Fewer positions have no room for a recency bump and for two halves in front of it.
LEAST_CONTEXT = 64


@dataclass
class MapsArguments:
    """Over which contexts scores are measured, and how."""

    output_dir: str = field(metadata={"help": "Folder for the arrays, the summary and the pictures."})
    contexts: list[int] | None = field(
        default=None,
        metadata={"help": "Lengths of the sequences, in tokens; block_size and three times that by default."},
    )
    num_sequences: int = field(
        default=5000, metadata={"help": "Sequences to average over, at each context; fewer in tiny data."}
    )
    batch_size: int = field(default=4, metadata={"help": "Sequences at a time."})
    chunk_size: int | None = field(
        default=None,
        metadata={
            "help": "Tokens of each sequence at a time: less memory, the same scores; by default all where "
            f"the model has sdpa, else {EAGER_CHUNK}."
        },
    )
    device: str | None = field(
        default=None, metadata={"help": "cpu, cuda, cuda:1, ...; the accelerator if there is one by default."}
    )
    dtype: str = field(default="float32", metadata={"help": "float32, bfloat16, float16: of the weights."})

    def __post_init__(self):
        for name in ("num_sequences", "batch_size", "chunk_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")


def choose_contexts(maps: MapsArguments, data: DataArguments) -> list[int]:
    """The contexts to measure at.

    Raises:
        InputError: if one is named twice, or is too short to be split into what is recent and what is not.
    """
    contexts = maps.contexts or [data.block_size, 3 * data.block_size]
    if len(set(contexts)) != len(contexts):
        raise InputError(f"contexts must name each length once, not {contexts}")
    if min(contexts) < LEAST_CONTEXT:
        raise InputError(f"contexts must be at least {LEAST_CONTEXT} tokens, not {min(contexts)}")
    return contexts
