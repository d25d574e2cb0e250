"""The evaluator that looks up: recorded trainings of a benchmark instead of training anything.

A file that holds every network of its space is a table; from any other, a Gaussian process learns the accuracy of all.
The surrogate that is shipped, `rehearsal`, was fitted by benchmarks/fit_rehearsal.py to Accel-NASBench (Ahmad et al.
2024, arXiv 2404.08005, Apache-2.0): the accuracy of MnasNet-space networks after a reduced training on ImageNet, and
their speed on several devices.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Self

import numpy as np

from controllers.features import COST_COLUMNS, Features
from nas.benchmark_file import ACCEL, REHEARSAL, BenchmarkError, Network, difference, format_of, read
from nas.costs import COSTS, CostFunction, cost_function
from nas.encoder import Encoder
from nas.evaluators import surrogate
from nas.evaluators.base import Contents, Measurement, Report
from nas.evaluators.optimum import optimum
from nas.evaluators.surrogate import Surrogate
from nas.quantities import plural, unreachable
from nas.recipe import Recipe
from nas.statistics import Noise
from search_space import Architecture, SearchSpace
from search_space.space import Actions

NOISE = 0.3
"""Points of standard deviation of an observed accuracy where the file can't tell: that of Accel-NASBench's repeats."""

_SAMPLE = 1000
"""Random networks; only a target that lies outside of what these have needs a search for what can be reached."""

_ROUNDING = 1e-9
"""Share by which a device's figure may be off, for its logarithm is kept."""

_FILE = Path(__file__).with_name("rehearsal.npz")

Reward = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Table:
    """Recorded numbers of every network of a space, such as the accuracies of its trainings."""

    def __init__(self, space: SearchSpace, numbers: Mapping[Actions, Sequence[float]]) -> None:
        self.actions = list(numbers)
        self.numbers = list(numbers.values())
        self.means = np.array([np.mean(row) for row in self.numbers])
        self._space = space
        self._rows = {actions: row for row, actions in enumerate(self.actions)}

    @property
    def repeated(self) -> bool:
        """Whether every network was trained more than once."""
        return all(len(row) > 1 for row in self.numbers)

    @property
    def noise(self) -> float:
        """Standard deviation of a recorded training about its network's mean, in points, pooled over the networks."""
        return 100 * float(np.sqrt(np.mean([np.var(row) for row in self.numbers])))

    def row(self, actions: Actions) -> int:
        """Number of the row with this network, whatever actions lead to it."""
        if actions not in self._rows:
            self._rows[actions] = self._by_key[self._space.decode(actions).key()]
        return self._rows[actions]

    def values(self, actions: Sequence[Actions] | np.ndarray) -> np.ndarray:
        """Mean numbers (n,) of n networks."""
        rows = actions.tolist() if isinstance(actions, np.ndarray) else actions
        means: np.ndarray = self.means[[self.row(tuple(row)) for row in rows]]
        return means

    @cached_property
    def _by_key(self) -> dict[str, int]:
        return {self._space.decode(actions).key(): row for row, actions in enumerate(self.actions)}


@dataclass(frozen=True, eq=False)
class DeviceMetric:
    """A cost that was measured on a device, in the file's own unit; positive."""

    encode: Encoder
    log: Table | Surrogate

    def __call__(self, architecture: Architecture) -> float:
        """The metric of one network."""
        return float(self.values([self.encode(architecture)])[0])

    def values(self, actions: Sequence[Actions] | np.ndarray) -> np.ndarray:
        """The metric (n,) of n networks."""
        metric: np.ndarray = np.exp(self.log.values(actions))
        return metric


class BenchmarkEvaluator:
    """Looks architectures up (an `Evaluator`).

    Attributes:
        space: that is searched.
        noise: standard deviation of an observed accuracy, in points.
        metrics: names of the device metrics that there are.
        tau: cross-validated Kendall tau of the surrogate on unseen architectures; None for a table.
        guessed: choices of the space, in words, that occur in no network the surrogate was fitted to.
    """

    def __init__(
        self,
        features: Features,
        truth: Table | Surrogate,
        metrics: Mapping[str, Callable[[], Table | Surrogate]],
        noise: float | None,
        source: str,
        contents: Contents,
        guessed: Sequence[str] = (),
    ) -> None:
        """Make one from its truth.

        Args:
            features: of the space that is searched.
            truth: the accuracies in [0, 1].
            metrics: what gives the logarithm of each device metric.
            noise: standard deviation in points; None for one of a table's trained seeds, else `NOISE`.
            source: the file, for messages.
            contents: identifies what the benchmark holds, the order of its rows included.
            guessed: choices that the benchmark's networks lack.
        """
        self._contents = contents
        self.guessed = guessed
        self.space = features.space
        self.metrics = tuple(sorted(metrics))
        self.tau = None if isinstance(truth, Table) else truth.tau
        self._truth = truth
        self._logs = metrics
        self._devices: dict[str, DeviceMetric] = {}
        self._source = source
        self._encode = Encoder(self.space)
        self._features = features
        self._seeds = truth if noise is None and isinstance(truth, Table) and truth.repeated else None
        own = self._seeds.noise if self._seeds else NOISE
        self.noise = own if noise is None else abs(noise)  # numpy draws no noise of scale -0.0

    def __str__(self) -> str:
        """What answers, in words."""
        count = f"{self._contents['networks']:,} networks"
        answers = f"the accuracies of all {count} of the space"
        if isinstance(self._truth, Surrogate):
            fitted = len(self._truth.mean.centres)
            some = count if fitted == self._contents["networks"] else f"{fitted:,} of {count}"
            answers = f"a surrogate fitted to {some}, Kendall's tau {self.tau:.2f} on unseen ones"
        noise = "a child is one of its network's trainings" if self._seeds else f"noise {self.noise:g} points"
        guesses = f"; no network has {_first_of(self.guessed)}, whose effect is extrapolated" if self.guessed else ""
        devices = "".join(
            f"; {name} is predicted too, Kendall's tau {device.log.tau:.2f}"
            for name, device in self._devices.items()
            if isinstance(device.log, Surrogate)
        )
        return f"{answers}; {noise}{guesses}{devices}"

    @classmethod
    def load(cls, source: str, space: SearchSpace, noise: float | None = None) -> Self:
        """Load a benchmark.

        Args:
            source: `rehearsal` for the surrogate that is shipped, or a .jsonl or .jsonl.gz file.
            space: that is searched; it must be the file's.
            noise: standard deviation of an observed accuracy, in points; None for the benchmark's own: one of a
                table's trained seeds; a surrogate's is that of the file's trainings, `NOISE` where they can't tell.

        Raises:
            BenchmarkError: the file can't be used, or isn't the space's; one line that names it.
        """
        if noise is not None and not 0 <= noise <= 100:
            raise BenchmarkError(f"benchmark.noise: must be from 0 to 100 points, not {noise:g}")
        if source == REHEARSAL:
            _check_rehearsed(space)
            features = Features(space)
            shipped = surrogate.load(_FILE, features)
            accuracy = shipped.pop("accuracy")
            contents = {"networks": len(accuracy.mean.centres), "digest": _digest(_FILE.read_bytes())}
            devices = {name: partial(shipped.__getitem__, name) for name in shipped}
            return cls(features, accuracy, devices, noise, source, contents)
        networks = read(source, space)
        guessed = _unmeasured(space, networks, source)
        features = Features(space)
        truth = _known(features, {actions: network.accuracies for actions, network in networks.items()}, source)
        if noise is None and isinstance(truth, Surrogate):
            noise = _seed_noise(networks.values())
        names = sorted({name for network in networks.values() for name in network.metrics})
        metrics = {name: partial(_log, features, networks, name, source) for name in names}
        held = [(actions, network.accuracies, network.metrics) for actions, network in networks.items()]
        contents = {"networks": len(networks), "digest": _digest(repr(held).encode())}
        return cls(features, truth, metrics, noise, source, contents, guessed)

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """The evaluator that a recipe's `benchmark` section describes (see `load`).

        Raises:
            BenchmarkError: also if no network of the space reaches the recipe's target.
        """
        assert recipe.benchmark is not None
        evaluator = cls.load(recipe.benchmark.source, recipe.load_space(), recipe.benchmark.noise)
        evaluator._check_target(recipe.objective.cost, recipe.objective.target)
        return evaluator

    def _check_target(self, name: str, target: float) -> None:
        """Refuse a T that no network of the space reaches on a device; FLOPs and params need no benchmark for that.

        Args:
            name: of the cost in a recipe.
            target: T in the metric's own unit.

        Raises:
            BenchmarkError: the message says what can be reached.
        """
        metric = self.cost_function(name)
        if not isinstance(metric, DeviceMetric):
            return
        rng = np.random.default_rng(0)
        some = metric.values([self.space.sample_actions(rng) for _ in range(_SAMPLE)])
        if some.min() <= target <= some.max():
            return
        low = -optimum(self.space, lambda actions: -metric.values(actions))[1]
        high = optimum(self.space, metric.values)[1]
        if not low * (1 - _ROUNDING) <= target <= high * (1 + _ROUNDING):
            raise BenchmarkError(unreachable(target, low, high, name, self.space.name))

    def contents(self, architecture: Architecture) -> Contents:
        """What identifies the benchmark, whatever the architecture (see `Evaluator.contents`)."""
        return self._contents

    def evaluate(self, architecture: Architecture, seed: int, report: Report) -> Measurement:
        """Look one child up (see `Evaluator.evaluate`); equal seeds observe equal accuracies.

        Raises:
            SpaceError: the architecture is outside the space.
        """
        accuracy = self.observe([self._encode(architecture)], np.random.default_rng(seed))[0]
        return Measurement(float(accuracy), 0, 0.0)

    def observe(self, actions: Sequence[Actions], rng: np.random.Generator) -> np.ndarray:
        """Noisy accuracies in [0, 1] of n networks, (n,): a table's trained seed, or the truth and Gaussian noise."""
        if self._seeds:
            trained = [self._seeds.numbers[self._seeds.row(row)] for row in actions]
            return np.array([accuracies[int(rng.integers(len(accuracies)))] for accuracies in trained])
        observed = self._truth.values(actions) + rng.normal(0, self.noise / 100, len(actions))
        return observed.clip(0, 1)

    def accuracy(self, architecture: Architecture) -> float:
        """The accuracy in [0, 1] without noise; of a table, the mean of its seeds.

        Raises:
            SpaceError: the architecture is outside the space.
        """
        return float(self.accuracies([self._encode(architecture)])[0])

    def accuracies(self, actions: Sequence[Actions] | np.ndarray) -> np.ndarray:
        """The accuracies in [0, 1] without noise of n networks, (n,)."""
        return self._truth.values(actions).clip(0, 1)

    def cost_function(self, name: str) -> CostFunction:
        """The cost of an architecture by its name in a recipe: a device metric is learned when it is asked for.

        Raises:
            BenchmarkError: the benchmark has no such metric, or it can't be learned.
        """
        if name in self._logs:
            if name not in self._devices:
                self._devices[name] = DeviceMetric(self._encode, self._logs[name]())
            return self._devices[name]
        if name in COSTS:
            return cost_function(name)
        known = f"it has {', '.join(self.metrics)}" if self.metrics else "it has none"
        raise BenchmarkError(f"objective.cost: {name} wasn't measured in {self._source}; {known}")

    def costs(self, function: CostFunction, actions: Sequence[Actions] | np.ndarray) -> np.ndarray:
        """A cost of n networks, (n,): FLOPs, params and device metrics without building any of them."""
        if function in COST_COLUMNS:
            return self._features.costs(actions)[:, COST_COLUMNS[function]]
        if isinstance(function, DeviceMetric):
            return function.values(actions)
        return np.array([function(self.space.decode(tuple(row))) for row in actions])

    def best_reward(self, objective: Reward, function: CostFunction) -> tuple[Actions, float]:
        """The best reward of the space without noise, and what reaches it.

        Of a table the best of all; of a surrogate that of a local search from a fixed seed.

        Args:
            objective: (accuracies, costs) -> rewards, arrays of one length.
            function: the cost of an architecture.
        """

        def reward(actions: Sequence[Actions] | np.ndarray) -> np.ndarray:
            return objective(self.accuracies(actions), self.costs(function, actions))

        if isinstance(self._truth, Surrogate):
            return optimum(self.space, reward)
        rewards = reward(self._truth.actions)
        best = int(rewards.argmax())
        return self._truth.actions[best], float(rewards[best])


def _seed_noise(networks: Collection[Network]) -> float | None:
    """Standard deviation of a training, in points, pooled over networks; None if most were trained only once."""
    repeated = [network.accuracies for network in networks if len(network.accuracies) > 1]
    if 2 * len(repeated) < len(networks):
        return None
    return round(100 * math.sqrt(Noise.pooled(repeated).variance), 3)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _check_rehearsed(space: SearchSpace) -> None:
    if field := difference(space, ACCEL.space):
        raise BenchmarkError(
            f"benchmark.source: {REHEARSAL} covers only the space {ACCEL.space}, "
            f"from which the space {space.name} differs in `{field}`"
        )


def _unmeasured(space: SearchSpace, networks: Mapping[Actions, Network], source: str) -> list[str]:
    """The space's choices, in words, that none of the file's networks has.

    Raises:
        BenchmarkError: there are such, and the space isn't the one that the file's format describes.
    """
    measured = {pair for actions in networks for pair in enumerate(actions)}
    absent = [
        f"{space.decisions[i].name} {space.decisions[i].choices[action]}"
        for i, action in sorted(Encoder(space).choices() - measured)
    ]
    if absent and difference(space, format_of(source).space):
        raise BenchmarkError(f"{source}: no row has {_first_of(absent)}, which the space {space.name} offers")
    return absent


def _first_of(choices: Sequence[str]) -> str:
    more = len(choices) - 1
    return f"{choices[0]} (and {plural(more, 'more choice')})" if more else choices[0]


def _known(features: Features, numbers: Mapping[Actions, Sequence[float]], where: str) -> Table | Surrogate:
    """The numbers of every network: looked up where there are those of all, or else learned from their means."""
    if len(numbers) == features.space.size:
        return Table(features.space, numbers)
    return Surrogate.fitted(features, {actions: float(np.mean(row)) for actions, row in numbers.items()}, where)


def _log(features: Features, networks: Mapping[Actions, Network], name: str, source: str) -> Table | Surrogate:
    """The logarithm of a metric of every network."""
    measured = {actions: network.metrics[name] for actions, network in networks.items() if name in network.metrics}
    return _known(features, {actions: [math.log(value)] for actions, value in measured.items()}, f"{source}: {name}")
