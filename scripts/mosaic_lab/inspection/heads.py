"""Memories and attention heads in one form: what asks, what is asked, and the value that comes next.

A mosaic's unit answers query T from pairs i < T, and its target is value T. An attention head is read in the
same way: its query one token before asks the keys up to that token, and the next token's value is taken for
the target that it would predict, were it a memory.

Shapes: H units or heads, T tokens, D head size, K candidate tokens.
"""

import torch
from torch.nn import functional as F
from transformers import GPT2LMHeadModel

from modeling_mosaic import MemoryRecord
from modeling_mosaic.inspector import measures
from modeling_mosaic.inspector.agreement import CrossRetrieval, retrieve_across
from modeling_mosaic.inspector.pairs import StoredPairs, UnitKind

# Numbers of stored pairs, from and to before which retrieval is averaged.
BINS = ((1, 8), (8, 32), (32, 128), (128, 512))


class Heads(StoredPairs):
    """The units of a layer on one text; scores of query t are `queries[t] . keys[i]`, for i < t."""

    def retrieve(self) -> torch.Tensor:
        """Retrieval of each unit's targets by each unit's weights, by all together, and by uniform weights.

        Returns:
            `torch.Tensor` of shape `(bins, units + 2, units)`: anomaly correlations, see [`CrossRetrieval`].
        """
        found = []
        for first, last in BINS:
            targets_HTD = self.values_HtD[:, first:last]
            if targets_HTD.shape[1] < 2:
                size = len(self.values_HtD)
                found.append(torch.full((size + 2, size), torch.nan))
                continue
            retrieval = CrossRetrieval(targets_HTD)
            scores_HTS = self.block_scores(first, first + targets_HTD.shape[1])
            kinds = [units for _, units in self.groups]
            retrieval.add(
                retrieve_across(scores_HTS, self.values_HtD[:, : scores_HTS.shape[-1]], kinds), targets_HTD
            )
            found.append(retrieval.result())
        return torch.stack(found)


def heads_of_record(record: MemoryRecord) -> list[Heads]:
    """The contextual units of each layer."""
    layers = map(record.stored, range(record.num_layers))
    return [Heads(x.queries_HTD, x.keys_HTD, x.values_HtD, x.kinds) for x in layers]


@torch.no_grad()
def heads_of_gpt2(model: GPT2LMHeadModel, ids_T: torch.Tensor) -> list[Heads]:
    """The heads of each layer, their queries one token later than they ask."""
    heard: list[torch.Tensor] = []
    handles = [
        block.attn.c_attn.register_forward_hook(lambda module, args, output: heard.append(output[0].float()))
        for block in model.transformer.h
    ]
    try:
        model(ids_T[None].to(model.device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    layers = []
    for states_TC in heard:
        query, key, value = (
            states.unflatten(-1, (model.config.n_head, -1)).transpose(0, 1).cpu()
            for states in states_TC.chunk(3, -1)
        )
        shifted_HTD = F.pad(query, (0, 0, 1, 0))[:, :-1] * query.shape[-1] ** -0.5
        kinds = [UnitKind("head")] * len(key)
        layers.append(Heads(shifted_HTD, key, value, kinds))
    return layers


@torch.no_grad()
def first_layer_auc_of_gpt2(model: GPT2LMHeadModel, ids_T: torch.Tensor, heads: Heads) -> torch.Tensor:
    """How well the first layer's heads tell the next token's value from those of other tokens, `(heads,)`.

    As [`measures.auc_of`]: the value that each token of the text would have in the next place.
    """
    ids_T = ids_T.to(model.device)
    text_K, frequency_K = ids_T.unique(return_counts=True)
    block, answers_HTD = model.transformer.h[0], heads.answers()
    found = []
    for place in range(1, len(ids_T)):
        position = model.transformer.wpe.weight[place]
        value_KC = block.attn.c_attn(block.ln_1(model.transformer.wte(text_K) + position)).chunk(3, -1)[2]
        value_HKD = value_KC.float().unflatten(-1, (model.config.n_head, -1)).transpose(0, 1).cpu()
        scores_HK = F.cosine_similarity(answers_HTD[:, place, None], value_HKD, dim=-1)
        actual = torch.searchsorted(text_K, ids_T[place]).cpu()
        found.append(measures.auc_of(scores_HK, actual, frequency_K.cpu().float()))
    return torch.stack(found).mean(0)
