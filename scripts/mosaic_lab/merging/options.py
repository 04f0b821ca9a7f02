"""Options of the experiments `merging_strings` and `merging_texts`."""

from dataclasses import dataclass, field

from mosaic_lab.core.command import check_each_once, check_least
from mosaic_lab.core.model_options import ModelsOnDeviceArguments
from mosaic_lab.regbench.data import NUM_STRINGS


@dataclass
class MergingArguments(ModelsOnDeviceArguments):
    """The numbers of parts, and on how much to measure. Models are mosaics of either kind."""

    num_parts: list[int] = field(
        default_factory=lambda: [1, 2, 4, 8],
        metadata={
            "help": "Into how many parts to cut what is read; each divides the largest, which is also the "
            "number of RegBench's strings that are read."
        },
    )
    num_sequences: int = field(default=200, metadata={"help": "Sequences to measure on."})

    def __post_init__(self):
        super().__post_init__()
        check_each_once(self, "num_parts")
        check_least(self, num_parts=1, num_sequences=2)
        if any(max(self.num_parts) % number for number in self.num_parts):
            raise ValueError(f"num_parts must all divide the largest of them, not {self.num_parts}")


def check_strings(merging: MergingArguments) -> None:
    """Makes sure that each sequence has a string more than are read.

    Raises:
        ValueError: if some have not.
    """
    if max(merging.num_parts) >= NUM_STRINGS[0]:
        raise ValueError(
            f"num_parts must be below {NUM_STRINGS[0]}, which all sequences have, not {merging.num_parts}"
        )


@dataclass
class TextArguments:
    """How much of each row is read, and on which texts."""

    num_read: int = field(
        default=384, metadata={"help": "Tokens of each row that are read; the loss is that of the others."}
    )
    other_text: str | None = field(
        default=None,
        metadata={
            "help": "Text unlike the training data, to measure on as well: a file, a folder or a Hub dataset "
            "id, read as `dataset` is."
        },
    )

    def __post_init__(self):
        check_least(self, num_read=1)
