"""Options of `read`."""

from dataclasses import dataclass, field

from mosaic_lab.core.command import check_least


@dataclass
class ReadingArguments:
    """Where the memory goes, and how texts are read."""

    output: str = field(default="", metadata={"help": "The memory: a new file, NAME.safetensors."})
    batch_size: int = field(default=8, metadata={"help": "Texts that are read at a time."})
    text_column: str = field(
        default="text", metadata={"help": "Column of the texts in JSON lines and parquet."}
    )
    device: str | None = field(
        default=None, metadata={"help": "cpu, cuda, cuda:1, ...; the accelerator if there is one by default."}
    )
    dtype: str = field(
        default="auto", metadata={"help": "float32, bfloat16 or float16; as saved (auto) by default."}
    )

    def __post_init__(self):
        check_least(self, batch_size=1)
        if not self.output:
            raise ValueError("output must be given: the file for the memory")
