"""`serve`: what it asks of a server, and what it refuses; `tests/tools/test_serve.py` has answers."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from modeling_mosaic import MosaicConfig
from mosaic_lab.programs import serve

SCRIPT = Path(__file__).parents[3] / "scripts" / "serve.py"


@pytest.fixture
def folder(tmp_path):
    """A folder with a config alone: no more is read before the server starts."""
    MosaicConfig().save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def test_options_of_the_server():
    options = serve.read_server_options(["--cb-num-blocks", "5", "--cb_max_batch_tokens=7", "--enable-cors"])
    assert (options["cb_num_blocks"], options["cb_max_batch_tokens"], options["enable_cors"]) == (5, 7, True)
    assert options["device"] == "auto" and not {"host", "port", "force_model"} & options.keys()


def refused(capsys, *argv):
    with pytest.raises(SystemExit) as stop:
        serve.main(list(argv))
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_refuses(folder, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(serve, "is_serve_available", lambda: True)
    assert "port must be at most 65535" in refused(capsys, folder, "--port", "65536")
    assert "engine must be one of transformers, vllm" in refused(capsys, folder, "--engine", "tgi")
    assert f"model {tmp_path}: cannot be loaded" in refused(capsys, str(tmp_path))
    assert "--nonsense 3: No such option" in refused(capsys, folder, "--nonsense", "3")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"port {port}: Address already in use" in refused(capsys, folder, "--port", port)
    monkeypatch.setattr(serve, "is_serve_available", lambda: False)
    assert "pip install 'memory-mosaics[serve]'" in refused(capsys, folder, "--port", port)
    monkeypatch.setattr(serve, "find_spec", lambda name: None)
    assert "vllm is missing" in refused(capsys, folder, "--port", port, "--engine", "vllm")


def test_hands_over_to_vllm(folder, tmp_path):
    """vLLM's server runs in place of the program, with all options as they were typed."""
    module = tmp_path / "vllm" / "entrypoints" / "openai" / "api_server.py"
    module.parent.mkdir(parents=True)
    module.write_text("import json, os, sys\nprint(json.dumps([os.getpid(), *sys.argv[1:]]))")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    command = [
        sys.executable,
        str(SCRIPT),
        folder,
        "--engine",
        "vllm",
        "--max-num-seqs",
        "3",
        "--port",
        "8765",
    ]
    program = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE)
    printed, _ = program.communicate(timeout=120)
    address = ["--host", "127.0.0.1", "--port", "8765"]
    assert json.loads(printed) == [program.pid, "--model", folder, *address, "--max-num-seqs", "3"]
