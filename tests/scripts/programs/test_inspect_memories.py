import http.client
import signal
import subprocess
import sys

import pytest

from modeling_mosaic import MemoryRecord
from mosaic_lab.programs import inspect_memories


def inspect(*argv):
    inspect_memories.main([str(argument) for argument in argv])


def test_records_and_page(trained, tmp_path, capsys):
    text = tmp_path / "story.txt"
    text.write_text("A dog had a red ball.", encoding="utf-8")
    record, page = tmp_path / "record.safetensors", tmp_path / "page.html"
    inspect(trained, "--file", text, "--record", record, "--output", page, "--device", "cpu")
    assert f"record: {record}\npage: {page}\n" in capsys.readouterr().out
    assert MemoryRecord.load(record).text == text.read_text()
    alone = page.read_text(encoding="utf-8")
    assert "connect-src 'none'" in alone
    for other in (trained, text, "A cat sat down."):
        inspect(trained, "--text", "A dog had a ball.", "--output", page, "--no_ablate", "--compare", other)
        assert len(page.read_text(encoding="utf-8")) > len(alone) / 2
    assert {path.name for path in tmp_path.iterdir()} == {"story.txt", "record.safetensors", "page.html"}


def test_prompts_are_continued(trained, tmp_path):
    record = tmp_path / "record.safetensors"
    options = ("--prompt", "A dog", "--record", record, "--no_ablate", "--max_new_tokens")
    inspect(trained, *options, 3)
    short = MemoryRecord.load(record)
    inspect(trained, *options, 9)
    long = MemoryRecord.load(record)
    assert long.num_tokens == short.num_tokens + 6 and long.text.startswith("A dog")
    # Each token is the likeliest one after those before it.
    likely = long.tensors["top_ids"][-10:-1, 0].tolist()
    assert likely == long.tensors["token_ids"][-9:].tolist()


def test_serve(trained):
    command = [sys.executable, "-m", "mosaic_lab.programs.inspect_memories", trained, "--text", "A dog sat."]
    process = subprocess.Popen([*command, "--serve", "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        address = process.stdout.readline().split()[0]
        connection = http.client.HTTPConnection(address.removeprefix("http://").strip("/"))
        connection.request("GET", "/api/status")
        assert connection.getresponse().status == 200
    finally:
        process.terminate()
    assert process.wait(timeout=60) == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--output page.html", "exactly one of text, file and prompt must be given, not none"),
        ("--text a --prompt b --output page.html", "not ['text', 'prompt']"),
        ("--text a", "output, record or serve must be given"),
        ("--file missing.txt --output page.html", "missing.txt: cannot be read"),
        ("--text= --output page.html", "text must have 1 to 4096 tokens (max_tokens), not 0"),
        ("--prompt= --output page.html", "prompt: it is empty"),
        ("--text a --port 70000 --serve", "port must be at most 65535"),
    ],
)
def test_wrong_input_is_named(trained, tmp_path, monkeypatch, read_error, options, message):
    monkeypatch.chdir(tmp_path)
    assert message in read_error(inspect_memories.main, trained, *options.split())
    assert list(tmp_path.iterdir()) == []
