"""Compiles Triton kernels for GPUs that need not be there.

Runs as a process of its own, since the interpreter's switch is read when triton is imported: the work comes as JSON on
stdin, rows leave as one JSON object a line on stdout.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from guide_fast.bench import machine_code

# Channel counts, sizes of published generators' large layers are multiples of 16; run-time specialisation finds that,
# so the table does. A matrix product calls channels depth, width.
DIVISIBLE = ("channels", "in_channels", "out_channels", "inputs", "outputs", "depth", "tap_stride", "height", "width")
OURS = ("dtypes", "archs", "divisible")  # options of a COMPILE entry that are not the compiler's


def main() -> int:
    """Compile this process's share of the entries that stdin names."""
    assert os.environ.get("TRITON_INTERPRET", "") in ("", "0"), "TRITON_INTERPRET is set: nothing would be compiled"
    work = json.load(sys.stdin)
    modules = {file: load(Path(file)) for file in work["files"]}
    jobs = [(file, module, entry) for file, module in modules.items() for entry in module.COMPILE]
    for file, module, entry in jobs[work["share"] :: work["shares"]]:
        try:
            rows = list(compile_entry(module, entry, work["dtypes"], work["archs"]))
        except Exception as error:  # whatever the compiler raises belongs into the table's error
            rows = [{"entry": entry, "error": f"{type(error).__name__}: {error}"[:2000]}]
        for row in rows:
            sys.stdout.write(json.dumps({"file": file} | row) + "\n")
        sys.stdout.flush()
    return 0


def load(file: Path) -> ModuleType:
    """The module of a Triton file: of the package, or any other file with a COMPILE table."""
    package = Path(__file__).resolve().parents[1] / "kernels"
    if file.is_relative_to(package):
        name = ".".join(("guide_fast.kernels", *file.relative_to(package).with_suffix("").parts))
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compile_entry(module: ModuleType, entry: str, dtypes: list[str], archs: list[int]) -> Iterator[dict[str, Any]]:
    """A row for every dtype, architecture of one COMPILE entry; those it is not launched with are left out."""
    kernel, signature, constants, *rest = module.COMPILE[entry]
    options = rest[0] if rest else {}
    depends = any("{T}" in kind for kind in signature.values())
    for dtype in dtypes:
        if dtype not in options.get("dtypes", dtypes) or (not depends and dtype != dtypes[0]):
            continue
        for arch in (arch for arch in archs if arch in options.get("archs", archs)):
            label = dtype if depends else "any"
            row = {"entry": entry, "kernel": kernel.__name__, "dtype": label, "arch": arch}
            yield row | compile_one(kernel, signature, constants, options, dtype, arch)


def compile_one(
    kernel: Any, signature: dict[str, str], constants: dict[str, Any], options: dict[str, Any], dtype: str, arch: int
) -> dict[str, Any]:
    """Registers, local memory, shared memory, matrix instruction, code size of one cubin."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = {name: kind.replace("{T}", dtype) for name, kind in signature.items()}
    divisible = {name for name, kind in types.items() if kind.startswith("*") or name in DIVISIBLE}
    divisible |= set(options.get("divisible", ()))
    types |= dict.fromkeys(constants, "constexpr")
    ordered = {name: types[name] for name in kernel.arg_names}
    attributes = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(ordered) if name in divisible}
    source = ASTSource(kernel, ordered, constants, attributes)
    settings = {key: value for key, value in options.items() if key not in OURS}
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=settings)
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        (usage,) = machine_code.resources(cubin).values()
        (code,) = machine_code.disassembled(cubin).values()
    return {
        **usage,
        "shared": compiled.metadata.shared,
        **code,
        "dot": "tt.dot" in compiled.asm["ttir"],
        "warps": compiled.metadata.num_warps,
    }


if __name__ == "__main__":
    sys.exit(main())
