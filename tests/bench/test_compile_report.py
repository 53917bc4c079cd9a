"""The table of what compilers make of the kernels: it is current, no kernel spills, matrix units are used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from guide_fast.bench import compile_report, machine_code
from guide_fast.bench.sources import digest, include_closure, python_closure
from guide_fast.kernels import _extension

# A kernel that keeps more values alive than there are registers, one whose product is too small for wgmma.
BAD_KERNELS = """
import triton
import triton.language as tl

@triton.jit
def spilling_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for i in range(n):
        x = tl.load(x_ptr + i * BLOCK + at).to(tl.float32)
        total = total * x + i
    tl.store(y_ptr + at, total)

@triton.jit
def small_dot_kernel(x_ptr, y_ptr, n):
    at = tl.arange(0, 16)
    x = tl.load(x_ptr + at[:, None] * 16 + at[None, :])
    tl.store(y_ptr + at[:, None] * 16 + at[None, :], tl.dot(x, x))

@triton.jit
def broken_kernel(y_ptr):
    tl.store(y_ptr + tl.arange(0, 17), 0.0)

COMPILE = {
    "spills": (
        spilling_kernel, {"x_ptr": "*{T}", "y_ptr": "*fp32", "n": "i32"}, {"BLOCK": 8192}, {"num_warps": 1}
    ),
    "small": (small_dot_kernel, {"x_ptr": "*{T}", "y_ptr": "*fp32", "n": "i32"}, {}),
    "broken": (broken_kernel, {"y_ptr": "*{T}"}, {}),
    "half_only": (small_dot_kernel, {"x_ptr": "*{T}", "y_ptr": "*fp32", "n": "i32"}, {}, {"dtypes": ("bf16",)}),
}
"""


def test_table_is_made_from_the_kernels_that_are_here() -> None:
    stale = compile_report.stale_sources(compile_report.read())
    assert not stale, (
        f"{', '.join(stale)} changed: run `python -m guide_fast.bench.compile_report`, commit bench/results"
    )


def test_no_kernel_in_the_table_breaks_a_rule() -> None:
    assert not list(compile_report.problems(compile_report.read()["rows"]))


def test_readable_table_is_that_of_the_data() -> None:
    text = compile_report.TABLE.with_suffix(".md").read_text(encoding="utf-8")
    assert text == compile_report.markdown(compile_report.read())


@pytest.mark.slow
def test_every_triton_kernel_compiles_in_half_precision_without_spilling() -> None:
    modules = [file for file in compile_report.files() if file.suffix == ".py"]
    rows = compile_report.triton_rows(modules, ["fp16"], [90, 120], os.cpu_count() or 1)
    assert {row["file"] for row in rows} == {compile_report.relative(file) for file in modules}
    assert not list(compile_report.problems(rows))


def test_rules_can_be_broken(tmp_path: Path) -> None:
    file = tmp_path / "bad_triton.py"
    file.write_text(BAD_KERNELS, encoding="utf-8")
    rows = compile_report.triton_rows([file], ["fp16"], [90], 1)
    said = list(compile_report.problems(rows))
    assert [row["entry"] for row in rows] == ["spills", "small", "broken"]  # half_only is not for fp16
    assert len(said) == 3
    assert "spills: " in said[0] and "local memory" in said[0]
    assert "mma.sync, sm_90 has wgmma" in said[1]
    assert "broken does not compile" in said[2] and "power of 2" in said[2]


def test_built_library_holds_no_kernel_with_a_stack_of_its_own() -> None:
    if (reason := _extension.missing_cuda()) or machine_code.tool("cuobjdump") is None:
        pytest.skip(reason or "no cuobjdump here")
    usage = machine_code.resources(_extension.library_folder() / _extension.CORE)
    allowed: dict[str, int] = {}
    for row in compile_report.read()["rows"]:
        allowed[row["kernel"]] = max(allowed.get(row["kernel"], 0), row.get("stack", 0))
    names = compile_report.compile_cuda.readable(list(usage))
    over = [name for name, row in zip(names, usage.values(), strict=True) if row["stack"] > allowed.get(name, 0)]
    assert usage
    assert not over


def test_changed_header_changes_the_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from guide_fast.bench import sources

    monkeypatch.setattr(sources, "ROOT", tmp_path)
    for name, text in {
        "kernels/a/a.cu": '#include "a.cuh"\n#include <cuda_runtime.h>\n',
        "kernels/a/a.cuh": '#include "shared.h"\n',
        "csrc/common/shared.h": "int x;\n",
        "kernels/a/a_triton.py": "import x\n"
        "from guide_fast.kernels import _dispatch\nfrom guide_fast.kernels.b.b_triton import f\n",
        "kernels/b/b_triton.py": "def f():\n    return 1\n",
        "kernels/_dispatch.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    cuda, triton = tmp_path / "kernels/a/a.cu", tmp_path / "kernels/a/a_triton.py"
    assert {path.name for path in include_closure(cuda)} == {"a.cu", "a.cuh", "shared.h"}
    assert {path.name for path in python_closure(triton)} == {"a_triton.py", "b_triton.py"}
    before = digest(cuda), digest(triton)
    (tmp_path / "csrc/common/shared.h").write_text("int y;\n", encoding="utf-8")
    (tmp_path / "kernels/b/b_triton.py").write_text("def f():\n    return 2\n", encoding="utf-8")
    assert digest(cuda) != before[0]
    assert digest(triton) != before[1]


def test_sass_is_read() -> None:
    text = """
\t.section\t.text.kernel_a,"ax",@progbits
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/              @!P0 STL.64 [R1+0x8], R2 ;
        /*0020*/                   LDL R3, [R1] ;
        /*0030*/                   HMMA.16816.F32 R4, R4, R8, R4 ;
        /*0040*/                   HGMMA.64x64x16.F32 R24, gdesc[UR4], R24 ;
\t.section\t.text.kernel_b,"ax",@progbits
        /*0000*/                   EXIT ;
"""
    read = machine_code.read_sass(text)
    assert read["kernel_a"] == {"code_bytes": 80, "local_loads": 4, "local_stores": 8, "matrix": "wgmma"}
    assert read["kernel_b"] == {"code_bytes": 16, "local_loads": 0, "local_stores": 0, "matrix": None}
