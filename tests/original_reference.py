"""The three original implementations of Memory Mosaics, written slowly from their equations: a test oracle.

Everything here is float64, uncached and without dropout, and shares no code with `modeling_mosaic`: averages
are summed one token at a time, and every query meets its memory alone. Shape letters: B batch, T tokens, C
width, H heads, D = C / H.
"""

import math

import torch

KINDS = ("regular", "eft", "nano")
FP16_LOG_MAX = math.log(65535)


def layer_norm(x, weight, bias):
    """Layer norm over the last axis, epsilon 1e-5, with an optional bias."""
    centred = x - x.mean(-1, keepdim=True)
    normed = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * weight
    return normed if bias is None else normed + bias


def split_heads(x_BTC, heads):
    return x_BTC.unflatten(-1, (heads, -1)).transpose(1, 2)


def leaky_average(kind, keys_BHTD, leak_H):
    """The leaky average of each kind: scaled by 1 - lambda, divided by the weights, or the plain sum."""
    fade = torch.exp(-(10 * leak_H).abs()).view(1, -1, 1)
    total, weight, averages = 0, 0, []
    for t in range(keys_BHTD.shape[2]):
        total = fade * total + keys_BHTD[:, :, t]
        weight = fade * weight + 1
        averages.append({"regular": (1 - fade) * total, "eft": total / weight, "nano": total}[kind])
    return torch.stack(averages, 2)


def unit(kind, x_BHTD):
    """Vectors of length 1; nano alone adds something to the length."""
    return x_BHTD / (x_BHTD.norm(dim=-1, keepdim=True) + (1e-10 if kind == "nano" else 0))


class Reader:
    """A state dict in float64, read by block and name, without compile's prefix."""

    def __init__(self, state_dict):
        self.tensors = {key.removeprefix("_orig_mod."): value for key, value in state_dict.items()}
        self.prefix = ""

    def get(self, name):
        tensor = self.tensors.get(self.prefix + name)
        return None if tensor is None else tensor.double()

    def scalars(self, name):
        return self.get(name).flatten()

    def project(self, name, x_BTC):
        weight, bias = self.get(name + ".weight"), self.get(name + ".bias")
        y = x_BTC @ weight.reshape(weight.shape[0], weight.shape[1]).T
        return y if bias is None else y + bias

    def norm(self, name, x_BTC):
        return layer_norm(x_BTC, self.get(name + ".weight"), self.get(name + ".bias"))


def unit_average(kind, reader, name, x_BTC, heads):
    """Projects, averages and normalises the keys of unit `name` ("attn", "pmem" or "mlp")."""
    projection, leak = {
        "regular": ("k_featurizer.conv", "leaky_key_beta"),
        "eft": ("leaky_average.linear", "leaky_average.leaky_beta_w_under"),
        "nano": ("k_featurizer.W_k", "k_featurizer.leaky_avg.leaky_key_beta"),
    }[kind]
    keys_BHTD = split_heads(reader.project(f"{name}.{projection}", x_BTC), heads)
    average = leaky_average(kind, keys_BHTD, reader.scalars(f"{name}.{leak}"))
    return unit(kind, average)


def contextual(kind, reader, x_BTC, heads, clamp):
    """The contextual memory: row t recalls values of the tokens before it, and the first row nothing."""
    scale = reader.scalars("attn.k_featurizer.key_scale" if kind == "nano" else "attn.kernel_beta")
    keys = unit_average(kind, reader, "attn", x_BTC, heads) * (10 * scale).clamp(max=clamp).exp().view(
        1, -1, 1, 1
    )

    raw = split_heads(
        reader.project("attn.v_featurizer." + ("W_v" if kind == "nano" else "linear"), x_BTC), heads
    )
    peeked = torch.cat((raw[:, :, 1:], torch.zeros_like(raw[:, :, :1])), 2)
    mix = reader.scalars("attn.v_featurizer.coef").view(1, -1, 1, 1)
    values = mix * raw + (1 - mix) * peeked
    values = unit(kind, values)
    value_scale = reader.scalars("attn.v_featurizer.val_scale" if kind == "nano" else "attn.value_beta")
    values = values * (10 * value_scale).exp().view(1, -1, 1, 1)

    answers = [torch.zeros_like(values[:, :, 0])]
    for t in range(1, keys.shape[2]):
        weights = torch.softmax((keys[:, :, :t] * keys[:, :, t : t + 1]).sum(-1), -1)
        answers.append((weights.unsqueeze(-1) * values[:, :, :t]).sum(2))
    return reader.project("attn.c_proj", torch.stack(answers, 2).transpose(1, 2).flatten(2))


def persistent(kind, reader, x_BTC, heads, clamp):
    """The persistent memory: the mean over banks of what their raw keys and values answer."""
    if kind == "nano":
        scale = (20 * reader.scalars("mlp.k_featurizer.key_scale")).clamp(max=clamp).exp()
        banks = zip(reader.get("mlp.P_k"), reader.get("mlp.P_v"), strict=True)
        name, output_scale = "mlp", "mlp.out_scale"
    else:
        scale = (10 * reader.scalars("pmem.kernel_beta")).clamp(max=clamp).exp() ** 2
        names = [key for key in reader.tensors if key.startswith(reader.prefix + "pmem.pmem.M_k")]
        banks = [
            (reader.get(f"pmem.pmem.M_k{i}"), reader.get(f"pmem.pmem.M_v{i}")) for i in range(len(names))
        ]
        name, output_scale = "pmem", "pmem.value_beta"
    queries = unit_average(kind, reader, name, x_BTC, heads) * scale.view(1, -1, 1, 1)
    answers = [torch.softmax(queries @ keys.transpose(-1, -2), -1) @ values for keys, values in banks]
    answer = sum(answers) / len(answers) * (10 * reader.scalars(output_scale)).exp().view(1, -1, 1, 1)
    return reader.project(f"{name}.c_proj", answer.transpose(1, 2).flatten(2))


def reference_logits(state_dict, config, input_ids):
    """Logits of an original checkpoint, in float64.

    Args:
        state_dict (`dict[str, torch.Tensor]`): the checkpoint, of any of the three kinds.
        config (`dict`): its `n_head`, `n_layer` and `n_embd`; `key_scale_max` for another clamp than nano's.
        input_ids (`torch.Tensor` of shape `(batch, time)`): token ids.

    Returns:
        `torch.Tensor` of shape `(batch, time, vocabulary)`.
    """
    reader = Reader(state_dict)
    nano = "mosaic.wte.weight" in reader.tensors
    kind = "nano" if nano else "eft" if any("leaky_average" in key for key in reader.tensors) else "regular"
    clamp = config.get("key_scale_max", FP16_LOG_MAX) if nano else 5.0
    heads = config["n_head"]
    x = reader.get("mosaic.wte.weight" if nano else "emb.weight")[input_ids]
    for layer in range(config["n_layer"]):
        reader.prefix = f"mosaic.h.{layer}." if nano else f"blocks.{layer}."
        x = x + contextual(kind, reader, reader.norm("ln_1" if nano else "ln1", x), heads, clamp)
        x = x + persistent(kind, reader, reader.norm("ln_2" if nano else "ln2", x), heads, clamp)
    reader.prefix = ""
    x = reader.norm("mosaic.ln_f" if nano else "ln_out", x)
    return (
        x @ reader.get("lm_head.weight").T
        if nano
        else x @ reader.get("head.weight").T / math.sqrt(config["n_embd"])
    )


class RandomTensors(dict):
    """The tensors of a random checkpoint; `linear`, `norm` and `scalar` add one under a name."""

    def __init__(self, kind, heads, width, bias, clamped):
        super().__init__()
        self.width = width
        self.bias = bias
        self.scalar_shape = (1, heads, 1, 1) if kind == "nano" else (heads,)
        # The stored scales are clamped at 0.5, or at 1.1 in nano, and at 0.55 in its persistent memories.
        self.largest_key_scale = (1.4 if kind == "nano" else 0.9) if clamped else None

    def linear(self, name, *, convolution=False):
        weight = torch.randn(self.width, self.width) / math.sqrt(self.width)
        self.with_bias(name, weight.unsqueeze(-1) if convolution else weight)

    def norm(self, name):
        self.with_bias(name, 1 + 0.3 * torch.randn(self.width))

    def with_bias(self, name, weight):
        self[name + ".weight"] = weight
        if self.bias:
            self[name + ".bias"] = 0.3 * torch.randn(self.width)

    def scalar(self, name, low, high):
        self[name] = torch.empty(self.scalar_shape).uniform_(low, high)

    def key_scale(self, name):
        self.scalar(name, -0.1, 0.25)
        if self.largest_key_scale:
            self[name].flatten()[0] = self.largest_key_scale * (0.85 + 0.15 * torch.rand(()))

    def add_library_unit(self, kind, at):
        self.linear(f"{at}.c_proj")
        self.key_scale(f"{at}.kernel_beta")
        self.scalar(f"{at}.value_beta", -0.2, 0.1)
        if kind == "regular":
            self.linear(f"{at}.k_featurizer.conv", convolution=True)
            self.scalar(f"{at}.leaky_key_beta", -0.6, 0.6)
        else:
            self.linear(f"{at}.leaky_average.linear")
            self.scalar(f"{at}.leaky_average.leaky_beta_w_under", -0.6, 0.6)
            self[f"{at}.leaky_average.leaky_beta_u_under"] = self[f"{at}.leaky_average.leaky_beta_w_under"]

    def add_nano_unit(self, at, block_size):
        steps = torch.arange(block_size)
        self.linear(f"{at}.c_proj")
        self.linear(f"{at}.k_featurizer.W_k")
        self.key_scale(f"{at}.k_featurizer.key_scale")
        self.scalar(f"{at}.k_featurizer.leaky_avg.leaky_key_beta", -0.6, 0.6)
        self[f"{at}.k_featurizer.leaky_avg.coef"] = (steps - steps[:, None]).tril().float()


def random_checkpoint(
    kind,
    *,
    heads=4,
    layers=2,
    width=32,
    banks=1,
    slots=24,
    vocab=61,
    block_size=20,
    bias=False,
    tied=True,
    clamped=False,
    seed=0,
):
    """A random checkpoint as the original code would save it, with scalars far from their initial values.

    Args:
        kind (`str`): "regular", "eft" or "nano".
        heads, layers, width, banks, slots, vocab, block_size (`int`): sizes.
        bias (`bool`): whether norms and linear layers have biases.
        tied (`bool`): whether the head is the embedding.
        clamped (`bool`): whether the first head's key scales lie beyond the clamp.
        seed (`int`): of the weights.

    Returns:
        `tuple[dict[str, torch.Tensor], dict]`: the state dict and the arguments of the model.
    """
    torch.manual_seed(seed)
    nano = kind == "nano"
    tensors = RandomTensors(kind, heads, width, bias, clamped)

    def memory(*lead):
        return torch.randn(*lead, heads, slots, width // heads) / math.sqrt(width // heads)

    for layer in range(layers):
        at = f"mosaic.h.{layer}" if nano else f"blocks.{layer}"
        tensors.norm(f"{at}.ln_1" if nano else f"{at}.ln1")
        tensors.norm(f"{at}.ln_2" if nano else f"{at}.ln2")
        tensors.scalar(f"{at}.attn.v_featurizer.coef", -0.5, 1.5)
        if nano:
            tensors.add_nano_unit(f"{at}.attn", block_size)
            tensors.add_nano_unit(f"{at}.mlp", block_size)
            tensors.linear(f"{at}.attn.v_featurizer.W_v")
            tensors.scalar(f"{at}.attn.v_featurizer.val_scale", -0.2, 0.1)
            tensors[f"{at}.attn.bias"] = torch.ones(1, 1, block_size, block_size).tril(-1).bool()
            tensors.scalar(f"{at}.mlp.out_scale", -0.2, 0.1)
            tensors[f"{at}.mlp.P_k"], tensors[f"{at}.mlp.P_v"] = memory(banks, 1), memory(banks, 1)
        else:
            tensors.add_library_unit(kind, f"{at}.attn")
            tensors.add_library_unit(kind, f"{at}.pmem")
            tensors.linear(f"{at}.attn.v_featurizer.linear")
            for bank in range(banks):
                tensors[f"{at}.pmem.pmem.M_k{bank}"] = memory(1)
                tensors[f"{at}.pmem.pmem.M_v{bank}"] = memory(1)
    tensors.norm("mosaic.ln_f" if nano else "ln_out")

    embedding = torch.randn(vocab, width) / (1 if nano else math.sqrt(width))
    tensors["mosaic.wte.weight" if nano else "emb.weight"] = embedding
    tensors["lm_head.weight" if nano else "head.weight"] = embedding if tied else torch.randn(vocab, width)
    config = {"vocab_size": vocab, "n_head": heads, "n_embd": width, "n_layer": layers, "bias": bias}
    config |= {"block_size": block_size, "pmem_size": slots, "pmem_count": banks}
    return dict(tensors), config if nano else config | {"weight_tying": tied}


def checkpoint_file(path, kind="nano", **wrapping):
    """Saves a random checkpoint as the original training script does, and returns it with its arguments."""
    state_dict, config = random_checkpoint(kind)
    content = {"model": state_dict, "optimizer": None, "model_args": config, "iter_num": 7} | wrapping
    torch.save(content, path)
    return state_dict, config


def random_ids(vocab, time, batch=2):
    """Token ids of shape `(batch, time)`."""
    return torch.randint(vocab, (batch, time), generator=torch.Generator().manual_seed(time))


@torch.no_grad()
def largest_difference(model, state_dict, config, time):
    """Between the logits of the model and of the oracle, both in float64, as a part of the largest logit."""
    ids = random_ids(config["vocab_size"], time)
    expected = reference_logits(state_dict, config, ids)
    return ((model.double()(ids).logits - expected).abs().max() / expected.abs().max()).item()


def cut(path, part):
    """Leaves the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
