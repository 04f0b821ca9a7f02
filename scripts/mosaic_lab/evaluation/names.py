"""Whether a model keeps to the names of a story: its loss on those said before, and those that it tells."""

import re
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase, set_seed

from mosaic_lab.core.errors import InputError
from mosaic_lab.evaluation.losses import sequence_losses
from mosaic_lab.evaluation.models import TrainedModel
from mosaic_lab.evaluation.texts import Text
from mosaic_lab.stories.names import find_names

# What a token belongs to.
OTHER, NEW, REPEATED = range(3)
_SENTENCE_END = re.compile(r'[.!?]"?')


@dataclass(frozen=True)
class NamesInTokens:
    """The names in a piece of text.

    Attributes:
        kinds_T (`np.ndarray`): of each token whether it belongs to a name that the text has not named before
            (`NEW`), to one that it has (`REPEATED`), or to none (`OTHER`).
        num_repeated (`int`): names that the text has named before; a name may be several tokens.
        introduction (`int`): number of tokens up to the end of the sentence that introduces the last name.
        num_after (`int`): names after these.
        known (`frozenset[str]`): all names.
    """

    kinds_T: np.ndarray
    num_repeated: int
    introduction: int
    num_after: int
    known: frozenset[str]


def locate_names(ids_T: np.ndarray, tokenizer: PreTrainedTokenizerBase) -> NamesInTokens:
    """Finds the names of the embedded grammar in tokens.

    Args:
        ids_T (`np.ndarray`): tokens of one text.
        tokenizer (`PreTrainedTokenizerBase`): byte-level, or of another kind that decodes piece by piece.
    """
    pieces = [tokenizer.decode([token]) for token in ids_T]
    ends_T = np.cumsum([len(piece) for piece in pieces])
    starts_T = np.concatenate([[0], ends_T[:-1]])
    text = "".join(pieces)
    names, kinds_T, known, last_new = find_names(text), np.full(len(ids_T), OTHER), set(), 0
    for name in names:
        kind = REPEATED if name[0] in known else NEW
        kinds_T[(ends_T > name.start()) & (starts_T < name.end())] = kind
        if kind == NEW:
            known.add(name[0])
            last_new = name.end()
    end = _SENTENCE_END.search(text, last_new)
    introduced = end.end() if end else len(text)
    return NamesInTokens(
        kinds_T=kinds_T,
        num_repeated=len(names) - len(known),
        introduction=int(np.searchsorted(ends_T, introduced) + 1),
        num_after=sum(name.start() >= introduced for name in names),
        known=frozenset(known),
    )


def measure_names(
    model: TrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: Text,
    num_tellings: int,
    temperature: float,
    batch_size: int,
    seed: int,
) -> tuple[dict, dict[str, np.ndarray]]:
    """Measures the loss on names, and continues stories once all of their names have been introduced.

    Args:
        num_tellings (`int`): stories to continue at most, the first ones that fit: up to half a row of
            introduction, and a name after it. As many tokens are told, or fewer where the story ends.

    Returns:
        `tuple[dict, dict]`: `tellings`, a record for each with `introduction` and `told`; by document
        `repeated_loss`, `num_repeated`, `new_loss`, `num_new`, `other_loss` and `num_other`, sums in nats and
        numbers of names said before, of tokens of new names, and of other tokens; by telling `num_belonging`
        and `num_told`, names that the introduction has, and all names.

    Raises:
        InputError: if there is no story to continue.
    """
    label, half = f"{model.name}, names", text.rows_NT.shape[1] // 2
    named_N = [locate_names(document, tokenizer) for document in text.documents_N]
    chosen = [n for n, named in enumerate(named_N) if named.num_after and named.introduction <= half]
    chosen = chosen[:num_tellings]
    if not chosen:
        raise InputError(
            f"num_tellings {num_tellings}: no story of {text.name} has a name of the embedded grammar behind "
            f"an introduction of at most {half} tokens; 0 leaves names out"
        )
    losses_N = sequence_losses(model.network, text.documents_N, batch_size, label)
    kinds_N = [named.kinds_T[1:] for named in named_N]
    arrays = {"num_repeated": np.array([named.num_repeated for named in named_N])}
    for name, kind in (("repeated", REPEATED), ("new", NEW), ("other", OTHER)):
        pairs = list(zip(losses_N, kinds_N, strict=True))
        arrays[f"{name}_loss"] = np.array([losses[kinds == kind].sum() for losses, kinds in pairs])
        arrays.setdefault(f"num_{name}", np.array([(kinds == kind).sum() for _, kinds in pairs]))
    introductions = [text.documents_N[n][: named_N[n].introduction] for n in chosen]
    set_seed(seed)
    told = tell_on(model, tokenizer, introductions, half, temperature, batch_size)
    names = [[name[0] for name in find_names(story)] for story in told]
    arrays["num_told"] = np.array([len(each) for each in names])
    known = [named_N[n].known for n in chosen]
    arrays["num_belonging"] = np.array(
        [sum(name in kept for name in each) for each, kept in zip(names, known, strict=True)]
    )
    shown = [tokenizer.decode(ids, skip_special_tokens=True) for ids in introductions]
    records = [{"introduction": a, "told": b} for a, b in zip(shown, told, strict=True)]
    return {"tellings": records}, arrays


@torch.no_grad()
def tell_on(
    model: TrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    introductions: list[np.ndarray],
    max_new_tokens: int,
    temperature: float,
    batch_size: int,
) -> list[str]:
    """Continues texts by sampling, each up to its end of text: what is told after each of them."""
    told, end = [], tokenizer.eos_token_id
    device = model.network.device
    for start in tqdm(range(0, len(introductions), batch_size), desc=f"{model.name}, telling", leave=False):
        batch = introductions[start : start + batch_size]
        longest = max(map(len, batch))
        ids_BT = np.stack([np.pad(ids, (longest - len(ids), 0), constant_values=end) for ids in batch])
        mask_BT = np.stack([np.arange(longest) >= longest - len(ids) for ids in batch]).astype(np.int64)
        written = model.network.generate(
            input_ids=torch.from_numpy(ids_BT).to(device),
            attention_mask=torch.from_numpy(mask_BT).to(device),
            do_sample=True,
            temperature=temperature,
            top_k=0,
            max_new_tokens=max_new_tokens,
            eos_token_id=end,
            pad_token_id=end,
        )
        told += [tokenizer.decode(ids[longest:], skip_special_tokens=True) for ids in written]
    return told
