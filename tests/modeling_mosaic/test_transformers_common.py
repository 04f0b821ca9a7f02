"""The tests that transformers runs on all of its models, from its own sources.

pip download --no-deps --no-binary :all: transformers==5.24.0 && tar -xf transformers-5.24.0.tar.gz
TRANSFORMERS_SOURCE=transformers-5.24.0 pytest -m slow tests/modeling_mosaic/test_transformers_common.py
"""

import importlib
import os
import sys
import unittest
import warnings
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest
import torch
import transformers
from transformers.models.auto import modeling_auto

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

SOURCE = os.environ.get("TRANSFORMERS_SOURCE")
if SOURCE is None:
    pytest.skip(
        "TRANSFORMERS_SOURCE does not name an unpacked source distribution of transformers; "
        "`pip download --no-deps --no-binary :all: transformers==5.24.0` gets one",
        allow_module_level=True,
    )

# Modules that the common tests import, for sources without them: a source distribution lacks these.
STUBS = {
    "exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
    "generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
    "utils.test_configuration_utils": {
        "config_common_kwargs": {
            "return_dict": False,
            "output_hidden_states": True,
            "output_attentions": True,
            "dtype": "float16",
            "chunk_size_feed_forward": 3,
            "architectures": ["MosaicForCausalLM"],
            "id2label": {0: "poem"},
            "label2id": {"poem": "0"},
            "problem_type": "regression",
        }
    },
}


def import_common_tests(source: str) -> dict[str, ModuleType]:
    """The modules of common tests by name. They know their package as `tests`, which ours is to others."""
    root = Path(source).resolve()
    package = ModuleType("tests")
    package.__path__ = [str(root / "tests")]
    modules = {name: module for name, module in sys.modules.items() if name.split(".")[0] != "tests"}
    modules["tests"] = package
    for name, contents in STUBS.items():
        if not (root / "tests" / f"{name.replace('.', '/')}.py").exists():
            stub = modules[f"tests.{name}"] = ModuleType(f"tests.{name}")
            vars(stub).update(contents)
    names = (
        "test_configuration_common",
        "test_modeling_common",
        "test_training_mixin",
        "generation.test_utils",
    )
    with (
        mock.patch.dict(sys.modules, modules, clear=True),
        mock.patch.object(sys, "path", [*sys.path, str(root / "utils")]),
        # This loads transformers from the `tests/__init__.py` that is missing, too.
        mock.patch("transformers.utils.direct_transformers_import", return_value=transformers),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        return {name: importlib.import_module(f"tests.{name}") for name in names}


common = import_common_tests(SOURCE)
ModelTesterMixin = common["test_modeling_common"].ModelTesterMixin
TrainingTesterMixin = common["test_training_mixin"].TrainingTesterMixin
ConfigTester = common["test_configuration_common"].ConfigTester
GenerationTesterMixin = common["generation.test_utils"].GenerationTesterMixin


class MosaicModelTester:
    """Small models and inputs, in the form in which the common tests ask for them."""

    causal_lm_class = MosaicForCausalLM
    is_training = True
    batch_size = 3
    seq_length = 7
    vocab_size = 99
    hidden_size = 32
    num_hidden_layers = 2
    num_attention_heads = 4

    def get_config(self) -> MosaicConfig:
        return MosaicConfig(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            persistent_memory_size=16,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[MosaicConfig, dict[str, torch.Tensor]]:
        input_ids = torch.randint(1, self.vocab_size, (self.batch_size, self.seq_length))
        attention_mask = torch.ones_like(input_ids)
        attention_mask[0, 5:] = attention_mask[1, :2] = 0
        return self.get_config(), {"input_ids": input_ids, "attention_mask": attention_mask}


@pytest.mark.slow
class MosaicModelTest(ModelTesterMixin, GenerationTesterMixin, TrainingTesterMixin, unittest.TestCase):
    all_model_classes = (
        MosaicModel,
        MosaicForCausalLM,
        MosaicForSequenceClassification,
        MosaicForTokenClassification,
    )
    # By the year of the sources' copyright, this test would take the model for an old one and let it go.
    test_can_init_all_missing_weights_before_2023 = True

    @pytest.fixture(autouse=True)
    def name_models(self, monkeypatch):
        """The tests read off these tables which labels a model wants."""
        tables = ("", "_FOR_CAUSAL_LM", "_FOR_SEQUENCE_CLASSIFICATION", "_FOR_TOKEN_CLASSIFICATION")
        for table, model_class in zip(tables, self.all_model_classes, strict=True):
            names = getattr(modeling_auto, f"MODEL{table}_MAPPING_NAMES")
            monkeypatch.setitem(names, model_class.config_class.model_type, model_class.__name__)

    def setUp(self):
        self.model_tester = MosaicModelTester()

    def test_config(self):
        config_class = self.all_model_classes[0].config_class
        ConfigTester(self, config_class=config_class, hidden_size=36).run_common_tests()

    def _get_conv_state_shape(self, batch_size, config):
        """What the generation tests expect of the cache's states."""
        return (batch_size, config.hidden_size, 1)

    def test_custom_4d_attention_mask(self):
        self.skipTest("a leaky average needs to know which tokens are padding: masks have two dimensions")

    def test_generate_compilation_all_outputs(self):
        self.skipTest("static layers with states report no length, which the test needs for weights")


class MosaicV2ModelTester(MosaicModelTester):
    causal_lm_class = MosaicV2ForCausalLM
    # Weights of short-term and long-term memories.
    num_attention_heads = 8

    def get_config(self) -> MosaicV2Config:
        return MosaicV2Config(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=4,
            short_memory_size=3,
            long_memory_delay=2,
            # One delay in training too, for tests that compare two steps.
            long_memory_delay_range=(2, 2),
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )


@pytest.mark.slow
class MosaicV2ModelTest(MosaicModelTest):
    all_model_classes = (
        MosaicV2Model,
        MosaicV2ForCausalLM,
        MosaicV2ForSequenceClassification,
        MosaicV2ForTokenClassification,
    )

    def setUp(self):
        self.model_tester = MosaicV2ModelTester()

    def _get_conv_state_shape(self, batch_size, config):
        """Of the first state, the average and its log scales."""
        return (batch_size, config.hidden_size + config.num_attention_heads, 1)

    def test_retain_grad_hidden_states_attentions(self):
        self.skipTest("weights of both memories are put side by side, beside the graph of the logits")
