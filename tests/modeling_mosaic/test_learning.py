"""One block of memories learns to recall associations from the context, where one block of GPT-2 does not."""

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from modeling_mosaic import MosaicConfig, MosaicForCausalLM

NUM_SYMBOLS, NUM_PAIRS = 32, 8
STEPS, ROWS, LEARNING_RATE = 60, 64, 1e-2
SIZES = {"vocab_size": 2 * NUM_SYMBOLS, "bos_token_id": 0, "eos_token_id": 0}


def build(seed, num_rows):
    """Rows of pairs of a key and a value token, then all keys again in another order, each with its value.

    With keys a to c and values 1 to 3: `b 3 a 1 c 3 a 1 c 3 b 3`, where only the last three values count.
    """
    generator = torch.Generator().manual_seed(seed)
    keys = torch.rand(num_rows, NUM_SYMBOLS, generator=generator).argsort(1)[:, :NUM_PAIRS]
    values = NUM_SYMBOLS + torch.randint(NUM_SYMBOLS, keys.shape, generator=generator)
    order = torch.rand(keys.shape, generator=generator).argsort(1)
    told = torch.stack([keys, values], 2).flatten(1)
    asked = torch.stack([keys.gather(1, order), values.gather(1, order)], 2).flatten(1)
    ids = torch.cat([told, asked], 1)
    labels = torch.full_like(ids, -100)
    labels[:, 2 * NUM_PAIRS + 1 :: 2] = ids[:, 2 * NUM_PAIRS + 1 :: 2]
    return ids, labels


def accuracy_after_training(model):
    """Share of values that are recalled, in rows that training has not seen."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    for step in range(STEPS):
        ids, labels = build(1 + step, ROWS)
        model(input_ids=ids, labels=labels, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    ids, labels = build(0, 256)
    with torch.no_grad():
        guesses = model.eval()(input_ids=ids).logits[:, :-1].argmax(-1)
    counts = labels[:, 1:] != -100
    return (guesses == labels[:, 1:])[counts].float().mean().item()


def test_one_block_recalls_associations():
    torch.manual_seed(0)
    mosaic = MosaicForCausalLM(
        MosaicConfig(
            hidden_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            attention_dropout=0.0,
            hidden_dropout=0.0,
            logit_scale=1.0,
            **SIZES,
        )
    )
    gpt2 = GPT2LMHeadModel(
        GPT2Config(
            n_embd=64,
            n_layer=1,
            n_head=4,
            n_positions=4 * NUM_PAIRS,
            attn_pdrop=0.0,
            embd_pdrop=0.0,
            resid_pdrop=0.0,
            **SIZES,
        )
    )
    assert accuracy_after_training(mosaic) > 0.95
    # Guessing one of the values in the row is right for an eighth of them.
    assert accuracy_after_training(gpt2) < 0.4
