"""The kernel of the gated average in Triton's interpreter; that it compiles; and itself on a CUDA device."""

import importlib

import pytest
import torch

from modeling_mosaic import gated_average
from triton_interpreter import interpreting

pytest.importorskip("triton", reason="needs the package triton")

MODULE = "modeling_mosaic.gated_average_triton"


@pytest.fixture(scope="class")
def kernel():
    """The interpreted kernel, with more chunks in less time."""
    with interpreting(MODULE) as module:
        module.CHUNK_SIZE = 8
        yield module.fading_sum_triton


def draw(time, dim, has_state, dtype=torch.float32, device="cpu"):
    """What is added lies in memory as a model hands it over, and is half of a wider tensor."""
    torch.manual_seed(time)
    x_BHTD = torch.randn(2, time, 2, 2 * dim, device=device).to(dtype)[..., ::2].transpose(1, 2)
    fade_BHT = torch.randn(2, 2, time, device=device).abs()
    # Nothing fades, and all is forgotten.
    fade_BHT[..., ::5], fade_BHT[..., ::7] = 0, gated_average.FORGOTTEN
    return x_BHTD, fade_BHT, torch.randn(2, 2, dim, device=device) if has_state else None


class TestInterpreted:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize(
        "time, dim, has_state", [(2, 5, True), (8, 4, False), (17, 16, True), (19, 18, False)]
    )
    def test_equals_the_chunks(self, kernel, monkeypatch, time, dim, has_state, dtype):
        empty = torch.Tensor.new_empty
        # What the kernel leaves unwritten is seen.
        monkeypatch.setattr(
            torch.Tensor, "new_empty", lambda *args, **kw: empty(*args, **kw).fill_(torch.nan)
        )
        x, fade, state = draw(time, dim, has_state, dtype)
        exact = (x.double(), fade.double(), None if state is None else state.double())
        found = kernel(x, fade, state)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), gated_average._fading_sum(*exact), rtol=1e-5, atol=1e-5)
        found, expected = kernel(x, fade, None, True), gated_average._fading_sum(*exact[:2], None, True)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("backwards", [False, True])
def test_compiles_for_cuda(capability, dtype, backwards, tmp_path, monkeypatch):
    """What the interpreter accepts is not all that the compiler accepts; this needs no device."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    module = importlib.import_module(MODULE)
    kernel = module._fading_sum_kernel
    constants = dict(BACKWARDS=backwards, CHUNK=module.CHUNK_SIZE, LANES=32)
    constants |= dict(state_ptr=None, time=1) if backwards else {}
    kinds = {name: "*fp32" if name.endswith("_ptr") else "i32" for name in kernel.arg_names}
    kinds |= {"x_ptr": f"*{dtype}"} | dict.fromkeys(constants, "constexpr")
    values = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    compiled = triton.compile(ASTSource(kernel, kinds, values), target=GPUTarget("cuda", capability, 32))
    assert compiled.metadata.shared < 48 * 1024


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("time, dim, has_state", [(2, 64, True), (1000, 128, False), (4097, 80, True)])
def test_on_a_device(time, dim, has_state):
    from modeling_mosaic.gated_average_triton import fading_sum_triton

    x, fade, state = draw(time, dim, has_state, device="cuda")
    for arguments in ((x, fade, state, False), (x, fade, None, True)):
        exact = [value.double() if isinstance(value, torch.Tensor) else value for value in arguments]
        expected = gated_average._fading_sum(*exact)
        torch.testing.assert_close(fading_sum_triton(*arguments).double(), expected, rtol=1e-4, atol=1e-4)
