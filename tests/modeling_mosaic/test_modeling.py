"""The model against the equations written slowly, and what must hold whatever the weights."""

import copy
import math

import pytest
import torch
import transformers.modeling_flash_attention_utils as flash_utils
from torch.nn.attention.flex_attention import flex_attention
from transformers import DataCollatorWithFlattening, DynamicCache, Trainer, TrainingArguments

from modeling_mosaic import (
    MosaicForCausalLM,
    MosaicForSequenceClassification,
    MosaicForTokenClassification,
)
from modeling_mosaic.compatibility import CACHE_NAME
from modeling_mosaic.plain_mosaic import PlainMosaic
from row_checks import assert_same_gradients, enable_checkpointing, gradients, loss_of, padded

# How far float32 logits may be off, in parts of the largest. Exponentials of the keys' scales and sharp
# attention magnify rounding: by up to 43 with torch's kernels for AVX2, AVX-512 and neither.
FLOAT32_ERROR = 128 * torch.finfo(torch.float32).eps
SHAPES = [
    dict(),
    dict(num_attention_heads=1, num_hidden_layers=1),
    dict(num_persistent_heads=2, num_persistent_banks=3, use_bias=True),
    dict(hidden_size=24, num_attention_heads=3, num_persistent_heads=6, persistent_memory_size=1),
    dict(tie_word_embeddings=False, logit_scale=1.0, max_log_key_scale=0.3, layer_norm_eps=1e-2),
]


def flash_attention(query, key, value, dropout_p=0.0, softmax_scale=None, causal=False, **_):
    """What flash-attn promises: (batch, time, heads, dim), and a causal mask aligned with the last key."""
    scores = torch.einsum("bqhd,bkhd->bhqk", query, key) * softmax_scale
    queries, keys = scores.shape[-2:]
    if causal:
        hidden = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries).logical_not()
        scores = scores.masked_fill(hidden, -math.inf)
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1).nan_to_num(), value)


def flash_attention_varlen(
    query, key, value, cu_seqlens_q=None, cu_seqlens_k=None, max_seqlen_q=None, **kwargs
):
    """The same for sequences laid end to end."""
    kwargs.pop("max_seqlen_k", None)
    assert max_seqlen_q == cu_seqlens_q.diff().max()
    starts = zip(cu_seqlens_q, cu_seqlens_q[1:], cu_seqlens_k, cu_seqlens_k[1:], strict=False)
    parts = [
        flash_attention(query[None, a:b], key[None, c:d], value[None, c:d], **kwargs)[0]
        for a, b, c, d in starts
    ]
    return torch.cat(parts)


@pytest.fixture
def fake_flash(monkeypatch):
    """transformers' own flash attention path, with the kernels replaced by plain code for CPUs."""
    functions = dict(_flash_fn=flash_attention, _flash_varlen_fn=flash_attention_varlen)
    functions |= dict(_pad_fn=flash_utils._pad_input, _unpad_fn=flash_utils._unpad_input)
    functions |= dict(_flash_with_kvcache_fn=None, _process_with_kvcache_kwargs_fn=dict)
    functions["_process_flash_kwargs_fn"] = flash_utils._lazy_define_process_function(flash_attention_varlen)
    functions["_loaded_implementation"] = "flash_attention_2"
    for name, function in functions.items():
        monkeypatch.setattr(flash_utils, name, function, raising=False)


@pytest.fixture(params=["eager", "sdpa", "flash_attention_2"])
def any_model(request, make_model, fake_flash):
    def make(**fields):
        model = make_model(implementation="eager", **fields)
        model.config._attn_implementation = request.param
        return model

    return make


@pytest.mark.parametrize("fields", SHAPES)
@pytest.mark.parametrize("length", [1, 2, 67])
def test_logits_and_gradients_are_those_of_the_equations(make_model, random_tokens, fields, length):
    model = make_model(**fields)
    tokens = random_tokens(1, length)
    plain = PlainMosaic(copy.deepcopy(model).double()).logits(tokens)
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        error = (model(tokens).logits.double() - plain).abs().max()
        assert error <= FLOAT32_ERROR * plain.abs().max()
    model.double()
    exact, plain = model(tokens).logits, PlainMosaic(model).logits(tokens)
    torch.testing.assert_close(exact, plain, rtol=0, atol=1e-12)
    assert_same_gradients(gradients(model, loss_of(exact)), gradients(model, loss_of(plain)))


# torch 2.13's flex attention for CPUs has no backward pass, and writes wrong C++ for dynamic shapes.
@torch._dynamo.config.patch(automatic_dynamic_shapes=False)
def test_flex_attention(make_model, random_tokens, compiling):
    model = make_model()
    tokens, mask = padded(
        [random_tokens(n) for n in (20, 3, 1)], 20, "left", torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        expected = model(tokens, attention_mask=mask).logits
        # Both sides are in float32.
        tolerance = dict(rtol=0, atol=2 * FLOAT32_ERROR * expected.abs().max().item())
        packed = model(tokens, position_ids=torch.arange(20)[None] % 9).logits
        model.set_attn_implementation("flex_attention")
        with compiling(flex_attention):
            ours = model(tokens, attention_mask=mask).logits
        torch.testing.assert_close(ours, expected, **tolerance)
        outputs = model(tokens[:, :7], attention_mask=mask[:, :7])
        rest = model(tokens[:, 7:], attention_mask=mask, past_key_values=outputs.past_key_values)
        torch.testing.assert_close(torch.cat([outputs.logits, rest.logits], 1), expected, **tolerance)
        ours = model(tokens, position_ids=torch.arange(20)[None] % 9).logits
        torch.testing.assert_close(ours, packed, **tolerance)


@pytest.mark.parametrize("side", ["left", "right", "between"])
@pytest.mark.parametrize("use_cache", [False, True])
def test_padded_rows_equal_rows_alone(any_model, random_tokens, side, use_cache):
    model = any_model().double()
    if side != "right" and model.config._attn_implementation == "flash_attention_2" and use_cache:
        pytest.skip(
            "transformers' flash attention takes padding for left padding where the queries have a cache"
        )
    rows = [random_tokens(n, seed=n) for n in (30, 1, 2, 11, 0)]
    tokens, mask = padded(rows, 33, side, torch.Generator().manual_seed(1))
    logits = model(tokens, attention_mask=mask, use_cache=use_cache).logits
    assert logits.isfinite().all()
    together = gradients(model, loss_of(torch.cat([logits[i, mask[i] == 1] for i in range(len(rows))])))
    alone = torch.cat([model(row[None]).logits[0] for row in rows if len(row)])
    for index, row in enumerate(rows[:-1]):
        torch.testing.assert_close(
            logits[index, mask[index] == 1], model(row[None]).logits[0], rtol=0, atol=1e-11
        )
    assert_same_gradients(together, gradients(model, loss_of(alone)))


@pytest.mark.parametrize("side", ["left", "right", "between"])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_padding_in_every_chunk_of_a_cached_sequence(make_model, random_tokens, side, implementation):
    """Each chunk of a batch brings its own padding, as turns of a conversation do."""
    model = make_model(implementation=implementation).double()
    generator = torch.Generator().manual_seed(2)
    sequences = random_tokens(3, 40)
    taken, cache, all_masks, logits = [0, 0, 0], None, torch.zeros(3, 0, dtype=torch.long), [[], [], []]
    for lengths in [(5, 0, 7), (1, 1, 0), (0, 9, 3), (12, 2, 12)]:
        rows = [sequences[i, taken[i] : taken[i] + n] for i, n in enumerate(lengths)]
        tokens, mask = padded(rows, max(lengths), side, generator)
        all_masks = torch.cat([all_masks, mask], 1)
        outputs = model(tokens, attention_mask=all_masks, past_key_values=cache)
        cache = outputs.past_key_values
        for i, n in enumerate(lengths):
            logits[i].append(outputs.logits[i, mask[i] == 1])
            taken[i] += n
    for i, sequence in enumerate(sequences):
        expected = model(sequence[None, : taken[i]]).logits[0]
        torch.testing.assert_close(torch.cat(logits[i]), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("form", ["position_ids", "seq_idx", "cu_seq_lens_q"])
@pytest.mark.parametrize("lengths", [(20, 1, 2, 40, 1), (1, 1, 1), (70, 70)])
def test_packed_rows_equal_rows_alone(any_model, random_tokens, form, lengths):
    model = any_model().double()
    rows = [random_tokens(n, seed=i) for i, n in enumerate(lengths)]
    collator = DataCollatorWithFlattening(
        return_seq_idx=True, return_flash_attn_kwargs=True, return_tensors="pt"
    )
    batch = collator([{"input_ids": row.tolist()} for row in rows])
    packed = model(input_ids=batch["input_ids"], **{form: batch[form]}, use_cache=False).logits
    alone = torch.cat([model(row[None]).logits for row in rows], 1)
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-11)
    together = gradients(model, loss_of(model(input_ids=batch["input_ids"], **{form: batch[form]}).logits))
    assert_same_gradients(together, gradients(model, loss_of(alone)))


def test_a_flattened_batch_with_labels(any_model, random_tokens):
    """Everything that the collator gives, as the Trainer hands it on; the loss is that of the rows."""
    model = any_model().double()
    rows = [random_tokens(n, seed=n) for n in (9, 4, 17)]
    collator = DataCollatorWithFlattening(
        return_seq_idx=True, return_flash_attn_kwargs=True, return_tensors="pt"
    )
    loss = model(**collator([{"input_ids": row.tolist()} for row in rows])).loss
    losses = [(len(row) - 1) * model(row[None], labels=row[None]).loss for row in rows]
    torch.testing.assert_close(loss, sum(losses) / (8 + 3 + 16))


@pytest.mark.parametrize("cached", [False, True])
def test_causality(any_model, random_tokens, cached):
    """Changing token t changes no logit before t, and changes the one at t, for every t."""
    model = any_model()
    tokens = random_tokens(1, 24)

    def logits_of(tokens):
        if not cached:
            return model(tokens, use_cache=False).logits
        first = model(tokens[:, :10])
        second = model(tokens[:, 10:11], past_key_values=first.past_key_values)
        third = model(tokens[:, 11:], past_key_values=second.past_key_values)
        return torch.cat([first.logits, second.logits, third.logits], 1)

    with torch.no_grad():
        logits = logits_of(tokens)
        for t in range(24):
            changed = tokens.clone()
            changed[0, t] = (changed[0, t] + 1) % 61
            difference = (logits_of(changed) - logits).abs().amax(-1)[0]
            assert (difference[:t] == 0).all() and difference[t] > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_never_nan(make_model, dtype, implementation):
    """Empty memories, one-token rows, rows of padding, repeated tokens, and embeddings of zeros."""
    model = make_model(implementation=implementation, max_log_key_scale=5.0).to(dtype)
    with torch.no_grad():
        model.model.layers[0].contextual_memory.key_extractor.leaky_norm.log_scale.fill_(0.5)
    tokens = torch.full((4, 70), 5)
    masks = torch.ones(4, 70, dtype=torch.long)
    masks[0] = 0
    masks[1, 1:] = 0
    masks[2, :-1] = 0
    for inputs in (dict(input_ids=tokens), dict(inputs_embeds=torch.zeros(4, 70, 32, dtype=dtype))):
        for mask in (masks, None):
            logits = model(**inputs, attention_mask=mask).logits
            grads = gradients(model, logits.float().square().mean())
            assert logits.isfinite().all()
            assert all(gradient.isfinite().all() for gradient in grads.values())


def test_an_empty_memory_recalls_zero(any_model, random_tokens):
    model = any_model()
    seen = []
    memory = model.model.layers[1].contextual_memory
    memory.o_proj.register_forward_pre_hook(lambda module, args: seen.append(args[0].unflatten(0, (2, 12))))
    tokens, mask = padded([random_tokens(12), random_tokens(5)], 12, "left", torch.Generator().manual_seed(0))
    model(tokens, attention_mask=mask, use_cache=False)
    assert (seen[0][0, 0] == 0).all() and (seen[0][1, :8] == 0).all()
    assert (seen[0][0, 1] != 0).all() and (seen[0][1, 8] != 0).all()


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 0.08), (torch.float16, 0.01)])
def test_half_precision_stays_near_float32(make_model, random_tokens, dtype, tolerance):
    model = make_model()
    tokens = random_tokens(2, 200)
    expected = model(tokens).logits
    with torch.autocast("cpu", dtype=dtype):
        outputs = model(tokens, labels=tokens)
    outputs.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    half = copy.deepcopy(model).to(dtype)(tokens).logits
    for logits in (outputs.logits, half):
        assert logits.dtype == dtype
        assert (logits - expected).norm() <= tolerance * expected.norm()


def test_no_tensor_is_quadratic_in_time(make_model, random_tokens):
    """At T = 2,048, no operation of a training step makes a tensor with two dimensions of about T."""
    from torch.utils._python_dispatch import TorchDispatchMode

    shapes = set()

    class Shapes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            results = result if isinstance(result, tuple | list) else [result]
            shapes.update(tuple(t.shape) for t in results if isinstance(t, torch.Tensor))
            return result

    model = make_model(attention_dropout=0.0).train()
    tokens = random_tokens(1, 2048)
    with Shapes():
        model(tokens, attention_mask=torch.ones_like(tokens), labels=tokens, use_cache=False).loss.backward()
    assert not [shape for shape in shapes if sum(size >= 2000 for size in shape) > 1]


def test_a_context_far_beyond_the_training_length(make_model, random_tokens):
    model = make_model(max_position_embeddings=16).double()
    tokens = random_tokens(1, 8192)
    with torch.no_grad():
        logits = model(tokens).logits
        first = model(tokens[:, :8000])
        rest = model(tokens[:, 8000:], past_key_values=first.past_key_values).logits
    assert logits.isfinite().all()
    torch.testing.assert_close(rest, logits[:, 8000:], rtol=0, atol=1e-10)


def test_attentions(make_model, random_tokens):
    """Row t weighs the pairs before t: strictly lower triangular, and of sum 1 but for the empty memory."""
    model = make_model(implementation="eager")
    tokens = random_tokens(2, 12)
    outputs = model(tokens, output_attentions=True, output_hidden_states=True)
    assert len(outputs.attentions) == 2 and len(outputs.hidden_states) == 3
    for weights in outputs.attentions:
        assert weights.shape == (2, 4, 12, 12)
        assert (weights == weights.tril(-1)).all()
        expected = torch.ones(2, 4, 12)
        expected[..., 0] = 0
        torch.testing.assert_close(weights.sum(-1), expected)
    first = model(tokens[:, :7])
    later = model(tokens[:, 7:], past_key_values=first.past_key_values, output_attentions=True)
    for cached, weights in zip(later.attentions, outputs.attentions, strict=True):
        torch.testing.assert_close(cached, weights[:, :, 7:])


def test_gradient_checkpointing(make_model, random_tokens):
    model = make_model(attention_dropout=0.2, hidden_dropout=0.2).double().train()
    inputs = dict(input_ids=random_tokens(2, 30), position_ids=torch.arange(30)[None] % 13, use_cache=False)

    def gradients_with_same_dropout():
        torch.manual_seed(0)
        return gradients(model, loss_of(model(**inputs).logits))

    expected = gradients_with_same_dropout()
    for use_reentrant in (False, True):
        enable_checkpointing(model, use_reentrant=use_reentrant)
        assert_same_gradients(gradients_with_same_dropout(), expected)


def test_checkpointed_layers_store_nothing_twice(make_model, random_tokens):
    model = make_model(attention_dropout=0.0, hidden_dropout=0.0).double().train()
    tokens = random_tokens(2, 9)
    expected = gradients(model, model(tokens, labels=tokens).loss)
    enable_checkpointing(model)
    cache = DynamicCache(config=model.config)
    assert_same_gradients(gradients(model, model(tokens, cache=cache, labels=tokens).loss), expected)
    assert cache.get_seq_length() == 0
    with torch.no_grad():
        model(tokens, cache=cache)
    assert cache.get_seq_length() == 9
    with pytest.raises(ValueError, match="checkpointing .* excludes a cache"):
        model(tokens, cache=cache)


def test_labels_and_logits_to_keep(make_model, random_tokens):
    model = make_model()
    tokens = random_tokens(2, 15)
    logits = model(tokens).logits
    labels = tokens.clone()
    labels[0, 5:] = -100
    terms = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum"
    )
    torch.testing.assert_close(model(tokens, labels=labels).loss, terms / (4 + 14))
    torch.testing.assert_close(model(tokens, logits_to_keep=3).logits, logits[:, -3:])
    torch.testing.assert_close(model(tokens, logits_to_keep=torch.tensor([2, 9])).logits, logits[:, [2, 9]])
    embedded = model(inputs_embeds=model.get_input_embeddings()(tokens)).logits
    torch.testing.assert_close(embedded, logits)


def test_accumulated_gradients_are_those_of_the_whole_batch(make_model, random_tokens):
    model = make_model().double()
    tokens, mask = padded(
        [random_tokens(n) for n in (20, 8, 15, 3)], 20, "right", torch.Generator().manual_seed(0)
    )
    labels = tokens.masked_fill(mask == 0, -100)
    count = (labels[:, 1:] != -100).sum()
    whole = gradients(model, model(tokens, attention_mask=mask, labels=labels).loss)
    parts = [
        model(
            tokens[i : i + 1],
            attention_mask=mask[i : i + 1],
            labels=labels[i : i + 1],
            num_items_in_batch=count,
        ).loss
        for i in range(4)
    ]
    assert_same_gradients(gradients(model, sum(parts)), whole)


@pytest.mark.parametrize(
    "blocks, parameters",
    [(1, 45_713_748), (2, 52_793_256), (8, 95_270_304), (12, 123_588_336), (18, 166_065_384)],
)
def test_parameter_counts_of_the_paper(make_config, blocks, parameters):
    config = make_config(
        vocab_size=50304,
        hidden_size=768,
        num_attention_heads=12,
        num_hidden_layers=blocks,
        persistent_memory_size=None,
    )
    assert config.persistent_memory_size == 2688
    with torch.device("meta"):
        assert MosaicForCausalLM(config).num_parameters() == parameters


@pytest.mark.parametrize("layers", [1, 8])
def test_initialisation_of_the_paper(make_config, layers):
    torch.manual_seed(0)
    fields = dict(
        hidden_size=128, num_hidden_layers=layers, vocab_size=997, persistent_memory_size=None, use_bias=True
    )
    model = MosaicForCausalLM(make_config(**fields))
    untied = MosaicForCausalLM(make_config(**fields, tie_word_embeddings=False))
    deviations = {
        "embed_tokens.weight": 128**-0.5,
        "lm_head.weight": 128**-0.5,
        "k_proj.weight": 128**-0.5,
        "v_proj.weight": 128**-0.5,
        "o_proj.weight": (128 * layers) ** -0.5,
        "memory_keys": 32**-0.5,
        "memory_values": 32**-0.5,
    }
    values = {
        "leak": torch.linspace(0.05, 0.5, 4),
        "key_extractor.leaky_norm.log_scale": torch.tensor(0.1),
        "peek_norm.log_scale": torch.tensor(-0.05),
        "log_value_norm": torch.tensor(-0.05),
        "norm.weight": torch.tensor(1.0),
        "bias": torch.tensor(0.0),
    }
    unchecked = []
    for name, parameter in model.named_parameters():
        if expected := [value for end, value in deviations.items() if name.endswith(end)]:
            assert parameter.std().item() == pytest.approx(expected[0], rel=0.05), name
        elif expected := [value for end, value in values.items() if name.endswith(end)]:
            torch.testing.assert_close(parameter, expected[0].expand_as(parameter), msg=name)
        else:
            unchecked.append(name)
            assert name.endswith("peek_norm.mix") and 0 <= parameter.min() and parameter.max() <= 1
    assert len(unchecked) == layers
    assert untied.lm_head.weight.std().item() == pytest.approx(128**-0.5, rel=0.05)


def test_meta_device(make_config):
    """Every parameter gets its value in `_init_weights`, and there is no buffer to forget."""
    with torch.device("meta"):
        model = MosaicForCausalLM(make_config())
    assert not list(model.buffers())
    model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(math.nan)
    for module in model.modules():
        module._is_hf_initialized = False
    model.init_weights()
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_the_plain_trainer_decays_matrices_only(make_model, tmp_path):
    """The original decays what has two dimensions or more."""
    for fields in (dict(), dict(use_bias=True, tie_word_embeddings=False)):
        model = make_model(**fields)
        decayed = set(Trainer(model, TrainingArguments(tmp_path)).get_decay_parameter_names(model))
        matrices = {name for name, parameter in model.named_parameters() if parameter.ndim > 1}
        assert decayed & {name for name, _ in model.named_parameters()} == matrices


def test_resized_embeddings(make_model, random_tokens):
    model = make_model()
    tokens = random_tokens(1, 10, vocab_size=40)
    logits = model(tokens).logits
    model.resize_token_embeddings(100)
    assert model.config.vocab_size == 100 and model.lm_head.weight is model.model.embed_tokens.weight
    torch.testing.assert_close(model(tokens).logits[..., :61], logits)
    model.resize_token_embeddings(40)
    torch.testing.assert_close(model(tokens).logits, logits[..., :40])


@pytest.mark.parametrize("side", ["left", "right"])
def test_classification_heads(make_model, random_tokens, side):
    rows = [random_tokens(n) for n in (12, 5, 1)]
    tokens, mask = padded(rows, 12, side, torch.Generator().manual_seed(0))
    tokens = tokens.masked_fill(mask == 0, 0)
    model = make_model(model_class=MosaicForSequenceClassification, num_labels=3).double()
    logits = model(tokens, attention_mask=mask, labels=torch.tensor([0, 1, 2])).logits
    alone = torch.cat([model(row[None]).logits for row in rows])
    torch.testing.assert_close(logits, alone, rtol=0, atol=1e-11)
    model = make_model(model_class=MosaicForTokenClassification, num_labels=5).double()
    outputs = model(tokens, attention_mask=mask, labels=tokens % 5)
    assert outputs.loss.isfinite()
    alone = torch.cat([model(row[None]).logits[0] for row in rows])
    torch.testing.assert_close(outputs.logits[mask == 1], alone, rtol=0, atol=1e-11)


@pytest.mark.parametrize("training, padded", [(True, False), (False, True)])
def test_compiles_without_a_graph_break(make_model, random_tokens, training, padded):
    """For one length, and for any length once a second one came."""
    model = make_model(attention_dropout=0.0, hidden_dropout=0.0).double().train(training)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for length in (40, 70):
        tokens = random_tokens(2, length)
        inputs = dict(input_ids=tokens, labels=tokens, use_cache=False)
        if padded:
            inputs["attention_mask"] = (torch.arange(length) >= torch.tensor([[3], [0]])).long()
        ours, expected = compiled(**inputs), model(**inputs)
        torch.testing.assert_close(ours.logits, expected.logits, rtol=0, atol=1e-11)
        if training:
            # Compiled, the loss is transformers' own, in float32.
            eps = torch.finfo(torch.float32).eps
            assert_same_gradients(gradients(model, ours.loss), gradients(model, expected.loss), eps)


def test_wrong_inputs_are_named(make_model, random_tokens):
    model = make_model()
    tokens = random_tokens(2, 5)
    with pytest.raises(ValueError, match=r"input_ids must lie in \[0, 61\), not 61"):
        model(torch.tensor([[3, 61]]))
    with pytest.raises(ValueError, match=r"input_ids must lie in \[0, 61\), not -1"):
        model(torch.tensor([[-1, 60]]))
    with pytest.raises(ValueError, match="at least one token"):
        model(torch.zeros(1, 0, dtype=torch.long))
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        model()
    with pytest.raises(ValueError, match=r"attention_mask must have shape .*\(2, 5\), not \(2, 4\)"):
        model(tokens, attention_mask=torch.ones(2, 4))
    with pytest.raises(ValueError, match=r"not \(2, 1, 5, 5\)"):
        model(tokens, attention_mask=torch.ones(2, 1, 5, 5))
    for wrong in (5, "x", [tokens]):
        with pytest.raises(ValueError, match=f"cache .* must hold .*, not {type(wrong).__name__}"):
            model(tokens, cache=wrong)
    cache = model(tokens)[CACHE_NAME]
    with pytest.raises(ValueError, match=r"cache .*\(2, 4, 8\), but .* inputs have \(1, 4, 8\)"):
        model(tokens[:1], cache=cache)
    for fields in (dict(hidden_size=64), dict(num_attention_heads=2)):
        with pytest.raises(ValueError, match=r"cache .*\(2, 4, 8\), but .* inputs have \(2, "):
            make_model(**fields)(tokens, cache=cache)
    with pytest.raises(ValueError, match=r"input_ids must have shape \(batch, time\).*, not \(5,\)"):
        model(tokens[0])
    with pytest.raises(ValueError, match=r"inputs_embeds .* \(batch, time, 32\).*, not \(2, 5, 31\)"):
        model(inputs_embeds=torch.zeros(2, 5, 31))
    for wrong, named in ({}, "an empty one"), ({"full_attention": None}, "full_attention"):
        with pytest.raises(ValueError, match=f"attention_mask .* keys slots, recall.*, not {named}"):
            model(tokens, attention_mask=wrong)
    for borders in ([0, 99], [0, 3, 2, 5], [0, 3], [2, 5], [-1, 5], []):
        with pytest.raises(ValueError, match="cu_seq_lens_q must rise from 0 to the 5 tokens"):
            model(tokens[:1], cu_seq_lens_q=torch.tensor(borders))
    with pytest.raises(ValueError, match="cu_seq_lens_q needs a batch of one row, not 2"):
        model(tokens, cu_seq_lens_q=torch.tensor([0, 5]))
    with pytest.raises(ValueError, match="exclude attention_mask"):
        model(tokens, seq_idx=torch.zeros(2, 5), attention_mask=torch.ones(2, 5))


def test_forward_on_the_meta_device(make_model, random_tokens):
    """Shapes without values, as tools that plan where layers go ask for them."""
    model = make_model().to("meta")
    tokens = random_tokens(2, 20).to("meta")
    outputs = model(tokens, attention_mask=torch.ones_like(tokens), use_cache=False)
    assert outputs.logits.shape == (2, 20, 61)


@pytest.mark.parametrize("labelled", [False, True])
def test_gradients_of_each_row_by_vmap(make_model, random_tokens, labelled):
    model, tokens = make_model().double(), random_tokens(3, 40)

    def loss_of_row(parameters, row):
        inputs = dict(input_ids=row[None], use_cache=False)
        if labelled:
            return torch.func.functional_call(model, parameters, kwargs=dict(inputs, labels=row[None])).loss
        return torch.func.functional_call(model, parameters, kwargs=inputs).logits.sin().sum()

    parameters = dict(model.named_parameters())
    together = torch.func.vmap(torch.func.grad(loss_of_row), (None, 0))(parameters, tokens)
    for index, row in enumerate(tokens):
        alone = gradients(model, loss_of_row(parameters, row))
        assert_same_gradients({name: gradient[index] for name, gradient in together.items()}, alone)


@pytest.mark.slow
def test_compiled_training_at_several_lengths(make_model, random_tokens):
    """From the second length on, sizes are symbols."""
    model = make_model(num_hidden_layers=1)
    compiled = torch.compile(model, fullgraph=True)
    for shape in ((2, 32), (2, 64), (3, 17), (2, 100)):
        tokens = random_tokens(*shape)
        inputs = dict(input_ids=tokens, labels=tokens, use_cache=False)
        ours, expected = compiled(**inputs).loss, model(**inputs).loss
        torch.testing.assert_close(ours, expected)
        assert_same_gradients(gradients(model, ours), gradients(model, expected), 1e-5)
