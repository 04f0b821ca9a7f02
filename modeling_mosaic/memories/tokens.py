"""Which tokens a pair holds, as rows of numbers that can be cut and joined like the pairs."""

from typing import NamedTuple

BEGINNING = -1
SOURCE, NUMBER, START, END, ID = range(5)


class Token(NamedTuple):
    """A token that a pair holds.

    Attributes:
        source (`int`): number of its text in `MosaicMemory.sources`; -1 for the token that begins a text.
        number (`int`): number of the token in the text; -1 if there is no token.
        start, end (`int`): its characters in the text; -1 where the tokenizer does not tell.
        id (`int`): its id in the vocabulary.
    """

    source: int
    number: int
    start: int
    end: int
    id: int


NO_TOKEN = Token(BEGINNING, -1, -1, -1, -1)
