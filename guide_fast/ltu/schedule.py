"""Which layers move: fixed policies, name patterns, saliency of forgetting, preservation."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping

from guide_fast.errors import UsageError
from guide_fast.models.generator import Generator

POLICIES = ("all", "coarse", "fine", "auto")
BUDGET = "budget="
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000}


def candidate_layers(
    generator: Generator,
    policy: str,
    *,
    resolution: int | None = None,
) -> tuple[str, ...]:
    """Layers that `policy` admits, in the generator's order; "auto" and "budget=N" start from all of them.

    "coarse" is the first half of the style slots, "fine" the second. "budget=N" (N parameters; 500k, 2M) admits the
    layers of at most N. Anything else is a comma-separated list of layer names or shell patterns
    ("blocks.[0-3].*,conv1.*"). Raises UsageError for a pattern that no layer has, a budget that no layer fits, or when
    an image of `resolution` px (None: the generator's own) shows none of the layers, so that no step could move one.
    """
    layers = _admitted(generator, policy)
    if (budget := budget_of(policy)) is not None:
        seen = generator.layers if resolution is None else generator.seen_layers(resolution)
        sizes = {layer: layer_size(generator, layer) for layer in seen}
        layers = tuple(layer for layer in seen if sizes[layer] <= budget)
        if not layers:
            smallest = min(seen, key=lambda layer: sizes[layer])
            raise UsageError(
                f"ltu.layers = {policy}: no layer of {generator.name} has so few parameters; the smallest is "
                f"{smallest} with {sizes[smallest]}"
            )
    if resolution is not None and not set(layers) & set(generator.seen_layers(resolution)):
        raise UsageError(
            f"ltu.layers = {policy} names only layers past the {resolution} px output that the steps look at; "
            "add coarser layers, or raise ltu.resolution"
        )
    return layers


def choose_by_saliency(
    gain: Mapping[str, float],  # layer -> decrease of the forget loss in one Adam step per unit of learning rate
    cost: Mapping[str, float],  # layer -> change of bystanders by the same step
    *,
    keep: float,
) -> tuple[str, ...]:
    """Layers with the most forgetting per harm until together they carry `keep` of the whole gain.

    Layers without gain (past the resolution that the loss looks at) never move.
    """
    useful = [layer for layer in gain if gain[layer] > 0]
    total = sum(gain[layer] for layer in useful)
    chosen, carried = set(), 0.0
    for layer in sorted(useful, key=lambda layer: cost[layer] / gain[layer]):
        if carried >= keep * total:
            break
        chosen.add(layer)
        carried += gain[layer]
    return tuple(layer for layer in gain if layer in chosen)


def choose_by_budget(
    gain: Mapping[str, float],  # as in `choose_by_saliency`
    cost: Mapping[str, float],
    sizes: Mapping[str, int],  # layer -> parameters
    *,
    budget: int,
) -> tuple[str, ...]:
    """Layers with the most forgetting per harm whose parameters sum to at most `budget`; what does not fit is left."""
    chosen, spent = set(), 0
    for layer in sorted((layer for layer in gain if gain[layer] > 0), key=lambda layer: cost[layer] / gain[layer]):
        if spent + sizes[layer] <= budget:
            chosen.add(layer)
            spent += sizes[layer]
    return tuple(layer for layer in gain if layer in chosen)


def budget_of(policy: str) -> int | None:
    """N of "budget=N"; None for any other policy. Raises UsageError where N is no whole number above 0."""
    if not policy.startswith(BUDGET):
        return None
    said = policy.removeprefix(BUDGET).strip().lower()
    unit = said[-1:] if said[-1:] in ("k", "m") else ""
    number = said.removesuffix(unit).replace("_", "")
    if not number.isascii() or not number.isdigit() or int(number) == 0:
        raise UsageError(f"ltu.layers = {policy}: a budget is a number of parameters, as in budget=500k or budget=2M")
    return int(number) * _UNITS[unit]


def layer_size(generator: Generator, layer: str) -> int:
    """Parameters of one layer."""
    return sum(parameter.numel() for parameter in generator.layer_parameters(layer).values())


def _admitted(generator: Generator, policy: str) -> tuple[str, ...]:
    if policy in ("all", "auto") or policy.startswith(BUDGET):
        return generator.layers
    if policy in ("coarse", "fine"):
        half = generator.num_ws // 2
        return tuple(layer for layer in generator.layers if (generator.slot(layer) < half) == (policy == "coarse"))
    chosen: set[str] = set()
    for pattern in (part.strip() for part in policy.split(",")):
        found = fnmatch.filter(generator.layers, pattern)
        if not found and pattern in POLICIES:
            raise UsageError(f"ltu.layers = {policy}: {pattern!r} is a policy and stands alone; give it, or patterns")
        if not found:
            raise UsageError(
                f"no layer of {generator.name} matches {pattern!r}; `guide-fast doctor --layers` lists them, and the "
                f"policies are {', '.join(POLICIES)}, {BUDGET}N"
            )
        chosen.update(found)
    return tuple(layer for layer in generator.layers if layer in chosen)
