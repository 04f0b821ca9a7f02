"""`transformers serve`, started by the README's lines in a process of its own, answers over HTTP."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from transformers import pipeline

for name in ("openai", "fastapi", "uvicorn"):
    pytest.importorskip(name)


def ask(port, path, **request):
    body = json.dumps({"model": "runs/demo", **request}).encode()
    headers = {"Content-Type": "application/json"}
    question = urllib.request.Request(f"http://localhost:{port}{path}", body, headers)
    with urllib.request.urlopen(question, timeout=60) as answer:
        return json.loads(answer.read())


@pytest.fixture
def port(demo, examples, request):
    """The port of a running server; stopped afterwards."""
    (program,) = examples("docs/tools.md", "## A server")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        number = free.getsockname()[1]
    assert program.count("port=8000") == 1
    command = [sys.executable, "-c", program.replace("port=8000", f"port={number}")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(request.config.rootpath)}
    with (demo / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        limit = time.monotonic() + 180
        while True:
            try:
                socket.create_connection(("localhost", number), timeout=1).close()
                break
            except OSError:
                assert server.poll() is None, (demo / "server.log").read_text()
                assert time.monotonic() < limit, (demo / "server.log").read_text()
                time.sleep(0.2)
        yield number
    finally:
        server.kill()
        server.wait()


@pytest.mark.slow
def test_recipe(port):
    prompt = "Once upon a time"
    answer = ask(port, "/v1/completions", prompt=prompt, max_tokens=12, temperature=0)
    assert answer["usage"]["completion_tokens"] == 12
    tell = pipeline("text-generation", "runs/demo")
    options = dict(max_new_tokens=12, do_sample=False, return_full_text=False)
    assert answer["choices"][0]["text"] == tell(prompt, **options)[0]["generated_text"]
