"""Files that appear once they are complete: whatever goes wrong, what was there stays."""

import os
import stat

import pytest
import torch
from safetensors.torch import load_file, save_file

from modeling_mosaic.complete_files import replacing


def test_files_appear_complete_and_others_may_read_them(tmp_path):
    path = tmp_path / "new" / "pairs.safetensors"
    with replacing(path) as partial:
        save_file({"keys": torch.ones(2)}, partial)
        assert not path.exists()
    assert torch.equal(load_file(path)["keys"], torch.ones(2))
    (tmp_path / "plain").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert os.listdir(path.parent) == [path.name]


def test_failures_leave_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(OSError, match="disk full"), replacing(path) as partial:
        partial.write_text("half")
        raise OSError("disk full")
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["file"]
    with pytest.raises(ValueError, match=r"file/inside: cannot be written"), replacing(path / "inside"):
        pass


def test_folders_replace_empty_ones_only(tmp_path):
    for name in ("empty", "full"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "kept").touch()

    def fill(name):
        with replacing(tmp_path / name) as partial:
            partial.mkdir()
            (partial / "new").touch()

    fill("empty")
    assert os.listdir(tmp_path / "empty") == ["new"]
    with pytest.raises(OSError):
        fill("full")
    assert os.listdir(tmp_path / "full") == ["kept"] and sorted(os.listdir(tmp_path)) == ["empty", "full"]
