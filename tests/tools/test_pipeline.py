"""pipeline("text-generation"): batches equal single prompts, streams equal both."""

import pytest
import torch
from transformers import AutoTokenizer, pipeline

from modeling_mosaic import MosaicForCausalLM

PROMPTS = ["Once", "Once upon a time there was a story. Once upon", "a", "there was a"]


@pytest.fixture
def tell(demo):
    """A model with larger weights, whose next token depends on all that it has read, and not on rounding."""
    model = MosaicForCausalLM.from_pretrained("runs/demo").double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2)
    tokenizer = AutoTokenizer.from_pretrained("runs/demo")
    tokenizer.pad_token = tokenizer.eos_token
    return pipeline("text-generation", model, tokenizer=tokenizer)


@pytest.mark.parametrize("batch_size", [2, 4])
@pytest.mark.parametrize("options", [dict(do_sample=False), dict(do_sample=False, num_beams=3)])
def test_batches_equal_single_prompts(tell, batch_size, options):
    single = tell(PROMPTS, max_new_tokens=15, **options)
    assert tell(PROMPTS, batch_size=batch_size, max_new_tokens=15, **options) == single
    new = [
        rows[0]["generated_text"].removeprefix(prompt) for rows, prompt in zip(single, PROMPTS, strict=True)
    ]
    assert len(set(new)) > 1


def test_recipe(run_examples, capsys):
    names = run_examples("docs/tools.md", "## Batches and streams from a pipeline")
    story = names["stories"][0][0]["generated_text"]
    assert names["streamed"] and story == names["prompts"][0] + names["streamed"]
    assert names["streamed"] in capsys.readouterr().out
