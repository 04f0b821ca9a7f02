"""Options of `read`."""

from dataclasses import dataclass, field

from mosaic_lab.core.command import check_least
from mosaic_lab.core.model_options import DeviceArguments


@dataclass
class ReadingArguments(DeviceArguments):
    """Where the memory goes, and how texts are read."""

    output: str = field(default="", metadata={"help": "The memory: a new file, NAME.safetensors."})
    batch_size: int = field(default=8, metadata={"help": "Texts that are read at a time."})
    text_column: str = field(
        default="text", metadata={"help": "Column of the texts in JSON lines and parquet."}
    )

    def __post_init__(self):
        check_least(self, batch_size=1)
        if not self.output:
            raise ValueError("output must be given: the file for the memory")
