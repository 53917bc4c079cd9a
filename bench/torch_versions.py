"""The compiled operations under other versions of torch: which load, whether they compute the same.

Run it as `python -m guide_fast.bench.torch_versions PYTHON...` from the root of the repository, after `make setup`.
Each PYTHON is an interpreter with a torch of its own, numpy, pytest. All load the libraries that were built against the
present torch; the cases are those of tests/kernels/test_instruction_sets.py, one for each operation, outputs with
gradients.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from guide_fast.bench.record import provenance, write

ROOT = Path(__file__).resolve().parent.parent
CODE = """
import json, platform, sys
import torch
import test_instruction_sets
from guide_fast.kernels import _extension
test_instruction_sets.run_all(sys.argv[1])
print(json.dumps({
    "torch": torch.__version__, "python": platform.python_version(), "cuda": torch.version.cuda,
    "level": _extension.instruction_set(), "cuda_kernels": _extension.missing_cuda() is None,
}))
"""


def main() -> int:
    """Run, print, store; 1 when a version does not load the library or computes otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pythons", nargs="+", type=Path, metavar="PYTHON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="torch-versions-") as folder:
        reference = Path(folder) / "reference.pt"
        here = _run(Path(sys.executable), reference)
        rows = [_compared(python, reference, Path(folder) / f"{i}.pt") for i, python in enumerate(arguments.pythons)]
    for row in rows:
        print(row)
    bounds = {"versions": len(rows), "loaded": sum("error" not in row for row in rows)}
    bounds["same_bits"] = sum(row.get("worst_relative_difference") == 0 for row in rows)
    print(f"{write('torch_versions', 'cpu', {'provenance': provenance(), 'built_with': here, 'rows': rows})}: {bounds}")
    return 0 if bounds["loaded"] == bounds["same_bits"] == len(rows) else 1


def _compared(python: Path, reference: Path, path: Path) -> dict[str, Any]:
    try:
        row = _run(python, path)
    except RuntimeError as error:
        return {"python": str(python.name), "error": str(error)}
    want, got = torch.load(reference, weights_only=True), torch.load(path, weights_only=True)
    operations = sorted(want.keys() - {"level"})
    pairs = [(a, b) for operation in operations for a, b in zip(got[operation], want[operation], strict=True)]
    worst = max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)
    return row | {"operations": operations, "worst_relative_difference": worst}


def _run(python: Path, path: Path) -> dict[str, Any]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT / "tests" / "kernels", ROOT)))}
    done = subprocess.run([python, "-c", CODE, path], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


if __name__ == "__main__":
    raise SystemExit(main())
