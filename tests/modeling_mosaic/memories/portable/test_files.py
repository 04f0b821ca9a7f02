"""Memories in files and on the Hub."""

import huggingface_hub.constants
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hub_server import READER, WRITER, run_hub
from memory_texts import list_tensors
from modeling_mosaic import MosaicMemory


def test_files_come_back_as_they_were(take, tmp_path):
    memory, _ = take(5, 4)
    part = memory.keep(pairs=[2, 5])
    part.save(tmp_path / "memory.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["memory.safetensors"]
    back = MosaicMemory.load(tmp_path / "memory.safetensors")
    assert repr(back) == repr(part)
    for name in ("sources", "beginning_id", "model_type"):
        assert getattr(back, name) == getattr(part, name)
    for found, expected in zip(list_tensors(back), list_tensors(part), strict=True):
        assert torch.equal(found, expected) and found.dtype == expected.dtype


def test_damaged_files_are_refused(take, tmp_path):
    memory, _ = take(5, 4)
    path = tmp_path / "memory.safetensors"
    memory.save(path)
    whole = path.read_bytes()
    for size in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"memory.safetensors: damaged, or no memory"):
            MosaicMemory.load(path)
    path.write_bytes(whole)
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    for changes, message in {
        ("version", "2"): "a memory of version 2; this release reads version 1",
        ("format", "x"): "no memory of a mosaic",
        ("sources", "[1"): "damaged",
        ("model_type", "llama"): "damaged, or no memory: 'llama'",
        ("sources", '["text 0"]'): "not among the 1 sources",
    }.items():
        save_file(tensors, path, metadata | dict([changes]))
        with pytest.raises(ValueError, match=message):
            MosaicMemory.load(path)
    # As files were before there was a second model.
    save_file(tensors, path, {name: value for name, value in metadata.items() if name != "model_type"})
    if memory.model_type == "mosaic":
        assert repr(MosaicMemory.load(path)) == repr(memory)
    else:
        with pytest.raises(ValueError, match="damaged, or no memory: .*contextual_average"):
            MosaicMemory.load(path)
    for name, tensor in {"keys": tensors["keys"] * float("nan"), "tokens": tensors["tokens"][1:]}.items():
        save_file(tensors | {name: tensor.contiguous()}, path, metadata)
        with pytest.raises(ValueError, match=name):
            MosaicMemory.load(path)
    del tensors["values"]
    save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match="damaged, or no memory: .*values"):
        MosaicMemory.load(path)
    with pytest.raises(OSError):
        MosaicMemory.load(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="cannot be written"):
        memory.save(path / "memory.safetensors")
    path.unlink()
    assert list(tmp_path.iterdir()) == []


def test_push(model, take, tmp_path, monkeypatch):
    memory, _ = take(5, 4)
    folder = memory.push_to_hub("somebody/tom", dry_run=tmp_path / "dry", base_model="somebody/stories")
    files = {"README.md", "memory.safetensors"}
    assert {path.name for path in (tmp_path / "dry").iterdir()} == files
    assert repr(MosaicMemory.load(folder, model)) == repr(memory)
    card = ModelCard.load(tmp_path / "dry" / "README.md")
    assert card.data.base_model == "somebody/stories" and repr(memory) in card.text
    with pytest.raises(OSError):
        memory.push_to_hub("somebody/tom", dry_run=tmp_path / "dry")
    for wrong in ("tom", "a/b/c"):
        with pytest.raises(ValueError, match=wrong):
            memory.push_to_hub(wrong, dry_run=tmp_path / "other")
    with run_hub() as hub:
        for name, value in {
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "ENDPOINT": hub.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
        }.items():
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        assert hub.endpoint in memory.push_to_hub("somebody/tom", token=WRITER)
        assert set(hub.repositories["models", "somebody/tom"].at("main")[1]) >= files
        monkeypatch.setenv("HF_TOKEN", READER)
        assert repr(MosaicMemory.load("somebody/tom", model)) == repr(memory)
