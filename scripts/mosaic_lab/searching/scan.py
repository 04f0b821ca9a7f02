"""How much of a memory an index must scan: queries against keys in GPT-2, keys against keys in a mosaic.

Shapes: N pairs, Q queries, L clusters, D head size, H heads, U units of all layers.
"""

import math

import numpy as np
import torch
from transformers import PreTrainedModel

from modeling_mosaic.compatibility import CACHE_NAME
from modeling_mosaic.memories.searched_cache import (
    NUM_ROUNDS,
    SAMPLES_PER_CLUSTER,
    import_faiss,
    neglected_bound,
)

# Of the attention mass, and of the nearest pairs.
WANTED, NUM_NEAREST = 0.95, 100


@torch.no_grad()
def collect_pairs(
    model: PreTrainedModel, rows_NT: np.ndarray
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Queries and keys of each unit, each row a text of its own, by layer: `(heads, rows * time, head_dim)`.

    Products of the two are what the softmax gets. A mosaic's queries are its keys.
    """
    keys, queries, hooks = [], [], []
    ids = torch.from_numpy(rows_NT).to(model.device)
    if model.config.model_type != "mosaic":
        width = model.config.n_embd
        for block in model.transformer.h:
            hook = block.attn.c_attn.register_forward_hook(
                lambda module, inputs, output: queries.append(output[..., :width])
            )
            hooks.append(hook)
    cache = model(ids, use_cache=True)[CACHE_NAME]
    for hook in hooks:
        hook.remove()
    for layer_idx, layer in enumerate(cache.layers):
        if model.config.model_type == "mosaic":
            # Slot 0 is a dummy; the key of the last pair, which is not complete, is left out of both.
            keys.append(layer.keys[:, :, 1:].transpose(0, 1).flatten(1, 2))
        else:
            keys.append(layer.keys.transpose(0, 1).flatten(1, 2))
            scale = layer.keys.shape[-1] ** -0.5
            heads_BTHD = queries[layer_idx].unflatten(-1, (layer.keys.shape[1], -1))
            queries[layer_idx] = heads_BTHD.transpose(1, 2).transpose(0, 1).flatten(1, 2) * scale
    return keys if model.config.model_type == "mosaic" else queries, keys


def spread(states_HND: torch.Tensor, number: int) -> torch.Tensor:
    """`number` of them, evenly spread."""
    index = torch.linspace(0, states_HND.shape[1] - 1, number).long()
    return states_HND[:, index]


def measure_scan(query_QD: torch.Tensor, key_ND: torch.Tensor) -> dict[str, float]:
    """Measures, for one unit, the shares of pairs that must be scanned.

    Clusters are scanned in the order of the product of their centre and the query, as faiss does, and the
    share is that at which the mean over queries reaches 0.95.

    Returns:
        `dict`: `mass`, the share scanned for 0.95 of the attention mass; `nearest`, for 0.95 of the 100
        nearest pairs; `oracle`, the share of pairs that hold 0.95 of the mass if the nearest are taken first;
        `left`, the share of the mass outside of the 100 nearest, and `certified`, the bound on it that
        follows from their similarities alone, means over queries.
    """
    key_ND, query_QD = (states.contiguous().float() for states in (key_ND, query_QD))
    num_clusters = int(2 * math.sqrt(len(key_ND)))
    options = {"niter": NUM_ROUNDS, "max_points_per_centroid": SAMPLES_PER_CLUSTER, "seed": 0}
    clustering = import_faiss().Kmeans(key_ND.shape[1], num_clusters, min_points_per_centroid=1, **options)
    clustering.train(key_ND.numpy())
    centre_LD = torch.from_numpy(clustering.centroids)
    cluster_N = torch.from_numpy(clustering.assign(key_ND.numpy())[1]).long()
    size_L = torch.bincount(cluster_N, minlength=num_clusters).float()
    score_QN = query_QD @ key_ND.T
    weight_QN = score_QN.softmax(-1)
    nearest = score_QN.topk(NUM_NEAREST)
    is_nearest_QN = torch.zeros_like(weight_QN).scatter(1, nearest.indices, 1 / NUM_NEAREST)
    order_QL = (query_QD @ centre_LD.T).argsort(-1, descending=True)
    share_QL = size_L[order_QL].cumsum(-1) / len(key_ND)
    shares = {}
    for name, part_QN in {"mass": weight_QN, "nearest": is_nearest_QN}.items():
        part_QL = torch.zeros(len(query_QD), num_clusters).index_add_(1, cluster_N, part_QN)
        found_QL = part_QL.gather(1, order_QL).cumsum(-1)
        shares[name] = _share_at(found_QL, share_QL)
    found_QN = weight_QN.sort(-1, descending=True).values.cumsum(-1)
    shares["oracle"] = _share_at(found_QN, torch.arange(1, len(key_ND) + 1)[None] / len(key_ND))
    shares["left"] = float(1 - weight_QN.gather(1, nearest.indices).sum(-1).mean())
    # Of values of length 1/2, an answer is off by no more than the mass that was left out.
    shares["certified"] = float(neglected_bound(nearest.values, len(key_ND), value_norm=0.5).mean())
    return shares


def _share_at(found_Qs: torch.Tensor, share_Qs: torch.Tensor) -> float:
    """The mean share scanned where the mean of what is found reaches what is wanted."""
    step = int((found_Qs.mean(0) < WANTED).sum().clamp(max=found_Qs.shape[1] - 1))
    return float(share_Qs.mean(0)[step])
