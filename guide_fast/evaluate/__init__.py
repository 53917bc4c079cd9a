"""The stage that measures a forgotten generator against its base."""

from guide_fast.evaluate.metrics import Evaluation, evaluate, passed
from guide_fast.evaluate.thumbnails import Pair

__all__ = ["Evaluation", "Pair", "evaluate", "passed"]
