"""The stage that measures a forgotten generator against its base."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from guide_fast.evaluate.metrics import Evaluation, evaluate, judged, passed
from guide_fast.evaluate.thumbnails import Pair

__all__ = ["Evaluation", "Pair", "evaluate", "judged", "passed"]


class _CallableStage(ModuleType):
    """The folder has the name of its function: `guide_fast.evaluate(...)` is `guide_fast.evaluate.evaluate(...)`."""

    def __call__(self, *arguments: Any, **options: Any) -> Evaluation:
        return evaluate(*arguments, **options)


sys.modules[__name__].__class__ = _CallableStage
