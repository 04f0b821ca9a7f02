"""Approximate retrieval from long memories: exact for the nearest pairs, an estimate for the rest.

Queries of a mosaic are keys, and all keys of a unit are equally long. So the nearest pairs are those of the
largest inner product, and an index of faiss whose clusters come from the keys finds them as easily as it
finds keys. What it does not find is not dropped: each cluster stands for the rest of its pairs, with their
mean key and their mean value.

Shapes: T queries, N pairs, L clusters, K nearest pairs, D head size; B batch, H heads as in the model.
"""

import math
from typing import TYPE_CHECKING

import torch

from .answering_cache import AnsweringCache, AnsweringLayer, score_slots
from .eviction import take_steps

if TYPE_CHECKING:
    from ..configuration_mosaic import MosaicConfig
    from ..configuration_mosaic_v2 import MosaicV2Config

# Pairs that go to the archive together, once there are twice as many in front of it.
BLOCK_SIZE = 512
# A unit's clusters are made anew when it holds so many times the pairs of which they were made.
REGROWTH = 4
# Recent queries that try out how well a unit's archive answers.
NUM_TRIALS = 64
# How an archive can answer: from means of clusters, with the nearest pairs exact as well, from all pairs;
# and, for reference, from exactly the nearest pairs and no others.
MODES = ("estimate", "search", "exact", "nearest")
# Of faiss's k-means: more pairs a cluster and more rounds would take longer and change little.
SAMPLES_PER_CLUSTER, NUM_ROUNDS = 64, 10

Answer = tuple[torch.Tensor, torch.Tensor]


def import_faiss():
    """The package faiss.

    Raises:
        ImportError: if it is missing, with what to install.
    """
    try:
        import faiss
    except ImportError as error:
        raise ImportError("searching memories needs faiss: pip install memory-mosaics[search]") from error
    return faiss


def neglected_bound(similarity_TK: torch.Tensor, num_pairs: int, value_norm: float) -> torch.Tensor:
    """How far an answer from the K nearest pairs alone can be from that of all pairs, `(queries,)`.

    With similarities s_1 >= ... >= s_K, no other pair is nearer than s_K, so that the mass neglected is at
    most `Z_r = (N - K) exp(s_K)`; as all values are equally long, `|f - f_K| <= 2 |v| Z_r / (Z_K + Z_r)`.

    Args:
        similarity_TK (`torch.Tensor`): similarities of the nearest pairs, in any order.
        num_pairs (`int`): all pairs, N.
        value_norm (`float`): length of each value.
    """
    num_nearest = similarity_TK.shape[-1]
    if num_pairs == num_nearest:
        return torch.zeros_like(similarity_TK[:, 0])
    rest_T = similarity_TK.amin(-1) + math.log(num_pairs - num_nearest)
    return 2 * value_norm * torch.sigmoid(rest_T - similarity_TK.logsumexp(-1))


class GrowingRows:
    """Rows of numbers, appended in constant time each: storage doubles when it is full."""

    def __init__(self):
        self.storage: torch.Tensor | None = None
        self.length = 0

    @property
    def rows(self) -> torch.Tensor:
        """All of them, a view."""
        return self.storage[: self.length]

    def append(self, rows_ND: torch.Tensor) -> None:
        """Copies new rows behind the others."""
        needed = self.length + len(rows_ND)
        if self.storage is None or needed > len(self.storage):
            grown = rows_ND.new_empty((max(2 * self.length, needed), *rows_ND.shape[1:]))
            if self.storage is not None:
                grown[: self.length] = self.rows
            self.storage = grown
        self.storage[self.length : needed] = rows_ND
        self.length = needed


class PairArchive:
    """The pairs of one unit of one row, and the ways in which it answers queries from them.

    An answer is a pair of tensors: the logarithm of the mass `sum_i exp(k . k_i)`, `(queries,)`, and the mean
    of the values under these weights, `(queries, head_dim)`. So it can be joined with other pairs.

    Args:
        num_nearest (`int`): pairs that are exact.
        num_probes (`int`): clusters that are searched for them; all of them find the nearest with certainty.
        min_pairs (`int`): with fewer pairs, every answer is exact.
        tolerance (`float`): error allowed on trial, see [`choose_mode`].
    """

    def __init__(self, num_nearest: int, num_probes: int, min_pairs: int, tolerance: float):
        self.num_nearest, self.num_probes = num_nearest, num_probes
        self.min_pairs, self.tolerance = min_pairs, tolerance
        self.keys, self.values, self.cluster = GrowingRows(), GrowingRows(), GrowingRows()
        self.index = None
        self.num_clustered = 0
        self.mode = "exact"
        self.errors: dict[str, float] = {}

    def __len__(self) -> int:
        return self.keys.length

    def add(self, key_ND: torch.Tensor, value_ND: torch.Tensor, trial_TD: torch.Tensor) -> None:
        """Stores pairs; now and then, makes clusters anew and chooses how to answer.

        Args:
            key_ND (`torch.Tensor`), value_ND (`torch.Tensor`): pairs in float32 on the CPU.
            trial_TD (`torch.Tensor`): queries that are none of the keys stored.
        """
        self.keys.append(key_ND)
        self.values.append(value_ND)
        if len(self) < self.min_pairs:
            return
        if len(self) >= REGROWTH * self.num_clustered:
            self._make_clusters()
            self.choose_mode(trial_TD)
        else:
            self._join_clusters(key_ND, value_ND)

    def _make_clusters(self) -> None:
        faiss = import_faiss()
        key_ND = self.keys.rows.numpy()
        num_clusters = int(2 * math.sqrt(len(self)))
        quantizer = faiss.IndexFlatIP(key_ND.shape[1])
        self.index = faiss.IndexIVFFlat(quantizer, key_ND.shape[1], num_clusters, faiss.METRIC_INNER_PRODUCT)
        self.index.cp.max_points_per_centroid, self.index.cp.niter = SAMPLES_PER_CLUSTER, NUM_ROUNDS
        # No warnings of few pairs.
        self.index.cp.min_points_per_centroid = 1
        # Keys lie on a sphere, and so do the centres.
        self.index.cp.spherical = True
        self.index.train(key_ND)
        self.index.nprobe = min(self.num_probes, num_clusters)
        self.num_clustered = len(self)
        self.cluster = GrowingRows()
        self.count_L = torch.zeros(num_clusters)
        self.key_sum_LD = torch.zeros(num_clusters, key_ND.shape[1])
        self.value_sum_LD = torch.zeros(num_clusters, self.values.rows.shape[1])
        self._join_clusters(self.keys.rows, self.values.rows)

    def _join_clusters(self, key_ND: torch.Tensor, value_ND: torch.Tensor) -> None:
        _, nearest_N1 = self.index.quantizer.search(key_ND.numpy(), 1)
        cluster_N = torch.from_numpy(nearest_N1[:, 0])
        self.index.add(key_ND.numpy())
        self.cluster.append(cluster_N)
        self.count_L.index_add_(0, cluster_N, torch.ones(len(cluster_N)))
        self.key_sum_LD.index_add_(0, cluster_N, key_ND)
        self.value_sum_LD.index_add_(0, cluster_N, value_ND)

    def choose_mode(self, trial_TD: torch.Tensor) -> None:
        """Chooses the cheapest way to answer whose error on trial is within the tolerance; `exact` has none.

        The error is the mean of `|f - f'| / |v| + |log Z - log Z'| / 2`. To first order, it bounds how far
        the answer is off when these pairs are joined with others, as a share of the values' length.
        """
        log_mass_T, mean_TD = self.answer(trial_TD, "exact")
        value_norm = self.values.rows[-1].norm()
        self.mode = "exact"
        for mode in ("search", "estimate"):
            their_mass_T, their_mean_TD = self.answer(trial_TD, mode)
            error_T = (mean_TD - their_mean_TD).norm(dim=-1) / value_norm
            error = float((error_T + (log_mass_T - their_mass_T).abs() / 2).mean())
            self.errors[mode] = error
            if error <= self.tolerance:
                self.mode = mode

    def answer(self, query_TD: torch.Tensor, mode: str | None = None) -> Answer:
        """Answers queries in one of [`MODES`]; in the one that was chosen, by default."""
        mode = mode or self.mode
        if mode in ("exact", "nearest"):
            return self._answer_exactly(query_TD, len(self) if mode == "exact" else self.num_nearest)
        return self._estimate(query_TD, self.num_nearest if mode == "search" else 0)

    def _answer_exactly(self, query_TD: torch.Tensor, num_nearest: int) -> Answer:
        score_TN, value_ND = query_TD @ self.keys.rows.T, self.values.rows
        if num_nearest >= len(self):
            return score_TN.logsumexp(-1), score_TN.softmax(-1) @ value_ND
        score_TK, pair_TK = score_TN.topk(num_nearest)
        return score_TK.logsumexp(-1), (score_TK.softmax(-1)[:, None] @ value_ND[pair_TK])[:, 0]

    def search(self, query_TD: torch.Tensor) -> Answer:
        """Similarities and numbers `(queries, nearest)` of the nearest pairs found."""
        similarity_TK, pair_TK = self.index.search(query_TD.numpy(), min(self.num_nearest, len(self)))
        return torch.from_numpy(similarity_TK), torch.from_numpy(pair_TK)

    def _estimate(self, query_TD: torch.Tensor, num_nearest: int) -> Answer:
        """Exact for the nearest pairs; the others of each cluster all count as their mean.

        As the exponential is convex, the mass is never overestimated.
        """
        # Sums over the pairs of each cluster that are not among the nearest.
        dot_TL = query_TD @ self.key_sum_LD.T
        count_TL = self.count_L.expand(dot_TL.shape)
        if num_nearest:
            similarity_TK, pair_TK = self.search(query_TD)
            is_found_TK = pair_TK >= 0
            similarity_TK = similarity_TK.masked_fill(~is_found_TK, 0)
            cluster_TK = self.cluster.rows[pair_TK]
            dot_TL = dot_TL.scatter_add(1, cluster_TK, -similarity_TK)
            count_TL = count_TL.scatter_add(1, cluster_TK, -is_found_TK.float())
        mean_TL = (dot_TL / count_TL.clamp(min=1)).masked_fill(count_TL < 0.5, -torch.inf)
        shift_T1 = mean_TL.amax(-1, keepdim=True)
        if num_nearest:
            similarity_TK = similarity_TK.masked_fill(~is_found_TK, -torch.inf)
            shift_T1 = torch.maximum(shift_T1, similarity_TK.amax(-1, keepdim=True))
        each_TL = (mean_TL - shift_T1).exp()
        mass_T1 = (each_TL * count_TL).sum(-1, keepdim=True)
        sum_TD = each_TL @ self.value_sum_LD
        if num_nearest:
            exact_TK = (similarity_TK - shift_T1).exp()
            mass_T1 = mass_T1 + exact_TK.sum(-1, keepdim=True)
            # Their clusters' sums have counted them as the rest.
            correction_TK = exact_TK - each_TL.gather(1, cluster_TK) * is_found_TK
            sum_TD = sum_TD + (correction_TK[:, None] @ self.values.rows[pair_TK])[:, 0]
        return (mass_T1.log() + shift_T1)[:, 0], sum_TD / mass_T1


class SearchedLayer(AnsweringLayer):
    """The memories of one layer: recent pairs, which are read exactly, and archives of all others."""

    def __init__(self, config: "MosaicConfig | MosaicV2Config", options: dict):
        super().__init__(config)
        self.options = options

    def _forget(self) -> None:
        super()._forget()
        self.archives: list[list[PairArchive]] = []
        # The latest queries of each row, and which of them ask something.
        self.queries: torch.Tensor | None = None
        self.asks: torch.Tensor | None = None

    def update(self, key_states, value_states, *args, **kwargs):
        """Takes the pairs that new tokens complete."""
        if not self.archives:
            batch, heads = key_states.shape[:2]
            self.archives = [[PairArchive(**self.options) for _ in range(heads)] for _ in range(batch)]
            self.queries, self.asks = key_states[:, :, :0], key_states.new_zeros((batch, 0), dtype=torch.bool)
        return super().update(key_states, value_states)

    @torch.no_grad()
    def answer(self, query_BHTD, recall_BT, keep_BT):
        """Joins the recent pairs, exactly, and the answers of the archives; returns no weights."""
        self._store(query_BHTD, recall_BT, keep_BT)
        score_BHTS = score_slots(query_BHTD, self.keys, self.visible)
        log_mass_BHT1 = torch.full_like(score_BHTS[..., :1], -torch.inf)
        mean_BHTD = torch.zeros_like(query_BHTD, dtype=score_BHTS.dtype)
        for row, units in enumerate(self.archives):
            for head, archive in enumerate(units):
                if len(archive):
                    log_mass_T, mean_TD = archive.answer(_for_index(query_BHTD[row, head]))
                    log_mass_BHT1[row, head, :, 0] = log_mass_T.to(log_mass_BHT1)
                    mean_BHTD[row, head] = mean_TD.to(mean_BHTD)
        weight_BHTS = torch.cat([log_mass_BHT1, score_BHTS], -1).softmax(-1)
        recalled = weight_BHTS[..., 1:] @ self.values.to(score_BHTS.dtype) + weight_BHTS[..., :1] * mean_BHTD
        recalled = recalled.masked_fill(~recall_BT[:, None, :, None], 0).to(query_BHTD.dtype)
        self._archive()
        return recalled.transpose(1, 2), None

    def _store(self, query_BHTD, recall_BT, keep_BT) -> None:
        """Stores pairs among the recent ones, and keeps the latest queries."""
        self.append(*self.release(keep_BT), recall_BT)
        queries_BHtD = torch.cat([self.queries, query_BHTD], 2)
        asks_Bt = torch.cat([self.asks, recall_BT], 1)
        latest_BN = asks_Bt.byte().argsort(dim=-1, stable=True)[:, -min(NUM_TRIALS, BLOCK_SIZE) :]
        self.queries, self.asks = take_steps(queries_BHtD, latest_BN), asks_Bt.gather(1, latest_BN)

    def _archive(self) -> None:
        """Moves what came first to the archives, and leaves a block in front of them."""
        surplus = self.keys.shape[2] - 1 - BLOCK_SIZE
        if surplus < BLOCK_SIZE:
            return
        moved = slice(1, 1 + surplus)
        for row, units in enumerate(self.archives):
            is_pair_S = self.visible[row, 0, moved]
            is_trial_N = self.asks[row]
            for head, archive in enumerate(units):
                states = (
                    _for_index(states[row, head, moved][is_pair_S]) for states in (self.keys, self.values)
                )
                archive.add(*states, _for_index(self.queries[row, head, is_trial_N]))
        # Slot 0, the dummy, stays.
        self.keys, self.values, self.visible = (
            torch.cat([states[:, :, :1], states[:, :, 1 + surplus :]], 2)
            for states in (self.keys, self.values, self.visible)
        )

    def store_only(self, query_BHTD: torch.Tensor, recall_BT: torch.Tensor) -> None:
        """Does without answers to the queries of new tokens, none of them padding, to fill a memory fast."""
        self._store(query_BHTD, recall_BT, None)
        self._archive()

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        raise ValueError("a SearchedCache serves no beams: each would need an index of its own")

    batch_repeat_interleave = batch_select_indices = reorder_cache


class SearchedCache(AnsweringCache):
    """Memories without a bound that are searched: of long texts, each token reads only a small part.

    For `generate()` and forward, in place of `DynamicCache`, on a CPU; needs faiss. The most recent pairs are
    read exactly, older ones lie in an archive for each unit. Each unit answers in the cheapest way that is
    good enough on trial: from means of clusters alone, as flat units can; with the nearest pairs exact; or
    exactly. It can neither be cropped nor serve beams, and has no gradients.

    Of the second model, it searches the long-term memory; the short-term memory is read as usual.

    Args:
        config (`MosaicConfig` or `MosaicV2Config`): the model's config.
        num_nearest (`int`): pairs a unit reads exactly.
        num_probes (`int`): clusters that it searches for them, of `2 sqrt(pairs)`.
        min_pairs (`int`): shorter archives are read as a whole.
        tolerance (`float`): error that each unit may make on trial, as a share of the length of values; 0
            reads everything exactly.

    Raises:
        ValueError: for a number below 1, a negative tolerance, another model's config or one without
            long-term memory; later, for beams and for what takes tokens back.
        ImportError: without faiss.

    Example:

    ```python
    >>> from modeling_mosaic import SearchedCache

    >>> outputs = model.generate(**inputs, cache=SearchedCache(model.config))
    ```
    """

    def __init__(
        self,
        config: "MosaicConfig | MosaicV2Config",
        num_nearest: int = 128,
        num_probes: int = 16,
        min_pairs: int = 4096,
        tolerance: float = 0.2,
    ):
        options = {"num_nearest": num_nearest, "num_probes": num_probes, "min_pairs": min_pairs}
        for name, value in options.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
        if not tolerance >= 0:
            raise ValueError(f"tolerance must be at least 0, not {tolerance!r}")
        import_faiss()
        options["tolerance"] = tolerance
        super().__init__(config, lambda: SearchedLayer(config, options))


def _for_index(states: torch.Tensor) -> torch.Tensor:
    """In what form faiss takes them."""
    return states.detach().to("cpu", torch.float32).contiguous()
