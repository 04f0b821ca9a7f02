"""The options of `make_stories.py`."""

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mosaic_lab.core.command import check_least, check_range
from mosaic_lab.core.devices import check_dtype
from mosaic_lab.training.options import MOST_STORIES

GRAMMAR = "grammar"
# For names or openings; a million answers of a hundred each.
MOST_REQUESTS = 1_000_000
# These change what is made of the stories, but not the stories.
_FINISHING = (
    "output_dir",
    "validation_fraction",
    "near_duplicate",
    "tokenizer",
    "train_tokenizer",
    "block_size",
    "license",
)


@dataclass
class StoryArguments:
    """Who writes how many stories, about what, and which of them are kept."""

    output_dir: str = field(
        default="",
        metadata={
            "help": "New folder for the data set; must be given. Stories that are finished are kept in "
            "OUTPUT_DIR.shards, from which a later run resumes."
        },
    )
    model: str = field(
        default="",
        metadata={
            "help": "Folder or Hub id of a text-generation model that follows instructions, or "
            f"'{GRAMMAR}' for the embedded grammar, which takes no prompts; must be given."
        },
    )
    num_stories: int = field(default=20_000, metadata={"help": "Number of stories to write."})
    seed: int = field(default=0, metadata={"help": "Seed of prompts and stories."})
    prompts: str | None = field(
        default=None,
        metadata={
            "help": "JSON lines with some of verb, noun, adjective, features, name and opening, used in "
            "turn; by default they are drawn from words that small children know."
        },
    )
    num_name_requests: int = field(
        default=2560, metadata={"help": "How often the model is asked for 100 first names."}
    )
    num_opening_requests: int = field(
        default=2560,
        metadata={"help": "How often the model is asked for 100 first sentences, in two ways."},
    )
    shard_size: int = field(default=1000, metadata={"help": "Stories per file of finished stories."})
    batch_size: int = field(default=32, metadata={"help": "Stories that the model writes at the same time."})
    max_new_tokens: int = field(default=512, metadata={"help": "Maximum tokens per answer of the model."})
    temperature: float = field(
        default=1.0,
        metadata={"help": "Sampling temperature: below 1 favours likely tokens, above 1 rare ones."},
    )
    top_k: int = field(default=0, metadata={"help": "Sample from the k most likely tokens; 0: from all."})
    top_p: float = field(
        default=1.0,
        metadata={"help": "Nucleus sampling: from the smallest set of tokens with total probability p."},
    )
    dtype: str = field(
        default="auto", metadata={"help": "float32, bfloat16, float16, or auto: that of the weights."}
    )
    load_in_4bit: bool = field(
        default=False,
        metadata={"help": "Quantise the model to 4 bits (nf4, double quantisation); needs bitsandbytes."},
    )
    validation_fraction: float = field(default=0.01, metadata={"help": "Fraction of stories to hold out."})
    near_duplicate: float = field(
        default=0.7,
        metadata={
            "help": "Drop a story whose runs of 5 words overlap with another's by this Jaccard similarity."
        },
    )
    tokenizer: str | None = field(
        default=None,
        metadata={"help": "Folder or Hub id of the tokenizer for the statistics; GPT-2's by default."},
    )
    train_tokenizer: int | None = field(
        default=None,
        metadata={"help": "Train a byte-level BPE of this many tokens for the statistics instead."},
    )
    block_size: int = field(
        default=512, metadata={"help": "Tokens per row, for the losses of the n-gram models."}
    )
    license: str = field(
        default="apache-2.0", metadata={"help": "Licence of the data set, a Hub identifier."}
    )

    def __post_init__(self):
        if not self.output_dir:
            raise ValueError("output_dir must name the folder for the data set")
        if not self.model:
            raise ValueError(f"model must name a text-generation model, or be {GRAMMAR}")
        if self.model == GRAMMAR and self.prompts is not None:
            raise ValueError(f"prompts {self.prompts}: needs a model; the {GRAMMAR} follows no prompts")
        check_least(
            self, seed=0, shard_size=1, batch_size=1, max_new_tokens=1, top_k=0, block_size=2,
            train_tokenizer=257,
        )  # fmt: skip
        check_range(
            self,
            num_stories=(1, MOST_STORIES),
            num_name_requests=(1, MOST_REQUESTS),
            num_opening_requests=(2, MOST_REQUESTS),
        )
        for name in ("temperature", "top_p", "near_duplicate"):
            if not 0 < getattr(self, name) <= (1 if name != "temperature" else float("inf")):
                raise ValueError(f"{name} is out of range: {getattr(self, name)}")
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(f"validation_fraction must lie in [0, 1), not {self.validation_fraction}")
        check_dtype(self.dtype)
        if self.train_tokenizer is not None and self.tokenizer is not None:
            raise ValueError("tokenizer and train_tokenizer exclude each other")

    def for_stories(self) -> dict[str, Any]:
        """All that the raw stories depend on, the content of the prompts' file included."""
        options = {name: value for name, value in asdict(self).items() if name not in _FINISHING}
        return {**options, "prompts_sha256": self.hash_prompts()}

    def hash_prompts(self) -> str | None:
        """SHA-256 of the prompts' file; `None` without one."""
        return self.prompts and hashlib.sha256(Path(self.prompts).read_bytes()).hexdigest()

    def as_recipe(self) -> dict[str, Any]:
        """The options that are set, but for the folder, as a recipe holds them."""
        return {
            name: value for name, value in asdict(self).items() if value is not None and name != "output_dir"
        }
