"""Options of the experiment `in_context`."""

from dataclasses import dataclass, field

from mosaic_lab.core.bounds import SEED
from mosaic_lab.core.command import check_each_once, check_range
from mosaic_lab.in_context.facts import Facts
from mosaic_lab.in_context.labels import Labels
from mosaic_lab.in_context.recall import Recall
from mosaic_lab.in_context.rows import Task
from mosaic_lab.training.contestants import ContestantArguments

TASKS: dict[str, type[Task]] = {"recall": Recall, "facts": Facts, "labels": Labels}
# Longer rows would take days.
LONGEST_ROW, MOST_ROWS = 2**16, 10_000_000


@dataclass
class InContextArguments(ContestantArguments):
    """The task, the rows to train and to test on, the models, and their hyperparameters."""

    task: str = field(default="recall", metadata={"help": f"One of {', '.join(TASKS)}."})
    length: int = field(default=128, metadata={"help": "Tokens of a row to train on."})
    counts: list[int] = field(
        default_factory=lambda: [4, 8, 16],
        metadata={"help": "Pairs, facts or classes of a row to train on; as many rows have each of them."},
    )
    test_lengths: list[int] = field(
        default_factory=lambda: [128, 256], metadata={"help": "Tokens of rows to test on."}
    )
    test_counts: list[int] = field(
        default_factory=lambda: [4, 16, 32],
        metadata={"help": "Pairs, facts or classes of rows to test on, where they fit into a row."},
    )
    num_train: int = field(default=8000, metadata={"help": "Rows to train on."})
    num_validation: int = field(default=200, metadata={"help": "Rows to validate on."})
    num_test: int = field(default=200, metadata={"help": "Rows to test on, of each length and count."})
    row_seed: int = field(default=0, metadata={"help": "Seed of the rows."})

    def __post_init__(self):
        super().__post_init__()
        if self.task not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}, not {self.task}")
        rows, lengths = (1, MOST_ROWS), (1, LONGEST_ROW)
        check_range(self, num_train=rows, num_validation=rows, num_test=rows, row_seed=SEED)
        check_range(self, length=lengths, test_lengths=lengths, counts=lengths, test_counts=lengths)
        check_each_once(self, "counts", "test_lengths", "test_counts")
        for count in self.counts:
            TASKS[self.task]().check(self.length, count)
        for length in self.test_lengths:
            if not any(length == tested for tested, _ in self.tests):
                raise ValueError(f"test_lengths: none of test_counts fits into {length} tokens")

    @property
    def tests(self) -> list[tuple[int, int]]:
        """Lengths and counts of rows to test on: those that fit."""
        task, fitting = TASKS[self.task](), []
        for length in self.test_lengths:
            for count in self.test_counts:
                try:
                    task.check(length, count)
                except ValueError:
                    continue
                fitting.append((length, count))
        return fitting
