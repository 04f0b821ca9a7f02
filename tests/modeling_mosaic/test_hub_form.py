"""What is saved loads where this package cannot be imported, with the same logits."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from modeling_mosaic import (
    MosaicConfig,
    MosaicForCausalLM,
    MosaicForSequenceClassification,
    MosaicForTokenClassification,
    MosaicModel,
    MosaicV2Config,
    MosaicV2ForCausalLM,
    MosaicV2ForSequenceClassification,
    MosaicV2ForTokenClassification,
    MosaicV2Model,
)

CLEAN_PROCESS = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "modeling_mosaic":
            raise ImportError("modeling_mosaic cannot be imported here")

sys.meta_path.insert(0, Blocker())
try:
    import modeling_mosaic
except ImportError:
    pass
else:
    raise SystemExit("the package is importable")

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

folder, auto_class, output = sys.argv[1:]
remote = dict(trust_remote_code=True)
config = transformers.AutoConfig.from_pretrained(folder, **remote)
assert type(config).__name__ in ("MosaicConfig", "MosaicV2Config")
assert type(config).__module__.startswith("transformers_modules")
model = getattr(transformers, auto_class).from_pretrained(folder, **remote).eval()
tokens = load_file(folder + "/tokens.safetensors")["tokens"]
with torch.no_grad():
    body = transformers.AutoModel.from_pretrained(folder, **remote).eval()
    result = {"first": model(tokens)[0], "body": body(tokens)[0]}
if auto_class == "AutoModelForCausalLM":
    # By this list the Trainer tells whether to shift smoothed labels.
    assert type(model).__name__ in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **remote)
    text = transformers.pipeline("text-generation", model=folder, **remote)(
        "word3 word5", max_new_tokens=8, do_sample=False, return_full_text=False
    )[0]["generated_text"]
    result["story"] = tokenizer(text, return_tensors="pt")["input_ids"]
save_file(result, output)
model.save_pretrained(folder + "-again")
"""


@pytest.fixture
def tokenizer():
    backend = Tokenizer(models.WordLevel({f"word{i}": i for i in range(61)}, unk_token="word0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="word0")


def in_clean_process(folder, auto_class, tmp_path):
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    output = tmp_path / f"{folder.name}.safetensors"
    command = [sys.executable, "-c", CLEAN_PROCESS, str(folder), auto_class, str(output)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    return load_file(output)


@pytest.mark.parametrize(
    "model_class, auto_class",
    [
        (MosaicForCausalLM, "AutoModelForCausalLM"),
        (MosaicForSequenceClassification, "AutoModelForSequenceClassification"),
        (MosaicV2ForCausalLM, "AutoModelForCausalLM"),
        pytest.param(MosaicModel, "AutoModel", marks=pytest.mark.slow),
        pytest.param(MosaicForTokenClassification, "AutoModelForTokenClassification", marks=pytest.mark.slow),
        pytest.param(MosaicV2Model, "AutoModel", marks=pytest.mark.slow),
        pytest.param(
            MosaicV2ForSequenceClassification, "AutoModelForSequenceClassification", marks=pytest.mark.slow
        ),
        pytest.param(
            MosaicV2ForTokenClassification, "AutoModelForTokenClassification", marks=pytest.mark.slow
        ),
    ],
)
def test_a_clean_process(make_model, make_v2, tokenizer, random_tokens, tmp_path, model_class, auto_class):
    make = make_v2 if model_class.config_class is MosaicV2Config else make_model
    model = make(model_class=model_class)
    tokens = random_tokens(1, 30)
    folder = tmp_path / "saved"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_file({"tokens": tokens}, folder / "tokens.safetensors")
    result = in_clean_process(folder, auto_class, tmp_path)
    assert torch.equal(result["first"], model(tokens)[0])
    assert torch.equal(result["body"], getattr(model, "model", model)(tokens)[0])
    if auto_class == "AutoModelForCausalLM":
        prompt = tokenizer("word3 word5", return_tensors="pt")["input_ids"]
        assert torch.equal(result["story"], model.generate(prompt, max_new_tokens=8, do_sample=False)[:, 2:])
        # What a remote model saves is whole again.
        again = tmp_path / "saved-again"
        save_file({"tokens": tokens}, again / "tokens.safetensors")
        assert {path.name for path in folder.glob("*.py")} == {path.name for path in again.glob("*.py")}
        tokenizer.save_pretrained(again)
        assert torch.equal(in_clean_process(again, auto_class, tmp_path)["first"], model(tokens)[0])


@pytest.mark.parametrize("suffix, class_name", [("", "MosaicForCausalLM"), ("_v2", "MosaicV2ForCausalLM")])
def test_the_saved_folder(make_model, make_v2, tmp_path, suffix, class_name):
    make = make_v2 if suffix else make_model
    make(tie_word_embeddings=True).save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    code = {f"{kind}_mosaic{suffix}.py" for kind in ("configuration", "modeling", "mlx")}
    # That of the second model for mlx-lm loads that of the first.
    assert {"config.json", "model.safetensors", "mlx_mosaic.py"} | code <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["auto_map"]["AutoModelForCausalLM"] == f"modeling_mosaic{suffix}.{class_name}"
    assert saved["model_file"] == f"mlx_mosaic{suffix}.py"
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    "fields", [dict(), dict(tie_word_embeddings=False, use_bias=True, num_persistent_banks=2)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saved_and_loaded_in_this_process(make_model, random_tokens, tmp_path, fields, dtype):
    """Importing the package is enough for the Auto classes, without remote code."""
    model = make_model(**fields).to(dtype)
    tokens = random_tokens(2, 20)
    model.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is MosaicConfig
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    assert type(loaded) is MosaicForCausalLM and loaded.dtype == dtype
    assert torch.equal(loaded(tokens).logits, model(tokens).logits)
    body = AutoModel.from_pretrained(tmp_path, dtype="auto")
    assert torch.equal(body(tokens)[0], model.model(tokens)[0])


@pytest.mark.parametrize("fields", [dict(), dict(use_long_memory=False, tie_word_embeddings=True)])
def test_the_second_model_saved_and_loaded_in_this_process(make_v2, random_tokens, tmp_path, fields):
    model, tokens = make_v2(**fields).to(torch.bfloat16), random_tokens(2, 20)
    model.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert type(config) is MosaicV2Config
    assert {**config.to_dict(), "_name_or_path": ""} == model.config.to_dict()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    assert type(loaded) is MosaicV2ForCausalLM and loaded.dtype == torch.bfloat16
    assert torch.equal(loaded(tokens).logits, model(tokens).logits)


def test_files_that_travel_import_nothing_but_torch_and_transformers():
    """And each other by `from .module import name` only, which is all that transformers follows."""
    from transformers.dynamic_module_utils import get_imports, get_relative_import_files

    paths = [sys.modules[model.__module__].__file__ for model in (MosaicForCausalLM, MosaicV2ForCausalLM)]
    for file in {file for path in paths for file in [path, *get_relative_import_files(path)]}:
        # transformers itself needs huggingface_hub, which has the decorator of its configurations.
        allowed = {"torch", "transformers", "huggingface_hub"} | sys.stdlib_module_names
        assert set(get_imports(file)) <= allowed


def test_a_tokenizer_beside_the_model(make_model, tokenizer, tmp_path):
    make_model().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)("word4 word2")["input_ids"] == [4, 2]
