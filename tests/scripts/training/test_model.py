import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, configuration_utils

from mosaic_lab.core.errors import InputError
from mosaic_lab.training.model import (
    PRESETS,
    build_model,
    is_trained,
    load_trained,
    load_with_tokenizer,
    read_config,
)
from mosaic_lab.training.tokenizer import load_gpt2_tokenizer, load_tokenizer
from mosaic_lab.training.weights import find_nonfinite

PAPER_SIZES = {1: 45_713_748, 2: 52_793_256, 8: 95_270_304, 12: 123_588_336, 18: 166_065_384}


@pytest.fixture(scope="module")
def small_tokenizer():
    return load_tokenizer(None, 300, [["a b c"]])[0]


def test_presets_are_read_without_warnings(monkeypatch):
    """transformers warns of special tokens beyond the vocabulary, as those of GPT-2 are in a small one."""
    warnings = []
    monkeypatch.setattr(configuration_utils.logger, "warning_once", warnings.append)
    for path in PRESETS.rglob("*.json"):
        read_config(str(path))
        assert not warnings, path


@pytest.mark.parametrize(("num_blocks", "num_parameters"), PAPER_SIZES.items())
def test_presets_have_the_papers_sizes(num_blocks, num_parameters):
    config = AutoConfig.from_pretrained(PRESETS / f"mosaic-{num_blocks}.json")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert model.num_parameters() == num_parameters


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.json")), ids=lambda path: path.stem)
def test_presets_take_gpt2s_vocabulary(path):
    tokenizer, _ = load_gpt2_tokenizer()
    with torch.device("meta"):
        model = build_model(path.stem, tokenizer, 512)
    # The paper's models of the second kind have the larger vocabulary of Llama 3.
    assert model.get_input_embeddings().num_embeddings == (
        128256 if model.config.vocab_size > 50304 else 50304
    )
    assert model.config.bos_token_id == model.config.eos_token_id == 50256
    assert model.generation_config.eos_token_id == model.generation_config.pad_token_id == 50256
    assert not is_trained(path.stem) and not is_trained(str(path))


@pytest.mark.parametrize("preset", ["mosaic-tiny", "mosaic-v2-tiny"])
def test_a_larger_vocabulary_stays(small_tokenizer, preset):
    model = build_model(preset, small_tokenizer, 100)
    assert model.config.vocab_size == 2048
    assert model.config.max_position_embeddings == 100
    assert model.config.eos_token_id == small_tokenizer.eos_token_id


def test_trained_models_continue_and_grow(small_tokenizer, tmp_path):
    model = build_model("mosaic-tiny", small_tokenizer, 64)
    model.save_pretrained(tmp_path)
    assert is_trained(str(tmp_path))
    again = build_model(str(tmp_path), small_tokenizer, 64, attn_implementation="eager")
    assert torch.equal(again.get_input_embeddings().weight, model.get_input_embeddings().weight)
    assert again.config._attn_implementation == "eager"
    grown = build_model(
        str(tmp_path), load_tokenizer(None, 2100, [[f"word{i} " * 3 for i in range(2000)]])[0], 64
    )
    assert grown.config.vocab_size == grown.get_output_embeddings().out_features == 2112
    assert torch.equal(grown.get_input_embeddings().weight[:2048], model.get_input_embeddings().weight)


def test_folder_with_a_config_only_gives_a_new_model(small_tokenizer, tmp_path):
    AutoConfig.from_pretrained(PRESETS / "mosaic-tiny.json").save_pretrained(tmp_path)
    assert not is_trained(str(tmp_path))
    assert build_model(str(tmp_path), small_tokenizer, 64).config.hidden_size == 128


def test_foreign_weights_are_refused(small_tokenizer, tmp_path):
    build_model("mosaic-tiny", small_tokenizer, 64).save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    config.num_hidden_layers += 1
    config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="weights are missing: model.layers.4"):
        load_trained(str(tmp_path))


@pytest.mark.parametrize(("value", "dtype"), [("nan", "float32"), ("-inf", "bfloat16")])
def test_weights_that_are_no_numbers_are_refused(small_tokenizer, tmp_path, value, dtype):
    model = build_model("mosaic-tiny", small_tokenizer, 64)
    model.save_pretrained(tmp_path)
    assert find_nonfinite(load_trained(str(tmp_path), dtype=dtype)) == []
    model.model.layers[1].contextual_norm.weight.data[5] = float(value)
    model.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="NaN or infinite: model.layers.1.contextual_norm.weight, "):
        load_trained(str(tmp_path), dtype=dtype)


def test_tokenizer_must_fit_into_the_vocabulary(small_tokenizer, tmp_path):
    build_model("mosaic-tiny", small_tokenizer, 64).save_pretrained(tmp_path)
    small_tokenizer.save_pretrained(tmp_path)
    assert len(load_with_tokenizer(str(tmp_path))[1]) == 259
    load_gpt2_tokenizer()[0].save_pretrained(tmp_path)
    with pytest.raises(InputError, match="its tokenizer has 50,257 tokens, its vocabulary only 2,048"):
        load_with_tokenizer(str(tmp_path))


def test_unknown_models_come_with_the_presets(small_tokenizer):
    with pytest.raises(
        InputError, match="^model mosaic-99: cannot be loaded: .*; presets are .*, mosaic-v2-tiny$"
    ):
        build_model("mosaic-99", small_tokenizer, 64)


def test_unknown_attention_is_named(small_tokenizer):
    with pytest.raises(InputError, match="magic"):
        build_model("mosaic-tiny", small_tokenizer, 64, attn_implementation="magic")


@pytest.mark.parametrize(
    "file", ["config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"]
)
@pytest.mark.parametrize("content", ["null", "[]", "{", "[" * 100_000])
def test_damaged_files_are_named(small_tokenizer, tmp_path, file, content):
    build_model("mosaic-tiny", small_tokenizer, 64).save_pretrained(tmp_path)
    small_tokenizer.save_pretrained(tmp_path)
    (tmp_path / file).write_text(content)
    for load in (load_with_tokenizer, load_tokenizer):
        with pytest.raises(InputError, match=f"/{file}: damaged"):
            load(str(tmp_path))
    if file == "config.json":
        with pytest.raises(InputError, match="/config.json: damaged"):
            read_config(str(tmp_path / file))
