"""Serves requests with vLLM, in an installation that need not have the rest of this package.

    python vllm_engine.py REQUEST.json ANSWER.json

The request has `model`, a folder; `prompts`, lists of tokens; `new_tokens`; `num_threads`. The answer has the
fields of `ways.Served`.
"""

import json
import os
import sys
import time
from pathlib import Path


def tree_seconds() -> float:
    """Seconds of the processor that this process and those that it started have had."""
    import psutil

    this = psutil.Process()
    times = [process.cpu_times() for process in (this, *this.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def main(request: str, answer: str) -> None:
    """Reads the request, and writes the answer."""
    asked = json.loads(Path(request).read_text())
    os.environ["OMP_NUM_THREADS"] = str(asked["num_threads"])
    # Gigabytes for the cache, more than these requests take.
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    from vllm import LLM, SamplingParams

    prompts, new_tokens = asked["prompts"], asked["new_tokens"]
    llm = LLM(
        asked["model"],
        dtype="float32",
        enforce_eager=True,
        skip_tokenizer_init=True,
        enable_prefix_caching=False,
        max_model_len=max(map(len, prompts)) + new_tokens,
        max_num_seqs=len(prompts),
        disable_log_stats=False,
    )
    settings = SamplingParams(max_tokens=new_tokens, temperature=0, ignore_eos=True, detokenize=False)
    rows = [{"prompt_token_ids": prompt} for prompt in prompts]
    llm.generate(rows[:1], settings, use_tqdm=False)
    start, processor_start = time.perf_counter(), tree_seconds()
    outputs = llm.generate(rows, settings, use_tqdm=False)
    served = {
        "seconds": time.perf_counter() - start,
        "processor_seconds": tree_seconds() - processor_start,
        "first_seconds": [output.metrics.first_token_latency for output in outputs],
        "tokens": [list(output.outputs[0].token_ids) for output in outputs],
    }
    Path(answer).write_text(json.dumps(served))


if __name__ == "__main__":
    main(*sys.argv[1:])
