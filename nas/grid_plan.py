"""What a grid search of coefficients trains: the networks that a grid of alpha, beta and gamma grows, each once."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from nas.evaluators import ProxyEvaluator
from nas.limits import check_training
from nas.recipe import Recipe, Scale
from nas.scaling import PAPER, Coefficients, CompoundScaler, Multipliers, Rounding, grow
from nas.trials import whole_trainings
from search_space import Architecture, InputError, cost

GROWTHS = (1.5, 2.0, 3.0, 4.0)  # times the base's FLOPs, where growth in one dimension is compared
ALONE = ("width", "depth", "resolution")
WAYS = 1 + len(ALONE)  # compound growth as well


@dataclass(frozen=True, slots=True)
class Candidate:
    """A grown network and the coefficients that round to it.

    Attributes:
        coefficients: the first stands for the others: the paper's, else the one whose product is nearest to 2.
        network: the base network grown at phi = 1.
        growth: its true FLOPs as a multiple of the base's.
    """

    coefficients: tuple[Coefficients, ...]
    network: Architecture
    growth: float

    @property
    def is_papers(self) -> bool:
        """Whether the paper's coefficients are among them."""
        return self.coefficients[0] == PAPER


@dataclass(frozen=True, slots=True)
class Plan:
    """What is going to be trained.

    Attributes:
        architecture: the deployed network, whose family is wanted.
        base: the small one that a search trains; every trained network is grown from it.
        candidates: by their coefficients, each another network.
        recipe: trains each network at its own size, to the last epoch.
        settings: of the grid.
        rounding: of the family's channels and pixels.
    """

    architecture: Architecture
    base: Architecture
    candidates: tuple[Candidate, ...]
    recipe: Recipe
    settings: Scale
    rounding: Rounding

    @property
    def leaders(self) -> int:
        """Most candidates to train again: the leaders, and the paper's."""
        return min(self.settings.leaders + 1, len(self.candidates))

    @property
    def trainings(self) -> tuple[int, int, int]:
        """How many at most: one of each network, the leaders' and the base's, and those of the comparison."""
        again = self.settings.seeds * (1 + self.leaders)
        return 1 + len(self.candidates), again, self.settings.seeds * len(GROWTHS) * WAYS * self.settings.compare

    @property
    def work(self) -> float:
        """All trainings together, in trainings of the base: FLOPs times epochs."""
        growth = sum(candidate.growth for candidate in self.candidates) / len(self.candidates)
        seeds = self.settings.seeds
        grown = len(self.candidates) + seeds * self.leaders
        return 1 + seeds + growth * grown + seeds * WAYS * sum(GROWTHS) * self.settings.compare


def coefficients(step: float, tolerance: float) -> list[Coefficients]:
    """All (alpha, beta, gamma) from 1 in multiples of `step` whose product is within `tolerance` of 2.

    Raises:
        InputError: there are none; the message names the nearest product.
    """
    most = 2 + tolerance
    grid = [
        Coefficients(*(round(1 + step * count, 6) for count in (i, j, k)))
        for i in range(_count(most - 1, step))
        for j in range(_count(math.sqrt(most) - 1, step))
        for k in range(_count(math.sqrt(most) - 1, step))
    ]
    near = [point for point in grid if abs(point.product - 2) <= tolerance + 1e-9]
    if not near:
        nearest = min(grid, key=lambda point: abs(point.product - 2))
        raise InputError(
            f"scale.step {step:g}, scale.tolerance {tolerance:g}: no product alpha * beta^2 * gamma^2 of this grid is "
            f"that near to 2; the nearest is {nearest.product:.4g}"
        )
    return near


def prepare(architecture: Architecture, recipe: Recipe, rounding: Rounding) -> Plan:
    """Grow the candidates and load the images, before anything is trained.

    Args:
        architecture: the deployed network.
        recipe: with images; its `scale` section has the settings, the defaults if there is none.
        rounding: of the family's channels and pixels.

    Raises:
        InputError: the recipe, the data or a setting can't be used.
    """
    if recipe.proxy is None:
        raise InputError(f"{recipe.name}: looks networks up in a benchmark; a grid needs a recipe with images")
    settings = recipe.scale or Scale()
    wanted = coefficients(settings.step, settings.tolerance)
    CompoundScaler(rounding=rounding).family(architecture, settings.phi)  # refuses now what would fail at the end
    training = _recipe(recipe)
    base = ProxyEvaluator.of(recipe).child(architecture)
    candidates = _candidates(base, dict.fromkeys([*wanted, PAPER]), settings.divisor)
    check_training((candidate.network for candidate in candidates), recipe)
    return Plan(architecture, base, candidates, training, settings, rounding)


def _count(reach: float, step: float) -> int:
    """How many multiples of `step` there are from 0 to the first that reaches `reach`."""
    return math.ceil(reach / step) + 1


def _recipe(recipe: Recipe) -> Recipe:
    """The recipe for networks of any size: each at its own, with time in proportion to the largest."""
    whole = whole_trainings(recipe, None, None)
    assert whole.proxy is not None
    return whole.model_copy(
        update={
            "proxy": whole.proxy.model_copy(update={"resolution": None, "width": 1}),
            "executor": whole.executor.model_copy(update={"time_limit": whole.executor.time_limit * max(GROWTHS)}),
        }
    )


def _candidates(base: Architecture, wanted: Iterable[Coefficients], divisor: int) -> tuple[Candidate, ...]:
    """The networks that the coefficients grow, each once."""
    found: dict[str, tuple[Architecture, list[Coefficients]]] = {}
    for shares in wanted:
        multipliers = Multipliers(shares.alpha, shares.beta, shares.gamma)
        name = f"{base.name}-a{shares.alpha:g}-b{shares.beta:g}-g{shares.gamma:g}"
        network = grow(base, multipliers, Rounding(divisor)).with_(name=name)
        found.setdefault(network.key(), (network, []))[1].append(shares)
    return tuple(
        Candidate(
            tuple(sorted(same, key=lambda shares: (shares != PAPER, abs(shares.product - 2)))),
            network,
            growth_of(base, network),
        )
        for network, same in found.values()
    )


def growth_of(base: Architecture, network: Architecture) -> float:
    """The FLOPs of a network as a multiple of the base's."""
    return cost.flops(network) / cost.flops(base)
