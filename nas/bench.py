"""Controllers side by side on a benchmark: equal budgets, many seeds, the regret of what each hands over."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

import controllers
from controllers import Controller, Options, Outcome, Problem, Suggestion
from nas import __version__
from nas.benchmark_file import check_space, format_of
from nas.evaluators.benchmark import BenchmarkEvaluator
from nas.objective import FORMS, Objective, final_objective, make_objective
from nas.peers import PEERS
from nas.quantities import told_apart
from nas.study import ADAPT_EVERY
from search_space import Architecture, InputError, cost, load_space
from search_space.errors import did_you_mean
from search_space.files import parse_yaml

FORMAT = "baseline-nas/bench/1"
_MOST = 1_000_000  # searches, and children under way
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_NOISE_STREAM = 1  # sets the observations' random draws apart from the controller's

PROTOCOL = (
    "One query is one child, repeats counted. A controller is told noisy rewards; after each budget the architecture "
    "that it recommends is scored without noise. Regret: the best noise-free reward of the space less that of the "
    "recommendation, times 100: accuracy points. Under the objective auto both are rewards of the form it begins with."
)


@dataclass(frozen=True)
class Setup:
    """What is compared, on what.

    Attributes:
        source: `rehearsal`, or the benchmark's file.
        space: of the library or a YAML file; None for the benchmark's own.
        controllers: names, of ours and of `nas.peers`.
        budgets: children after which the recommendation is scored.
        seeds: searches of each controller, with the seeds 0, 1, ...
        objective: its name (`nas.objective.FORMS`).
        target: T in multiply-adds; None for the benchmark's own.
        noise: standard deviation of an observed accuracy in points; None for the benchmark's own.
        in_flight: children that are always under way.
        options: of controllers, by name.
    """

    source: str = "rehearsal"
    space: str | None = None
    controllers: tuple[str, ...] = ("ppo", "random")
    budgets: tuple[int, ...] = (50, 100, 200)
    seeds: int = 20
    objective: str = "mnasnet"
    target: float | None = None
    noise: float | None = None
    in_flight: int = 1
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = (*controllers.NAMES, *PEERS)
        for name in self.controllers:
            _check_name("--controllers", name, known)
        _check_name("--objective", self.objective, tuple(FORMS))
        if len(set(self.controllers)) < len(self.controllers) or not self.controllers:
            raise InputError(f"--controllers: each once, and at least one, not {','.join(self.controllers)!r}")
        if not self.budgets or self.budgets[0] < 1 or any(b <= a for a, b in pairwise(self.budgets)):
            raise InputError(f"--budgets: must be positive and increasing, not {','.join(map(str, self.budgets))}")
        for name, value in (("--seeds", self.seeds), ("--in-flight", self.in_flight)):
            if not 1 <= value <= _MOST:
                raise InputError(f"{name}: must be at least 1 and at most {_MOST:,}, not {value!s:.20}")
        if self.noise is not None and not 0 <= self.noise <= 100:
            raise InputError(f"--noise: must be from 0 to 100 points, not {self.noise:g}")
        for name in self.options:
            _check_name("--set", name, self.controllers)


@dataclass(frozen=True, slots=True)
class Search:
    """One search of one controller.

    Attributes:
        controller: its name.
        seed: of the controller and of the observations.
        regrets: in accuracy points, after each budget.
        accuracies: of the recommendation in [0, 1], without noise.
        flops: of the recommendation.
        seconds_per_child: of suggesting and learning.
    """

    controller: str
    seed: int
    regrets: tuple[float, ...]
    accuracies: tuple[float, ...]
    flops: tuple[int, ...]
    seconds_per_child: float


class Bench:
    """A setup with its benchmark loaded and checked.

    Attributes:
        setup: what is compared, its target filled in.
        space: that is searched.
        evaluator: the benchmark.
        objective: the reward.
        best_reward: the space's best reward without noise.

    Raises:
        InputError: the benchmark, the space, a controller's options or the target can't be used, or a controller needs
            more children.
    """

    def __init__(self, setup: Setup) -> None:
        kind = format_of(setup.source)
        target = setup.target or kind.target
        self.setup = replace(setup, target=target)
        self.space = load_space(setup.space or kind.space)
        check_space(setup.source, self.space)
        self.objective = make_objective(setup.objective, target)
        low, high = self.space.cost_range(cost.flops)
        if not low <= target <= high:
            wrong, *ends = told_apart(target, low, high)
            option = f"--space {setup.space}" if setup.target is None else f"--target {wrong}"
            raise InputError(
                f"{option}: the networks of the space {self.space.name} have {' to '.join(ends)} FLOPs, "
                f"and T is {wrong}"
            )
        for name in setup.controllers:
            least = self.make(name, 0, self.objective).options.least_children
            if setup.budgets[-1] < least:
                raise InputError(f"--budgets: {setup.budgets[-1]} is fewer than the {least} children that {name} needs")
        self.evaluator = BenchmarkEvaluator.load(setup.source, self.space, setup.noise)
        self.best_reward = self.evaluator.best_reward(self.objective, cost.flops)[1]

    @property
    def searches(self) -> int:
        """How many there are to run."""
        return self.setup.seeds * len(self.setup.controllers)

    def make(self, name: str, seed: int, objective: Callable[[Any, Any], Any]) -> Controller[Any]:
        """A controller, ready to search.

        Raises:
            InputError: its options can't be used, or its package is not installed.
        """
        options = self.setup.options.get(name, {})
        if name in PEERS:
            if options:
                raise InputError(f"--set {name}: its options are those of the comparison")
            return PEERS[name](Problem(self.space, objective, cost.flops), Options(), seed)
        try:
            return controllers.create(
                name, self.space, objective=objective, cost=cost.flops, seed=seed, options=options
            )
        except InputError as error:
            raise InputError(f"--set {name}: {error}") from None


def parse_budgets(text: str) -> tuple[int, ...]:
    """`50,100,200` as numbers.

    Raises:
        InputError: it is none of this form.
    """
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise InputError(f"--budgets: must be whole numbers such as 50,100,200, not {text!r}") from None


def parse_options(settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`ppo.lr=0.01` lines as the options of each controller.

    Raises:
        InputError: one is none of this form.
    """
    options: dict[str, dict[str, Any]] = {}
    for setting in settings:
        path, separator, text = setting.partition("=")
        name, dot, option = path.partition(".")
        if not (separator and dot and name and option):
            raise InputError(f"--set {setting}: must be CONTROLLER.OPTION=VALUE, such as ppo.lr=0.01")
        options.setdefault(name, {})[option] = parse_yaml(text, f"--set {setting}")
    return options


class _Underway:
    """One search: its controller, the children under way, and the objective, which `auto` adapts."""

    def __init__(self, bench: Bench, name: str, seed: int) -> None:
        self._bench = bench
        self._objective = bench.objective
        self._controller = bench.make(name, seed, self._reward)
        self._rng = np.random.default_rng([seed, _NOISE_STREAM])
        self._pending: list[Suggestion] = []
        self._told = 0
        self.seconds = 0.0

    def step(self, in_flight: int) -> None:
        """Fill up to `in_flight` suggestions and tell the outcome of the oldest."""
        began = time.perf_counter()
        self._pending += self._controller.ask(in_flight - len(self._pending))
        self.seconds += time.perf_counter() - began
        suggestion = self._pending.pop(0)
        accuracy = float(self._bench.evaluator.observe([suggestion.actions], self._rng)[0])
        flops = cost.flops(self._controller.space.decode(suggestion.actions))
        outcome = Outcome(suggestion, float(self._objective(accuracy, flops)), accuracy, flops)
        began = time.perf_counter()
        self._controller.tell([outcome])
        self.seconds += time.perf_counter() - began
        self._told += 1
        if self._objective.adapts and self._told % ADAPT_EVERY == 0:
            self._objective = self._objective.adapted(cost.flops(self._recommended(self._objective)))

    def hand_over(self) -> Architecture:
        """What the controller recommends if the search ends here; the search goes on as if it hadn't been asked."""
        during = self._objective
        final = final_objective(during, lambda other: cost.flops(self._recommended(other)))
        chosen = self._recommended(final.at_target())
        self._objective = during
        return chosen

    def _reward(self, accuracy: Any, flops: Any) -> Any:
        return self._objective(accuracy, flops)

    def _recommended(self, objective: Objective) -> Architecture:
        self._objective = objective
        architecture = self._controller.recommend()
        assert architecture is not None
        return architecture


def search(bench: Bench, name: str, seed: int) -> Search:
    """Run one search of a controller to the last budget."""
    underway, last = _Underway(bench, name, seed), bench.setup.budgets[-1]
    accuracies, flops = [], []
    for child in range(1, last + 1):
        underway.step(min(bench.setup.in_flight, last - child + 1))
        if child in bench.setup.budgets:
            chosen = underway.hand_over()
            accuracies.append(bench.evaluator.accuracy(chosen))
            flops.append(cost.flops(chosen))
    rewards = [float(bench.objective(*scored)) for scored in zip(accuracies, flops, strict=True)]
    regrets = tuple(100 * (bench.best_reward - reward) for reward in rewards)
    return Search(name, seed, regrets, tuple(accuracies), tuple(flops), underway.seconds / last)


def run(bench: Bench, workers: int) -> Generator[Search]:
    """All searches, each as soon as it is done, in parallel processes; equal whatever the number of workers.

    Closing the iterator ends those under way. Ctrl-C interrupts the caller alone, which must be the main thread.
    """
    jobs = [(name, seed) for seed in range(bench.setup.seeds) for name in bench.setup.controllers]
    others = multiprocessing.active_children()
    pool = ProcessPoolExecutor(min(workers, len(jobs)), multiprocessing.get_context("spawn"), _begin_worker, (bench,))
    try:
        with _uninterrupted():
            searches = [pool.submit(_search, *job) for job in jobs]
        for done in as_completed(searches):
            yield done.result()
    finally:
        for process in multiprocessing.active_children():
            if process not in others:
                process.terminate()
        pool.shutdown(cancel_futures=True)


@contextmanager
def _uninterrupted() -> Generator[None]:
    """Hold Ctrl-C and termination back, for a process that is only half started couldn't be ended.

    What starts meanwhile inherits that Ctrl-C, which a terminal sends to all, is blocked.
    """
    held: list[int] = []
    before = {number: signal.signal(number, lambda *which: held.append(which[0])) for number in _STOPS}
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        for number, handler in before.items():
            signal.signal(number, handler)
    if held:
        raise KeyboardInterrupt


def summary(bench: Bench, searches: Iterable[Search]) -> dict[str, Any]:
    """The content of `bench.json`: the protocol, what was compared, every search, medians and quartiles."""
    ordered = sorted(searches, key=lambda search: (bench.setup.controllers.index(search.controller), search.seed))
    return {
        "format": FORMAT,
        "version": __version__,
        "protocol": PROTOCOL,
        "setup": asdict(bench.setup) | {"space": bench.space.name, "noise": bench.evaluator.noise},
        "surrogate_tau": bench.evaluator.tau,
        "guessed": list(bench.evaluator.guessed),
        "best_reward": bench.best_reward,
        "controllers": {
            name: _statistics([search for search in ordered if search.controller == name])
            for name in bench.setup.controllers
        },
        "searches": [asdict(search) for search in ordered],
    }


def _statistics(searches: Sequence[Search]) -> dict[str, Any]:
    """Figures of one controller: quartiles of regret and medians of the rest, for each budget."""
    if not searches:
        return {"seeds": 0}
    low, median, high = np.quantile([search.regrets for search in searches], (0.25, 0.5, 0.75), axis=0).tolist()
    return {
        "seeds": len(searches),
        "regret_median": median,
        "regret_q25": low,
        "regret_q75": high,
        "accuracy_median": np.median([search.accuracies for search in searches], axis=0).tolist(),
        "flops_median": np.median([search.flops for search in searches], axis=0).tolist(),
        "seconds_per_child": float(np.median([search.seconds_per_child for search in searches])),
    }


_bench: Bench  # of a worker process


def _begin_worker(bench: Bench) -> None:
    global _bench  # noqa: PLW0603 (sent once to each worker instead of with every search)
    torch.set_num_threads(1)
    threadpool_limits(1)
    _bench = bench


def _search(name: str, seed: int) -> Search:
    return search(_bench, name, seed)


def _check_name(where: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise InputError(f"{where}: {name!r} is unknown; {did_you_mean(name, known, 'use one of')}")
