"""`mosaic serve` in a process of its own answers over HTTP."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

for name in ("openai", "fastapi", "uvicorn"):
    pytest.importorskip(name)

CHAT = (
    "{% for message in messages %}{{ message.role + ': ' + message.content + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
# The server, which at SIGUSR1 writes how many requests it holds, and how many blocks are neither free nor
# kept for others that begin alike.
WATCHED = """
import json, os, signal, sys
from modeling_mosaic import continuous_batching
from mosaic_lab.programs.serve import main

managers, init = [], continuous_batching.init_continuous_batching

def remember(*args, **kwargs):
    managers.append(init(*args, **kwargs))
    return managers[-1]

def report(*_):
    (manager,) = managers
    found = manager.batch_processor
    (allocator,) = found.cache.cache_allocators.values()
    pool = found.cache.pool
    free = pool.num_free_sectors * allocator.blocks_per_sector + pool.count_free_blocks(allocator.index)
    held = {
        "requests": len(found.scheduler.active_requests) + len(found.scheduler.waiting_requests),
        "handlers": len(found.output_router.result_handlers),
        "blocks": allocator.num_blocks - free - len(allocator.ledger.cached_blocks),
    }
    with open("held.partial", "w") as file:
        json.dump(held, file)
    os.replace("held.partial", "held.json")

continuous_batching.init_continuous_batching = remember
signal.signal(signal.SIGUSR1, report)
main(sys.argv[1:])
"""


def ask(port, path, timeout=60, **request):
    """The answer; for a stream, the texts of its pieces."""
    body = json.dumps({"model": "runs/demo", **request}).encode()
    headers = {"Content-Type": "application/json"}
    question = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, headers)
    with urllib.request.urlopen(question, timeout=timeout) as answer:
        if not request.get("stream"):
            return json.loads(answer.read())
        pieces = [json.loads(line[6:]) for line in answer if line.startswith(b"data: {")]
        return [piece["choices"][0]["text"] for piece in pieces]


@pytest.fixture
def start(demo, request):
    """Starts servers of a small model, which has a chat template; ends them."""
    tokenizer = AutoTokenizer.from_pretrained("runs/demo")
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained("runs/demo")
    root, servers = request.config.rootpath, []
    path = os.pathsep.join([str(root), str(root / "scripts")])
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}

    def start(*options, command=(str(root / "scripts" / "serve.py"),)):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with (demo / "server.log").open("w") as log:
            server = subprocess.Popen(
                [sys.executable, *command, "runs/demo", "--port", str(port), *options],
                env=environment,
                stdout=log,
                stderr=log,
            )
        servers.append(server)
        limit = time.monotonic() + 180
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return server, port
            except OSError:
                assert server.poll() is None, (demo / "server.log").read_text()
                assert time.monotonic() < limit, (demo / "server.log").read_text()
                time.sleep(0.1)

    yield start
    for server in servers:
        server.kill()
        server.wait()


def test_answers(start):
    server, port = start("--continuous_batching", "--cb_num_blocks", "20", "--cb-max-batch-tokens", "64")
    tell = pipeline("text-generation", "runs/demo")
    options = dict(max_new_tokens=12, do_sample=False, return_full_text=False)
    prompt = "Once upon a time"
    told = tell(prompt, **options)[0]["generated_text"]
    request = dict(max_tokens=12, temperature=0)
    answer = ask(port, "/v1/completions", prompt=prompt, **request)
    assert answer["choices"][0]["text"] == told
    assert answer["usage"]["completion_tokens"] == 12
    assert "".join(ask(port, "/v1/completions", prompt=prompt, stream=True, **request)) == told
    messages = [dict(role="user", content="Tell me a story.")]
    said = tell("user: Tell me a story.\nassistant: ", **options)[0]["generated_text"]
    answer = ask(port, "/v1/chat/completions", messages=messages, **request)
    assert answer["choices"][0]["message"]["content"] == said
    # What cannot be read is refused, and nothing else ends.
    with pytest.raises(urllib.error.HTTPError):
        ask(port, "/v1/completions", prompt="", **request)
    assert ask(port, "/v1/completions", prompt=prompt, **request)["choices"][0]["text"] == told
    server.send_signal(signal.SIGTERM)
    assert server.wait(timeout=60) == 128 + signal.SIGTERM


@pytest.mark.slow
def test_documented_commands(start, examples):
    """Without continuous batching, by the lines of the documentation."""
    *_, commands = examples("docs/serving.md", "## One command", "sh")
    _, port = start()
    command = commands.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    answer = subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout
    told = pipeline("text-generation", "runs/demo")(
        "Once upon a time", max_new_tokens=20, do_sample=False, return_full_text=False
    )
    assert json.loads(answer)["choices"][0]["text"] == told[0]["generated_text"]


def write_references(num_prompts):
    """Prompts and what `generate()` makes of them, where the best token is better than the next by far."""
    model, tokenizer = (auto.from_pretrained("runs/demo") for auto in (AutoModelForCausalLM, AutoTokenizer))
    choose, references = random.Random(0), {}
    while len(references) < num_prompts:
        prompt = "".join(choose.choices("once upn a timehrsy", k=choose.choice([1, 5, 20, 60, 200])))
        inputs = tokenizer(prompt, return_tensors="pt")
        options = dict(max_new_tokens=choose.randint(1, 40), do_sample=False, output_scores=True)
        outputs = model.generate(**inputs, **options, return_dict_in_generate=True)
        best = torch.cat(outputs.scores).topk(2).values
        new = outputs.sequences[0, inputs["input_ids"].shape[1] :]
        text = tokenizer.decode(new, skip_special_tokens=True)
        # A stream could show bytes that are no character yet in another way.
        if (best[:, 0] - best[:, 1]).min() > 1e-3 and "\ufffd" not in text:
            references[prompt] = (options["max_new_tokens"], text)
    return references


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_hundred_clients(start, demo):
    """A minute of a hundred requests at once: all answers right, nothing left behind, and a clean end."""
    options = ("--continuous_batching", "--cb_num_blocks", "30", "--cb_max_batch_tokens", "256")
    server, port = start(*options, "--cb_block_size", "16", command=("-c", WATCHED))
    references = write_references(30)
    prompts, outcomes = list(references), Counter()

    def one_client(number, until):
        choose = random.Random(number)
        while True:
            prompt = choose.choice(prompts)
            max_tokens, text = references[prompt]
            request = dict(prompt=prompt, max_tokens=max_tokens, temperature=0)
            if choose.random() < 0.1:
                leave(port, request)
                outcomes["left"] += 1
            else:
                stream = choose.random() < 0.5
                answer = ask(port, "/v1/completions", 300, stream=stream, **request)
                answer = "".join(answer) if stream else answer["choices"][0]["text"]
                outcomes["right" if answer == text else "wrong"] += 1
            if time.monotonic() > until:
                return

    def run(seconds):
        until = time.monotonic() + seconds
        with ThreadPoolExecutor(100) as pool:
            for _ in pool.map(one_client, range(100), [until] * 100):
                pass
        # transformers' manager drops what is left of those who went away with the next request.
        ask(port, "/v1/completions", 300, prompt=prompts[0], max_tokens=1, temperature=0)
        return settle(server, demo)

    before = run(5)
    first = outcomes["right"]
    after = run(60)
    print(f"\n{dict(outcomes)}; {before}, {after}")
    assert outcomes["wrong"] == 0 and outcomes["right"] - first >= 100 and outcomes["left"] > 0
    for held in (before, after):
        assert held["requests"] == held["handlers"] == held["blocks"] == 0
    assert after["bytes"] < before["bytes"] + 32e6

    # Asked to end, it first answers what it was asked before.
    with ThreadPoolExecutor(20) as pool:
        until = time.monotonic()
        clients = [pool.submit(one_client, number, until) for number in range(20)]
        while sum(client.running() for client in clients) < 20:
            time.sleep(0.01)
        time.sleep(0.2)
        server.send_signal(signal.SIGTERM)
        for client in clients:
            client.result()
    assert server.wait(timeout=60) == 128 + signal.SIGTERM
    assert outcomes["wrong"] == 0


def leave(port, request):
    """Asks for a stream and goes away after its first bytes."""
    body = json.dumps({"model": "runs/demo", "stream": True, **request}).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=300) as connection:
        connection.sendall(head.encode() + body)
        connection.recv(64)


def settle(server, folder):
    """What the server holds once nothing is asked, and its resident memory."""
    limit = time.monotonic() + 60
    while True:
        (folder / "held.json").unlink(missing_ok=True)
        server.send_signal(signal.SIGUSR1)
        while not (folder / "held.json").exists():
            assert time.monotonic() < limit
            time.sleep(0.05)
        held = json.loads((folder / "held.json").read_text())
        if not held["requests"] or time.monotonic() > limit:
            break
        time.sleep(0.2)
    status = (folder / f"/proc/{server.pid}/status").read_text()
    kilobytes = next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]
    return {**held, "bytes": int(kilobytes) * 1024}
