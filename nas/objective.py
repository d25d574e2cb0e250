"""Rewards: accuracy against cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from search_space.errors import InputError

BAND = (0.95, 1.01)
"""`auto` is content with a hand-over whose cost is within these multiples of T."""

_AIM = (0.97, 1.0)
"""What it steers towards: the band less a margin, for the hand-over moves a little with every child."""

_STEPS = (0.05, 0.5)
"""How far the exponents up to T and above T move at least; a quarter of it back once T is met."""

_STEEPEST = 50.0
"""The exponents' limit: nothing but the distance to T counts under it, and a reward is still more than 0."""

_MOST_STEPS = 150
"""Enough for both exponents to reach their limit in turn."""


PAPER_W = -0.07
"""The exponent of the paper's soft form."""


@dataclass(frozen=True, slots=True)
class Objective:
    """ACC(m) * [COST(m) / T]^w (MnasNet, arXiv 1807.11626, equations 2 and 3).

    With one exponent on both sides T cancels out of the ranking; a `w_above` of its own makes T count. The paper's
    hard form is `w=0, w_above=-1`, its soft form and the default `w=-0.07` on both sides.

    Attributes:
        target: T, in the cost's unit: multiply-adds, parameters, milliseconds or images a second.
        w: the exponent up to T.
        w_above: the exponent above T; None for `w`.
        more_is_better: the cost is a throughput: its share of T counts upside down.
        adapts: whether `adapted` ever changes anything.
    """

    target: float
    w: float = PAPER_W
    w_above: float | None = None
    more_is_better: bool = False
    adapts: ClassVar[bool] = False

    def __call__(self, accuracy: Any, cost: Any) -> Any:
        """The reward of an accuracy in [0, 1] at a cost in the target's unit; arrays element by element."""
        ratio = self.ratio(cost)
        above = self.w if self.w_above is None else self.w_above
        return accuracy * ratio ** np.where(ratio <= 1, self.w, above)

    def ratio(self, cost: Any) -> Any:
        """The cost as a multiple of T; more is worse, for a throughput too."""
        return self.target / cost if self.more_is_better else cost / self.target

    def adapted(self, cost: float) -> Objective:
        """The objective after a look at the cost of what would be handed over now; only `auto` changes."""
        return self

    def meets_target(self, cost: Any) -> Any:
        """Whether the cost of a hand-over needs no further adaptation; arrays element by element."""
        return True

    def at_target(self) -> Objective:
        """The objective by which the choice is made at the end of a search."""
        return self


class AbsoluteObjective(Objective):
    """ACC(m) + w * |COST(m) / T - 1|, w < 0 (TuNAS, arXiv 2008.06120, section 4)."""

    def __call__(self, accuracy: Any, cost: Any) -> Any:
        """See `Objective.__call__`."""
        return accuracy + self.w * abs(self.ratio(cost) - 1)


class AutoObjective(Objective):
    """MnasNet's form, its two exponents adapted until what the controller would hand over meets T.

    It begins as the hard form (0 up to T, -1 above). While the hand-over stays below T, the exponent up to T rises, so
    that an unused share of the budget costs something; while it exceeds T, the one above falls. A met target lets the
    exponents return, for a reward steeper than it need be leaves the search less choice.
    """

    adapts: ClassVar[bool] = True

    def adapted(self, cost: float) -> Objective:
        """See `Objective.adapted`."""
        ratio, above = self.ratio(cost), -1.0 if self.w_above is None else self.w_above
        if ratio < _AIM[0]:
            return replace(self, w=min(_STEEPEST, self.w + max(_STEPS[0], self.w / 10)))
        if ratio > _AIM[1]:
            return replace(self, w_above=max(-_STEEPEST, above - max(_STEPS[1], -above / 10)))
        return replace(self, w=max(0.0, self.w - _STEPS[0] / 4), w_above=min(-1.0, above + _STEPS[1] / 4))

    def meets_target(self, cost: Any) -> Any:
        """See `Objective.meets_target`."""
        ratio = self.ratio(cost)
        return (ratio >= BAND[0]) & (ratio <= BAND[1])

    def at_target(self) -> Objective:
        """See `Objective.at_target`: of the networks that meet T the most accurate, which no exponent may lead to."""
        return _AtTarget(self.target, self.w, self.w_above, self.more_is_better)


class _AtTarget(AutoObjective):
    """The accuracy of networks that meet T, above all that don't, whose reward is `auto`'s."""

    def __call__(self, accuracy: Any, cost: Any) -> Any:
        """See `Objective.__call__`."""
        return np.where(self.meets_target(cost), 1 + accuracy, super().__call__(accuracy, cost))


FORMS: dict[str, type[Objective]] = {
    "mnasnet": Objective,
    "hard": Objective,
    "absolute": AbsoluteObjective,
    "auto": AutoObjective,
}
"""The objectives by their names in a recipe."""

OWN_EXPONENTS: dict[str, tuple[float, float | None]] = {"hard": (0.0, -1.0), "auto": (0.0, -1.0)}
"""w and w_above of the objectives that fix them."""


def make_objective(
    name: str, target: float, w: float | None = None, w_above: float | None = None, more_is_better: bool = False
) -> Objective:
    """An objective by its name, with the exponents of its paper where none are given.

    Args:
        name: one of `FORMS`.
        target: T, in the cost's unit.
        w: the exponent, up to T only if `w_above` is given; `hard` and `auto` have their own.
        w_above: the exponent above T.
        more_is_better: whether the cost is a throughput.

    Raises:
        InputError: an unknown name, a target that isn't positive, or a positive exponent.
    """
    if name not in FORMS:
        raise InputError(f"objective.name: {name!r} is unknown; use one of {', '.join(FORMS)}")
    if not 0 < target < math.inf:
        raise InputError(f"objective.target: must be positive, not {target:g}")
    for field, exponent in (("w", w), ("w_above", w_above)):
        if exponent is not None and not exponent <= 0:
            raise InputError(f"objective.{field}: must be negative or 0, not {exponent:g}, which rewards cost")
    w, w_above = OWN_EXPONENTS.get(name, (PAPER_W if w is None else w, w_above))
    return FORMS[name](target, w, w_above, more_is_better)


def final_objective(objective: Objective, handed_over: Callable[[Objective], float | None]) -> Objective:
    """The objective adapted until what would be handed over meets T; as it was if no exponent leads there.

    Args:
        objective: to begin with.
        handed_over: the cost of what the controller would hand over under an objective; None for nothing.
    """
    adapted = objective
    for _ in range(_MOST_STEPS):
        cost = handed_over(adapted)
        if cost is None:
            break
        if adapted.meets_target(cost):
            return adapted
        adapted = adapted.adapted(cost)
    return objective
