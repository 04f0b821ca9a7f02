import json
import math
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from modeling_mosaic import MosaicConfig, MosaicForCausalLM

PRESETS = Path(__file__).parents[2] / "configuration" / "model"


def test_defaults_are_the_12_block_model_of_the_paper():
    config = MosaicConfig()
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (768, 12, 12)
    assert (config.num_persistent_heads, config.persistent_memory_size) == (12, 2688)
    assert config.attention_dropout == config.hidden_dropout == 0.05


def test_logits_are_scaled_as_in_the_original_on_demand(tmp_path):
    """The paper's presets ask for it; a saved config has the number, whatever the default becomes."""
    assert MosaicConfig().logit_scale == 1.0
    for name in ("mosaic-1", "mosaic-18", "regbench/full/mosaic"):
        config = AutoConfig.from_pretrained(PRESETS / f"{name}.json")
        assert config.logit_scale == 1 / math.sqrt(config.hidden_size)
    for scale in (None, 1.0):
        MosaicConfig(logit_scale=scale).save_pretrained(tmp_path)
        saved = json.loads((tmp_path / "config.json").read_text())
        assert saved["logit_scale"] == (scale or 1 / math.sqrt(768))


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(hiden_size=64), "no field 'hiden_size' (given 64); did you mean hidden_size"),
        (dict(hidden_size=100), "hidden_size (100) must be a multiple of num_attention_heads (12)"),
        (dict(num_persistent_heads=5), "hidden_size (768) must be a multiple of num_persistent_heads (5)"),
        (dict(vocab_size=0), "'vocab_size': ValueError: Value must be greater or equal to 1, got 0"),
        (dict(num_hidden_layers=-1), "'num_hidden_layers': ValueError: Value must be greater or equal to 1"),
        (dict(num_attention_heads=2.0), "'num_attention_heads' expected int, got float (value: 2.0)"),
        (dict(hidden_size="64"), "'hidden_size' expected int, got str (value: '64')"),
        (dict(num_persistent_heads="2"), "'num_persistent_heads' with value '2'"),
        (dict(persistent_memory_size=0), "persistent_memory_size must be at least 1, not 0"),
        (dict(num_persistent_banks=True), "'num_persistent_banks' expected int, got bool (value: True)"),
        (dict(attention_dropout=1.0), "attention_dropout must be at least 0 and below 1, not 1.0"),
        (dict(hidden_dropout=-0.1), "hidden_dropout must be at least 0 and below 1, not -0.1"),
        (dict(hidden_dropout="0.1"), "'hidden_dropout' with value '0.1'"),
        (dict(logit_scale=math.inf), "logit_scale must be finite and above 0, not inf"),
        (dict(logit_scale=math.nan), "logit_scale must be finite and above 0, not nan"),
        (dict(logit_scale=0.0), "logit_scale must be finite and above 0, not 0.0"),
        (dict(layer_norm_eps=math.inf), "layer_norm_eps must be above 0 and at most 1, not inf"),
        (dict(layer_norm_eps=0), "layer_norm_eps must be above 0 and at most 1, not 0"),
        (dict(max_log_key_scale=math.nan), "'max_log_key_scale': ValueError: Value must be"),
        (dict(max_log_key_scale=1e300), "'max_log_key_scale': ValueError: Value must be"),
        (dict(eos_token_id="x"), "'eos_token_id' with value 'x'"),
        (dict(eos_token_id=[5, -1]), "eos_token_id must be at least 0, not [5, -1]"),
        (dict(bos_token_id=-5), "bos_token_id must be at least 0, not -5"),
        (dict(pad_token_id=[0]), "'pad_token_id' with value [0]"),
        (dict(use_bias="no"), "'use_bias' expected bool, got str (value: 'no')"),
    ],
)
def test_wrong_fields_are_named(fields, message):
    with pytest.raises((ValueError, StrictDataclassError)) as error:
        MosaicConfig(**fields)
    assert message in " ".join(str(error.value).split())


def test_other_unknown_fields_are_kept_with_a_warning(caplog):
    """Those of the library, which differ from release to release, without one."""
    with caplog.at_level("WARNING"):
        assert MosaicConfig(n_layer=3).n_layer == 3
        MosaicConfig(attn_implementation="eager", num_labels=3, num_beams=2, quantization_config=None)
    assert [record.getMessage() for record in caplog.records] == [
        "MosaicConfig has no field 'n_layer' (given 3)"
    ]


def test_special_tokens_that_are_taken():
    """The default ids are GPT-2's, whatever the size of the vocabulary."""
    config = MosaicConfig(vocab_size=61, eos_token_id=[1, 2], pad_token_id=None)
    assert (config.bos_token_id, config.eos_token_id) == (50256, [1, 2])


def test_the_largest_key_scale_is_finite(make_model, random_tokens):
    model = make_model(max_log_key_scale=40)
    for module in model.modules():
        if hasattr(module, "max_log_scale"):
            torch.nn.init.constant_(module.log_scale, 10)
    assert model(random_tokens(1, 20)).logits.isfinite().all()


def test_wrong_files_are_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(dict(model_type="mosaic", num_atention_heads=4)))
    with pytest.raises(ValueError, match="num_atention_heads.*did you mean num_attention_heads"):
        AutoConfig.from_pretrained(tmp_path)


def test_what_other_tools_put_into_a_saved_config_stays(make_config, tmp_path):
    config = make_config()
    config.some_tool_version = "1.2"
    config.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).some_tool_version == "1.2"


def test_an_override_of_a_loaded_config_is_checked_by_the_model(make_config, tmp_path):
    make_config().save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path, hidden_size=33)
    with pytest.raises(ValueError, match="hidden_size \\(33\\) must be a multiple"):
        MosaicForCausalLM(config)


def test_layers_follow_an_overridden_depth(make_config, tmp_path):
    make_config(num_hidden_layers=5).save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path, num_hidden_layers=2).layer_types == ["hybrid"] * 2
