from contextlib import contextmanager

import pytest
import torch
import transformers.modeling_flash_attention_utils as flash_utils
from torch._dynamo.exc import TorchDynamoException

from modeling_mosaic import MosaicConfig, MosaicForCausalLM, MosaicV2Config, MosaicV2ForCausalLM
from plain_flash_attention import flash_attention, flash_attention_varlen

SMALL = dict(
    vocab_size=61,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    bos_token_id=0,
    eos_token_id=None,
    pad_token_id=0,
)
# Memories that end and begin within a few tokens.
SMALL_V2 = dict(
    intermediate_size=40, short_memory_size=7, long_memory_delay=3, long_memory_delay_range=(2, 8)
)


@pytest.fixture
def make_config():
    """Configs of small models; every field can be set."""

    def make(**fields):
        return MosaicConfig(**{**SMALL, "persistent_memory_size": 20, **fields})

    return make


@pytest.fixture
def make_v2_config():
    """The same for the second model."""

    def make(**fields):
        return MosaicV2Config(**{**SMALL, **SMALL_V2, **fields})

    return make


def build(model_class, config, seed, implementation, factor):
    """A small model in eval mode whose scalars have moved from their initial values: no part is idle."""
    torch.manual_seed(seed)
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor) if parameter.ndim > 1 else parameter.add_(
                0.05 * torch.randn_like(parameter)
            )
    model.set_attn_implementation(implementation)
    return model


@pytest.fixture
def make_model(make_config):
    """Builds small models."""

    def make(seed=0, model_class=MosaicForCausalLM, implementation="sdpa", **fields):
        return build(model_class, make_config(**fields), seed, implementation, 1.5)

    return make


@pytest.fixture
def make_v2(make_v2_config):
    """The same for the second model, whose weights start smaller."""

    def make(seed=0, model_class=MosaicV2ForCausalLM, implementation="sdpa", **fields):
        return build(model_class, make_v2_config(**fields), seed, implementation, 3)

    return make


@pytest.fixture(params=["mosaic", "mosaic_v2"])
def kind(request):
    """The first model, and then the second, as what asks for `make_either` runs with both."""
    return request.param


@pytest.fixture
def makers(make_model, make_v2):
    """What builds small models, by kind."""
    return {"mosaic": make_model, "mosaic_v2": make_v2}


@pytest.fixture
def make_either(kind, makers):
    """Builds small models of that kind."""
    return makers[kind]


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


@pytest.fixture(
    params=[
        ("mosaic", "eager"),
        ("mosaic", "sdpa"),
        ("mosaic", "flash_attention_2"),
        ("mosaic_v2", "eager"),
        ("mosaic_v2", "sdpa"),
    ],
    ids="-".join,
)
def any_model(request, makers, fake_flash):
    """Builds small models of either kind, with any implementation of attention that it has."""
    kind, implementation = request.param

    def make(**fields):
        model = makers[kind](**fields)
        model.config._attn_implementation = implementation
        return model

    return make


@pytest.fixture
def random_tokens():
    """Token ids of the given shape, never the padding token 0."""

    def make(*shape, vocab_size=61, seed=0):
        return torch.randint(1, vocab_size, shape, generator=torch.Generator().manual_seed(seed))

    return make


@pytest.fixture
def batch(random_tokens):
    """Left-padded prompts, one of them of a single token."""
    tokens = random_tokens(3, 12)
    mask = torch.ones_like(tokens)
    mask[0, :5] = 0
    mask[1, :11] = 0
    return dict(input_ids=tokens.masked_fill(mask == 0, 0), attention_mask=mask)


@pytest.fixture
def compiling():
    """A context that skips what torch cannot compile, if it cannot compile its own `operation` alone either.

    So it is under some of torch's CPU kernels (`ATEN_CPU_CAPABILITY`), and without a C++ compiler.
    """

    @contextmanager
    def skip_if_torch_fails(operation):
        try:
            yield
        except TorchDynamoException:
            torch._dynamo.reset()
            row = torch.ones(1, 1, 16, 16)
            try:
                with torch.no_grad():
                    torch.compile(operation, fullgraph=True)(row, row, row)
            except TorchDynamoException as error:
                pytest.skip(f"torch cannot compile {operation.__name__} here: {str(error).splitlines()[0]}")
            raise

    return skip_if_torch_fails
