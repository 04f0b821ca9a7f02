"""Memories as lists of pairs: the slow implementation that `MosaicMemory` must equal, for both models.

Everything is computed token by token and pair by pair from the equations, with the parameters of a model.
"""

from dataclasses import dataclass, field, replace

import torch
from torch.nn import functional as F

from modeling_mosaic.plain_mosaic import GAIN, PlainMosaic
from modeling_mosaic.plain_mosaic_v2 import PlainMosaicV2


@dataclass
class Pair:
    """A pair of all layers: keys and values `(heads, head_dim)` by layer and memory, its two tokens as
    `(text, number)`, how many tokens ago the first of them was read, or `None` if its text is over, and
    whether it is more than a pair of a short-term memory."""

    keys: dict
    values: dict
    own: tuple
    following: tuple | None = None
    age: int | None = 0
    is_lasting: bool = True


@dataclass
class ListMemory:
    """Pairs that are complete, and, once a token was read, the states after it: averages by layer and memory,
    and the pair that the next token completes, with raw values."""

    pairs: list = field(default_factory=list)
    averages: dict = field(default_factory=dict)
    pending: Pair | None = None

    def ended(self):
        """What is left of the pairs when the text is over."""
        return [replace(pair, age=None) for pair in self.pairs if pair.is_lasting]


class ListMosaic:
    """Reads tokens into a `ListMemory`; the first model, whose queries see all pairs."""

    plain_class = PlainMosaic

    def __init__(self, model):
        self.plain = self.plain_class(model)
        self.config = model.config

    def read(self, ids, text, after=None):
        memory = after or ListMemory()
        for number, token in enumerate(ids):
            memory, _ = self.step(memory, token, (text, number))
        return memory

    def logits(self, memory, ids):
        rows = []
        for number, token in enumerate(ids):
            memory, logits = self.step(memory, token, (None, number))
            rows.append(logits)
        return torch.stack(rows)

    def begin(self, memory, token):
        """Ends the text: what comes next begins with `token`, read with no pairs at all."""
        begun, _ = self.step(ListMemory(), token, ("beginning", 0))
        return replace(begun, pairs=memory.ended())

    def step(self, memory, token, place):
        x_11C = self.plain.parameters["model.embed_tokens.weight"][token][None, None]
        after = ListMemory(
            [pair if pair.age is None else replace(pair, age=pair.age + 1) for pair in memory.pairs],
            pending=Pair({}, {}, place),
        )
        if memory.pending:
            after.pairs.append(replace(memory.pending, following=place, values={}, age=1))
        for layer in range(self.config.num_hidden_layers):
            x_11C = self.layer(x_11C, layer, memory, after)
        return after, self.plain.linear(self.config.logit_scale * self.norm(x_11C, "model.norm"), "lm_head")[
            0, 0
        ]

    def recall(self, h_11C, layer, name, memory, after):
        """The answer of a layer's contextual memories `name` to the new token, `(1, 1, hidden)`."""
        place, num_heads = (layer, name), self.config.num_attention_heads
        path = f"model.layers.{layer}.{name}"
        key_HD, after.averages[place] = self.key(h_11C, path, memory.averages.get(place, 0), num_heads)
        raw_HD = self.plain.heads(h_11C, f"{path}.v_proj", *self.heads)[0, :, 0]
        if memory.pending:
            mix_H1 = self.plain.scalars(f"{path}.peek_norm.mix").view(-1, 1)
            mixed_HD = mix_H1 * memory.pending.values[place] + (1 - mix_H1) * raw_HD
            after.pairs[-1].values[place] = self.value_scale(path) * F.normalize(mixed_HD, dim=-1)
        after.pending.keys[place], after.pending.values[place] = key_HD, raw_HD
        seen = [pair for pair in after.pairs if self.sees(name, pair)]
        if not seen:
            return torch.zeros_like(h_11C)
        scores_PH = torch.stack([(pair.keys[place] * key_HD).sum(-1) for pair in seen])
        weights_PH = (self.bandwidth(len(seen), path) * scores_PH).softmax(0)
        answer_HD = sum(w_H[:, None] * pair.values[place] for w_H, pair in zip(weights_PH, seen, strict=True))
        return self.plain.linear(answer_HD.flatten()[None, None], f"{path}.o_proj")

    # What follows is different in the second model.

    @property
    def heads(self):
        return (self.config.num_attention_heads,)

    def norm(self, x_11C, name):
        return self.plain.layer_norm(x_11C, name)

    def sees(self, name, pair):
        return pair.is_lasting

    def bandwidth(self, num_pairs, path):
        return 1

    def value_scale(self, path):
        return (GAIN * self.plain.scalars(f"{path}.peek_norm.log_scale")).exp().view(-1, 1)

    def layer(self, x_11C, layer, memory, after):
        h_11C = self.norm(x_11C, f"model.layers.{layer}.contextual_norm")
        x_11C = x_11C + self.recall(h_11C, layer, "contextual_memory", memory, after)
        place = (layer, "persistent_memory")
        added_11C, after.averages[place] = self.persistent(x_11C, layer, memory.averages.get(place, 0))
        return x_11C + added_11C

    def key(self, h_11C, path, average_HD, num_heads):
        path = f"{path}.key_extractor"
        raw_HD = self.plain.heads(h_11C, f"{path}.k_proj", num_heads)[0, :, 0]
        decay_H1 = (-GAIN * self.plain.scalars(f"{path}.leaky_norm.leak")[:, :, 0].abs()).exp()
        average_HD = raw_HD + decay_H1 * average_HD
        return self.plain.key_scale(path)[:, :, 0] * F.normalize(average_HD, dim=-1), average_HD

    def persistent(self, x_11C, layer, average_HD):
        plain, path = self.plain, f"model.layers.{layer}.persistent_memory"
        h_11C = self.norm(x_11C, f"model.layers.{layer}.persistent_norm")
        key_HD, average_HD = self.key(h_11C, path, average_HD, self.config.num_persistent_heads)
        query_NH1D = (plain.key_scale(f"{path}.key_extractor")[:, :, 0] * key_HD)[None, :, None]
        weights_NH1M = (query_NH1D @ plain.parameters[f"{path}.memory_keys"].mT).softmax(-1)
        answer_HD = (weights_NH1M @ plain.parameters[f"{path}.memory_values"]).mean(0)[:, 0]
        scale_H1 = (GAIN * plain.scalars(f"{path}.log_value_norm")[:, :, 0]).exp()
        return plain.linear((scale_H1 * answer_HD).flatten()[None, None], f"{path}.o_proj"), average_HD


class ListMosaicV2(ListMosaic):
    """The second model. Its short-term memory sees the latest pairs of the text; its long-term memory those
    of texts that are over, and those of this text that are old enough. n is how many that are."""

    plain_class, heads = PlainMosaicV2, ()

    def norm(self, x_11C, name):
        return self.plain.rms_norm(x_11C, name)

    def sees(self, name, pair):
        if name == "contextual_memory.short_memory":
            return pair.age is not None and pair.age <= self.config.short_memory_size
        return pair.is_lasting and (pair.age is None or pair.age >= self.config.long_memory_delay)

    def bandwidth(self, num_pairs, path):
        return self.plain.bandwidth(torch.tensor([num_pairs]), path).flatten()

    def value_scale(self, path):
        return self.plain.scalars(f"{path}.peek_norm.log_scale").clamp(max=15).exp().view(-1, 1)

    def layer(self, x_11C, layer, memory, after):
        h_11C = self.norm(x_11C, f"model.layers.{layer}.contextual_norm")
        for name in ("short_memory", "long_memory"):
            x_11C = x_11C + self.recall(h_11C, layer, f"contextual_memory.{name}", memory, after)
        h_11C = self.norm(x_11C, f"model.layers.{layer}.persistent_norm")
        return x_11C + self.plain.persistent_memory(h_11C, f"model.layers.{layer}.persistent_memory")

    def key(self, h_11C, path, average_HD, num_heads):
        gain_H1 = self.plain.linear(h_11C, f"{path}.gain_proj").exp().view(-1, 1)
        decay_H1 = (-self.plain.linear(h_11C, f"{path}.leak_proj").abs()).exp().view(-1, 1)
        average_HD = gain_H1 * self.plain.heads(h_11C, f"{path}.k_proj")[0, :, 0] + decay_H1 * average_HD
        return F.normalize(average_HD, dim=-1), average_HD


LISTS = {"mosaic": ListMosaic, "mosaic_v2": ListMosaicV2}
