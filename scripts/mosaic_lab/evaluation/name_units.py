"""Which unit of a mosaic could carry the names of a story: what its keys find, and what its values say."""

import numpy as np
import torch
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from mosaic_lab.evaluation.models import TrainedModel
from mosaic_lab.evaluation.names import REPEATED, locate_names
from mosaic_lab.evaluation.texts import Text
from mosaic_lab.stories.names import list_names

# Stories that are looked at.
NUM_STORIES = 60


@torch.no_grad()
def measure_name_units(
    model: TrainedModel, tokenizer: PreTrainedTokenizerBase, text: Text
) -> tuple[dict, dict[str, np.ndarray]]:
    """Measures all contextual units where a name follows that the story has named before, as one token.

    Returns:
        `tuple[dict, dict]`: `num_places`; and the shares of pairs that peek at this name, `even_right`, and
        at any name, `even_name`, that even weights would give. By layer and unit: weights of these pairs,
        `right` and `name`; `peek`, the share of the next token's value before both are normalised; `copies`,
        what the unit's answer adds to a name's own logit, less what it adds to another's, if it recalls that
        name's embedding alone, in units of the last norm's scale.
    """
    network, single = model.network, single_tokens(tokenizer)
    attention = network.config._attn_implementation
    network.set_attn_implementation("eager")
    try:
        found = [_weights_of(network, ids, tokenizer, single) for ids in text.documents_N[:NUM_STORIES]]
    finally:
        network.set_attn_implementation(attention)
    even_P2, weights_PLH2 = (np.concatenate(parts) for parts in zip(*found, strict=True))
    even_2, weights_LH2 = even_P2.mean(0), weights_PLH2.mean(0)
    arrays = {
        "right": weights_LH2[..., 0],
        "name": weights_LH2[..., 1],
        "peek": np.stack(
            [1 - layer.contextual_memory.peek_norm.mix.numpy() for layer in network.model.layers]
        ),
        "copies": np.stack([copying_of(network, layer, single) for layer in network.model.layers]),
    }
    places = {"num_places": len(even_P2), "even_right": float(even_2[0]), "even_name": float(even_2[1])}
    return places, arrays


def single_tokens(tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Tokens that are a name of the embedded grammar with a space in front."""
    spelt = tokenizer([f" {name}" for name in sorted(list_names())], add_special_tokens=False)["input_ids"]
    return np.array([ids[0] for ids in spelt if len(ids) == 1])


def _weights_of(network, ids_T, tokenizer, single) -> tuple[np.ndarray, np.ndarray]:
    """Before each repeated name, shares of pairs `(places, 2)`, and weights `(places, layers, heads, 2)`."""
    kinds_T = locate_names(ids_T, tokenizer).kinds_T
    follows_T = (kinds_T[1:] == REPEATED) & np.isin(ids_T[1:], single)
    outputs = network(torch.from_numpy(ids_T)[None], output_attentions=True, use_cache=False)
    weights_LHTT = torch.cat(outputs.attentions).numpy()
    shares, weights = [], []
    for place in np.flatnonzero(follows_T):
        # Pair i peeks at token i + 1.
        seen = ids_T[1 : place + 1]
        hits_2P = np.stack([seen == ids_T[place + 1], np.isin(seen, single)])
        shares.append(hits_2P.mean(1))
        weights.append(np.einsum("lhp,kp->lhk", weights_LHTT[:, :, place, :place], hits_2P))
    shape = weights_LHTT.shape[:2]
    return np.reshape(shares, (-1, 2)), np.reshape(weights, (-1, *shape, 2))


@torch.no_grad()
def copying_of(network, layer, single: np.ndarray) -> np.ndarray:
    """See `measure_name_units`, `copies`: `(heads,)`."""
    memory, num_heads = layer.contextual_memory, network.config.num_attention_heads
    names_NC = network.model.embed_tokens.weight[single]
    value_NHD = memory.v_proj(layer.contextual_norm(names_NC)).unflatten(-1, (num_heads, -1))
    scale_H = memory.peek_norm.derive(memory.peek_norm.mix, memory.peek_norm.log_scale)[1].flatten()
    value_NHD = F.normalize(value_NHD, dim=-1) * scale_H[:, None]
    output_CHD = memory.o_proj.weight.unflatten(-1, (num_heads, -1))
    answer_NHC = torch.einsum("nhd,chd->nhc", value_NHD, output_CHD) * network.model.norm.weight
    logits_HNN = torch.einsum("nhc,mc->hnm", answer_NHC, network.lm_head.weight[single])
    own_HN = logits_HNN.diagonal(dim1=-2, dim2=-1)
    others_HN = (logits_HNN.sum(-1) - own_HN) / (len(single) - 1)
    return (network.config.logit_scale * (own_HN - others_HN)).mean(-1).numpy()
