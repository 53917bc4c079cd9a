"""Takes the compiled libraries out of a wheel, for a checkout on a machine that cannot build them."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path


def take_from_wheel(wheel: Path, package: Path) -> list[str]:
    """Put the shared libraries of `wheel` into the folder of the package; their names.

    Raises ValueError for a file that is not a wheel of guide-fast with libraries in it.
    """
    if not zipfile.is_zipfile(wheel):
        raise ValueError(f"{wheel} is no wheel; make one with `make wheel`")
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith("guide_fast/") and name.endswith(".so")]
        if not names:
            raise ValueError(f"{wheel} holds no compiled libraries of guide_fast; make one with `make wheel`")
        for name in names:
            fresh = package / f".{Path(name).name}.new"
            fresh.write_bytes(archive.read(name))
            os.replace(fresh, package / Path(name).name)  # a process may have the old one mapped
    return [Path(name).name for name in names]
