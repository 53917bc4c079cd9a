"""fused_adam: every implementation against torch.optim.Adam, bad input, the device maths."""

from __future__ import annotations

import ctypes
from pathlib import Path

import contract
import pytest
import torch
from torch import Tensor

from guide_fast.kernels import ImplementationUnavailable, KernelError, fused_adam
from guide_fast.kernels.fused_adam._table import CHUNK, table_of

SHAPES = {
    "one": [(1,)],
    "several": [(5, 7), (3,), (2, 3, 5, 1), (1, 1, 1, 1)],
    "chunks": [(CHUNK + 3,), (10,)],
}
STEPS = 3
LR = 1e-2


def tensors(shapes: list[tuple[int, ...]], seed: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=random).to(contract.DEVICE, dtype) for shape in shapes]


def skip_unless_it_runs(impl: str) -> None:
    if impl == "cpu":
        contract.require_extension()
        if contract.DEVICE != "cpu":
            pytest.skip("the tensors are on a GPU")


def moved(impl: str, shapes: list[tuple[int, ...]], grad_dtype: torch.dtype, copy_dtype: torch.dtype | None, **more):
    """Parameters, moments, copies after STEPS steps."""
    params = tensors(shapes, 0)
    m, v = ([torch.zeros_like(p) for p in params] for _ in range(2))
    copies = None if copy_dtype is None else [torch.full_like(p, torch.nan, dtype=copy_dtype) for p in params]
    for step in range(1, STEPS + 1):
        grads = tensors(shapes, step, grad_dtype)
        fused_adam(params, grads, m, v, step=step, lr=LR, working_copies=copies, impl=impl, **more)
    return params, m, v, copies


def exact(shapes: list[tuple[int, ...]], grad_dtype: torch.dtype, **more) -> list[Tensor]:
    """The same in fp64 by torch.optim.Adam."""
    params = [p.double().requires_grad_() for p in tensors(shapes, 0)]
    optimizer = torch.optim.Adam(params, lr=LR, **more)
    for step in range(1, STEPS + 1):
        for p, g in zip(params, tensors(shapes, step, grad_dtype), strict=True):
            p.grad = g.double()
        optimizer.step()
    return [p.detach() for p in params]


def assert_rounded(copy: Tensor, param: Tensor, impl: str) -> None:
    if impl == "triton" and copy.dtype == torch.bfloat16 and not copy.is_cuda:
        assert ((copy.float() - param).abs() < 2.0**-7 * param.abs()).all()  # the interpreter cuts bits off
    else:
        assert torch.equal(copy, param.to(copy.dtype))


@pytest.mark.parametrize("impl", contract.implementations("reference", "triton", "cuda", "cpu"))
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(
    ("grad_dtype", "copy_dtype"),
    [
        (torch.float32, None),
        (torch.float16, torch.float16),
        (torch.bfloat16, torch.bfloat16),
        (torch.float32, torch.float16),
    ],
    ids=["fp32", "fp16", "bf16", "mixed"],
)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_steps_are_those_of_adam_to_rounding(
    impl: str,
    shapes: list[tuple[int, ...]],
    grad_dtype: torch.dtype,
    copy_dtype: torch.dtype | None,
    weight_decay: float,
) -> None:
    skip_unless_it_runs(impl)
    params, m, v, copies = moved(impl, shapes, grad_dtype, copy_dtype, weight_decay=weight_decay)
    # each step rounds a parameter once; its update, at most lr * 3.2, passes through at most 16 roundings
    bound = STEPS * 2.0**-24 * (max(p.abs().max().item() for p in params) + 16 * 3.2 * LR)
    for got, want in zip(params, exact(shapes, grad_dtype, weight_decay=weight_decay), strict=True):
        assert (got - want).abs().max() <= bound
    assert all((t >= 0).all() for t in v) and all(t.any() for t in m)
    for got, param in zip(copies or [], params, strict=bool(copies)):
        assert_rounded(got, param, impl)


@pytest.mark.parametrize("impl", contract.implementations("triton", "cuda", "cpu"))
def test_tensors_without_gradient_are_left_alone(impl: str) -> None:
    skip_unless_it_runs(impl)
    params, grads = tensors(SHAPES["several"], 0), tensors(SHAPES["several"], 1)
    m, v = ([torch.zeros_like(p) for p in params] for _ in range(2))
    before = params[1].clone()
    fused_adam(params, [grads[0], None, *grads[2:]], m, v, step=1, lr=LR, impl=impl)
    assert torch.equal(params[1], before) and not m[1].any() and m[0].any()
    fused_adam(params, [None] * 4, m, v, step=2, lr=LR, impl=impl)


@pytest.mark.parametrize("impl", contract.implementations("triton", "cuda", "cpu"))
def test_kinds_of_tensors_may_be_mixed(impl: str) -> None:
    skip_unless_it_runs(impl)
    shapes = [(4, 3)] * 3
    params = tensors(shapes, 0)
    expected = [p.clone() for p in params]
    m, v = ([torch.zeros_like(p) for p in params] for _ in range(2))
    grads = [g.to(d) for g, d in zip(tensors(shapes, 1), (torch.float32, torch.float16, torch.float32), strict=True)]
    copies = [None, torch.empty_like(params[1], dtype=torch.float16), torch.empty_like(params[2], dtype=torch.bfloat16)]
    fused_adam(params, grads, m, v, step=1, lr=LR, working_copies=copies, impl=impl)
    zeros = [[torch.zeros_like(p) for p in params] for _ in range(2)]
    fused_adam(expected, grads, *zeros, step=1, lr=LR, impl="reference")
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(params, expected, strict=True))
    assert_rounded(copies[1], params[1], impl)
    assert_rounded(copies[2], params[2], impl)


@pytest.mark.parametrize("impl", contract.implementations("triton", "cuda", "cpu"))
def test_layout_of_parameters_is_followed(impl: str) -> None:
    skip_unless_it_runs(impl)
    (p,), (g,) = tensors([(4, 3, 5, 2)], 0), tensors([(4, 3, 5, 2)], 1)
    p = p.contiguous(memory_format=torch.channels_last)
    want = p.clone()
    fused_adam([want], [g], [torch.zeros_like(p)], [torch.zeros_like(p)], step=1, lr=LR, impl="reference")
    fused_adam([p], [g], [torch.zeros_like(p)], [torch.zeros_like(p)], step=1, lr=LR, impl=impl)
    assert torch.allclose(p, want, atol=1e-7)


@pytest.mark.parametrize("impl", contract.implementations("triton", "cuda", "cpu"))
def test_views_off_alignment_are_reached(impl: str) -> None:
    skip_unless_it_runs(impl)
    base = torch.zeros(12, device=contract.DEVICE)
    p, (g,) = base[1:8], tensors([(7,)], 1)
    assert not table_of([p], [g], [p], [p], {}, [0]).aligned
    fused_adam([p], [g], [torch.zeros_like(p)], [torch.zeros_like(p)], step=1, lr=LR, impl=impl)
    assert torch.allclose(p, -LR * g.sign(), rtol=1e-4) and not base[0] and not base[8:].any()


def test_strides_that_no_kernel_reads_take_the_reference() -> None:
    p, g = torch.zeros(4, 6).T, torch.ones(6, 4)
    fused_adam([p], [g], [torch.zeros_like(p)], [torch.zeros_like(p)], step=1, lr=LR)
    assert torch.allclose(p, torch.full_like(p, -LR))
    with pytest.raises(ImplementationUnavailable, match="strides"):
        fused_adam([p], [g], [p], [p], step=1, lr=LR, impl="triton")


def test_table_is_kept_while_addresses_stay() -> None:
    params = tensors(SHAPES["several"], 0)
    one, other = (table_of(params, params, params, params, {}, [0] * 4) for _ in range(2))
    assert one.rows is other.rows and one.chunk_start is other.chunk_start
    assert one.rows is not table_of(params, tensors(SHAPES["several"], 1), params, params, {}, [0] * 4).rows


def test_operator_keeps_torch_library_rules() -> None:
    contract.require_extension()
    params, grads = ([t.cpu() for t in tensors(SHAPES["several"], seed)] for seed in (0, 1))
    m, v, copies = ([torch.zeros_like(p, dtype=d) for p in params] for d in (torch.float32, torch.float32, torch.half))
    factors = [0.1, 0.999, 0.001, 0.1, 31.6, 1e-8, 0.0]
    settings = [0] * len(params)
    operator = torch.ops.guide_fast.fused_adam
    torch.library.opcheck(operator, (params, grads, m, v, copies, [*range(len(params))], settings, factors, "cpu"))
    torch.library.opcheck(operator, (params, grads, m, v, copies[2:3], [2], [0, 1, 0, 1], factors * 2, "cpu"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"grads": []}, "0 entries"),
        ({"grads": [torch.zeros(3)]}, r"\(3,\)"),
        ({"grads": [torch.zeros(2, dtype=torch.float64)]}, "float64"),
        ({"grads": [torch.zeros(2).to_sparse()]}, "sparse"),
        ({"grads": [torch.zeros(2, device="meta")]}, "meta"),
        ({"params": [torch.zeros(2, dtype=torch.float16)]}, "float16"),
        ({"exp_avgs": [torch.zeros(2, dtype=torch.bfloat16)]}, "bfloat16"),
        ({"exp_avg_sqs": [torch.zeros(4)[::2]]}, r"\(2,\)"),
        ({"working_copies": [torch.zeros(3, dtype=torch.float16)]}, r"\(3,\)"),
        ({"working_copies": [torch.zeros(2, dtype=torch.int8)]}, "int8"),
        ({"step": 0}, "step=0"),
        ({"lr": -1.0}, "lr=-1"),
        ({"beta2": 1.0}, "beta2=1"),
        ({"eps": -1e-8}, "eps"),
        ({"impl": "fast"}, "fast"),
    ],
)
def test_bad_input_is_named(change: dict, said: str) -> None:
    lists = {name: [torch.zeros(2)] for name in ("params", "grads", "exp_avgs", "exp_avg_sqs")}
    arguments = lists | {"step": 1, "lr": LR} | change
    with pytest.raises(KernelError, match=said):
        fused_adam(**arguments)


@pytest.mark.parametrize(
    ("impl", "dtype", "said"), [("cuda", torch.float32, "on cpu"), ("triton", torch.float64, "float64")]
)
def test_implementation_that_cannot_run_says_why(impl: str, dtype: torch.dtype, said: str) -> None:
    t = [torch.zeros(2, dtype=dtype)]
    with pytest.raises(ImplementationUnavailable, match=said):
        fused_adam(t, t, t, t, step=1, lr=LR, impl=impl)


def test_device_maths_of_an_element_is_exact_to_rounding(tmp_path: Path) -> None:
    code = """
    extern "C" float step(float p, float g, float* m, float* v, float step_size, float bias2_rsqrt, float decay) {
      const gf::adam_factors f{0.1f, 0.999f, 0.001f, step_size, bias2_rsqrt, 1e-8f, decay};
      return gf::adam(f, p, g, *m, *v);
    }"""
    maths = contract.compile_header("fused_adam.cuh", code, tmp_path)
    maths.step.argtypes = [*[ctypes.c_float] * 2, *[ctypes.POINTER(ctypes.c_float)] * 2, *[ctypes.c_float] * 3]
    maths.step.restype = ctypes.c_float
    random = torch.Generator().manual_seed(0)
    for decay in (0.0, 0.1):
        p, g, m, v = torch.randn(4, 64, generator=random).unbind()
        v = v.square()
        reference = [t.double() for t in (p, g, m, v)]
        lr, bias1, bias2 = 1e-2, 1 - 0.9**3, 1 - 0.999**3
        params = [[t] for t in reference]
        fused_adam(*params, step=3, lr=lr, weight_decay=decay, impl="reference")
        for i in range(64):
            mi, vi = ctypes.c_float(m[i]), ctypes.c_float(v[i])
            got = maths.step(p[i], g[i], mi, vi, lr / bias1, bias2**-0.5, decay)
            for value, want in zip((got, mi.value, vi.value), (reference[0], *reference[2:]), strict=True):
                # at most 8 roundings, of values up to that of the largest term
                assert abs(value - want[i]) <= 16 * 2.0**-24 * max(1.0, abs(want[i]), abs(p[i]))


def test_native_module_steps_a_numpy_array() -> None:
    contract.require_extension()
    from guide_fast import _native

    (p,), (g,) = (tensors([(4, 3)], seed) for seed in (0, 1))
    p, g, m, v = p.cpu(), g.cpu(), torch.zeros(4, 3), torch.zeros(4, 3)
    want = [t.clone() for t in (p, m, v)]
    _native.fused_adam(p.numpy(), g.numpy(), m.numpy(), v.numpy(), step=1, lr=LR)
    fused_adam([want[0]], [g], [want[1]], [want[2]], step=1, lr=LR, impl="cpu")
    assert all(torch.equal(a, b) for a, b in zip((p, m, v), want, strict=True))
    with pytest.raises(ValueError, match="12 elements"):
        _native.fused_adam(p.numpy(), g[0].numpy(), m.numpy(), v.numpy(), step=1, lr=LR)
    with pytest.raises(ValueError, match="step 0"):
        _native.fused_adam(p.numpy(), g.numpy(), m.numpy(), v.numpy(), step=0, lr=LR)
