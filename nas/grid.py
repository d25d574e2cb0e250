"""The coefficients of compound scaling, searched by training: EfficientNet (Tan & Le 2019), section 3.3, step 1.

At phi = 1 every (alpha, beta, gamma) of a grid with alpha * beta^2 * gamma^2 near 2 grows the small network that a
search would train, and the grown networks are trained as children are. Whole layers, channels and pixels make their
true FLOPs unequal, and more FLOPs alone are more accurate. So they are compared by their accuracy at twice the base's
FLOPs: what growing gained per doubling of the FLOPs, on average of all candidates, is added or taken off.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from nas.evaluators import ProxyEvaluator
from nas.evaluators.base import Measurement
from nas.grid_plan import ALONE, GROWTHS, Candidate, Plan, growth_of
from nas.scaling import DIMENSIONS, PAPER, Coefficients, CompoundScaler, Member, Rounding
from nas.statistics import Estimate, Noise, shrink
from nas.trials import Trials, make_folder, repeated, train
from search_space import Architecture, InputError, cost

GRID = "grid.jsonl"

Watch = Callable[[Trials], None]
Accuracies = dict[str, list[float]]
"""Accuracies of each network by its key, training by training; a training that failed is left out."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A candidate and what its trainings say.

    Attributes:
        first: accuracy of the training that all candidates had; None if it failed.
        again: accuracies with fresh seeds; none unless it is a leader or the paper's.
        at_double: `first` at twice the base's FLOPs.
        estimate: of the accuracy at twice the base's FLOPs from `again`, shrunk towards the mean of the leaders.
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
        at_equal = [
            ours.estimate.value - theirs.estimate.value - self.gain * math.log2(ours.growth / theirs.growth)
            for ours, theirs in both
        ]
        weights: Counter[str] = Counter()  # of networks, for whole layers and pixels may make two points the same one
        errors: dict[str, float] = {}
        for pair in both:
            for point, sign in zip(pair, (1, -1), strict=True):
                weights[point.network.key()] += sign
                errors[point.network.key()] = point.estimate.error
        error = math.hypot(*(weight * errors[key] for key, weight in weights.items())) / len(both)
        return Estimate(sum(at_equal) / len(both), error, both[0][0].estimate.df)


def search(plan: Plan, folder: Path, ray_address: str | None = None, watch: Watch = lambda trials: None) -> Grid:
    """Train the candidates once and the leaders several times with fresh seeds, and compare.

    Args:
        plan: what to train.
        folder: for the trainings' journal. What an earlier search trained there isn't trained again.
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
        found = replace(found, points=_points(plan, grown, more, _noise((again | more).values())))
    return replace(found, failures=tuple(failures))


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
        else:
            failures.append(f"{trial.architecture.name}: {result.reason}")
    return found


def _gain(plan: Plan, base: Sequence[float], first: Accuracies) -> float:
    """Accuracy that a doubling of the FLOPs gains on the way from the base to the candidates."""
    grown = [(accuracy, one.growth) for one in plan.candidates for accuracy in first[one.network.key()]]
    if not base or not grown:
        raise InputError(f"no training of {'the base network' if grown else 'a candidate'} succeeded; see {GRID}")
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
        (one for one in plan.candidates if one.network.key() in score),
        key=lambda one: (-score[one.network.key()], not one.is_papers),
    )
    papers = [one for one in ranked[plan.settings.leaders :] if one.is_papers]
    return [*ranked[: plan.settings.leaders], *papers]


def _noise(repeats: Iterable[Sequence[float]]) -> Noise:
    measured = [own for own in repeats if own]
    if all(len(own) < 2 for own in measured):
        raise InputError(f"too few trainings succeeded to say anything; see {GRID}")
    return Noise.pooled(measured)


def _found(plan: Plan, first: Accuracies, again: Accuracies, leaders: Sequence[Candidate]) -> Grid:
    """Estimate every leader's accuracy at twice the base's FLOPs."""
    base = plan.base.key()
    gain = _gain(plan, [*first[base], *again[base]], first)
    noise = _noise(again.values())
    measured = [one for one in leaders if again[one.network.key()]]
    if not measured:
        raise InputError(f"no training of a leader succeeded; see {GRID}")
    observed = [[_at_double(value, one.growth, gain) for value in again[one.network.key()]] for one in measured]
    estimates = dict(zip((one.network.key() for one in measured), shrink(observed, noise), strict=True))

    def trained(one: Candidate) -> Trained:
        key = one.network.key()
        accuracy = first[key][0] if first[key] else None
        at_double = None if accuracy is None else _at_double(accuracy, one.growth, gain)
        return Trained(one, accuracy, tuple(again.get(key, ())), at_double, estimates.get(key))

    results = [trained(one) for one in plan.candidates]
    estimated = [(result.estimate.value, result) for result in results if result.estimate]
    ranked = [result for _, result in sorted(estimated, key=lambda pair: (-pair[0], not pair[1].candidate.is_papers))]
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
            growth = growth_of(plan.base, member.architecture)
            points.append(Point(name, wish, growth, member.architecture, tuple(accuracies), noise.mean(accuracies)))
    return tuple(points)
