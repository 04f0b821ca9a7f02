import pytest
import torch

from mosaic_lab.core.devices import check_dtype, find_device
from mosaic_lab.core.errors import InputError


def test_without_an_accelerator(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert find_device(None) == find_device("cpu") == torch.device("cpu")
    for name in ("cuda", "cuda:99", "tpu", "-1", "meta", "", "cpu:0"):
        with pytest.raises(InputError, match=f"^device {name}: not in this machine, which has cpu$"):
            find_device(name)


def test_with_two(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    assert find_device(None) == find_device("cuda") == torch.device("cuda")
    assert find_device("cuda:1") == torch.device("cuda:1") and find_device("cpu") == torch.device("cpu")
    with pytest.raises(
        InputError, match="device cuda:2: not in this machine, which has cpu, cuda, cuda:0, cuda:1"
    ):
        find_device("cuda:2")


def test_dtypes():
    check_dtype("auto")
    for name in ("nope", "float8_e4m3fn", "int8", "Float32"):
        with pytest.raises(InputError, match=f"dtype must be one of auto, .*, not {name}"):
            check_dtype(name)
