"""The coefficients of compound scaling, searched by training: EfficientNet (Tan & Le 2019), section 3.3, step 1.

At phi = 1 every (alpha, beta, gamma) of a grid with alpha * beta^2 * gamma^2 near 2 grows the small network that a
search would train, and the grown networks are trained as children are. Whole layers, channels and pixels make their
true FLOPs unequal, and more FLOPs alone are more accurate. So they are compared by their accuracy at twice the base's
FLOPs: what growing gained per doubling of the FLOPs, on average of all candidates, is added or taken off.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from nas.evaluators import ProxyEvaluator
from nas.evaluators.base import Failure, Measurement
from nas.family import write
from nas.limits import check_training
from nas.recipe import Recipe, Scale
from nas.scaling import DIMENSIONS, PAPER, Coefficients, CompoundScaler, Member, Multipliers, Rounding, grow
from nas.statistics import Estimate, Noise, shrink
from nas.trials import Trials, make_folder, repeated, train, whole_trainings
from search_space import Architecture, InputError, cost
from search_space.transform import for_proxy

GRID, FIGURES, PLOT, FAMILY = "grid.jsonl", "grid.json", "grid.html", "family"
GROWTHS = (1.5, 2.0, 3.0, 4.0)  # times the base's FLOPs, where growth in one dimension is compared
ALONE = ("width", "depth", "resolution")

Watch = Callable[[Trials], None]
Accuracies = dict[str, list[float]]
"""Of each network by its key, training by training; one that failed is left out."""


class GridError(InputError):
    """A grid that holds nothing, or trainings that say nothing."""


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
        return 1 + len(self.candidates), again, self.settings.seeds * len(GROWTHS) * 4 * self.settings.compare

    @property
    def work(self) -> float:
        """All trainings together, in trainings of the base: FLOPs times epochs."""
        growth = sum(candidate.growth for candidate in self.candidates) / len(self.candidates)
        seeds = self.settings.seeds
        grown = len(self.candidates) + seeds * self.leaders
        return 1 + seeds + growth * grown + seeds * 4 * sum(GROWTHS) * self.settings.compare


@dataclass(frozen=True, slots=True)
class Trained:
    """A candidate and what its trainings say.

    Attributes:
        first: accuracy of the training that all candidates had; None if it failed.
        again: accuracies with fresh seeds; none unless it is a leader or the paper's.
        at_double: `first` at twice the base's FLOPs.
        estimate: of the accuracy at twice the base's FLOPs from `again`, drawn towards the mean of the leaders.
    """

    candidate: Candidate
    first: float | None
    again: tuple[float, ...]
    at_double: float | None
    estimate: Estimate | None


@dataclass(frozen=True, slots=True)
class Point:
    """A network of the comparison with growth in one dimension.

    Attributes:
        dimension: `compound`, `width`, `depth` or `resolution`.
        wish: FLOPs wished for, as a multiple of the base's; the nearest that the dimension offers.
        growth: true FLOPs as a multiple of the base's.
        accuracies: training by training.
        estimate: of the accuracy.
    """

    dimension: str
    wish: float
    growth: float
    network: Architecture
    accuracies: tuple[float, ...]
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Grid:
    """What a grid search found.

    Attributes:
        plan: what was trained.
        base: accuracy of the base network.
        gain: of accuracy per doubling of the FLOPs, the mean of all candidates; 0 if growing gained nothing.
        leaders: the highest estimate first; the first is the winner.
        others: by their first accuracy at twice the base's FLOPs, those that failed last.
        noise: standard deviation between trainings of one network.
        points: of the comparison, if it was asked for.
        failures: trainings that failed, a line each.
    """

    plan: Plan
    base: Estimate
    gain: float
    leaders: tuple[Trained, ...]
    others: tuple[Trained, ...]
    noise: float
    points: tuple[Point, ...]
    failures: tuple[str, ...]

    @property
    def winner(self) -> Trained:
        """The leader whose coefficients make the family."""
        return self.leaders[0]

    @property
    def paper(self) -> Trained | None:
        """The network of the paper's coefficients; None if its trainings failed."""
        return next((leader for leader in self.leaders if leader.candidate.is_papers), None)

    @property
    def compound(self) -> Coefficients:
        """What growth in one dimension is compared with: the winner's, or the paper's if the winner grows in one."""
        shares = self.winner.candidate.coefficients[0]
        return shares if sum(share > 1 for share in (shares.alpha, shares.beta, shares.gamma)) > 1 else PAPER

    @property
    def overlooked(self) -> int:
        """Candidates not trained again though their one training came within the seed noise of the last leader's."""
        seen = [one.at_double for one in self.leaders if one.at_double is not None and not one.candidate.is_papers]
        least = min(seen, default=math.inf) - self.noise
        return sum(other.at_double is not None and other.at_double > least for other in self.others)

    @property
    def scaler(self) -> CompoundScaler:
        """Grows the family."""
        return CompoundScaler(self.winner.candidate.coefficients[0], self.plan.rounding, any_product=True)

    def family(self) -> list[Member]:
        """The deployed network at every phi that the winner's coefficients allow."""
        phis = [phi for phi in self.plan.settings.phi if phi <= self.scaler.most_phi]
        return self.scaler.family(self.plan.architecture, phis)

    def at(self, dimension: str, wish: float) -> Point | None:
        """A point of the comparison; None if its trainings failed."""
        return next((point for point in self.points if (point.dimension, point.wish) == (dimension, wish)), None)

    def advantage(self, dimension: str) -> Estimate | None:
        """Accuracy of compound growth less that of a dimension alone, the mean at equal FLOPs of all sizes."""
        pairs = [(self.at("compound", wish), self.at(dimension, wish)) for wish in GROWTHS]
        both = [(ours, theirs) for ours, theirs in pairs if ours and theirs]
        if not both:
            return None
        differences = [ours.estimate - theirs.estimate for ours, theirs in both]
        at_equal = [
            difference.value - self.gain * math.log2(ours.growth / theirs.growth)
            for difference, (ours, theirs) in zip(differences, both, strict=True)
        ]
        error = math.hypot(*(difference.error for difference in differences)) / len(both)
        return Estimate(sum(at_equal) / len(both), error, differences[0].df)


def coefficients(step: float, tolerance: float) -> list[Coefficients]:
    """All (alpha, beta, gamma) from 1 in multiples of `step` whose product is within `tolerance` of 2.

    Raises:
        GridError: there are none; the message names the nearest product.
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
        raise GridError(
            f"--step {step:g}, --tolerance {tolerance:g}: no product alpha * beta^2 * gamma^2 of this grid is that "
            f"near to 2; the nearest is {nearest.product:.4g}"
        )
    return near


def prepare(architecture: Architecture, recipe: Recipe, rounding: Rounding | None = None) -> Plan:
    """Grow the candidates and load the images, before anything is trained.

    Args:
        architecture: the deployed network.
        recipe: with images; its `scale` section has the settings, the defaults if there is none.
        rounding: of the family's channels and pixels; None for that of the release.

    Raises:
        InputError: the recipe, the data or a setting can't be used.
    """
    if recipe.proxy is None:
        raise GridError(f"{recipe.name}: looks networks up in a benchmark; a grid needs a recipe with images")
    settings = recipe.scale or Scale()
    wanted = coefficients(settings.step, settings.tolerance)
    rounding = rounding or Rounding()
    CompoundScaler(rounding=rounding).family(architecture, settings.phi)
    training = _recipe(recipe)
    evaluator = ProxyEvaluator.of(recipe)
    classes = len(evaluator.images(architecture).classes)
    resolution = recipe.proxy.resolution or architecture.resolution
    base = for_proxy(architecture, resolution, recipe.proxy.width, recipe.proxy.final_size, classes)
    candidates = _candidates(base, dict.fromkeys([*wanted, PAPER]), settings.divisor)
    check_training((candidate.network for candidate in candidates), recipe)
    return Plan(architecture, base, candidates, training, settings, rounding)


def search(plan: Plan, folder: Path, ray_address: str | None = None, watch: Watch = lambda trials: None) -> Grid:
    """Train the candidates once and the leaders several times with fresh seeds, and keep all that was found.

    Args:
        plan: what to train.
        folder: for the trainings' journal, the figures, the plot and the family. What an earlier search trained there
            isn't trained again.
        ray_address: of a running Ray cluster.
        watch: called after every training.

    Raises:
        InputError: the folder holds something else, or too many trainings failed.
        KeyboardInterrupt: the user stopped it; the same call goes on.
    """
    make_folder(folder, GRID, "grid")
    networks = [candidate.network for candidate in plan.candidates]
    seeds = range(2, plan.settings.seeds + 2)
    failures: list[str] = []
    trained = partial(_train, plan, folder / GRID, ray_address, watch, failures)
    first = trained([plan.base, *networks], [1])
    leaders = _leaders(plan, first)
    again = trained([plan.base, *(leader.network for leader in leaders)], seeds)
    found = _found(plan, first, again, leaders)
    if plan.settings.compare:
        grown = _alone(plan, found.compound)
        more = trained([member.architecture for _, _, member in grown], seeds)
        found = replace(found, points=_points(plan, grown, more, _noise([*again.values(), *more.values()])))
    found = replace(found, failures=tuple(failures))
    _write(found, folder)
    return found


def _count(reach: float, step: float) -> int:
    """Steps from 0 that come no further than one beyond `reach`."""
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
        network = grow(base, multipliers, Rounding(divisor), name)
        found.setdefault(network.key(), (network, []))[1].append(shares)
    return tuple(
        Candidate(
            tuple(sorted(same, key=lambda shares: (shares != PAPER, abs(shares.product - 2)))),
            network,
            _growth(base, network),
        )
        for network, same in found.values()
    )


def _growth(base: Architecture, network: Architecture) -> float:
    return cost.flops(network) / cost.flops(base)


def _train(
    plan: Plan,
    journal: Path,
    ray_address: str | None,
    watch: Watch,
    failures: list[str],
    networks: Sequence[Architecture],
    repeats: Iterable[int],
) -> Accuracies:
    """Accuracies of each network by its key; a seed belongs to the network, whatever else is on the grid."""
    keys = {network.key(): network for network in networks}
    trials = repeated([(int(key, 16), network) for key, network in keys.items()], repeats, plan.recipe.seed)
    evaluator = ProxyEvaluator.of(plan.recipe)
    results = train(journal, plan.recipe, evaluator, trials, ray_address, watch, plan.base)
    found: Accuracies = {key: [] for key in keys}
    for trial in trials:
        result = results[trial.number]
        if isinstance(result, Measurement):
            found[trial.key].append(result.accuracy)
        elif isinstance(result, Failure):
            failures.append(f"{trial.architecture.name}: {result.reason}")
    return found


def _gain(plan: Plan, base: Sequence[float], first: Accuracies) -> float:
    """Accuracy that a doubling of the FLOPs gains on the way from the base to the candidates."""
    grown = [(accuracy, one.growth) for one in plan.candidates for accuracy in first[one.network.key()]]
    if not base or not grown:
        raise GridError(f"no training of {'the base network' if grown else 'a candidate'} succeeded; see {GRID}")
    accuracy = sum(accuracy for accuracy, _ in grown) / len(grown)
    doublings = sum(math.log2(growth) for _, growth in grown) / len(grown)
    return max(0.0, (accuracy - sum(base) / len(base)) / doublings)


def _at_double(accuracy: float, growth: float, gain: float) -> float:
    """The accuracy to expect of the same coefficients at exactly twice the base's FLOPs."""
    return accuracy - gain * (math.log2(growth) - 1)


def _leaders(plan: Plan, first: Accuracies) -> list[Candidate]:
    """The best candidates by their single trainings, and the paper's."""
    gain = _gain(plan, first[plan.base.key()], first)
    score = {
        one.network.key(): _at_double(accuracy, one.growth, gain)
        for one in plan.candidates
        for accuracy in first[one.network.key()]
    }
    ranked = sorted(
        (one for one in plan.candidates if one.network.key() in score), key=lambda one: -score[one.network.key()]
    )
    papers = [one for one in ranked[plan.settings.leaders :] if one.is_papers]
    return [*ranked[: plan.settings.leaders], *papers]


def _noise(repeats: Iterable[Sequence[float]]) -> Noise:
    measured = [own for own in repeats if own]
    if all(len(own) < 2 for own in measured):
        raise GridError(f"too few trainings succeeded to say anything; see {GRID}")
    return Noise.pooled(measured)


def _found(plan: Plan, first: Accuracies, again: Accuracies, leaders: Sequence[Candidate]) -> Grid:
    """Estimate every leader's accuracy at twice the base's FLOPs."""
    base = plan.base.key()
    gain = _gain(plan, [*first[base], *again[base]], first)
    noise = _noise(again.values())
    measured = [one for one in leaders if again[one.network.key()]]
    if not measured:
        raise GridError(f"no training of a leader succeeded; see {GRID}")
    observed = [[_at_double(value, one.growth, gain) for value in again[one.network.key()]] for one in measured]
    estimates = dict(zip((one.network.key() for one in measured), shrink(observed, noise), strict=True))

    def trained(one: Candidate) -> Trained:
        key = one.network.key()
        accuracy = first[key][0] if first[key] else None
        at_double = None if accuracy is None else _at_double(accuracy, one.growth, gain)
        return Trained(one, accuracy, tuple(again.get(key, ())), at_double, estimates.get(key))

    results = [trained(one) for one in plan.candidates]
    ranked = [result for result in results if result.estimate]
    ranked.sort(key=lambda result: -(result.estimate.value if result.estimate else 0))
    others = [result for result in results if not result.estimate]
    others.sort(key=lambda result: math.inf if result.at_double is None else -result.at_double)
    accuracy = noise.mean([*first[base], *again[base]])
    return Grid(plan, accuracy, gain, tuple(ranked), tuple(others), math.sqrt(noise.variance), (), ())


def _alone(plan: Plan, compound: Coefficients) -> list[tuple[str, float, Member]]:
    """Compound growth and each dimension alone, as near to equal FLOPs as rounding lets them come."""
    rounding = Rounding(plan.settings.divisor)
    scalers = {"compound": CompoundScaler(compound, rounding, any_product=True)}
    scalers |= {name: CompoundScaler(DIMENSIONS[name], rounding) for name in ALONE}
    flops = cost.flops(plan.base)
    return [
        (name, wish, scaler.fit(plan.base, flops=wish * flops)) for wish in GROWTHS for name, scaler in scalers.items()
    ]


def _points(
    plan: Plan, grown: Sequence[tuple[str, float, Member]], trained: Accuracies, noise: Noise
) -> tuple[Point, ...]:
    points = []
    for name, wish, member in grown:
        accuracies = trained[member.architecture.key()]
        if accuracies:
            growth = _growth(plan.base, member.architecture)
            points.append(Point(name, wish, growth, member.architecture, tuple(accuracies), noise.mean(accuracies)))
    return tuple(points)


def _write(found: Grid, folder: Path) -> None:
    """The figures, the plot of the comparison and the family's YAML files, which take the place of an earlier one's."""
    family = found.family()
    figures = _figures(found, family)
    if (folder / FIGURES).exists():
        for member in json.loads((folder / FIGURES).read_text(encoding="utf-8"))["family"]:
            (folder / FAMILY / f"{member['name']}.yaml").unlink(missing_ok=True)
    write(family, folder / FAMILY)
    (folder / FIGURES).write_text(json.dumps(figures, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if found.points:
        from nas.grid_plot import write_plot

        write_plot(figures, folder / PLOT)


def _figures(found: Grid, family: Sequence[Member]) -> dict[str, Any]:
    """Everything that was found, for programs and for the plot; accuracies in [0, 1]."""
    plan = found.plan
    assert plan.recipe.proxy is not None
    return {
        "network": plan.architecture.name,
        "base": {**_size(plan.base), "accuracy": _interval(found.base)},
        "settings": plan.settings.model_dump(),
        "epochs": plan.recipe.proxy.epochs,
        "gain_per_doubling": found.gain,
        "noise": found.noise,
        "winner": asdict(found.scaler.coefficients),
        "compound": asdict(found.compound),
        "candidates": [
            {
                "coefficients": [asdict(shares) for shares in result.candidate.coefficients],
                **_size(result.candidate.network),
                "growth": result.candidate.growth,
                "accuracy": result.first,
                "accuracies_again": result.again,
                "accuracy_at_double": result.at_double,
                "estimate_at_double": result.estimate and _interval(result.estimate),
            }
            for result in (*found.leaders, *found.others)
        ],
        "comparison": [
            {
                "dimension": point.dimension,
                "wish": point.wish,
                "growth": point.growth,
                **_size(point.network),
                "accuracies": point.accuracies,
                "accuracy": _interval(point.estimate),
            }
            for point in found.points
        ],
        "family": [{"phi": one.phi, "wished_flops": one.wished_flops, **_size(one.architecture)} for one in family],
        "failures": found.failures,
    }


def _size(network: Architecture) -> dict[str, Any]:
    figures = {"resolution": network.resolution, "flops": cost.flops(network), "params": cost.params(network)}
    return {"name": network.name, "layers": sum(stage.layers for stage in network.stages), **figures}


def _interval(estimate: Estimate) -> dict[str, float]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}
