"""Options of the experiment `regbench`."""

from dataclasses import dataclass, field

from mosaic_lab.core.bounds import SEED
from mosaic_lab.core.command import check_each_once, check_range
from mosaic_lab.regbench.data import LONGEST_STRING, MOST_SEQUENCES
from mosaic_lab.training.contestants import ContestantArguments

NGRAMS = {"1-gram": 1, "2-gram": 2, "3-gram": 3}


@dataclass
class RegBenchArguments(ContestantArguments):
    """The languages, the models that learn to learn them, and their hyperparameters."""

    models: list[str] = field(
        default_factory=lambda: ["regbench/small/mosaic", "regbench/small/gpt2"],
        metadata={
            "help": "Presets in configuration/model, or config JSONs, of any causal models; 1-gram, 2-gram, "
            "and 3-gram only count. A model is called by the last part of its name."
        },
    )
    num_automata: list[int] = field(
        default_factory=lambda: [1000],
        metadata={"help": "Numbers of training automata, with a sequence each."},
    )
    num_validation: int = field(default=500, metadata={"help": "Validation automata."})
    num_test: int = field(default=500, metadata={"help": "Test automata."})
    max_string_length: int = field(
        default=49, metadata={"help": "Longest string; RegBench has 1 to 49 symbols in each."}
    )
    in_distribution: bool = field(
        default=False, metadata={"help": "Validation and test draw new sequences from the training automata."}
    )
    language_seed: int = field(default=0, metadata={"help": "Seed of automata and sequences."})

    untrained = frozenset(NGRAMS)

    def __post_init__(self):
        super().__post_init__()
        sequences = (1, MOST_SEQUENCES)
        check_range(self, num_automata=sequences, num_validation=sequences, num_test=sequences)
        check_range(self, max_string_length=(1, LONGEST_STRING), language_seed=SEED)
        check_each_once(self, "num_automata")


@dataclass
class LanguageArguments:
    """RegBench's test languages, for experiments with models that are trained already."""

    max_string_length: int = field(
        default=11, metadata={"help": "Longest string, as in the training of the models."}
    )
    language_seed: int = field(default=0, metadata={"help": "Seed of the languages, as in training."})

    def __post_init__(self):
        check_range(self, max_string_length=(1, LONGEST_STRING), language_seed=SEED)
