"""pipeline("text-generation"): batches equal single prompts, streams equal both."""

import pytest
from transformers import pipeline

PROMPTS = ["Once", "Once upon a time there was a story. Once upon", "a", "there was a"]


@pytest.mark.parametrize("batch_size", [2, 4])
@pytest.mark.parametrize("options", [dict(do_sample=False), dict(do_sample=False, num_beams=3)])
def test_batches_equal_single_prompts(demo, batch_size, options):
    tell = pipeline("text-generation", "runs/demo")
    tell.tokenizer.pad_token = tell.tokenizer.eos_token
    single = tell(PROMPTS, max_new_tokens=15, **options)
    assert tell(PROMPTS, batch_size=batch_size, max_new_tokens=15, **options) == single
    assert all(rows[0]["generated_text"] != prompt for rows, prompt in zip(single, PROMPTS, strict=True))


def test_recipe(run_readme, capsys):
    names = run_readme("### Batches and streams from a pipeline")
    story = names["stories"][0][0]["generated_text"]
    assert names["streamed"] and story == names["prompts"][0] + names["streamed"]
    assert names["streamed"] in capsys.readouterr().out
