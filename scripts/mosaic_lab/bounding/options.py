"""Options of the experiments `bounding_texts` and `bounding_strings`."""

from dataclasses import dataclass, field

from modeling_mosaic.memories.eviction import POLICIES
from mosaic_lab.core.command import check_each_once, check_least, check_range
from mosaic_lab.core.model_options import ModelsOnDeviceArguments


@dataclass
class BoundingArguments(ModelsOnDeviceArguments):
    """The bounds and the policies, and on how much to measure.

    Models are mosaics of either kind, and GPT-2s, which get a sliding window for a bound.
    """

    bounds: list[int] = field(
        default_factory=lambda: [64, 128, 512],
        metadata={"help": "Pairs per unit that a bounded memory holds, and tokens of a sliding window."},
    )
    policies: list[str] = field(
        default_factory=lambda: list(POLICIES), metadata={"help": f"Policies: {', '.join(POLICIES)}."}
    )
    chunk_size: int = field(
        default=16,
        metadata={"help": "Tokens between two evictions, during which a memory holds so many pairs more."},
    )
    context: int = field(default=4096, metadata={"help": "Tokens a row, documents one after the other."})
    num_rows: int = field(default=4, metadata={"help": "Rows of each text."})
    batch_size: int = field(default=8, metadata={"help": "Rows at a time."})

    def __post_init__(self):
        super().__post_init__()
        check_each_once(self, "bounds", "policies")
        check_least(self, chunk_size=1, num_rows=2, batch_size=1)
        check_range(self, context=(64, 2**20))
        if min(self.bounds) < 1:
            raise ValueError(f"bounds must be at least 1, not {min(self.bounds)}")
        for policy in self.policies:
            if policy not in POLICIES:
                raise ValueError(f"policies must be some of {', '.join(POLICIES)}, not {policy!r}")
        if max(self.bounds) >= self.context // 2:
            raise ValueError(f"context must be more than twice the largest bound, {max(self.bounds)}")


@dataclass
class TextArguments:
    """The other text, and the facts that are planted far back."""

    other_text: str | None = field(
        default=None,
        metadata={
            "help": "Text unlike the training data, to measure on as well: a file, a folder or a Hub id."
        },
    )
    distances: list[int] = field(
        default_factory=lambda: [1024],
        metadata={"help": "Tokens of stories between a planted fact and its repetition."},
    )
    lead: int = field(default=512, metadata={"help": "Tokens of stories before a planted fact."})
    fact_size: int = field(
        default=16, metadata={"help": "Random tokens of a planted fact; its second half is to be recalled."}
    )
    num_facts: int = field(default=12, metadata={"help": "Facts planted at each distance."})

    def __post_init__(self):
        check_each_once(self, "distances")
        check_least(self, lead=0, num_facts=2)
        check_range(self, fact_size=(4, 1024))
        if min(self.distances) < 1:
            raise ValueError(f"distances must be at least 1, not {min(self.distances)}")


def check_facts(bounding: BoundingArguments, texts: TextArguments) -> None:
    """Makes sure that there are as many stories in a row as lie before and between facts.

    Raises:
        ValueError: if there are not.
    """
    farthest = texts.lead + max(texts.distances)
    if farthest > bounding.context:
        raise ValueError(
            f"lead and distances must fit into the context of {bounding.context}, not {farthest}"
        )
