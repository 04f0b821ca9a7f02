"""Serves requests with mlx-lm, in an installation that need not have the rest of this package.

    python mlx_engine.py REQUEST.json ANSWER.json

Request and answer are those of `vllm_engine.py`. MLX has no option for a number of threads.
"""

import json
import sys
import time
from pathlib import Path

from mlx_lm.generate import BatchGenerator
from mlx_lm.utils import load_model


def serve(model, prompts: list[list[int]], new_tokens: int) -> dict:
    """Continues all prompts greedily in one `BatchGenerator`."""
    start, processor_start = time.perf_counter(), time.process_time()
    generator = BatchGenerator(model, max_tokens=new_tokens, completion_batch_size=len(prompts))
    tokens = {name: [] for name in generator.insert(prompts, [new_tokens] * len(prompts))}
    first_seconds = {}
    while any(len(found) < new_tokens for found in tokens.values()):
        for answer in generator.next()[1]:
            tokens[answer.uid].append(int(answer.token))
            first_seconds.setdefault(answer.uid, time.perf_counter() - start)
    return {
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - processor_start,
        "first_seconds": [first_seconds[name] for name in tokens],
        "tokens": list(tokens.values()),
    }


def main(request: str, answer: str) -> None:
    """Reads the request, and writes the answer."""
    asked = json.loads(Path(request).read_text())
    model, _ = load_model(Path(asked["model"]), trust_remote_code=True)
    serve(model, asked["prompts"][:1], asked["new_tokens"])
    Path(answer).write_text(json.dumps(serve(model, asked["prompts"], asked["new_tokens"])))


if __name__ == "__main__":
    main(*sys.argv[1:])
