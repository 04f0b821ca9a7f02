"""The measures that a record holds, with their titles, units and sentences: read by page, docs and tables."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """A measure of a record.

    Attributes:
        name (`str`): its tensor is `measure.NAME`.
        title, unit, description (`str`): for people; the unit is empty for numbers without one.
        shape (`str`): "unit" `(layers, units)`, "token" `(layers, units, time)` or "relation" `(layers, rows,
            units)`; what belongs to query t is at index t, NaN where nothing is observable.
        good (`str`, *optional*): "high" or "low" where one of them is better.
        range (`tuple`, *optional*): least and largest value of a scale of colours; from the data if `None`.
        memory (`str`): "contextual" or "persistent", whose units it is about.
    """

    name: str
    title: str
    unit: str
    description: str
    shape: str
    good: str | None = None
    range: tuple[float, float] | None = None
    memory: str = "contextual"


_TOKEN = (
    Measure(
        "ablation_cost",
        "worth",
        "nats",
        "Loss without the unit (its answer replaced by its mean over the text) minus loss.",
        "token",
        good="high",
    ),
    Measure(
        "error",
        "prediction error",
        "",
        "Distance of the answer from the target, relative to the target: 0 is perfect, 1 no better than "
        "silence.",
        "token",
        good="low",
        range=(0, 2),
    ),
    Measure(
        "cosine",
        "direction",
        "",
        "Cosine of answer and target: the error without the answer's certainty.",
        "token",
        good="high",
        range=(-1, 1),
    ),
    Measure(
        "certainty",
        "certainty",
        "",
        "Length of the answer over that of the stored values: 1 if all recalled values agree.",
        "token",
        range=(0, 1),
    ),
    Measure(
        "expected_error",
        "stated error",
        "",
        "The error that the spread of the recalled values states before the outcome.",
        "token",
        range=(0, 1),
    ),
    Measure(
        "surprise",
        "surprise",
        "",
        "Squared error over the squared stated error: above 1 the outcome was further off than stated.",
        "token",
        good="low",
    ),
    Measure(
        "known_error",
        "error of the known part",
        "",
        "Prediction error of the part of the target that is known before the next token.",
        "token",
        range=(0, 2),
    ),
    Measure(
        "effective_pairs",
        "effective pairs",
        "pairs",
        "Exponential of the entropy of the weights: over how many pairs the unit averages.",
        "token",
    ),
    Measure(
        "participation",
        "participation",
        "pairs",
        "One over the sum of squared weights: over how many pairs the unit averages, small weights left out.",
        "token",
    ),
    Measure(
        "pairs_for_90",
        "pairs for 90%",
        "pairs",
        "The fewest pairs that hold nine tenths of the weight.",
        "token",
    ),
    Measure(
        "age",
        "age",
        "tokens",
        "Mean age of the recalled pairs; 1 is the pair just completed.",
        "token",
    ),
    Measure(
        "newest_mass",
        "on the newest pair",
        "",
        "Weight on the pair just completed (previous-token score).",
        "token",
        range=(0, 1),
    ),
    Measure(
        "mass_2_8",
        "on ages 2 to 8",
        "",
        "Weight on pairs 2 to 8 tokens old.",
        "token",
        range=(0, 1),
    ),
    Measure(
        "mass_9_64",
        "on ages 9 to 64",
        "",
        "Weight on pairs 9 to 64 tokens old.",
        "token",
        range=(0, 1),
    ),
    Measure(
        "mass_65",
        "on ages from 65",
        "",
        "Weight on pairs at least 65 tokens old.",
        "token",
        range=(0, 1),
    ),
    Measure(
        "same_token_mass",
        "on the same token",
        "",
        "Weight on pairs whose key ends in the present token: induction, as a pair holds the outcome "
        "already.",
        "token",
        range=(0, 1),
    ),
    Measure(
        "after_same_token_mass",
        "one after the same token",
        "",
        "Weight on pairs one token after the present token's earlier places: where a transformer's "
        "induction heads look.",
        "token",
        range=(0, 1),
    ),
    Measure(
        "direct_logit",
        "direct logit",
        "logits",
        "What the answer adds by itself to the true next token's logit, above the mean logit.",
        "token",
        good="high",
    ),
    Measure(
        "direct_logit_difference",
        "against the runner-up",
        "logits",
        "What the answer adds to the true next token's logit, minus that of the likeliest other token.",
        "token",
        good="high",
    ),
    Measure(
        "next_token_auc",
        "true next token beats others",
        "",
        "Probability that the target of the true next token is nearer to the answer than that of another "
        "token of the text, drawn by frequency; 0.5 is chance. In deeper layers at some tokens only.",
        "token",
        good="high",
        range=(0, 1),
    ),
    Measure(
        "next_token_rank",
        "rank of the true next token",
        "",
        "Place of the true next token among the whole vocabulary, by the nearness of its target to the "
        "answer; first layer only.",
        "token",
        good="low",
    ),
)

_UNIT = (
    Measure(
        "peek_share",
        "news in the target",
        "",
        "Share of the target that comes from the next token; near 0, what the unit is asked for is known "
        "already.",
        "unit",
        range=(0, 1),
    ),
    Measure(
        "mix",
        "mix c",
        "",
        "The target is c times this token's raw value plus 1 - c times the next one's; not bounded to [0,"
        " 1].",
        "unit",
    ),
    Measure(
        "half_life",
        "half-life of keys",
        "tokens",
        "Tokens after which the leaky average of keys has lost half of a token; at the mean leak of the "
        "text where it differs from token to token.",
        "unit",
    ),
    Measure(
        "key_scale",
        "key length",
        "",
        "Length of keys at the end of the text, or the root of theirs times that of queries: scores "
        "lie between plus and minus its square.",
        "unit",
    ),
    Measure(
        "value_scale",
        "value length",
        "",
        "Length of the stored values.",
        "unit",
    ),
    Measure(
        "skill_over_mean",
        "skill over the mean so far",
        "",
        "1 - squared error over that of the mean of the values that the unit sees; 0 is no better.",
        "unit",
        good="high",
        range=(-1, 1),
    ),
    Measure(
        "skill_over_newest",
        "skill over the newest value",
        "",
        "1 - squared error over that of the newest value that the unit sees.",
        "unit",
        good="high",
        range=(-1, 1),
    ),
    Measure(
        "skill_over_known",
        "skill over the known part",
        "",
        "1 - squared error over that of the part of the target that is known beforehand.",
        "unit",
        good="high",
        range=(-1, 1),
    ),
    Measure(
        "r_squared",
        "R squared",
        "",
        "Skill over the mean of all targets of the text; anomaly correlation squared minus conditional bias.",
        "unit",
        good="high",
        range=(-1, 1),
    ),
    Measure(
        "anomaly_correlation",
        "anomaly correlation",
        "",
        "Correlation of answers and targets, both less the mean target; its square is the skill that "
        "right certainty would give.",
        "unit",
        good="high",
        range=(-1, 1),
    ),
    Measure(
        "conditional_bias",
        "conditional bias",
        "",
        "Skill lost by answers that are too certain or not certain enough.",
        "unit",
        good="low",
        range=(0, 1),
    ),
    Measure(
        "calibration",
        "calibration",
        "",
        "Correlation, over tokens, of the stated error and the error.",
        "unit",
        good="high",
        range=(-1, 1),
    ),
    Measure(
        "context_gain",
        "gain over the context",
        "",
        "Mean error over tokens 400 to 499 minus that over tokens 40 to 49.",
        "unit",
        good="low",
        range=(-1, 1),
    ),
    Measure(
        "logit_share",
        "share of the logit",
        "",
        "Share of the true next token's logit, above the mean logit, that comes from the unit directly.",
        "unit",
        good="high",
    ),
    Measure(
        "predictability",
        "predictable from other units",
        "",
        "Held-out R squared of the unit's targets from those of the layer's other units.",
        "unit",
        good="low",
        range=(0, 1),
    ),
)

_RELATION = (
    Measure(
        "cross_retrieval",
        "retrieval for each other",
        "",
        "Anomaly correlation of a column's targets with what a row's weights make of its values; the last "
        "rows are all units of the column's kind as one memory, and uniform weights.",
        "relation",
        good="high",
        range=(-1, 1),
    ),
    Measure(
        "target_cka",
        "dependence of targets",
        "",
        "Linear CKA of two units' targets.",
        "relation",
        good="low",
        range=(0, 1),
    ),
    Measure(
        "residual_cka",
        "dependence of errors",
        "",
        "Linear CKA of two units' errors as vectors: do they miss alike?",
        "relation",
        good="low",
        range=(0, 1),
    ),
    Measure(
        "error_correlation",
        "correlation of errors",
        "",
        "Correlation, over tokens, of two units' errors: do they fail together?",
        "relation",
        range=(-1, 1),
    ),
)

_PERSISTENT = (
    Measure(
        "persistent_ablation_cost",
        "worth",
        "nats",
        "Loss without the persistent unit (its answer replaced by its mean over the text) minus loss.",
        "token",
        good="high",
        memory="persistent",
    ),
    Measure(
        "persistent_direct_logit",
        "direct logit",
        "logits",
        "What the answer adds by itself to the true next token's logit, above the mean logit.",
        "token",
        good="high",
        memory="persistent",
    ),
    Measure(
        "persistent_effective_slots",
        "effective slots",
        "slots",
        "Exponential of the entropy of the weights of the trained pairs.",
        "token",
        memory="persistent",
    ),
    Measure(
        "persistent_logit_share",
        "share of the logit",
        "",
        "Share of the true next token's logit, above the mean logit, that comes from the unit directly.",
        "unit",
        good="high",
        memory="persistent",
    ),
    Measure(
        "persistent_dead_slots",
        "dead slots",
        "",
        "Share of the trained pairs used less than a tenth of the average.",
        "unit",
        good="low",
        range=(0, 1),
        memory="persistent",
    ),
)

MEASURES = {measure.name: measure for measure in (*_TOKEN, *_UNIT, *_RELATION, *_PERSISTENT)}

# Those that tell trained units from untrained ones come first; the prediction error stands beside what a
# trivial predictor would do and beside the share of the target that was unknown at all.
LEADING = (
    "ablation_cost",
    "next_token_auc",
    "next_token_rank",
    "logit_share",
    "error",
    "skill_over_mean",
    "skill_over_newest",
    "skill_over_known",
    "peek_share",
)
