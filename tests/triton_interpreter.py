"""Modules with Triton kernels, interpreted on a CPU."""

import importlib
import importlib.util
import sys
from contextlib import contextmanager

import pytest


def _is_python_of_triton(name: str) -> bool:
    return name.split(".")[0] == "triton" and not name.startswith("triton._C")


@contextmanager
def interpreting(module_name: str):
    """The module with interpreted kernels, on a triton of its own.

    Triton decides at import whether to interpret, also for functions of its own such as `tl.sum`.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        compiled = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_python_of_triton(name)}
        try:
            spec = importlib.util.find_spec(module_name)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            yield module
        finally:
            for name in filter(_is_python_of_triton, list(sys.modules)):
                del sys.modules[name]
            sys.modules.update(compiled)
