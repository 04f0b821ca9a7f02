"""Policies of bounded memories: which pairs stay when there is no room for all.

A policy scores pairs, and those with the largest scores stay. There are no positions in a memory, so that
each unit can choose for itself and nothing else changes when a pair goes. Weights are those that the memory
has just computed to answer: w_ti is the softmax weight that query t gives to pair i.

Shapes: B batch, H heads, T queries, S slots in the order of time, N numbers that a policy keeps for each
slot.
"""

import torch
from torch.nn import functional as F

from ..memory_norms import in_full_precision

# SnapKV's published settings: queries that vote, and neighbours over which votes are averaged.
SNAPKV_WINDOW, SNAPKV_KERNEL = 32, 5


class EvictionPolicy:
    """Keeps the most recent pairs; the others follow this form.

    Args:
        max_pairs (`int`): pairs that stay, per unit.
    """

    # Numbers that it keeps for each pair.
    num_states = 0

    def __init__(self, max_pairs: int):
        self.max_pairs = max_pairs

    @property
    def num_protected(self) -> int:
        """How many of the most recent pairs stay whatever their scores."""
        return 0

    def observe(
        self,
        state_BHNS: torch.Tensor,
        weight_BHTS: torch.Tensor,
        visible_BHS: torch.Tensor,
        recall_BT: torch.Tensor,
    ) -> torch.Tensor:
        """Takes note of how new queries use the pairs.

        Args:
            state_BHNS (`torch.Tensor`): what it noted before; 0 for pairs that are new.
            weight_BHTS (`torch.Tensor`): weights, 0 for pairs that a query does not see. The last query sees
                all slots, the one before it all but the last one, and so on.
            visible_BHS (`torch.BoolTensor`): False for slots that hold no pair.
            recall_BT (`torch.BoolTensor`): False for queries that ask nothing: padding, or empty memories.
        """
        return state_BHNS

    def score(
        self, state_BHNS: torch.Tensor, key_BHSD: torch.Tensor, visible_BHS: torch.Tensor
    ) -> torch.Tensor:
        """The scores `(batch, heads, slots)` of pairs; of equal ones, the more recent stay.

        Args:
            state_BHNS (`torch.Tensor`): what was noted.
            key_BHSD (`torch.Tensor`): keys.
            visible_BHS (`torch.BoolTensor`): False for slots that hold no pair; they come first.
        """
        return torch.zeros_like(visible_BHS, dtype=torch.float32)


class LeastRecentlyUsed(EvictionPolicy):
    """Evicts the pair that has gone unused for longest, as the discussion of the paper proposes.

    A pair is used when it is stored, and when a query gives it its fair share of weight or more: 1 / number
    of pairs that the query sees.
    """

    num_states = 1

    def observe(self, state_BHNS, weight_BHTS, visible_BHS, recall_BT):
        time = weight_BHTS.shape[2]
        # The state counts tokens since the last use.
        age_T1 = torch.arange(time - 1, -1, -1, device=weight_BHTS.device, dtype=torch.float32)[:, None]
        num_pairs_BHT1 = visible_BHS.cumsum(-1)[..., -time:, None]
        is_used_BHTS = weight_BHTS * num_pairs_BHT1 >= 1
        used_BHS = torch.where(is_used_BHTS, age_T1, torch.inf).amin(2)
        unused_BHS = state_BHNS[:, :, 0] + time
        # Slot S - 1 was stored by the last of these tokens, S - 2 by the one before.
        unused_BHS[:, :, -time:] = age_T1[:, 0]
        return torch.minimum(unused_BHS, used_BHS)[:, :, None]

    def score(self, state_BHNS, key_BHSD, visible_BHS):
        return -state_BHNS[:, :, 0]


class AccumulatedWeight(EvictionPolicy):
    """H2O (arXiv 2306.14048): sum over all queries of w_ti; half of the pairs are the most recent ones."""

    num_states = 1

    @property
    def num_protected(self):
        return self.max_pairs // 2

    def observe(self, state_BHNS, weight_BHTS, visible_BHS, recall_BT):
        return state_BHNS + weight_BHTS.sum(2, keepdim=True)

    def score(self, state_BHNS, key_BHSD, visible_BHS):
        return state_BHNS[:, :, 0]


class WindowWeights(EvictionPolicy):
    """SnapKV (arXiv 2404.14469): sum of w_ti over the last queries, averaged over neighbours in time.

    The pairs of these queries stay too. There are 32 of them, or half of the pairs that stay if that is less,
    but for one query that always votes. The paper evicts once, after the prompt; here it goes on with the
    text.
    """

    def __init__(self, max_pairs: int):
        super().__init__(max_pairs)
        self.num_states = max(1, self.num_protected)

    @property
    def num_protected(self):
        return min(SNAPKV_WINDOW, self.max_pairs // 2)

    def observe(self, state_BHNS, weight_BHTS, visible_BHS, recall_BT):
        return latest_weights(state_BHNS, weight_BHTS, recall_BT)

    def score(self, state_BHNS, key_BHSD, visible_BHS):
        return F.avg_pool1d(state_BHNS.sum(2), SNAPKV_KERNEL, stride=1, padding=SNAPKV_KERNEL // 2)


class LastWeights(EvictionPolicy):
    """TOVA (arXiv 2401.06104): w_ti of the last query, mean over heads: a layer keeps one set of pairs."""

    num_states = 1

    def observe(self, state_BHNS, weight_BHTS, visible_BHS, recall_BT):
        return latest_weights(state_BHNS, weight_BHTS, recall_BT)

    def score(self, state_BHNS, key_BHSD, visible_BHS):
        return state_BHNS[:, :, 0].mean(1, keepdim=True).expand(visible_BHS.shape)


class KeyDifference(EvictionPolicy):
    """KeyDiff (arXiv 2504.15364): - cos(k_i, mean_j k_j / |k_j|). Needs no weights; keeps unusual keys."""

    def score(self, state_BHNS, key_BHSD, visible_BHS):
        unit_BHSD = F.normalize(in_full_precision(key_BHSD), dim=-1) * visible_BHS[..., None]
        # The length of the mean and the number of keys change no order.
        return -(unit_BHSD @ unit_BHSD.sum(2)[..., None]).squeeze(-1)


class RecentKeyDifference(KeyDifference):
    """KeyDiff for one half of the pairs, while the other half are the most recent ones, as in H2O."""

    @property
    def num_protected(self):
        return self.max_pairs // 2


def latest_weights(
    state_BHNS: torch.Tensor, weight_BHTS: torch.Tensor, recall_BT: torch.Tensor
) -> torch.Tensor:
    """The weights of the last N queries that ask something, the latest one last."""
    num_kept = state_BHNS.shape[2]
    is_query_Bt = F.pad(recall_BT, (num_kept, 0), value=True)
    index_BN = is_query_Bt.byte().argsort(dim=-1, stable=True)[:, -num_kept:]
    return take_steps(torch.cat([state_BHNS, weight_BHTS], 2), index_BN)


def take_steps(states_BHTD: torch.Tensor, index_BN: torch.Tensor) -> torch.Tensor:
    """The states of some steps, `(batch, heads, N, head_dim)`, which differ from row to row."""
    _, heads, _, head_dim = states_BHTD.shape
    return states_BHTD.gather(2, index_BN[:, None, :, None].expand(-1, heads, -1, head_dim))


POLICIES: dict[str, type[EvictionPolicy]] = {
    "recent": EvictionPolicy,
    "lru": LeastRecentlyUsed,
    "h2o": AccumulatedWeight,
    "tova": LastWeights,
    "snapkv": WindowWeights,
    "keydiff": KeyDifference,
    "keydiff_recent": RecentKeyDifference,
}


def make_policy(name: str, max_pairs: int) -> EvictionPolicy:
    """The policy of that name for memories of `max_pairs` pairs.

    Raises:
        ValueError: if there is no policy of that name, or no room for a pair.
    """
    if name not in POLICIES:
        raise ValueError(f"policy must be one of {', '.join(POLICIES)}, not {name!r}")
    if isinstance(max_pairs, bool) or not isinstance(max_pairs, int) or max_pairs < 1:
        raise ValueError(f"max_pairs must be a whole number of at least 1, not {max_pairs!r}")
    return POLICIES[name](max_pairs)


def choose_slots(
    policy: EvictionPolicy, state_BHNS: torch.Tensor, key_BHSD: torch.Tensor, visible_BHS: torch.Tensor
) -> torch.Tensor:
    """The slots that stay, in the order of time: int64 `(batch, heads, 1 + max_pairs)`.

    Slot 0, the dummy, stays; slots without a pair go first.

    Args:
        policy (`EvictionPolicy`): scores the pairs.
        state_BHNS (`torch.Tensor`), key_BHSD (`torch.Tensor`), visible_BHS (`torch.BoolTensor`): as for
            `EvictionPolicy.score`; more than `1 + max_pairs` slots.
    """
    score_BHS = policy.score(state_BHNS, key_BHSD, visible_BHS)
    num_slots = score_BHS.shape[-1]
    score_BHS = score_BHS.masked_fill(~visible_BHS, -torch.inf)
    if policy.num_protected:
        score_BHS[..., num_slots - policy.num_protected :] = torch.inf
    score_BHS[..., 0] = torch.inf
    ranking_BHS = score_BHS.argsort(dim=-1, stable=True)
    return ranking_BHS[..., num_slots - 1 - policy.max_pairs :].sort(-1).values
