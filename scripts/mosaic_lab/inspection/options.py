"""Options of the experiment `inspection` in addition to those of the data."""

from dataclasses import dataclass, field

from mosaic_lab.core.bounds import SEED
from mosaic_lab.core.command import check_least, check_range
from mosaic_lab.core.model_options import ModelsOnDeviceArguments


@dataclass
class InspectionArguments(ModelsOnDeviceArguments):
    """How much the models are inspected: mosaics of the first kind, and GPT-2s."""

    other_text: str | None = field(
        default=None,
        metadata={
            "help": "Text unlike the training data, to inspect on as well: a file, a folder or a Hub "
            "dataset id."
        },
    )
    num_rows: int = field(default=16, metadata={"help": "Rows of block_size tokens to record of each text."})
    num_segments: int = field(
        default=64, metadata={"help": "Random segments that are repeated, to see what copies them."}
    )
    segment_size: int = field(default=64, metadata={"help": "Tokens of a random segment."})
    inspection_seed: int = field(
        default=0, metadata={"help": "Seed of random segments, and of the weights of untrained twins."}
    )

    def __post_init__(self):
        super().__post_init__()
        check_least(self, num_rows=2, num_segments=1, segment_size=16)
        check_range(self, inspection_seed=SEED)
