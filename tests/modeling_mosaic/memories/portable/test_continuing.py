"""Memories are continued as if their texts had just been read."""

import pytest
import torch
from transformers import AutoTokenizer, pipeline

from memory_texts import given
from modeling_mosaic import MosaicForCausalLM, read
from modeling_mosaic.compatibility import CACHE_NAME

GREEDY = dict(max_new_tokens=8, do_sample=False)


@pytest.mark.parametrize(
    ("implementation", "options"),
    [
        ("eager", {}),
        ("sdpa", {}),
        ("sdpa", dict(prompt_lookup_num_tokens=3)),
        ("sdpa", dict(prefill_chunk_size=3)),
        ("sdpa", dict(num_beams=3)),
    ],
)
def test_generation_continues_as_if_just_read(make_model, take, random_tokens, options, implementation):
    model = make_model(implementation=implementation)
    memory, (ids,) = take(30, model=model)
    prompt = random_tokens(1, 9, seed=3)
    whole = torch.cat([torch.tensor([ids]), prompt], 1)
    expected = model.generate(whole, **GREEDY, **options)[:, whole.shape[1] :]
    rows = options.get("num_beams", 1)
    for name in {CACHE_NAME, "past_key_values"}:
        found = model.generate(prompt, **{name: memory.to_cache(rows)}, **GREEDY, **options)
        assert torch.equal(found[:, 9:], expected), name
    assert not expected.eq(model.generate(prompt, **GREEDY, **options)[:, 9:]).all()


def test_padded_batches_and_returned_caches(model, take, random_tokens):
    memory, (ids,) = take(25)
    prompts = random_tokens(3, 9)
    mask = torch.ones_like(prompts)
    mask[0, :4], mask[1, :8] = 0, 0
    inputs = dict(input_ids=prompts.masked_fill(mask == 0, 0), attention_mask=mask)
    first = model.generate(**inputs, **given(memory, 3), return_dict_in_generate=True, **GREEDY)
    # The prompt again, all that was written, and two tokens more, on the cache that came back.
    longer = torch.cat([first.sequences, random_tokens(3, 2, seed=1)], 1)
    mask = torch.cat([mask, torch.ones(3, longer.shape[1] - 9, dtype=torch.long)], 1)
    second = model.generate(longer, attention_mask=mask, **{CACHE_NAME: first[CACHE_NAME]}, **GREEDY)
    for row, start in enumerate((4, 8, 0)):
        whole = torch.cat([torch.tensor(ids), prompts[row, start:]])[None]
        alone = model.generate(whole, **GREEDY)[0, whole.shape[1] :]
        assert torch.equal(first.sequences[row, 9:], alone)
        whole = torch.cat([torch.tensor(ids), longer[row, start:]])[None]
        alone = model.generate(whole, **GREEDY)[0, whole.shape[1] :]
        assert torch.equal(second[row, longer.shape[1] :], alone)


def test_a_pipeline_continues(demo):
    model = MosaicForCausalLM.from_pretrained("runs/demo").double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2 if parameter.ndim > 1 else 1)
    tokenizer = AutoTokenizer.from_pretrained("runs/demo")
    tell = pipeline("text-generation", model, tokenizer=tokenizer)
    text, prompt = "Once upon a time there was a story.", " There was"
    memory = read(model, tokenizer, text)
    found = tell(prompt, **given(memory), return_full_text=False, **GREEDY)
    whole = tokenizer(text)["input_ids"] + tokenizer(prompt)["input_ids"]
    expected = model.generate(torch.tensor([whole]), **GREEDY)[0, len(whole) :]
    assert found[0]["generated_text"] == tokenizer.decode(expected)
    tokenizer.pad_token = tokenizer.eos_token
    both = tell([prompt, " a"], batch_size=2, **given(memory, 2), return_full_text=False, **GREEDY)
    assert both[0] == found
    assert both[1] == tell(" a", **given(memory), return_full_text=False, **GREEDY)


def test_weights_are_those_of_the_whole_text(make_model, take):
    """Column i is pair i, as `where` counts them."""
    model = make_model(implementation="eager")
    memory, (ids,) = take(12, model=model)
    with torch.no_grad():
        whole = model(torch.tensor([[*ids, 5, 6, 7]]), output_attentions=True).attentions
        found = model(torch.tensor([[5, 6, 7]]), cache=memory.to_cache(), output_attentions=True).attentions
    for ours, expected in zip(found, whole, strict=True):
        # The dummy slot comes last.
        torch.testing.assert_close(ours, expected[:, :, 12:], rtol=0, atol=1e-12)


def test_what_a_memory_in_front_refuses(model, take):
    memory, _ = take(6)
    with pytest.raises(ValueError, match=r"batch_size must be at least 1, not 0"):
        memory.to_cache(0)
    with pytest.raises(ValueError, match=r"\(1, 2\), not \(1, 8\)"):
        model(torch.ones(1, 2, dtype=torch.long), attention_mask=torch.ones(1, 8), cache=memory.to_cache())
    with pytest.raises(ValueError, match="packed sequences"):
        ids = torch.ones(1, 2, dtype=torch.long)
        model(ids, seq_idx=torch.tensor([[0, 1]]), cache=memory.to_cache())
    with pytest.raises(ValueError, match="memories of"):
        model(torch.ones(2, 1, dtype=torch.long), cache=memory.to_cache())
