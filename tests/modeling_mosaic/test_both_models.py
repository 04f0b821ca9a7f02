"""What must hold of both models, whatever the weights."""

import math

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    DataCollatorWithFlattening,
    DynamicCache,
)

from modeling_mosaic.compatibility import CACHE_NAME
from row_checks import assert_same_gradients, gradients, loss_of, padded


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
def test_padding_in_every_chunk_of_a_cached_sequence(make_either, random_tokens, side, implementation):
    """Each chunk of a batch brings its own padding, as turns of a conversation do."""
    model = make_either(implementation=implementation).double()
    generator = torch.Generator().manual_seed(2)
    sequences = random_tokens(3, 60)
    taken, cache, all_masks, logits = [0, 0, 0], None, torch.zeros(3, 0, dtype=torch.long), [[], [], []]
    for lengths in [(5, 0, 7), (1, 1, 0), (0, 9, 3), (12, 2, 12), (1, 1, 1), (20, 0, 3)]:
        rows = [sequences[i, taken[i] : taken[i] + n] for i, n in enumerate(lengths)]
        tokens, mask = padded(rows, max(lengths), side, generator)
        all_masks = torch.cat([all_masks, mask], 1)
        outputs = model(tokens, attention_mask=all_masks, cache=cache)
        cache = outputs[CACHE_NAME]
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
        cache = DynamicCache(config=model.config)
        parts = (tokens[:, :10], tokens[:, 10:11], tokens[:, 11:])
        return torch.cat([model(part, cache=cache).logits for part in parts], 1)

    with torch.no_grad():
        logits = logits_of(tokens)
        for t in range(24):
            changed = tokens.clone()
            changed[0, t] = (changed[0, t] + 1) % 61
            difference = (logits_of(changed) - logits).abs().amax(-1)[0]
            assert (difference[:t] == 0).all() and difference[t] > 0


def test_labels_and_logits_to_keep(make_either, random_tokens):
    model = make_either()
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


def test_accumulated_gradients_are_those_of_the_whole_batch(make_either, random_tokens):
    model = make_either().double()
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


def test_meta_device(make_either, random_tokens):
    """Shapes without values, as tools that plan where layers go ask for them.

    Every parameter gets its value in `_init_weights`, and there is no buffer to forget.
    """
    model, tokens = make_either().to("meta"), random_tokens(2, 20).to("meta")
    outputs = model(tokens, attention_mask=torch.ones_like(tokens), use_cache=False)
    assert outputs.logits.shape == (2, 20, 61)
    assert not list(model.buffers())
    model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(math.nan)
    for module in model.modules():
        module._is_hf_initialized = False
    model.init_weights()
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_resized_embeddings(make_either, random_tokens):
    model = make_either(tie_word_embeddings=True)
    tokens = random_tokens(1, 10, vocab_size=40)
    logits = model(tokens).logits
    model.resize_token_embeddings(100)
    assert model.config.vocab_size == 100 and model.lm_head.weight is model.model.embed_tokens.weight
    torch.testing.assert_close(model(tokens).logits[..., :61], logits)
    model.resize_token_embeddings(40)
    torch.testing.assert_close(model(tokens).logits, logits[..., :40])


@pytest.mark.parametrize("side", ["left", "right"])
def test_classification_heads(make_either, random_tokens, side):
    rows = [random_tokens(n) for n in (12, 5, 1)]
    tokens, mask = padded(rows, 12, side, torch.Generator().manual_seed(0))
    tokens = tokens.masked_fill(mask == 0, 0)
    model = make_either(model_class=AutoModelForSequenceClassification.from_config, num_labels=3).double()
    logits = model(tokens, attention_mask=mask, labels=torch.tensor([0, 1, 2])).logits
    alone = torch.cat([model(row[None]).logits for row in rows])
    torch.testing.assert_close(logits, alone, rtol=0, atol=1e-11)
    model = make_either(model_class=AutoModelForTokenClassification.from_config, num_labels=5).double()
    outputs = model(tokens, attention_mask=mask, labels=tokens % 5)
    assert outputs.loss.isfinite()
    alone = torch.cat([model(row[None]).logits[0] for row in rows])
    torch.testing.assert_close(outputs.logits[mask == 1], alone, rtol=0, atol=1e-11)


@pytest.mark.parametrize("labelled", [False, True])
def test_gradients_of_each_row_by_vmap(make_either, random_tokens, labelled):
    model, tokens = make_either().double(), random_tokens(3, 40)

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


def test_wrong_inputs_are_named(make_either, random_tokens):
    model = make_either()
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
            make_either(**fields)(tokens, cache=cache)
    with pytest.raises(ValueError, match=r"input_ids must have shape \(batch, time\).*, not \(5,\)"):
        model(tokens[0])
    with pytest.raises(ValueError, match=r"inputs_embeds .* \(batch, time, 32\).*, not \(2, 5, 31\)"):
        model(inputs_embeds=torch.zeros(2, 5, 31))
    names = "slots, recall|short, long"
    for wrong, named in ({}, "an empty one"), ({"full_attention": None}, "full_attention"):
        with pytest.raises(ValueError, match=f"attention_mask .* keys ({names}).*, not {named}"):
            model(tokens, attention_mask=wrong)
    for borders in ([0, 99], [0, 3, 2, 5], [0, 3], [2, 5], [-1, 5], []):
        with pytest.raises(ValueError, match="cu_seq_lens_q must rise from 0 to the 5 tokens"):
            model(tokens[:1], cu_seq_lens_q=torch.tensor(borders))
    with pytest.raises(ValueError, match="cu_seq_lens_q needs a batch of one row, not 2"):
        model(tokens, cu_seq_lens_q=torch.tensor([0, 5]))
    with pytest.raises(ValueError, match="exclude attention_mask"):
        model(tokens, seq_idx=torch.zeros(2, 5), attention_mask=torch.ones(2, 5))
