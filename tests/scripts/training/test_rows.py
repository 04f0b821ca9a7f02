import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoConfig, AutoModelForCausalLM

import modeling_mosaic  # noqa: F401  (teaches the Auto classes the mosaic)
from mosaic_lab.core.errors import InputError
from mosaic_lab.training.model import check_document_masking
from mosaic_lab.training.rows import collate_rows, pack_rows
from mosaic_lab.training.tokenizer import load_gpt2_tokenizer, load_tokenizer

TEXTS = [f"Story {i} has {i} words." for i in range(30)]


@pytest.fixture(scope="module")
def tokenizer():
    return load_gpt2_tokenizer()[0]


def test_rows_hold_the_stories_one_after_the_other(tokenizer):
    rows = pack_rows(Dataset.from_dict({"text": TEXTS}), tokenizer, 16)
    stream = [token for row in rows["input_ids"] for token in row]
    expected = [token for text in TEXTS for token in [*tokenizer(text)["input_ids"], 50256]]
    assert stream == expected[: len(stream)]
    assert 0 <= len(expected) - len(stream) < 16
    assert all(len(row) == 16 for row in rows["input_ids"])


def test_rows_depend_on_tokenizer_and_block_size(tokenizer):
    stories = Dataset.from_dict({"text": TEXTS})
    small, _ = load_tokenizer(None, 300, [TEXTS])
    first = pack_rows(stories, tokenizer, 16)
    assert first._fingerprint == pack_rows(stories, tokenizer, 16)._fingerprint
    assert (
        len(
            {
                rows._fingerprint
                for rows in (first, pack_rows(stories, tokenizer, 8), pack_rows(stories, small, 16))
            }
        )
        == 3
    )


def test_labels_are_the_tokens():
    batch = collate_rows([{"input_ids": np.array(row, np.int32)} for row in ([1, 2, 3], [4, 5, 6])])
    assert batch["input_ids"].tolist() == batch["labels"].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert batch["labels"].dtype == torch.int64


def test_positions_begin_anew_in_each_story():
    rows = [[9, 1, 2, 3, 9, 4, 5], [1, 2, 3, 9, 9, 4, 9]]
    batch = collate_rows([{"input_ids": np.array(row, np.int32)} for row in rows], end=9)
    assert batch["position_ids"].tolist() == [[0, 0, 1, 2, 3, 0, 1], [0, 1, 2, 3, 0, 0, 1]]
    assert batch["labels"].tolist() == rows


@pytest.mark.parametrize("model_type", ["mosaic", "mosaic_v2", "gpt2", "llama"])
def test_stories_of_a_row_are_apart(model_type):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 16}
    more = {"intermediate_size": 32} if model_type == "llama" else {}
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **sizes, **more, bos_token_id=0, eos_token_id=0)
    model = AutoModelForCausalLM.from_config(config).eval()
    check_document_masking(model)
    stories = [[5, 3, 8, 2, 0], [7, 5, 3, 0], [8, 1, 5, 3, 9, 4]]
    batch = collate_rows([{"input_ids": np.array(sum(stories, []), np.int32)}], end=0)
    alone = [model(torch.tensor([story])).logits for story in stories]
    # As the Trainer calls it.
    torch.testing.assert_close(model(**batch, use_cache=False).logits, torch.cat(alone, 1))


def test_too_few_stories_for_a_row(tokenizer):
    with pytest.raises(InputError, match="1 stories do not fill one row of block_size 64"):
        pack_rows(Dataset.from_dict({"text": TEXTS[:1]}), tokenizer, 64)
