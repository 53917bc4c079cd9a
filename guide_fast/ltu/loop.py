"""The loop over steps: it ends early, shrinks its passes when memory runs out, goes back when a loss explodes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from guide_fast.config import LtuConfig
from guide_fast.errors import DivergedError, GuideFastError
from guide_fast.ltu.graph import GraphedGradients
from guide_fast.ltu.preserve import TrustRegion
from guide_fast.ltu.state import LoopState
from guide_fast.ltu.step import Draws, Extra, Reading, Step
from guide_fast.ltu.switches import learning_rate
from guide_fast.models.generator import Generator
from guide_fast.progress import Progress
from guide_fast.resumption import uninterrupted

STAGE = "unlearning"
SNAPSHOT_EVERY = 10  # steps; a copy of what trains costs about as much as Adam's step
# The judge's similarity of the person before to after at full resolution, the highest that counts as forgotten.
Confirm = Callable[[Generator], tuple[float, float]]

_log = logging.getLogger(__name__)


class Loop:
    """Takes steps until the person is held forgotten or `config.steps` are done; `state` says how far it is."""

    def __init__(
        self,
        step: Step,
        student: Any,  # a Generator that is a Module, too
        parameters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        state: LoopState,
        *,
        graphed: bool = False,
        extra: Extra | None = None,
        trust: TrustRegion | None = None,
        confirm: Confirm | None = None,
    ) -> None:
        self.step, self.student, self.state = step, student, state
        self._parameters, self._optimizer = list(parameters.values()), optimizer
        self._graphed, self._extra, self._trust, self._confirm = graphed, extra, trust, confirm
        self._graph: GraphedGradients | None = None
        self.stopped = "steps"
        if not state.rows:
            state.rows = step.rows if step.config.batched else 1

    def run(self, progress: Progress, save: Callable[[], None]) -> None:
        """Raises DivergedError, with state and student back at the last good step, which `save` writes."""
        config, state = self.step.config, self.state
        late = self.step.w_u.is_cuda  # read once Adam is queued, so that the device never waits for the host
        good: _Snapshot | None = None
        candidate: _Snapshot | None = None
        progress(STAGE, state.step, config.steps, {})
        while state.step < config.steps and not self._ended():
            index = state.step
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate(config, index)
            draws = self.step.draw(index)
            reading = Reading(self._numbers(draws), index, len(draws.kept))
            if candidate is None or index % SNAPSHOT_EVERY == 0:
                candidate = _Snapshot(self._parameters, self._optimizer, state)
            exploded: list[str] = []
            values: dict[str, float] = {}
            if not late:
                values, exploded = reading.values()
            with uninterrupted():  # a step that moved the weights but was not counted would be taken again
                if not exploded:
                    self._optimizer.step()
                    if self._trust is not None:
                        self._trust.project()
                if late:
                    values, exploded = reading.values()
                if not exploded:
                    state.step += 1
                    state.curve.append(values)
            if exploded:
                (good or candidate).restore(self._parameters, self._optimizer, state)
                save()
                said = ", ".join(exploded)
                raise DivergedError(
                    f"{said} stopped being finite at step {index}; the generator is back at step {state.step}; lower "
                    f"ltu.lr (it is {config.lr})"
                )
            good = candidate
            shown = values if state.rows >= len(draws) else values | {"images_at_once": state.rows}
            progress(STAGE, state.step, config.steps, shown)

    def _ended(self) -> bool:
        """Whether the cheap proxy, or after it the judge, says that the person is forgotten."""
        config = self.step.config
        held = held_steps(self.state.curve, config)
        if held < config.hold:
            return False
        if self._confirm is None:
            self.stopped = "reached"
            return True
        if (held - config.hold) % config.hold:  # a judge that refused is asked again `hold` steps later
            return False
        with torch.no_grad():
            similarity, limit = self._confirm(self.student)
        self.state.curve[-1]["judged"] = similarity
        self.stopped = "confirmed" if similarity <= limit else "steps"
        return similarity <= limit

    def _numbers(self, draws: Draws) -> Tensor:
        """The numbers of a step, whose gradients lie with the parameters; where memory runs out, in smaller passes."""
        while True:
            try:
                return self._attempt(draws)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
                said = str(error).splitlines()[0] if str(error) else "out of memory"
            self._shrink(said)  # outside of the handler, whose traceback holds the tensors

    def _attempt(self, draws: Draws) -> Tensor:
        if not self._graphed:
            return self._gradients(draws)
        if self._graph is None:
            self._graph = GraphedGradients(self._gradients, draws)
        return self._graph(draws)

    def _gradients(self, draws: Draws) -> Tensor:
        return self.step.gradients(self.student, self._parameters, draws, rows=self.state.rows, extra=self._extra)

    def _shrink(self, said: str) -> None:
        if self.state.rows == 1:
            raise GuideFastError(
                f"not even one image of a step fits in memory ({said}); lower ltu.resolution, or choose fewer layers "
                "with ltu.layers"
            )
        self._graph = None
        self.student.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.state.rows = -(-self.state.rows // 2)
        note = (
            f"memory ran out at step {self.state.step}: from there {self.state.rows} of a step's {self.step.rows} "
            "images go through the networks at once, which changes the result by rounding alone"
        )
        self.state.notes.append(note)
        _log.warning("%s", note)


def held_steps(curve: list[dict[str, float]], config: LtuConfig) -> int:
    """For how many steps up to now the proxy has called the person forgotten."""
    count = 0
    for values in reversed(curve):
        if not values["forgotten"] <= config.reached:
            break
        count += 1
    return count


class _Snapshot:
    """What trains, with Adam's moments, before a step."""

    def __init__(self, parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer, state: LoopState) -> None:
        self._values = [p.detach().clone() for p in parameters]
        self._moments = [{k: v.clone() for k, v in optimizer.state[p].items()} for p in parameters]
        self._step = state.step

    @torch.no_grad()
    def restore(self, parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer, state: LoopState) -> None:
        for parameter, value, moments in zip(parameters, self._values, self._moments, strict=True):
            parameter.copy_(value)
            optimizer.state[parameter] = {key: moment.clone() for key, moment in moments.items()}
        state.step = self._step
        del state.curve[self._step :]


def _out_of_memory(error: BaseException) -> bool:
    """A CPU's allocator has no error type of its own."""
    said = str(error).lower()
    known = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(part in said for part in known)
