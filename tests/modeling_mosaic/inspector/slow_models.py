"""Both models as their equations stand, in float64, which keep what their memories store, answer and add."""

import copy
from dataclasses import dataclass

import torch

from modeling_mosaic.plain_mosaic import PlainMosaic
from modeling_mosaic.plain_mosaic_v2 import PlainMosaicV2


@dataclass
class SlowUnit:
    """A contextual unit of a text of T tokens: what asks, what is asked, and which pairs each query sees."""

    query_TD: torch.Tensor
    key_TD: torch.Tensor
    value_TD: torch.Tensor
    # The part of each target that is known beforehand, at any length.
    known_TD: torch.Tensor
    sees_TT: torch.Tensor
    answer_TD: torch.Tensor
    output_CD: torch.Tensor

    def answer_without(self, query, pair):
        """The answer to a query if a pair had never been stored, by a sum over the others."""
        others = [i for i in range(len(self.sees_TT)) if self.sees_TT[query, i] and i != pair]
        if not others:
            return torch.zeros_like(self.value_TD[0])
        weights = (self.key_TD[others] @ self.query_TD[query]).softmax(0)
        return weights @ self.value_TD[others]


class Recording:
    """What both plain models keep: the states of one row, by names of modules."""

    def __init__(self, model):
        super().__init__(copy.deepcopy(model).double())
        self.kept = {}

    def keep(self, name, states):
        self.kept[name] = states[0]
        return states

    def values(self, x_BTC, name):
        return self.keep(f"{name}.values", super().values(x_BTC, name))

    def linear(self, x_BTC, name):
        return self.keep(f"{name}.output", super().linear(self.keep(f"{name}.input", x_BTC), name))

    @torch.no_grad()
    def run(self, tokens):
        self.logits_TV = self.logits(torch.tensor([tokens]))[0]
        return self

    def added_logits(self, added_TC):
        """What a part of the residual stream adds to each logit, with the last norm's sigma frozen."""
        scale_T1, centred_TC = self.frozen_norm(added_TC)
        states_TC = self.parameters["model.norm.weight"] * centred_TC * scale_T1
        return self.config.logit_scale * states_TC @ self.parameters["lm_head.weight"].T

    def columns(self, name, units):
        """The part of an output projection that belongs to each unit, `(units, hidden, size)`."""
        return self.parameters[f"{name}.weight"].unflatten(1, (units, -1)).transpose(0, 1)

    def known(self, name):
        """The part of each target that its own token makes, `(units, time, size)`."""
        raw_TC, mix_H = self.kept[f"{name}.v_proj.output"], self.parameters[f"{name}.peek_norm.mix"]
        return mix_H[:, None, None] * raw_TC.unflatten(-1, (len(mix_H), -1)).transpose(0, 1)

    def parts(self, layer):
        """Answers and columns of a layer's units, `[(answer, column)]`: contextual ones, persistent ones."""
        contextual = [(unit.answer_TD, unit.output_CD) for unit in self.units(layer)]
        name, units = self.persistent_projection(layer)
        answers = self.kept[f"{name}.input"].unflatten(-1, (units, -1)).unbind(1)
        return contextual, list(zip(answers, self.columns(name, units), strict=True))


class SlowMosaic(Recording, PlainMosaic):
    """The first model."""

    def keys(self, x_BTC, name, num_heads):
        return self.keep(f"{name}.keys", super().keys(x_BTC, name, num_heads))

    def layer_norm(self, x_BTC, name):
        return super().layer_norm(self.keep(f"{name}.input", x_BTC), name)

    def frozen_norm(self, added_TC):
        variance_T1 = self.kept["model.norm.input"].var(-1, unbiased=False, keepdim=True)
        scale_T1 = (variance_T1 + self.config.layer_norm_eps).rsqrt()
        return scale_T1, added_TC - added_TC.mean(-1, keepdim=True)

    def persistent_projection(self, layer):
        return f"model.layers.{layer}.persistent_memory.o_proj", self.config.num_persistent_heads

    def units(self, layer):
        name, units = f"model.layers.{layer}.contextual_memory", self.config.num_attention_heads
        keys, values = (self.kept[f"{name}.{part}"] for part in ("key_extractor.keys", "values"))
        answers = self.kept[f"{name}.o_proj.input"].unflatten(-1, (units, -1)).unbind(1)
        sees = torch.ones(2 * [keys.shape[1]], dtype=torch.bool).tril(-1)
        known, columns = self.known(name), self.columns(f"{name}.o_proj", units)
        rows = zip(keys, values, known, answers, columns, strict=True)
        return [SlowUnit(k, k, v, known, sees, y, column) for k, v, known, y, column in rows]


class SlowMosaicV2(Recording, PlainMosaicV2):
    """The second model."""

    def memory(self, x_BTC, name, is_seen_TT):
        self.kept[f"{name}.sees"] = is_seen_TT
        return self.keep(f"{name}.answers", super().memory(x_BTC, name, is_seen_TT))

    def keys(self, x_BTC, name):
        return self.keep(f"{name}.keys", super().keys(x_BTC, name))

    def rms_norm(self, x_BTC, name):
        return super().rms_norm(self.keep(f"{name}.input", x_BTC), name)

    def frozen_norm(self, added_TC):
        square_T1 = self.kept["model.norm.input"].square().mean(-1, keepdim=True)
        return (square_T1 + self.config.rms_norm_eps).rsqrt(), added_TC

    def persistent_projection(self, layer):
        return f"model.layers.{layer}.persistent_memory.down_proj", 1

    def units(self, layer):
        return [unit for part in ("short", "long") for unit in self.units_of(layer, f"{part}_memory")]

    def units_of(self, layer, part):
        name, units = f"model.layers.{layer}.contextual_memory.{part}", self.config.num_attention_heads
        if f"{name}.keys" not in self.kept:
            return []
        keys, values, sees = (self.kept[f"{name}.{what}"] for what in ("keys", "values", "sees"))
        queries = self.bandwidth(sees.sum(-1), name) * keys
        answers = self.kept[f"{name}.answers"].unflatten(-1, (units, -1)).unbind(1)
        known, columns = self.known(name), self.columns(f"{name}.o_proj", units)
        rows = zip(queries, keys, values, known, answers, columns, strict=True)
        return [SlowUnit(q, k, v, known, sees, y, column) for q, k, v, known, y, column in rows]


def slow(model):
    """The slow form of a model."""
    return {"mosaic": SlowMosaic, "mosaic_v2": SlowMosaicV2}[model.config.model_type](model)
