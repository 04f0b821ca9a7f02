"""The kernel in Triton's interpreter, on a CPU; that it compiles; and the kernel itself on a CUDA device."""

import importlib

import pytest
import torch

from modeling_mosaic.leaky_average import leaky_average, leaky_average_reference
from triton_interpreter import interpreting

pytest.importorskip("triton", reason="needs the package triton")

MODULE = "modeling_mosaic.leaky_average_triton"


def draw_inputs(batch, heads, time, dim, *optional, dtype=torch.float32, device="cpu", layout="BTHD"):
    """Keys as a model hands them over (layout "BTHD"), or every other number of a wider tensor ("wide")."""
    torch.manual_seed(time + dim)
    key = torch.randn(batch, time, heads, dim if layout == "BTHD" else 2 * dim, device=device).to(dtype)
    key = key[..., :: key.shape[-1] // dim].transpose(1, 2).requires_grad_()
    leak = (3 * torch.rand(heads, device=device) ** 2).requires_grad_()
    state = torch.randn(batch, heads, dim, device=device).requires_grad_() if "state" in optional else None
    masks = {}
    if "padding" in optional:
        masks["keep_BT"] = torch.rand(batch, time, device=device) < 0.7
    if "starts" in optional:
        masks["start_BT"] = torch.rand(batch, time, device=device) < 0.1
    return key, leak, state, masks


def values_and_gradients(function, key, leak, state, masks):
    average, last = function(key, leak, state, **masks)
    torch.manual_seed(0)
    inputs = [key, leak] + ([] if state is None else [state])
    weights = [torch.randn(out.shape).to(out) for out in (average, last)]
    objective = (average * weights[0]).sum() + (last * weights[1]).sum()
    return [average, last, *torch.autograd.grad(objective, inputs)]


def exact(function, key, leak, state, masks):
    """Values and gradients in float64 for the same, already rounded, numbers."""
    key, leak, state = (
        None if x is None else x.detach().cpu().double().requires_grad_() for x in (key, leak, state)
    )
    masks = {name: mask.cpu() for name, mask in masks.items()}
    return values_and_gradients(function, key, leak, state, masks)


def assert_all_close(ours, theirs, rtol=1e-5):
    for our, their in zip(ours, theirs, strict=True):
        # The rounding of a head's gradient follows the sums it adds up, not what is left of them.
        atol = rtol * max(1.0, their.abs().max().item())
        # To bfloat16 the interpreter cuts bits off, where devices round: twice the error.
        own = 0.0 if our.dtype == torch.float32 else torch.finfo(our.dtype).eps
        torch.testing.assert_close(our.to(their), their, rtol=rtol + own, atol=atol)


@pytest.fixture(scope="class")
def interpreted():
    with interpreting(MODULE) as module:
        yield module


class TestInterpreted:
    @pytest.fixture(autouse=True)
    def poison(self, monkeypatch):
        """New memory holds NaN, so that what the kernels leave unwritten is seen."""

        def poisoned(allocate):
            return lambda *args, **kwargs: allocate(*args, **kwargs).fill_(torch.nan)

        for name in ("empty", "empty_like"):
            monkeypatch.setattr(torch, name, poisoned(getattr(torch, name)))

    @pytest.fixture
    def run(self, interpreted):
        return interpreted.leaky_average_triton

    @pytest.fixture
    def short_chunks(self, interpreted, monkeypatch):
        """More chunks in less time: the interpreter takes 0.1 ms per number."""
        monkeypatch.setattr(interpreted, "CHUNK_SIZE", 8)

    @pytest.mark.parametrize(
        "time, dim, optional",
        [
            (1, 4, []),
            (1, 4, ["state", "padding", "starts"]),
            (2, 5, ["state"]),
            (7, 16, ["padding"]),
            (8, 4, ["state", "starts"]),
            (9, 5, []),
            (9, 33, ["state", "padding", "starts"]),
            (16, 4, ["state", "padding"]),
            (17, 5, ["starts"]),
            (33, 4, ["padding", "starts"]),
            (41, 4, ["state", "padding", "starts"]),
        ],
    )
    @pytest.mark.usefixtures("short_chunks")
    def test_equals_the_recurrence(self, run, time, dim, optional):
        inputs = draw_inputs(2, 2, time, dim, *optional)
        assert_all_close(values_and_gradients(run, *inputs), exact(leaky_average_reference, *inputs))

    @pytest.mark.parametrize(
        "time, optional", [(63, ["state"]), (64, []), (65, ["state"]), (130, ["starts"])]
    )
    def test_long_chunks_equal_the_recurrence(self, run, time, optional):
        inputs = draw_inputs(1, 1, time, 4, *optional)
        assert_all_close(values_and_gradients(run, *inputs), exact(leaky_average_reference, *inputs))

    @pytest.mark.usefixtures("short_chunks")
    @pytest.mark.parametrize("layout", ["BTHD", "wide"])
    def test_layout(self, run, layout):
        inputs = draw_inputs(2, 3, 10, 5, "state", layout=layout)
        results = values_and_gradients(run, *inputs)
        assert_all_close(results, exact(leaky_average_reference, *inputs))
        assert results[0].transpose(1, 2).is_contiguous()

    @pytest.mark.usefixtures("short_chunks")
    def test_masks_of_one_row_hold_for_all(self, run):
        key, leak, state, _ = draw_inputs(2, 1, 9, 4)
        masks = {"keep_BT": torch.rand(1, 9) < 0.7, "start_BT": torch.rand(1, 9) < 0.2}
        inputs = key, leak, state, masks
        assert_all_close(values_and_gradients(run, *inputs), exact(leaky_average_reference, *inputs))
        with pytest.raises(RuntimeError, match="expand"):
            run(key, leak, keep_BT=torch.ones(2, 8, dtype=torch.bool))

    @pytest.mark.usefixtures("short_chunks")
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_averaged_in_float32(self, run, dtype):
        key, _, state, masks = draw_inputs(1, 2, 40, 4, "state", "padding", dtype=dtype)
        leak = torch.tensor([0.01, 0.3], dtype=dtype).requires_grad_()
        inputs = key, leak, state.detach().to(dtype).requires_grad_(), masks
        with torch.autocast("cpu", dtype=torch.bfloat16):
            results = values_and_gradients(run, *inputs)
        assert [x.dtype for x in results] == [torch.float32] * 2 + [dtype] * 3
        assert_all_close(results, exact(leaky_average_reference, *inputs))

    @pytest.mark.usefixtures("short_chunks")
    @pytest.mark.parametrize("leak", [0.0, 1e-6, 50.0, 1e4])
    def test_extreme_leaks(self, run, leak):
        key, _, state, masks = draw_inputs(1, 1, 20, 4, "state", "padding", "starts")
        inputs = key, torch.tensor([leak], requires_grad=True), state, masks
        assert_all_close(values_and_gradients(run, *inputs), exact(leaky_average_reference, *inputs))

    @pytest.mark.usefixtures("short_chunks")
    def test_leak_gradient_is_the_slope(self, run):
        key, leak, state, masks = draw_inputs(1, 2, 15, 4, "state", "padding", "starts")

        def objective(leak):
            average, last = run(key.detach(), leak, state.detach(), **masks)
            return average.double().square().sum() + last.double().sum()

        (gradient,) = torch.autograd.grad(objective(leak), leak)
        for head, step in enumerate(0.005 * torch.eye(2)):
            slope = (objective(leak.detach() + step) - objective(leak.detach() - step)) / 0.01
            torch.testing.assert_close(gradient[head].double(), slope, rtol=1e-3, atol=1e-3)

    @pytest.mark.usefixtures("short_chunks")
    def test_padding_may_hold_anything(self, run):
        key, leak, state, _ = draw_inputs(1, 1, 10, 4)
        keep = torch.arange(10)[None] >= 3
        garbage = key.detach().masked_fill(~keep[:, None, :, None], torch.nan).requires_grad_()
        results = values_and_gradients(run, garbage, leak, state, {"keep_BT": keep})
        assert_all_close(results, exact(leaky_average_reference, key, leak, state, {"keep_BT": keep}))

    @pytest.mark.usefixtures("short_chunks")
    def test_runs_are_equal(self, run):
        inputs = draw_inputs(2, 2, 20, 5, "state", "padding", "starts")
        runs = zip(values_and_gradients(run, *inputs), values_and_gradients(run, *inputs), strict=True)
        assert all(torch.equal(first, second) for first, second in runs)

    @pytest.mark.usefixtures("short_chunks")
    def test_no_second_derivative(self, run):
        key, leak, _, _ = draw_inputs(1, 1, 3, 4)
        (gradient,) = torch.autograd.grad(run(key, leak)[0].square().sum(), key, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            gradient.sum().backward()


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("optional", [False, True])
def test_compiles_for_cuda(capability, dtype, optional, tmp_path, monkeypatch):
    """What the interpreter accepts is not all that the compiler accepts; this needs no device."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    module = importlib.import_module(MODULE)
    constants = dict(CHUNK=module.CHUNK_SIZE, LANES=32, heads=1, time=1, grad_stride_d=1)
    pointers = dict.fromkeys(["key_ptr", "grad_key_ptr"], f"*{dtype}")
    if optional:
        constants = dict(CHUNK=module.CHUNK_SIZE, LANES=16)
        pointers |= dict.fromkeys(["keep_ptr", "start_ptr"], "*i1")
    else:
        constants |= dict.fromkeys(["keep_ptr", "start_ptr", "state_ptr", "grad_state_ptr"])
    for kernel in (module._forward_kernel, module._backward_kernel):
        names = kernel.arg_names
        kinds = {name: "*fp32" if name.endswith("_ptr") else "i32" for name in names}
        kinds |= {name: kind for name, kind in pointers.items() if name in names}
        kinds |= {name: "constexpr" for name in constants if name in names}
        values = {(names.index(name),): value for name, value in constants.items() if name in names}
        compiled = triton.compile(ASTSource(kernel, kinds, values), target=GPUTarget("cuda", capability, 32))
        assert compiled.metadata.shared < 48 * 1024


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestOnDevice:
    @pytest.fixture
    def run(self):
        return importlib.import_module(MODULE).leaky_average_triton

    @pytest.mark.parametrize("time", [1, 2, 31, 63, 64, 65, 130, 512, 4097])
    @pytest.mark.parametrize("dim", [1, 5, 16, 33, 64, 128])
    @pytest.mark.parametrize("optional", [[], ["state"], ["state", "padding", "starts"]])
    def test_equals_the_chunked_form(self, run, time, dim, optional):
        inputs = draw_inputs(2, 3, time, dim, *optional, device="cuda")
        results = [x.cpu() for x in values_and_gradients(run, *inputs)]
        assert_all_close(results, exact(leaky_average, *inputs), rtol=1e-4)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("layout", ["BTHD", "wide"])
    def test_half_precision(self, run, dtype, layout):
        options = dict(dtype=dtype, device="cuda", layout=layout)
        inputs = draw_inputs(2, 3, 4097, 64, "state", "padding", "starts", **options)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            results = [x.cpu() for x in values_and_gradients(run, *inputs)]
        assert [x.dtype for x in results] == [torch.float32] * 2 + [dtype] + [torch.float32] * 2
        assert_all_close(results, exact(leaky_average, *inputs), rtol=1e-4)

    @pytest.mark.parametrize("leak", [0.0, 1e-6, 50.0, 1e4])
    def test_extreme_leaks(self, run, leak):
        key, _, state, masks = draw_inputs(1, 1, 512, 64, "state", "padding", "starts", device="cuda")
        inputs = key, torch.tensor([leak], device="cuda", requires_grad=True), state, masks
        results = [x.cpu() for x in values_and_gradients(run, *inputs)]
        assert_all_close(results, exact(leaky_average, *inputs), rtol=1e-4)

    def test_runs_are_equal(self, run):
        inputs = draw_inputs(4, 8, 4097, 64, "state", "padding", device="cuda")
        first = values_and_gradients(run, *inputs)
        for _ in range(5):
            for ours, theirs in zip(values_and_gradients(run, *inputs), first, strict=True):
                assert torch.equal(ours, theirs)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("optional", [[], ["state", "padding", "starts"]])
    def test_under_torch_compile(self, run, dtype, optional):
        compiled = torch.compile(run, fullgraph=True)
        for time in (512, 700, 4097):
            inputs = draw_inputs(2, 3, time, 64, *optional, dtype=dtype, device="cuda")
            results = [x.cpu() for x in values_and_gradients(compiled, *inputs)]
            assert_all_close(results, exact(leaky_average, *inputs), rtol=1e-4)

    def test_offsets_beyond_32_bits(self, run):
        memory = torch.zeros(2**31 + 4, dtype=torch.bfloat16, device="cuda")
        key = memory.as_strided((1, 1, 3, 4), (0, 0, 2**30, 1)).fill_(1.0)
        _, last = run(key, torch.zeros(1, device="cuda"))
        assert (last == 3).all()

    @pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
    def test_device_other_than_the_current_one(self, run):
        inputs = draw_inputs(2, 3, 130, 64, "state", device="cuda:1")
        results = [x.cpu() for x in values_and_gradients(run, *inputs)]
        assert_all_close(results, exact(leaky_average, *inputs), rtol=1e-4)
