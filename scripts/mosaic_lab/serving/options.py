"""Options of the experiment `serving`."""

from dataclasses import dataclass, field

from mosaic_lab.benchmark.options import SizeArguments
from mosaic_lab.core.command import check_each_once, check_least

CONTESTANTS = ("mosaic", "gpt2")


@dataclass
class ServingArguments(SizeArguments):
    """The requests, all of which are there at the start, and the ways in which they are served."""

    contestants: list[str] = field(
        default_factory=lambda: list(CONTESTANTS),
        metadata={"help": f"Of {', '.join(CONTESTANTS)}: models of equal size."},
    )
    ways: list[str] = field(
        default_factory=lambda: ["one_by_one", "static", "continuous"],
        metadata={
            "help": "Ways of serving: one_by_one, static, continuous; and vllm and mlx, engines that have "
            "installations of their own. Ways can be added to a folder of results."
        },
    )
    vllm_python: str = field(
        default="python3", metadata={"help": "Python of the installation that has vLLM and this package."}
    )
    mlx_python: str = field(
        default="python3", metadata={"help": "Python of the installation that has mlx-lm."}
    )
    num_requests: int = field(default=32, metadata={"help": "Requests at the start."})
    least_prompt: int = field(default=8, metadata={"help": "Tokens of the shortest prompt."})
    longest_prompt: int = field(default=200, metadata={"help": "Tokens of the longest prompt."})
    new_tokens: int = field(default=64, metadata={"help": "Tokens that each request asks for."})
    batch_size: int = field(default=16, metadata={"help": "Requests that a static batch pads and joins."})
    page_size: int = field(default=32, metadata={"help": "Tokens of a block, for continuous batching."})
    max_batch_tokens: int = field(
        default=512, metadata={"help": "Tokens of all requests in a step of continuous batching."}
    )
    num_threads: int = field(default=1, metadata={"help": "Threads of torch."})
    rounds: int = field(default=3, metadata={"help": "Rounds in which all take turns."})
    output_dir: str = field(default="", metadata={"help": "Folder for the results."})

    def __post_init__(self):
        check_each_once(self, "contestants", "ways")
        check_least(self, num_requests=1, least_prompt=1, new_tokens=2, batch_size=1, page_size=4, rounds=1)
        check_least(self, num_threads=1, max_batch_tokens=1, longest_prompt=self.least_prompt)
        for name in self.contestants:
            if name not in CONTESTANTS:
                raise ValueError(f"contestants must be of {', '.join(CONTESTANTS)}, not {name!r}")
        if not self.output_dir:
            raise ValueError("output_dir must name the folder for the results")
