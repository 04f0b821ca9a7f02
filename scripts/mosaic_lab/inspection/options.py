"""Options of the experiment `inspection` in addition to those of the data."""

from dataclasses import dataclass, field

from mosaic_lab.core.bounds import SEED
from mosaic_lab.core.command import check_each_once, check_least, check_range


@dataclass
class InspectionArguments:
    """The trained models, and how much they are inspected."""

    models: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Folders, patterns of folders such as 'runs/mosaic-*', or Hub ids of trained mosaics and "
            "GPT-2s."
        },
    )
    output_dir: str = field(
        default="", metadata={"help": "Folder for the results, the tables and the picture."}
    )
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
    device: str | None = field(
        default=None, metadata={"help": "cpu, cuda, cuda:1, ...; the accelerator if there is one by default."}
    )
    dtype: str = field(default="float32", metadata={"help": "float32, bfloat16, float16: of the weights."})

    def __post_init__(self):
        if not self.output_dir:
            raise ValueError("output_dir must be given")
        check_each_once(self, "models")
        check_least(self, num_rows=2, num_segments=1, segment_size=16)
        check_range(self, inspection_seed=SEED)
