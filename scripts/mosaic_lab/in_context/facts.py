"""Facts in a long text: entity, attribute, value, planted among other words and asked for at the end.

w w FACT tom age 7 w tom w w FACT tom home 3 w w w age w ASK tom home 3     (3 is an answer)
"""

from dataclasses import dataclass, field

import numpy as np

from mosaic_lab.in_context.rows import Row

# Words that may follow a word in the text.
NUM_FOLLOWERS = 8
# The largest number of questions of a row.
NUM_QUESTIONS = 8
CHAIN_SEED = 0


@dataclass(frozen=True)
class Facts:
    """Facts stand at random places of a text, from a random Markov chain of first order over all words.

    Entities, attributes and values are words of the text, too: only the token FACT tells a fact. Neither
    entity nor attribute alone tells the value, as both occur in several facts.

    Tokens: entities, attributes, values, other words, FACT, ASK.
    """

    num_entities: int = 8
    num_attributes: int = 8
    num_values: int = 32
    num_words: int = 32
    follower_WF: np.ndarray = field(init=False, repr=False, compare=False)
    counted = "facts"
    place = "distance"

    def __post_init__(self):
        words = self.vocab_size - 2
        rng = np.random.default_rng(CHAIN_SEED)
        followers = np.stack([rng.permutation(words)[:NUM_FOLLOWERS] for _ in range(words)])
        object.__setattr__(self, "follower_WF", followers)

    @property
    def vocab_size(self) -> int:
        return self.num_entities + self.num_attributes + self.num_values + self.num_words + 2

    def check(self, length: int, count: int) -> None:
        if not 1 <= count <= self.num_entities * self.num_attributes or 4 * (count + NUM_QUESTIONS) > length:
            raise ValueError(
                f"{count} facts do not fit: there are {self.num_entities} entities with "
                f"{self.num_attributes} attributes, and a row of {length} tokens holds "
                f"{length // 4 - NUM_QUESTIONS} facts and the questions"
            )

    def draw_text(self, rng: np.random.Generator, length: int) -> np.ndarray:
        """Draws `length` words, each one of `NUM_FOLLOWERS` followers of the word before."""
        words = np.empty(length, dtype=np.int64)
        word = int(rng.integers(len(self.follower_WF)))
        for index, choice in enumerate(rng.integers(NUM_FOLLOWERS, size=length)):
            words[index] = word = self.follower_WF[word, choice]
        return words

    def draw_row(self, rng: np.random.Generator, length: int, count: int) -> Row:
        """Draws `count` facts, and asks for some; places are tokens between value and answer."""
        FACT, ASK = self.vocab_size - 2, self.vocab_size - 1
        cells = rng.permutation(self.num_entities * self.num_attributes)[:count]
        facts = np.empty((count, 4), dtype=np.int64)
        facts[:, 0] = FACT
        facts[:, 1] = cells // self.num_attributes
        facts[:, 2] = self.num_entities + cells % self.num_attributes
        facts[:, 3] = self.num_entities + self.num_attributes + rng.integers(self.num_values, size=count)
        asked = rng.permutation(count)[:NUM_QUESTIONS]
        text = self.draw_text(rng, length - 4 * (count + len(asked)))
        # How many words of the text stand before each fact.
        before = np.sort(rng.integers(len(text) + 1, size=count))
        questions = facts[asked]
        questions[:, 0] = ASK
        ids = np.concatenate([np.insert(text, before.repeat(4), facts.ravel()), questions.ravel()])
        answers = length - 4 * len(asked) + 3 + 4 * np.arange(len(asked))
        return Row(ids, answers, answers - (before + 4 * np.arange(count) + 3)[asked])
