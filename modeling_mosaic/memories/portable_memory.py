"""What a model has read, as a thing of its own: a set of pairs that can be cut, merged, saved and continued.

A contextual memory is a set of pairs without positions or order, so that sets of pairs of texts read apart
can be united. [`read`] makes a memory, [`merge`] unites several, `MosaicMemory.to_cache` hands one to
`generate()`. Of the second model, that is the long-term memory; what its short-term memory holds of the text
that continues is in `window.py`.

Shapes: L layers, H units a layer, N pairs, W columns of a window, D head size, C = H D hidden size, B rows of
a batch.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from transformers import PreTrainedModel

from ..model_fingerprint import fingerprint
from .checks import check_memory
from .eviction import make_policy
from .files import load_memory, push_memory, save_memory
from .layout import LAYOUTS, Layout
from .memory_cache import MemoryCache
from .tokens import BEGINNING, END, NO_TOKEN, NUMBER, SOURCE, START, Token
from .window import Window


@dataclass(frozen=True, eq=False, repr=False)
class MosaicMemory:
    """The pairs of all layers, where they come from, and the states from which the last text continues.

    Memories are values: each method returns another one. `len` is the number N of pairs that every unit of
    every layer holds. The last token's pair is not among them: the token that comes next completes it.

    Attributes:
        keys, values (`torch.Tensor` of shape `(layers, units, pairs, head_dim)`): in the order in which they
            were read, which makes no difference to the answers.
        window (`Window`): of the second model, what the short-term memory holds of the text that continues;
            it also says how old that text's latest pairs are, which the long-term memory shows with a delay.
        states (`tuple` of `torch.Tensor` of shape `(layers, hidden)`): after the last token, as `layout`
            names them; averages of the second model have a scale of each unit more.
        beginning (`tuple`, *optional*): states after the token that begins a text, and nothing before it.
        beginning_id (`int`, *optional*): the id of that token.
        tokens (`torch.Tensor` of shape `(pairs + 1, 2, 5)`): the two [`Token`]s of each pair, its own and the
            next one; at the end those of the pair that no token has completed yet.
        sources (`tuple` of `str`): names of the texts that pairs come from.
        model_type (`str`): kind of the model that read them.
        fingerprint (`str`): of the model that read them, see [`fingerprint`].
    """

    keys: torch.Tensor
    values: torch.Tensor
    window: Window
    states: tuple[torch.Tensor, ...]
    beginning: tuple[torch.Tensor, ...] | None
    beginning_id: int | None
    tokens: torch.Tensor
    sources: tuple[str, ...]
    model_type: str
    fingerprint: str

    def __post_init__(self):
        check_memory(self)

    def __len__(self) -> int:
        return self.keys.shape[2]

    def __add__(self, other: "MosaicMemory") -> "MosaicMemory":
        return merge([self, other]) if isinstance(other, MosaicMemory) else NotImplemented

    def __repr__(self) -> str:
        num_layers, num_heads, num_pairs, head_dim = self.keys.shape
        sources_N = self.tokens[:-1, 0, SOURCE]
        texts = [f"{name!r}: {(sources_N == number).sum():,}" for number, name in enumerate(self.sources)]
        after = self.tokens[-1, 0, SOURCE].item()
        last = "a new text" if after == BEGINNING else repr(self.sources[after])
        num_short = int(self.window.is_held().sum())
        if num_short:
            last += f" with {num_short:,} pairs in short-term memory"
        return (
            f"MosaicMemory({num_pairs:,} pairs in {num_layers} layers x {num_heads} units of {head_dim}; "
            f"{{{', '.join(texts)}}}; continues {last}; {str(self.keys.dtype).removeprefix('torch.')}, "
            f"{self.keys.device}; model {self.fingerprint})"
        )

    @property
    def layout(self) -> Layout:
        """What the states are."""
        return LAYOUTS[self.model_type]

    def ages(self) -> torch.Tensor:
        """How many tokens before the next one each pair's token was, `(pairs,)`; very many if it does not
        matter, since every token to come sees that pair."""
        return self.window.ages_of_pairs(len(self))

    def where(self, pair: int) -> tuple[Token, Token]:
        """Where a pair comes from: the token of its key, and the next one, at which its value peeks."""
        own, following = self.tokens[:-1][pair].tolist()
        return Token(*own), Token(*following)

    # What a model does with it.

    def to_cache(self, batch_size: int = 1) -> MemoryCache:
        """A new cache for `generate(..., cache=)`, or for the model itself, that continues this memory.

        It is what the model would hold after reading, so that a prompt is read as if it followed. Each call
        of `generate()` needs its own, as it writes into it.

        Args:
            batch_size (`int`): rows of the batch, times beams or returned sequences: each gets the memory.

        Raises:
            ValueError: for a size below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        return MemoryCache(self, batch_size)

    def to(self, model: PreTrainedModel) -> "MosaicMemory":
        """The memory on the device and in the precision of a model.

        Raises:
            ValueError: if another model read it.
        """
        if fingerprint(model) != self.fingerprint:
            config, (num_layers, num_heads, _, head_dim) = model.config, self.keys.shape
            raise ValueError(
                f"this memory was read by another model, {self.fingerprint} with {num_layers} layers of "
                f"{num_heads} units of {head_dim}; this one is {fingerprint(model)} with "
                f"{config.num_hidden_layers} layers of {config.num_attention_heads} units of "
                f"{config.hidden_size // config.num_attention_heads}"
            )
        return self._moved(model.device, model.dtype)

    def _moved(self, device: torch.device, dtype: torch.dtype) -> "MosaicMemory":
        # Averages keep their precision.
        full = torch.promote_types(dtype, torch.float32)

        def move(states):
            return tuple(
                state.to(device, full if form.is_average else dtype)
                for form, state in zip(self.layout.states.values(), states, strict=True)
            )

        return replace(
            self,
            keys=self.keys.to(device, dtype),
            values=self.values.to(device, dtype),
            window=self.window.to(device, dtype),
            states=move(self.states),
            beginning=None if self.beginning is None else move(self.beginning),
            tokens=self.tokens.to(device),
        )

    # What is in it.

    def forget(
        self,
        source: str | None = None,
        span: tuple[int, int] | None = None,
        pairs: int | slice | Sequence[int] | torch.Tensor | None = None,
    ) -> "MosaicMemory":
        """Without the pairs that hold tokens of a text, of a part of it, or without the given pairs.

        A pair holds two tokens: its own, and the next one, at which its value peeks. So the pair that says
        what the first forgotten token was goes too. If the last token that was read is forgotten, so are the
        states that continue it, and a new text begins (`end_text`). Pairs go from the short-term memory too.

        What lies elsewhere stays: keys and states average over past tokens, and pairs of deeper layers hold
        what the memories below had answered when they were read.

        Args:
            source (`str`, *optional*): name of a text.
            span (`tuple`, *optional*): first character and the one behind the last, in `source`, or in the
                only text if none is named.
            pairs (*optional*): instead of these, numbers of pairs, as one indexes a tensor.

        Raises:
            ValueError: if there is no such text, span or pair, or if a new text cannot begin.
        """
        if pairs is not None:
            chosen_N = self._index(source, span, pairs)
            return self._select(~chosen_N, ~self.window.are_chosen(chosen_N))
        return self._without(self._are_in(source, span))

    def keep(
        self,
        source: str | None = None,
        span: tuple[int, int] | None = None,
        pairs: int | slice | Sequence[int] | torch.Tensor | None = None,
    ) -> "MosaicMemory":
        """Only the pairs of a text, or of a part of it, or the given pairs: forgets all other tokens.

        Arguments and errors as for `forget`.
        """
        if pairs is not None:
            chosen_N = self._index(source, span, pairs)
            return self._select(chosen_N, self.window.are_chosen(chosen_N))
        return self._without(~self._are_in(source, span) & (self.all_tokens()[..., NUMBER] >= 0))

    def compress(self, num_pairs: int, policy: str) -> "MosaicMemory":
        """At most so many pairs, which a policy of `eviction.py` chooses.

        A memory holds the same pairs in all its units, so that they can be traced and forgotten. Hence each
        unit ranks all pairs by the policy's score, and those with the best mean rank stay. A bounded cache
        (`BoundedCache`) lets each unit keep pairs of its own, and has policies that need weights, which are
        not stored here. A short-term memory stays as it is.

        Args:
            num_pairs (`int`): bound on the pairs.
            policy (`str`): "recent", the last ones in the order of reading, which of a merged memory are
                those of the last texts; "keydiff", pairs with unusual keys; "keydiff_recent", half of each.

        Raises:
            ValueError: for another policy, or a bound below 1.
        """
        chooser = make_policy(policy, num_pairs)
        if chooser.num_states:
            raise ValueError(f"policy {policy!r} needs the weights of queries, which a memory does not hold")
        if len(self) <= num_pairs:
            return self
        # Layers take the place of rows.
        visible_LHN = torch.ones(self.keys.shape[:3], dtype=torch.bool, device=self.keys.device)
        noted_LH0N = self.keys.new_zeros(*self.keys.shape[:2], 0, len(self))
        score_LHN = chooser.score(noted_LH0N, self.keys, visible_LHN)
        rank_LHN = score_LHN.argsort(stable=True).argsort()
        if chooser.num_protected:
            rank_LHN[..., -chooser.num_protected :] = len(self)
        best = rank_LHN.float().mean((0, 1)).argsort(stable=True)[-num_pairs:]
        kept_N = torch.zeros(len(self), dtype=torch.bool, device=self.keys.device)
        kept_N[best] = True
        return self._select(kept_N)

    def end_text(self) -> "MosaicMemory":
        """Ends the last text: what comes next is a text of its own, which begins with its usual token.

        The pair that is not complete yet goes, and the states become those after that token alone. So does
        what a short-term memory holds, and the long-term memory shows all pairs at once.

        Raises:
            ValueError: if the model that read this has no such token.
        """
        if self.beginning is None:
            raise ValueError(
                "a new text cannot begin: the model's config has neither bos_token_id nor eos_token_id"
            )
        begins = self.tokens.new_tensor([[Token(BEGINNING, 0, -1, -1, self.beginning_id), NO_TOKEN]])
        ended = replace(
            self,
            window=Window.empty(self.keys),
            states=self.beginning,
            tokens=torch.cat([self.tokens[:-1], begins]),
        )
        return ended._only_held_sources()

    def rename(self, source: str, name: str) -> "MosaicMemory":
        """The same with another name for a text.

        Raises:
            ValueError: if there is no such text, or if another one has the name.
        """
        number = self._number(source)
        return replace(self, sources=(*self.sources[:number], name, *self.sources[number + 1 :]))

    def _number(self, source: str) -> int:
        if source not in self.sources:
            raise ValueError(f"source {source!r} is not in this memory, which holds {list(self.sources)}")
        return self.sources.index(source)

    def all_tokens(self) -> torch.Tensor:
        """Those of the window's columns in front of those of the pairs, `(columns + pairs + 1, 2, 5)`."""
        return torch.cat([self.window.tokens, self.tokens])

    def _are_in(self, source: str | None, span: tuple[int, int] | None) -> torch.Tensor:
        """Which of all tokens are in a text, or in a part of it, `(columns + pairs + 1, 2)`."""
        if source is None and (span is None or len(self.sources) != 1):
            raise ValueError(f"source must name one of the texts {list(self.sources)}")
        number = 0 if source is None else self._number(source)
        tokens = self.all_tokens()
        are_in = (tokens[..., SOURCE] == number) & (tokens[..., NUMBER] >= 0)
        if span is None:
            return are_in
        start, end = span
        if not 0 <= start < end:
            raise ValueError(f"span must be (first character, one behind the last), not {span}")
        if (tokens[are_in][:, END] < 0).any():
            raise ValueError(f"span {span}: the tokenizer did not tell where the tokens are")
        are_in &= (tokens[..., START] < end) & (tokens[..., END] > start)
        if not are_in.any():
            raise ValueError(f"span {span}: no token of {self.sources[number]!r} lies in it")
        return are_in

    def _without(self, are_forgotten: torch.Tensor) -> "MosaicMemory":
        """Without the pairs that hold one of these tokens, `(columns + pairs + 1, 2)`."""
        held = ~are_forgotten.any(1)
        num_columns = len(self.window.pairs)
        memory = self._select(held[num_columns:-1], held[:num_columns])
        return memory if held[-1] else memory.end_text()

    def _index(self, source, span, pairs) -> torch.Tensor:
        if source is not None or span is not None:
            raise ValueError("pairs cannot be given together with source or span")
        chosen_N = torch.zeros(len(self), dtype=torch.bool, device=self.keys.device)
        if isinstance(pairs, Sequence):
            # An empty tensor would be one of floats.
            pairs = torch.tensor(pairs, dtype=None if pairs else torch.long)
        try:
            chosen_N[pairs] = True
        except (IndexError, TypeError, RuntimeError) as error:
            raise ValueError(f"pairs: there is no such pair among {len(self):,}: {error}") from error
        return chosen_N

    def _select(self, kept_N: torch.Tensor, held_W: torch.Tensor | None = None) -> "MosaicMemory":
        """Only these pairs, and only these columns of the window, if they are given."""
        window = self.window if held_W is None else self.window.emptied(~held_W)
        selected = replace(
            self,
            keys=self.keys[:, :, kept_N],
            values=self.values[:, :, kept_N],
            window=window.renumbered(kept_N),
            tokens=torch.cat([self.tokens[:-1][kept_N], self.tokens[-1:]]),
        )
        return selected._only_held_sources()

    def _only_held_sources(self) -> "MosaicMemory":
        """The same without the names of texts of which nothing is left."""
        held = self.all_tokens()[..., SOURCE].unique().tolist()
        sources = [name for number, name in enumerate(self.sources) if number in held]
        # The last entry is for -1.
        numbers = [sources.index(name) if name in sources else BEGINNING for name in self.sources]
        numbers = self.tokens.new_tensor([*numbers, BEGINNING])
        tokens, window_tokens = self.tokens.clone(), self.window.tokens.clone()
        for each in (tokens, window_tokens):
            each[..., SOURCE] = numbers[each[..., SOURCE].long()]
        window = self.window._replace(tokens=window_tokens)
        return replace(self, tokens=tokens, window=window, sources=tuple(sources))

    # Files.

    def save(self, path: str | os.PathLike) -> None:
        """Writes a `.safetensors` file, which appears once it is complete."""
        save_memory(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike, model: PreTrainedModel | None = None) -> "MosaicMemory":
        """Reads what `save` or `push_to_hub` wrote.

        Args:
            path (`str` or `PathLike`): a file, or a repository on the Hub, owner/name.
            model (`PreTrainedModel`, *optional*): that is to continue it; the memory comes on its device and
                in its precision, see `to`. Without one, it comes as it was saved, on the CPU.

        Raises:
            ValueError: if it is damaged, no memory, of another version of the format, or of another model.
            OSError: if there is no such file or repository.
        """
        memory = cls(**load_memory(path))
        return memory if model is None else memory.to(model)

    def push_to_hub(self, repo_id: str, **options) -> str:
        """Uploads the memory with a card, see [`push_memory`] for the options."""
        return push_memory(self, repo_id, **options)


def merge(memories: Sequence[MosaicMemory]) -> MosaicMemory:
    """One memory of texts read apart: the union of their pairs, with the states of the last one.

    So the last text continues. Other texts end: their last pairs, which no token has completed, are dropped,
    as those of packed sequences are. In the first layer this equals reading the texts as packed sequences
    that share one memory. Pairs of deeper layers depend on what the memories below answered while they were
    read, and the texts were read apart.

    In the second model, these are the pairs of long-term memories. The short-term memory is that of the last
    text. What others were read last is over, and visible at once; the latest pairs of the last text are not,
    until they are old enough.

    Raises:
        ValueError: if there is none, if other models read them, or if two hold a text of the same name.
    """
    memories = list(memories)
    if not memories:
        raise ValueError("memories: there is none to merge")
    last = memories[-1]
    names = [name for memory in memories for name in memory.sources]
    name, count = Counter(names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        raise ValueError(
            f"source {name!r} is in more than one of the memories; a text that is to count twice needs "
            "two names (rename)"
        )
    for memory in memories:
        if memory.fingerprint != last.fingerprint:
            raise ValueError(
                f"memories of different models cannot be merged: {memory.fingerprint}, {last.fingerprint}"
            )
    firsts = [0, *accumulate(len(memory.sources) for memory in memories)]
    tokens = [
        _add_to_sources(memory.tokens.to(last.tokens), first)
        for memory, first in zip(memories, firsts, strict=False)
    ]
    num_before, pairs = sum(len(memory) for memory in memories[:-1]), last.window.pairs
    window = last.window._replace(
        tokens=_add_to_sources(last.window.tokens, firsts[-2]),
        pairs=torch.where(pairs < 0, pairs, pairs + num_before),
    )
    merged = replace(
        last,
        keys=torch.cat([memory.keys.to(last.keys) for memory in memories], 2),
        values=torch.cat([memory.values.to(last.values) for memory in memories], 2),
        window=window,
        tokens=torch.cat([*(each[:-1] for each in tokens), tokens[-1][-1:]]),
        sources=tuple(names),
    )
    return merged._only_held_sources()


def _add_to_sources(tokens: torch.Tensor, number: int) -> torch.Tensor:
    """Tokens whose texts have numbers that are so much larger."""
    moved = tokens.clone()
    moved[..., SOURCE] += number * (tokens[..., SOURCE] != BEGINNING)
    return moved
