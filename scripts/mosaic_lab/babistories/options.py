"""The options of `make_stories.py`."""

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

GRAMMAR = "grammar"
# They change what is made of the stories, but none of the stories.
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
    """Who writes how many stories, about what, and what is kept of them."""

    output_dir: str = field(default="", metadata={"help": "Folder for the data set; must be given."})
    model: str = field(
        default=GRAMMAR,
        metadata={
            "help": "Folder or Hub id of a text-generation model that follows instructions; "
            f"'{GRAMMAR}' is the embedded grammar of children's stories."
        },
    )
    num_stories: int = field(default=20_000, metadata={"help": "Stories to ask for."})
    seed: int = field(default=0, metadata={"help": "Seed of prompts and stories."})
    prompts: str | None = field(
        default=None,
        metadata={
            "help": "JSON lines with some of verb, noun, adjective, features, name and opening, used in "
            "turn; by default they are drawn from words that small children know."
        },
    )
    num_name_requests: int = field(
        default=2560, metadata={"help": "How often a model is asked for 100 first names."}
    )
    num_opening_requests: int = field(
        default=2560, metadata={"help": "How often a model is asked for 100 first sentences, in two ways."}
    )
    shard_size: int = field(default=1000, metadata={"help": "Stories that are written, or lost, together."})
    batch_size: int = field(default=32, metadata={"help": "Stories that a model writes at the same time."})
    max_new_tokens: int = field(default=512, metadata={"help": "Tokens an answer of a model at most."})
    temperature: float = field(
        default=1.0, metadata={"help": "Below 1: likelier tokens, above 1: rarer ones."}
    )
    top_k: int = field(default=0, metadata={"help": "Draw from so many likeliest tokens; 0: from all."})
    top_p: float = field(
        default=1.0, metadata={"help": "Draw from the likeliest tokens that have this probability together."}
    )
    dtype: str = field(default="auto", metadata={"help": "float32, bfloat16, float16; that of the weights."})
    load_in_4bit: bool = field(
        default=False, metadata={"help": "Quantises the model to 4 bits (nf4, twice); needs bitsandbytes."}
    )
    validation_fraction: float = field(default=0.01, metadata={"help": "Share of the stories to hold out."})
    near_duplicate: float = field(
        default=0.7,
        metadata={"help": "Drops a story that shares this much of its runs of 5 words with another one."},
    )
    tokenizer: str | None = field(
        default=None,
        metadata={"help": "Folder or Hub id of the statistics' tokenizer; GPT-2's by default."},
    )
    train_tokenizer: int | None = field(
        default=None,
        metadata={"help": "Trains a byte-level BPE with so many tokens for the statistics instead."},
    )
    block_size: int = field(default=512, metadata={"help": "Tokens a row, for the losses of n-gram models."})
    license: str = field(
        default="apache-2.0", metadata={"help": "Licence of the data set, a Hub identifier."}
    )

    def __post_init__(self):
        if not self.output_dir:
            raise ValueError("output_dir must name the folder for the data set")
        least = {"num_stories": 1, "seed": 0, "num_name_requests": 1, "num_opening_requests": 2}
        least |= {"shard_size": 1, "batch_size": 1, "max_new_tokens": 1, "top_k": 0, "block_size": 2}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name} must be at least {bound}, not {getattr(self, name)}")
        for name in ("temperature", "top_p", "near_duplicate"):
            if not 0 < getattr(self, name) <= (1 if name != "temperature" else float("inf")):
                raise ValueError(f"{name} is out of range: {getattr(self, name)}")
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(f"validation_fraction must lie in [0, 1), not {self.validation_fraction}")
        if self.train_tokenizer is not None and self.train_tokenizer < 257:
            raise ValueError(f"train_tokenizer must be at least 257, not {self.train_tokenizer}")
        if self.train_tokenizer is not None and self.tokenizer is not None:
            raise ValueError("tokenizer and train_tokenizer exclude each other")

    def for_stories(self) -> dict[str, Any]:
        """All that the raw stories depend on, the content of the prompts' file included."""
        options = {name: value for name, value in asdict(self).items() if name not in _FINISHING}
        if self.prompts is not None and Path(self.prompts).is_file():
            options["prompts_sha256"] = hashlib.sha256(Path(self.prompts).read_bytes()).hexdigest()
        return options
