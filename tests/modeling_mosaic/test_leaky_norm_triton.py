"""The kernel in Triton's interpreter, on a CPU; that it compiles; and the kernel itself on a CUDA device."""

import importlib

import pytest
import torch

from modeling_mosaic.leaky_average import leaky_average, leaky_average_reference
from modeling_mosaic.memory_norms import scaled_unit
from triton_interpreter import interpreting

pytest.importorskip("triton", reason="needs the package triton")

MODULE = "modeling_mosaic.leaky_norm_triton"


def draw_inputs(batch, heads, time, dim, *optional, dtype=torch.float32, device="cpu", layout="BTHD"):
    """Raw keys as a model has them (layout "BTHD"), or every other number of a wider tensor ("wide")."""
    torch.manual_seed(time + dim)
    key = torch.randn(batch, time, heads, dim if layout == "BTHD" else 2 * dim, device=device).to(dtype)
    key = key[..., :: key.shape[-1] // dim].transpose(1, 2).requires_grad_()
    leak = (3 * torch.rand(heads, device=device) ** 2).requires_grad_()
    scale = (1 + torch.rand(heads, device=device)).requires_grad_()
    state = torch.randn(batch, heads, dim, device=device).requires_grad_() if "state" in optional else None
    masks = {}
    if "padding" in optional:
        masks["keep_BT"] = torch.rand(batch, time, device=device) < 0.7
    if "starts" in optional:
        masks["start_BT"] = torch.rand(batch, time, device=device) < 0.1
    return key, leak, scale, state, masks


def by_kernel(module):
    """The kernel, taking the arguments of `by_average`."""

    def run(key, leak, scale, state, **masks):
        decay_H11, scale_H11 = torch.exp(-leak).view(-1, 1, 1), scale.view(-1, 1, 1)
        state_BH1D = None if state is None else state[:, :, None]
        return module.leaky_norm_triton(key, decay_H11, scale_H11, state_BH1D, **masks)

    return run


def by_average(leaky_average):
    """The same in torch, from one form or another of the leaky average."""

    def run(key, leak, scale, state, **masks):
        average, _ = leaky_average(key, leak, state, **masks)
        return scaled_unit(average, scale.view(-1, 1, 1)), average

    return run


def values_and_gradients(function, key, leak, scale, state, masks, wanted=(0, 1)):
    outputs = function(key, leak, scale, state, **masks)
    torch.manual_seed(0)
    inputs = [key, leak, scale] + ([] if state is None else [state])
    # Of few digits, which every precision has.
    weights = [torch.randn(out.shape).bfloat16().to(out) for out in outputs]
    objective = sum((outputs[index] * weights[index]).sum().double() for index in wanted)
    return [*outputs, *torch.autograd.grad(objective, inputs, allow_unused=True, materialize_grads=True)]


def exact(leaky_average, *inputs, **options):
    """Values and gradients in float64 for the same, already rounded, numbers."""
    *tensors, masks = inputs
    tensors = [None if x is None else x.detach().cpu().double().requires_grad_() for x in tensors]
    masks = {name: mask.cpu() for name, mask in masks.items()}
    return values_and_gradients(by_average(leaky_average), *tensors, masks, **options)


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
        return by_kernel(interpreted)

    @pytest.fixture
    def short_chunks(self, interpreted, monkeypatch):
        """More chunks in less time: the interpreter takes 0.1 ms per number."""
        monkeypatch.setattr(interpreted, "CHUNK_SIZE", 8)
        monkeypatch.setattr(interpreted, "SHORT_CHUNK_SIZE", 4)

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

    @pytest.mark.usefixtures("short_chunks")
    @pytest.mark.parametrize("wanted", [[0], [1]])
    def test_gradients_of_one_result(self, run, wanted):
        inputs = draw_inputs(1, 2, 9, 4, "state")
        expected = exact(leaky_average_reference, *inputs, wanted=wanted)
        assert_all_close(values_and_gradients(run, *inputs, wanted=wanted), expected)

    @pytest.mark.parametrize(
        "time, optional", [(1, ["state"]), (63, ["state"]), (64, []), (65, ["state"]), (130, ["starts"])]
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
        assert all(result.transpose(1, 2).is_contiguous() for result in results[:2])

    @pytest.mark.usefixtures("short_chunks")
    def test_masks_of_one_row_hold_for_all(self, run):
        *tensors, _ = draw_inputs(2, 1, 9, 4)
        masks = {"keep_BT": torch.rand(1, 9) < 0.7, "start_BT": torch.rand(1, 9) < 0.2}
        inputs = *tensors, masks
        assert_all_close(values_and_gradients(run, *inputs), exact(leaky_average_reference, *inputs))
        with pytest.raises(RuntimeError, match="expand"):
            run(*tensors, keep_BT=torch.ones(2, 8, dtype=torch.bool))

    @pytest.mark.usefixtures("short_chunks")
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_averaged_in_float32(self, run, dtype):
        key, _, scale, state, masks = draw_inputs(1, 2, 40, 4, "state", "padding", dtype=dtype)
        leak = torch.tensor([0.01, 0.3]).requires_grad_()
        inputs = key, leak, scale, state.detach().to(dtype).requires_grad_(), masks
        with torch.autocast("cpu", dtype=torch.bfloat16):
            results = values_and_gradients(run, *inputs)
        full = torch.float32
        assert [x.dtype for x in results] == [dtype, full, dtype, full, full, dtype]
        assert_all_close(results, exact(leaky_average_reference, *inputs))

    @pytest.mark.usefixtures("short_chunks")
    @pytest.mark.parametrize("leak", [0.0, 1e-6, 50.0, 1e4])
    def test_extreme_leaks(self, run, leak):
        key, _, scale, state, masks = draw_inputs(1, 1, 20, 4, "state", "padding", "starts")
        inputs = key, torch.tensor([leak], requires_grad=True), scale, state, masks
        assert_all_close(values_and_gradients(run, *inputs), exact(leaky_average_reference, *inputs))

    @pytest.mark.usefixtures("short_chunks")
    def test_leak_gradient_is_the_slope(self, run):
        key, leak, scale, state, masks = draw_inputs(1, 2, 15, 4, "state", "padding", "starts")

        def objective(leak):
            keys, average = run(key.detach(), leak, scale.detach(), state.detach(), **masks)
            return average.double().square().sum() + keys.double().sum()

        (gradient,) = torch.autograd.grad(objective(leak), leak)
        for head, step in enumerate(0.005 * torch.eye(2)):
            slope = (objective(leak.detach() + step) - objective(leak.detach() - step)) / 0.01
            torch.testing.assert_close(gradient[head].double(), slope, rtol=1e-3, atol=1e-3)

    @pytest.mark.usefixtures("short_chunks")
    def test_padding_may_hold_anything(self, run):
        key, *others, _ = draw_inputs(1, 1, 10, 4)
        keep = torch.arange(10)[None] >= 3
        garbage = key.detach().masked_fill(~keep[:, None, :, None], torch.nan).requires_grad_()
        results = values_and_gradients(run, garbage, *others, {"keep_BT": keep})
        assert_all_close(results, exact(leaky_average_reference, key, *others, {"keep_BT": keep}))
        assert (results[0][:, :, :3] == 0).all()

    @pytest.mark.usefixtures("short_chunks")
    def test_runs_are_equal(self, run):
        inputs = draw_inputs(2, 2, 20, 5, "state", "padding", "starts")
        runs = zip(values_and_gradients(run, *inputs), values_and_gradients(run, *inputs), strict=True)
        assert all(torch.equal(first, second) for first, second in runs)

    @pytest.mark.usefixtures("short_chunks")
    def test_no_second_derivative(self, run):
        key, *others, _ = draw_inputs(1, 1, 3, 4)
        (gradient,) = torch.autograd.grad(run(key, *others)[0].sin().sum(), key, create_graph=True)
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
    constants = dict(CHUNK=module.CHUNK_SIZE, LANES=32, heads=1, time=1, grad_key_stride_d=1)
    pointers = dict.fromkeys(["raw_ptr", "key_ptr", "grad_key_ptr", "grad_raw_ptr"], f"*{dtype}")
    if optional:
        constants = dict(CHUNK=module.SHORT_CHUNK_SIZE, LANES=128)
        pointers |= dict.fromkeys(["keep_ptr", "start_ptr"], "*i1")
    else:
        absent = ["keep_ptr", "start_ptr", "state_ptr", "grad_state_ptr", "grad_average_ptr"]
        constants |= dict.fromkeys(absent)
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
        return by_kernel(importlib.import_module(MODULE))

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
        assert [x.dtype for x in results] == [dtype, torch.float32, dtype] + [torch.float32] * 3
        assert_all_close(results, exact(leaky_average, *inputs), rtol=1e-4)

    @pytest.mark.parametrize("leak", [0.0, 1e-6, 50.0, 1e4])
    def test_extreme_leaks(self, run, leak):
        key, _, scale, state, masks = draw_inputs(1, 1, 512, 64, "state", "padding", "starts", device="cuda")
        inputs = key, torch.tensor([leak], device="cuda", requires_grad=True), scale, state, masks
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
        _, average = run(key, torch.zeros(1, device="cuda"), torch.ones(1, device="cuda"), None)
        assert (average[:, :, -1] == 3).all()

    @pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
    def test_device_other_than_the_current_one(self, run):
        inputs = draw_inputs(2, 3, 130, 64, "state", device="cuda:1")
        results = [x.cpu() for x in values_and_gradients(run, *inputs)]
        assert_all_close(results, exact(leaky_average, *inputs), rtol=1e-4)
