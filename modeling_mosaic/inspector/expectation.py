"""What units expect as the next token: how near the answer is to the target that each candidate would make.

Shapes: T tokens, H units, D head size, K candidates; L layers.
"""

import torch

from . import measures as measures
from .readout import first_raw_values
from .trace import Trace, candidate_raw_values

Tensors = dict[str, torch.Tensor]

QUERY_BLOCK = 256
# Tokens of the vocabulary whose scores are held at a time.
VOCABULARY_BLOCK = 4096
# In deeper layers, candidates for the next token are tried at this many places, this many at each, and not
# further back, as each needs a copy of what the memories hold until there.
NUM_PLACES, NUM_CANDIDATES, LAST_PLACE = 32, 32, 512


def expect_first(
    heard: Trace, answers_HTD: torch.Tensor, raw_HTD: torch.Tensor, mix_H: torch.Tensor
) -> Tensors:
    """How well the first layer's answers pick the true next token, among the text's tokens and among all.

    Returns:
        `dict`: AUC and rank, `(units, time)`; NaN at the first and the last token.
    """
    ids_T, model = heard.token_ids, heard.model
    own_HT, auc_HT = answers_HTD.new_full((2, len(mix_H), len(ids_T)), torch.nan)
    rank_HT = own_HT.clone()
    rank_HT[:, 1:-1] = 1
    text_K, frequency_K = ids_T.unique(return_counts=True)

    def score(ids_K):
        for unit, raw_KD in enumerate(first_raw_values(model, ids_K)):
            for first in range(1, len(ids_T) - 1, QUERY_BLOCK):
                block = slice(first, min(first + QUERY_BLOCK, len(ids_T) - 1))
                answer_TD, raw_TD = answers_HTD[unit, block], raw_HTD[unit, block]
                scores_TK = measures.candidate_scores(answer_TD, raw_TD, raw_KD, mix_H[unit])
                yield unit, block, ids_T[1:][block], scores_TK

    for unit, block, next_T, scores_TK in score(text_K):
        actual_T = torch.searchsorted(text_K, next_T)
        own_HT[unit, block] = scores_TK.gather(1, actual_T[:, None])[:, 0]
        auc_HT[unit, block] = measures.auc_of(scores_TK, actual_T, frequency_K.to(scores_TK))
    for ids_K in torch.arange(model.config.vocab_size, device=ids_T.device).split(VOCABULARY_BLOCK):
        for unit, block, next_T, scores_TK in score(ids_K):
            is_higher_TK = (scores_TK > own_HT[unit, block, None]) & (ids_K != next_T[:, None])
            rank_HT[unit, block] += is_higher_TK.sum(-1)
    return {"measure.next_token_auc": auc_HT, "measure.next_token_rank": rank_HT}


def choose_places(num_tokens: int) -> list[int]:
    """The queries, spread over the text, at which candidates are tried in deeper layers."""
    last = min(num_tokens - 2, LAST_PLACE)
    return torch.linspace(1, last, NUM_PLACES).long().unique().tolist() if last > 0 else []


def expect_deeper(heard: Trace, asked: list[Tensors]) -> torch.Tensor:
    """The AUC of all layers at some places: the true next token against others, drawn by frequency.

    Args:
        heard (`Trace`): a forward pass.
        asked (`list[dict]`): for each layer, `answers` and `raw_values` `(units, places, head_dim)` at
            [`choose_places`], and the `mix` `(units,)`.

    Returns:
        `torch.Tensor` of shape `(layers, units, places)`.
    """
    ids_T = heard.token_ids
    places = choose_places(len(ids_T))
    auc_LHn = torch.full((len(asked), len(asked[0]["mix"]), len(places)), torch.nan)
    drawn = _draw(ids_T, places)
    if drawn is None:
        return auc_LHn
    for number, raw_LHKD in enumerate(candidate_raw_values(heard.model, ids_T, places, drawn)):
        for layer, states in enumerate(asked):
            scores_H1K = measures.candidate_scores(
                states["answers"][:, number, None],
                states["raw_values"][:, number, None],
                raw_LHKD[layer],
                states["mix"][:, None, None],
            )
            first_1 = torch.zeros(1, dtype=torch.long, device=ids_T.device)
            auc_H1 = measures.auc_of(scores_H1K, first_1, torch.ones_like(scores_H1K[0, 0]))
            auc_LHn[layer, :, number] = auc_H1[:, 0]
    return auc_LHn


def _draw(ids_T: torch.Tensor, places: list[int]) -> list[torch.Tensor] | None:
    """The true next token at each place, then others by frequency; `None` if there are none."""
    chance = torch.Generator().manual_seed(0)
    text_K, frequency_K = ids_T.cpu().unique(return_counts=True)
    if len(text_K) < 2:
        return None
    drawn = []
    for place in places:
        next_1 = ids_T[place + 1 : place + 2]
        others_K = frequency_K.double() * (text_K != next_1.cpu())
        picked_k = torch.multinomial(others_K, NUM_CANDIDATES - 1, replacement=True, generator=chance)
        drawn.append(torch.cat([next_1, text_K[picked_k].to(ids_T.device)]))
    return drawn
