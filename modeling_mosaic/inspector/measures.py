"""Measures of memories, as functions on tensors: errors, skill, certainty, weights, shares, expectations.

A unit's target is the value that its query will be stored with: `v_T = alpha Norm(c u_T + (1 - c) u_{T+1})`
with `u = W_psi x` (arXiv 2405.06394, equation 7). Its prediction is the answer `y_T = sum_{i<T} w_i v_i`
(equation 8). So what a unit predicts can be seen one token later, and each pair's part in it is exact.

Shapes: T queries, S pairs, D head size, K candidate tokens; leading dimensions, of units and layers, pass
through. All sequences hold observable queries only: not the first ones, whose memory is empty, and not the
last one, whose target is not there yet. Errors are relative to the length of the target, so that they lie in
[0, 2]; losses are in nats; ages in tokens.
"""

import torch
from torch.nn import functional as F


def relative_error(answer_TD: torch.Tensor, target_TD: torch.Tensor) -> torch.Tensor:
    """`|y - v| / |v|`, `(..., time)`, in [0, 2] since answers average vectors as long as the target."""
    return (answer_TD - target_TD).norm(dim=-1) / target_TD.norm(dim=-1)


def cosine(answer_TD: torch.Tensor, target_TD: torch.Tensor) -> torch.Tensor:
    """`y . v / (|y| |v|)`, `(..., time)`: the direction of the error without its certainty."""
    return F.cosine_similarity(answer_TD, target_TD, dim=-1)


def peek_share(raw_TD: torch.Tensor, next_TD: torch.Tensor, mix_1: torch.Tensor) -> torch.Tensor:
    """`|(1-c) u_{T+1}|^2 / (|c u_T|^2 + |(1-c) u_{T+1}|^2)`, `(..., time)`: how much of a target is news.

    Without it no error can be read: a target that is known beforehand is no prediction.
    """
    known_T, news_T = (mix_1 * raw_TD).square().sum(-1), ((1 - mix_1) * next_TD).square().sum(-1)
    return news_T / (known_T + news_T)


# Skill: comparison with what needs no memory (Murphy 1988, mean-square-error skill scores).


def squared_distance(states_TD: torch.Tensor, others_TD: torch.Tensor) -> torch.Tensor:
    """The sum of squared differences over all queries, `(...)`."""
    return (states_TD - others_TD).square().sum((-1, -2))


def skill(answer_TD: torch.Tensor, target_TD: torch.Tensor, reference_TD: torch.Tensor) -> torch.Tensor:
    """`1 - sum |v - y|^2 / sum |v - r|^2`, `(...)`: 1 is perfect, 0 no better than the reference r."""
    return 1 - squared_distance(answer_TD, target_TD) / squared_distance(reference_TD, target_TD)


def mean_of_stored(values_TD: torch.Tensor, youngest: int = 1, oldest: int | None = None) -> torch.Tensor:
    """The mean of the values that each query sees, `(..., time - youngest, head_dim)`.

    It is what uniform weights on pairs of the ages `youngest` to `oldest` answer; row t - `youngest` is for
    query t. Forecasters call it climatology.
    """
    num_queries = max(values_TD.shape[-2] - youngest, 0)
    sum_TD = values_TD.cumsum(-2)[..., :num_queries, :]
    count_T1 = torch.arange(1, num_queries + 1, device=values_TD.device)[:, None]
    if oldest is not None:
        size = oldest - youngest + 1
        sum_TD = torch.cat([sum_TD[..., :size, :], sum_TD[..., size:, :] - sum_TD[..., :-size, :]], -2)
        count_T1 = count_T1.clamp(max=size)
    return sum_TD / count_T1


def known_part(raw_TD: torch.Tensor, mix_1: torch.Tensor, scale_1: torch.Tensor) -> torch.Tensor:
    """`alpha Norm(c u_T)`: what is certain of a target before the next token is there."""
    return scale_1 * F.normalize(mix_1 * raw_TD, dim=-1)


def anomaly_correlation(answer_TD: torch.Tensor, target_TD: torch.Tensor) -> torch.Tensor:
    """`sum (y-m).(v-m) / sqrt(sum |y-m|^2 sum |v-m|^2)`, `(...)`, m the mean target; uncentred."""
    mean_1D = target_TD.mean(-2, keepdim=True)
    answer_TD, target_TD = answer_TD - mean_1D, target_TD - mean_1D
    product = (answer_TD * target_TD).sum((-1, -2))
    return product / (answer_TD.square().sum((-1, -2)) * target_TD.square().sum((-1, -2))).sqrt()


def conditional_bias(answer_TD: torch.Tensor, target_TD: torch.Tensor) -> torch.Tensor:
    """`(ACC - s)^2` with `s = sqrt(sum |y-m|^2 / sum |v-m|^2)`, `(...)`: what over-confidence costs.

    Exactly `R^2 = ACC^2 - (ACC - s)^2`, the skill over the mean target m (Murphy & Epstein 1989).
    """
    mean_1D = target_TD.mean(-2, keepdim=True)
    spread = squared_distance(answer_TD, mean_1D) / squared_distance(target_TD, mean_1D)
    return (anomaly_correlation(answer_TD, target_TD) - spread.sqrt()).square()


def r_squared(answer_TD: torch.Tensor, target_TD: torch.Tensor) -> torch.Tensor:
    """Skill over the mean of all targets, `(...)`, which no memory knows beforehand."""
    return skill(answer_TD, target_TD, target_TD.mean(-2, keepdim=True))


# Certainty beforehand: exact, because stored values are equally long.


def certainty(answer_TD: torch.Tensor, scale_1: torch.Tensor) -> torch.Tensor:
    """`R = |y| / alpha`, `(..., time)`: the mean resultant length of directional statistics, in [0, 1]."""
    return answer_TD.norm(dim=-1) / scale_1[..., 0]


def expected_error(certainty_T: torch.Tensor) -> torch.Tensor:
    """`sqrt(1 - R^2)`, `(..., time)`: the root mean square relative error that the unit states beforehand.

    Were the target drawn from the stored values with their weights, `E |v - y|^2 = alpha^2 (1 - R^2)`.
    """
    return (1 - certainty_T.square()).clamp(min=0).sqrt()


def surprise(error_T: torch.Tensor, certainty_T: torch.Tensor) -> torch.Tensor:
    """`|v - y|^2 / (alpha^2 (1 - R^2))`, `(..., time)`: above 1 the error was larger than stated.

    NaN where a single pair answers, so that no error is stated.
    """
    stated_T = expected_error(certainty_T)
    return (error_T / stated_T).square().masked_fill(stated_T < 1e-3, torch.nan)


def correlation(first_T: torch.Tensor, second_T: torch.Tensor) -> torch.Tensor:
    """Pearson's correlation along the last dimension, `(...)`; of stated and seen errors: calibration."""
    first_T, second_T = (states - states.mean(-1, keepdim=True) for states in (first_T, second_T))
    return F.cosine_similarity(first_T, second_T, dim=-1)


def context_gain(values_T: torch.Tensor, early=(40, 50), late=(400, 500)) -> torch.Tensor:
    """Mean over `late` queries minus mean over `early` ones, `(...)`; NaN if the text is shorter.

    After the in-context learning score of Olsson et al. 2022, there of the loss. `values_T` has all queries.
    """
    if values_T.shape[-1] < late[1]:
        return values_T.new_full(values_T.shape[:-1], torch.nan)
    return values_T[..., slice(*late)].mean(-1) - values_T[..., slice(*early)].mean(-1)


# Weights: how many pairs, how old, which. Rows sum to 1, or are 0 where the memory is empty (then: NaN).


def entropy(weights_TS: torch.Tensor) -> torch.Tensor:
    """`-sum_i w_i ln w_i` in nats, `(..., time)`."""
    return torch.special.entr(weights_TS).sum(-1)


def effective_pairs(weights_TS: torch.Tensor) -> torch.Tensor:
    """`exp(-sum_i w_i ln w_i)`, `(..., time)`: the Hill number of order 1, or perplexity of the weights."""
    return nan_if_empty(entropy(weights_TS).exp(), weights_TS)


def participation(weights_TS: torch.Tensor) -> torch.Tensor:
    """`1 / sum_i w_i^2`, `(..., time)`: the participation ratio, the Hill number of order 2."""
    return nan_if_empty(1 / weights_TS.square().sum(-1), weights_TS)


def pairs_for(weights_TS: torch.Tensor, mass: float) -> torch.Tensor:
    """The fewest pairs that hold `mass` of the weight, `(..., time)` (Ramsauer et al. 2020: its size)."""
    descending_TS = weights_TS.sort(dim=-1, descending=True).values
    return nan_if_empty(1.0 + (descending_TS.cumsum(-1) < mass).sum(-1), weights_TS)


def mean_age(weights_TS: torch.Tensor, first_query: int = 0) -> torch.Tensor:
    """`sum_i w_i (T - i)` in tokens, `(..., time)`: 1 for the newest pair, the one just completed."""
    age_TS = ages(weights_TS, first_query).to(weights_TS.dtype)
    return nan_if_empty((weights_TS * age_TS).sum(-1), weights_TS)


def mass_at_ages(weights_TS: torch.Tensor, youngest: int, oldest: int, first_query: int = 0) -> torch.Tensor:
    """Weight on pairs between two ages, both included, `(..., time)`; at age 1, the previous-token score."""
    age_TS = ages(weights_TS, first_query)
    return mass_on(weights_TS, (age_TS >= youngest) & (age_TS <= oldest))


def mass_on(weights_TS: torch.Tensor, pattern_TS: torch.Tensor) -> torch.Tensor:
    """Weight on the pairs that a 0/1 pattern marks, `(..., time)`; the mean is `sum(A o P) / sum(A)`."""
    return nan_if_empty((weights_TS * pattern_TS).sum(-1), weights_TS)


def same_token(token_ids_T: torch.Tensor, first_query: int, last_query: int, offset: int = 0) -> torch.Tensor:
    """Marks pairs i with `x_{i - offset} = x_T` of queries `first_query` to `last_query`, `(time, pairs)`.

    With offset 0 this is induction in a mosaic: pair i holds the outcome i + 1 of the same context already,
    where a transformer has to look one token after it (offset 1).
    """
    key_S = token_ids_T[:last_query]
    if offset:
        key_S = F.pad(key_S, (offset, 0), value=-1)[:last_query]
    return key_S == token_ids_T[first_query:last_query, None]


def ages(weights_TS: torch.Tensor, first_query: int) -> torch.Tensor:
    """`T - i` of all queries and pairs, `(time, pairs)`; row 0 is query `first_query`."""
    time, pairs = weights_TS.shape[-2:]
    step_T = torch.arange(first_query, first_query + time, device=weights_TS.device)
    return step_T[:, None] - torch.arange(pairs, device=weights_TS.device)


def nan_if_empty(values_T: torch.Tensor, weights_TS: torch.Tensor) -> torch.Tensor:
    """NaN for queries without a pair."""
    return values_T.masked_fill(weights_TS.sum(-1) == 0, torch.nan)


def half_life(leak_per_token: torch.Tensor) -> torch.Tensor:
    """`ln 2 / r`, in tokens, of a leaky average that loses r nats a token."""
    return torch.log(torch.tensor(2.0)) / leak_per_token


# Contributions of a pair.


def shares_of_answer(weights_TS: torch.Tensor, values_SD: torch.Tensor) -> torch.Tensor:
    """`w_i v_i . y / |y|^2`, `(..., time, pairs)`, whose sum over pairs is 1 (arXiv 2606.07604)."""
    answer_TD = weights_TS @ values_SD
    return weights_TS * (answer_TD @ values_SD.mT) / answer_TD.square().sum(-1, keepdim=True)


def leave_one_out(weights_TS: torch.Tensor, values_SD: torch.Tensor) -> torch.Tensor:
    """`y^{-i} = (y - w_i v_i) / (1 - w_i)`, `(..., time, pairs, head_dim)`: answers without pair i.

    Exact, as weights are normalised products; the first of the four deletions of a pair. It is summed over
    the other pairs, as the difference would lose its digits where `w_i` is near 1, and 0 where there is none.
    """
    pairs = weights_TS.shape[-1]
    is_other_SS = ~torch.eye(pairs, dtype=torch.bool, device=weights_TS.device)
    others_TSS = weights_TS[..., None, :] * is_other_SS
    rest_TS1 = others_TSS.sum(-1, keepdim=True)
    return (others_TSS / rest_TS1.masked_fill(rest_TS1 == 0, 1)) @ values_SD.unsqueeze(-3)


def distance_without(scores_TS: torch.Tensor, values_SD: torch.Tensor) -> torch.Tensor:
    """`|y^{-i} - y| = w_i / (1 - w_i) |y - v_i|`, `(..., time, pairs)`: what leaving out pair i moves.

    Needs no vector per query and pair. Where one pair has nearly all weight the difference would lose its
    digits: without its heaviest pair an answer is summed over the others, and 0 where there are none.
    """
    weights_TS = scores_TS.softmax(-1)
    answer_TD = weights_TS @ values_SD
    distance_TS = answer_TD.square().sum(-1, keepdim=True) - 2 * answer_TD @ values_SD.mT
    distance_TS = (distance_TS + values_SD.square().sum(-1)[..., None, :]).clamp(min=0).sqrt()
    heaviest_T1 = scores_TS.argmax(-1, keepdim=True)
    others_TS = scores_TS.scatter(-1, heaviest_T1, -torch.inf).softmax(-1).nan_to_num(0)
    moved_T1 = (others_TS @ values_SD - answer_TD).norm(dim=-1, keepdim=True)
    odds_TS = weights_TS / (1 - weights_TS).clamp(min=torch.finfo(weights_TS.dtype).tiny)
    return (odds_TS * distance_TS).scatter(-1, heaviest_T1, moved_T1)


def add_pair(
    answer_TD: torch.Tensor, log_normaliser_T: torch.Tensor, query_TD: torch.Tensor, key_D, value_D
) -> torch.Tensor:
    """`y^+ = (y + q v) / (1 + q)`, `q = exp(k_T . k - log_normaliser)`: answers with a pair more."""
    gain_T1 = torch.sigmoid((query_TD * key_D).sum(-1) - log_normaliser_T)[..., None]
    return torch.lerp(answer_TD, value_D.expand_as(answer_TD), gain_T1)


# Logits and expectations.


def direct_logit(answer_TD: torch.Tensor, readout_TD: torch.Tensor, scale_T: torch.Tensor) -> torch.Tensor:
    """`r . y / sigma`, `(..., time)`: what an answer adds to a logit, with the last norm's sigma frozen.

    `r = W_o^T r_b`, `r_b = logit_scale (gamma o W_b)`, centred. The sum over all units and the embedding is
    the logit: direct effects only, without what later layers make of them.
    """
    return (answer_TD * readout_TD).sum(-1) * scale_T


def candidate_scores(
    answer_TD: torch.Tensor, raw_TD: torch.Tensor, candidate_KD: torch.Tensor, mix: torch.Tensor
) -> torch.Tensor:
    """`cos(y, v(b))`, `(..., time, candidates)`, with the target `v(b)` that each next token b would make.

    `v(b) = alpha Norm(c u_T + (1 - c) u(b))`. Needs no vector per query and candidate: `v(b)` is a sum.
    """
    news_KD = (1 - mix) * candidate_KD
    known_TD = mix * raw_TD
    length_TK = known_TD.square().sum(-1, keepdim=True) + news_KD.square().sum(-1)[..., None, :]
    length_TK = (length_TK + 2 * known_TD @ news_KD.mT).clamp(min=1e-20).sqrt()
    answer_TD = F.normalize(answer_TD, dim=-1)
    return ((answer_TD * known_TD).sum(-1, keepdim=True) + answer_TD @ news_KD.mT) / length_TK


def auc_of(scores_TK: torch.Tensor, actual_T: torch.Tensor, frequency_K: torch.Tensor) -> torch.Tensor:
    """Probability that the actual candidate scores above another, drawn by frequency, `(..., time)`.

    Ties count half; 0.5 is chance. Scale-free, so that over-confidence does not hurt it.
    """
    index_T1 = actual_T.expand(scores_TK.shape[:-1])[..., None]
    own_T1 = scores_TK.gather(-1, index_T1)
    below_TK = (scores_TK < own_T1).to(scores_TK.dtype) + 0.5 * (scores_TK == own_T1)
    weight_TK = frequency_K.expand_as(scores_TK).scatter(-1, index_T1, 0)
    return (below_TK * weight_TK).sum(-1) / weight_TK.sum(-1)
