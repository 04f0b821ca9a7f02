"""The options of `benchmark.py`."""

from dataclasses import dataclass, field
from typing import Literal

from mosaic_lab.core.command import check_each_once, check_least

# In the order in which they are measured, and reported.
MEASURES = {"operations": "Operations", "time": "Time", "memory": "Peak memory"}
EXECUTIONS = ("eager", "compiled")


@dataclass
class SizeArguments:
    """The size of the models."""

    # The kind of mosaic, where none can be chosen: no option.
    model = "mosaic"

    hidden_size: int = field(default=256, metadata={"help": "Width of the residual stream."})
    num_hidden_layers: int = field(default=4, metadata={"help": "Blocks of each model."})
    num_attention_heads: int = field(default=8, metadata={"help": "Heads (memory units) per block."})
    vocab_size: int = field(default=8192, metadata={"help": "Tokens in the vocabulary."})


@dataclass
class BenchmarkArguments(SizeArguments):
    """The models, and what is measured."""

    model: Literal["mosaic", "mosaic_v2"] = field(
        default="mosaic", metadata={"help": "mosaic, against GPT-2, or mosaic_v2, against Llama."}
    )
    device: Literal["cpu", "cuda"] = field(default="cpu", metadata={"help": "Where everything is measured."})
    dtype: Literal["float32", "bfloat16"] = field(
        default="float32",
        metadata={
            "help": "bfloat16 trains float32 weights under autocast, as the Trainer's bf16 does, and runs"
            " prefill and decoding with bfloat16 weights."
        },
    )
    measures: list[str] = field(
        default_factory=lambda: list(MEASURES),
        metadata={"help": f"Of {', '.join(MEASURES)}: what is measured."},
    )
    execution: list[str] = field(
        default_factory=lambda: ["eager"],
        metadata={
            "help": "eager, compiled (training steps by torch.compile, of the whole model and of its blocks;"
            " on a GPU decoding with a static cache), or both."
        },
    )
    num_threads: int | None = field(
        default=None, metadata={"help": "Threads of torch on the CPU; its own choice by default."}
    )
    repeats: int = field(default=5, metadata={"help": "Rounds in which all contestants are timed in turn."})
    min_seconds: float = field(
        default=0.2, metadata={"help": "Steps and prefills are repeated for at least so long, in seconds."}
    )
    train_tokens: int = field(
        default=8192, metadata={"help": "Tokens in a training batch, whatever the context."}
    )
    contexts: list[int] = field(
        default_factory=lambda: [512, 2048, 8192], metadata={"help": "Context lengths in tokens."}
    )
    plain_max_context: int = field(
        default=2048, metadata={"help": "Longest context for the T x T implementation, which needs memory."}
    )
    decode_batches: list[int] = field(
        default_factory=lambda: [1, 8], metadata={"help": "Rows that are decoded together."}
    )
    decode_prompt: int = field(default=64, metadata={"help": "Prompt of the short decoding task, in tokens."})
    decode_new_tokens: int = field(default=512, metadata={"help": "Tokens that it adds."})
    long_decode_new_tokens: int = field(
        default=32, metadata={"help": "Tokens that decoding adds to a prompt of each context length."}
    )
    output_dir: str = field(default="runs/benchmark", metadata={"help": "Folder for the results."})

    def __post_init__(self):
        positive = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "train_tokens")
        positive += ("contexts", "decode_batches", "decode_prompt", "num_threads")
        # The time per token is taken between the first and the last new one.
        least = {"decode_new_tokens": 2, "long_decode_new_tokens": 2, "repeats": 5}
        check_least(self, **dict.fromkeys(positive, 1), **least, plain_max_context=0, min_seconds=0)
        check_each_once(self, "measures", "execution", "contexts", "decode_batches")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of num_attention_heads "
                f"({self.num_attention_heads})"
            )
        for context in self.contexts:
            # A row of one token has nothing to predict.
            if context < 2 or self.train_tokens % context:
                raise ValueError(
                    f"contexts: {context} must be at least 2 and divide train_tokens ({self.train_tokens})"
                )
        for name, known in {"measures": MEASURES, "execution": EXECUTIONS}.items():
            for value in getattr(self, name):
                if value not in known:
                    raise ValueError(f"{name} must be of {', '.join(known)}, not {value!r}")
        self.contexts, self.decode_batches = sorted(self.contexts), sorted(self.decode_batches)
        if not self.output_dir:
            raise ValueError("output_dir must name the folder for the results")
