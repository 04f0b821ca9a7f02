"""mlx-lm loads saved folders, and makes the tokens of `generate()`.

MLX runs in a process of its own, without torch, as it does for those who use it.
"""

import json
import os
import subprocess
import sys
from copy import deepcopy
from functools import partial
from importlib.util import find_spec

import pytest
import torch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("mlx_lm") is None, reason="the extra `mlx` is not installed"),
]

NEW_TOKENS = 24
LENGTHS = (1, 1, 2, 3, 15, 16, 33, 63, 64, 65, 90, 130)
# Both memories of the second model begin and end within the prompts.
MEMORIES = dict(short_memory_size=16, long_memory_delay=8)
IN_MLX = """
import json
import sys
from pathlib import Path

import mlx.core as mx
from mlx_lm.generate import BatchGenerator, generate_step
from mlx_lm.utils import load_model

folder, new_tokens = Path(sys.argv[1]), int(sys.argv[2])
model, _ = load_model(folder, trust_remote_code=True)
prompts = json.loads((folder / "prompts.json").read_text())


def in_a_batch(**options):
    generator = BatchGenerator(model, max_tokens=new_tokens, **options)
    found = {uid: [] for uid in generator.insert(prompts, [new_tokens] * len(prompts))}
    while any(len(tokens) < new_tokens for tokens in found.values()):
        for answer in generator.next()[1]:
            found[answer.uid].append(int(answer.token))
    return list(found.values())


def alone(prompt, **options):
    steps = generate_step(mx.array(prompt), model, max_tokens=new_tokens, **options)
    return [int(token) for token, _ in steps]


logits = model(mx.array([prompts[-1]]))
answers = {
    "logits": logits.tolist(),
    "alone": [alone(prompt) for prompt in prompts],
    "in parts": [alone(prompt, prefill_step_size=40) for prompt in prompts],
    "batches": in_a_batch(prefill_batch_size=4, completion_batch_size=6),
    "one batch in parts": in_a_batch(prefill_batch_size=12, completion_batch_size=12, prefill_step_size=32),
}
(folder / "answers.json").write_text(json.dumps(answers))
"""


@pytest.fixture(params=["mosaic", "mosaic_v2"])
def make(request, make_model, make_v2):
    """Builds small models of either kind."""
    return make_model if request.param == "mosaic" else partial(make_v2, **MEMORIES)


@pytest.fixture
def prompts(random_tokens):
    return [random_tokens(length, seed=i).tolist() for i, length in enumerate(LENGTHS)]


@pytest.fixture
def in_mlx(prompts, tmp_path):
    """What mlx-lm makes of the prompts, by a model that is saved first."""

    def run(model):
        model.save_pretrained(tmp_path)
        (tmp_path / "prompts.json").write_text(json.dumps(prompts))
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [sys.executable, "-c", IN_MLX, str(tmp_path), str(NEW_TOKENS)]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads((tmp_path / "answers.json").read_text())

    return run


@pytest.mark.parametrize(
    "make, fields",
    [
        ("mosaic", dict()),
        (
            "mosaic",
            dict(use_bias=True, num_persistent_banks=2, num_persistent_heads=2, tie_word_embeddings=False),
        ),
        ("mosaic_v2", dict()),
        ("mosaic_v2", dict(use_long_memory=False, tie_word_embeddings=True, logit_scale=0.7)),
    ],
    indirect=["make"],
)
def test_tokens_of_generate(make, in_mlx, prompts, fields):
    """Alone and in batches, which pad, split and join prompts."""
    model = make(**fields)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "gain_proj" in name or "leak_proj" in name:
                # One head whose gates leave a few tokens of the past.
                weight[0] *= 30
    found = in_mlx(model)
    logits = torch.tensor(found.pop("logits"))
    exact = deepcopy(model).double()(torch.tensor([prompts[-1]])).logits
    torch.testing.assert_close(logits, exact.float(), rtol=0, atol=1e-4)
    expected = [
        model.generate(torch.tensor([prompt]), max_new_tokens=NEW_TOKENS, do_sample=False)[0, len(prompt) :]
        for prompt in prompts
    ]
    for way, tokens in found.items():
        assert tokens == [row.tolist() for row in expected], way


def test_half_precision(make, in_mlx, prompts):
    """Logits differ from those of float32 by no more than twice what they differ by in torch."""
    model = make()
    exact = model(torch.tensor([prompts[-1]])).logits
    model = model.to(torch.bfloat16)
    half = model(torch.tensor([prompts[-1]])).logits.float()
    found = torch.tensor(in_mlx(model)["logits"])
    assert (found - exact).abs().max() <= 2 * (half - exact).abs().max()


def test_command_line(demo, make):
    """`mlx_lm.generate` with the tokenizer of the folder."""
    from transformers import AutoTokenizer, pipeline

    tokenizer = AutoTokenizer.from_pretrained("runs/demo")
    make(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id).save_pretrained("runs/demo")
    command = [sys.executable, "-m", "mlx_lm", "generate", "--model", "runs/demo", "--trust-remote-code"]
    command += ["--prompt", "Once upon a time", "--max-tokens", "12", "--ignore-chat-template"]
    command += ["--extra-eos-token", "<|endoftext|>", "--verbose", "False"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=demo)
    assert done.returncode == 0, done.stderr
    tell = pipeline("text-generation", "runs/demo")
    options = dict(max_new_tokens=12, do_sample=False, return_full_text=False)
    assert done.stdout.strip() == tell("Once upon a time", **options)[0]["generated_text"].strip()
