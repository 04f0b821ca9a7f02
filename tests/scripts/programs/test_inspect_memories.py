import csv
import http.client
import json
import signal
import subprocess
import sys

import pytest

from modeling_mosaic import MemoryRecord, SlotStatistics, scan_slots
from mosaic_lab.programs import inspect_memories
from mosaic_lab.training.model import load_with_tokenizer


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
    for other in (trained, text, "A cat sat down.", "untrained"):
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


def test_slots_over_a_corpus(trained, tmp_path, capsys):
    texts = [f"A dog had {number} balls." for number in range(5)]
    (tmp_path / "stories.jsonl").write_text("".join(json.dumps({"story": text}) + "\n" for text in texts))
    corpus = ("--corpus", tmp_path, "--text_column", "story", "--num_texts", 3, "--device", "cpu")
    inspect(trained, *corpus, "--slots", tmp_path / "slots.csv")
    assert "of 3 texts" in capsys.readouterr().out
    model, tokenizer = load_with_tokenizer(str(trained))
    found = scan_slots(model, tokenizer, texts[:3])
    with open(tmp_path / "slots.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [{name: str(cell) for name, cell in row.items()} for row in found.rows()]
    page, slots = tmp_path / "page.html", tmp_path / "slots.safetensors"
    inspect(trained, "--text", "A dog.", "--no_ablate", *corpus, "--slots", slots, "--output", page)
    assert SlotStatistics.load(slots).num_tokens == found.num_tokens
    assert 'data-pack="0.corpus"' in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--output page.html", "exactly one of text, file and prompt must be given, not none"),
        ("--text a --prompt b --output page.html", "not ['text', 'prompt']"),
        ("--text a", "output, record or serve must be given"),
        ("--file missing.txt --output page.html", "missing.txt: cannot be read"),
        ("--text= --output page.html", "text must have 1 to 4096 tokens (max_tokens), not 0"),
        ("--prompt= --output page.html", "prompt: it is empty"),
        ("--corpus missing.jsonl --slots s.csv", "missing.jsonl: cannot be read"),
        ("--corpus a --slots s.txt", "slots must be a .csv or .safetensors file, not s.txt"),
        ("--corpus a --output p.html", "exactly one of text, file and prompt must be given, not none"),
        ("--corpus a --text b --record r", "slots, output or serve must be given"),
        ("--text a --output p.html --slots s.csv", "slots s.csv: needs a corpus"),
        ("--text a --port 70000 --serve", "port must be at most 65535"),
    ],
)
def test_wrong_input_is_named(trained, tmp_path, monkeypatch, read_error, options, message):
    monkeypatch.chdir(tmp_path)
    assert message in read_error(inspect_memories.main, trained, *options.split())
    assert list(tmp_path.iterdir()) == []
