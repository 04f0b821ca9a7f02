"""Options of `evaluate` in addition to those of the data."""

from dataclasses import dataclass, field

from mosaic_lab.core.command import check_least, check_range
from mosaic_lab.core.model_options import DeviceArguments

# Models compute with matrices of segment by segment.
LARGEST_SEGMENT = 8192


@dataclass
class EvaluationArguments(DeviceArguments):
    """The measurements, the amount of text, and the folder of the report."""

    output_dir: str = field(
        default="runs/evaluation", metadata={"help": "Folder for the tables, the pictures and their data."}
    )
    other_text: str | None = field(
        default=None,
        metadata={
            "help": "Text unlike the training data, to measure on as well: a file, a folder or a Hub dataset "
            "id, read as `dataset` is, without its `dataset_config`."
        },
    )
    num_rows: int = field(
        default=1000, metadata={"help": "Rows of block_size tokens to measure on at most, of each text."}
    )
    num_documents: int = field(
        default=2000,
        metadata={"help": "Documents, or pieces of long ones, to measure on at most, of each text."},
    )
    num_segments: int = field(
        default=200, metadata={"help": "Random segments to repeat; 0 leaves the induction probe out."}
    )
    segment_size: int = field(default=50, metadata={"help": "Tokens per random segment."})
    max_new_tokens: int = field(
        default=60, metadata={"help": "Tokens to continue each prompt with; 0 leaves the prompts out."}
    )
    num_tellings: int = field(
        default=0,
        metadata={
            "help": "Validation stories to continue at most, to see whether they keep to their names (of the "
            "embedded grammar); 0 leaves this and the losses on names out."
        },
    )
    temperature: float = field(default=1.0, metadata={"help": "Temperature of the sampled continuations."})
    evaluation_seed: int = field(
        default=0, metadata={"help": "Seed of random segments, sampled texts and bootstrap."}
    )
    batch_size: int = field(default=16, metadata={"help": "Rows at a time."})

    def __post_init__(self):
        check_least(self, num_rows=2, num_documents=2, num_segments=0, max_new_tokens=0, num_tellings=0)
        check_least(self, batch_size=1, evaluation_seed=0)
        check_range(self, segment_size=(2, LARGEST_SEGMENT))
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, not {self.temperature}")
