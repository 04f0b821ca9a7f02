"""Options of the experiment `searching` in addition to those of the data."""

from dataclasses import dataclass, field

from mosaic_lab.core.command import check_each_once, check_least, check_range
from mosaic_lab.core.model_options import ModelsArguments

# Below, a memory is read exactly: nothing would be measured.
LEAST_PAIRS = 8192


@dataclass
class SearchingArguments(ModelsArguments):
    """The memories, and how they are searched.

    Models are mosaics and GPT-2s. Mosaics of one layer, which alone read fast enough, get long memories too.
    """

    num_rows: int = field(
        default=32, metadata={"help": "Rows of block_size tokens whose keys are searched, by all models."}
    )
    num_queries: int = field(default=256, metadata={"help": "Queries of each unit, from other rows."})
    sizes: list[int] = field(
        default_factory=lambda: [8192, 32768, 131072, 524288],
        metadata={"help": "Pairs of the long memories."},
    )
    num_nearest: int = field(default=128, metadata={"help": "Pairs that a unit reads exactly."})
    num_probes: int = field(default=16, metadata={"help": "Clusters that it searches for them."})
    tolerance: float = field(default=0.2, metadata={"help": "Error that a unit may make on trial."})
    num_tokens: int = field(
        default=256, metadata={"help": "Tokens, after the long memory, whose losses are compared."}
    )
    num_timed: int = field(default=24, metadata={"help": "Tokens that are timed one by one, in each way."})

    def __post_init__(self):
        super().__post_init__()
        check_each_once(self, "sizes")
        check_least(self, num_rows=2, num_queries=1, num_nearest=1, num_probes=1, num_timed=3)
        check_range(self, num_tokens=(2, 400))
        if min(self.sizes) < LEAST_PAIRS:
            raise ValueError(f"sizes must be at least {LEAST_PAIRS}, not {min(self.sizes)}")
        if not self.tolerance > 0:
            raise ValueError(f"tolerance must be above 0, not {self.tolerance}")
