"""The leaders of a search trained again, longer and with fresh seeds, to choose the one to keep.

The best of many single trainings is partly the luckiest (the winner's curse). Fresh seeds are independent of that
luck, and estimates that are shrunk by empirical Bayes (`nas.statistics.shrink`) keep the second choice from repeating
it. What remains is that search and retraining measure on the same held-out images: the final figure needs others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.evaluators import make_evaluator
from nas.evaluators.base import Failure, Measurement, check_unchanged
from nas.folder import RECIPE, Folder, no_result
from nas.journal import Event, Journal
from nas.ledger import BASELINE, Child, Ledger
from nas.recipe import Recipe
from nas.statistics import Estimate, Noise, shrink
from nas.trials import LONGER, Trials, repeated, train, whole_trainings
from search_space import InputError

RETRAIN = "retrain.jsonl"
SEEDS = 3


@dataclass(frozen=True, slots=True)
class Retrained:
    """A child trained again.

    Attributes:
        rank: in the search as measured, from 1; 0 for the baseline.
        rewards: of the retrainings.
        mean: of the rewards.
        estimate: the mean shrunk towards that of the leaders, from four on; the baseline's is its mean.
    """

    child: Child
    rank: int
    rewards: tuple[float, ...]
    mean: Estimate
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Retraining:
    """What retraining says of a search.

    Attributes:
        leaders: the highest estimate first; the first is the choice. Under `auto`, those that miss T come last.
        baseline: None if it has no measurement.
        search_choice: the search's choice; None if its trainings failed.
        seeds: trainings of each network.
        epochs: of a training; None for a benchmark, which is looked up again.
        search_epochs: of a child's training in the search.
        failures: why networks have fewer trainings, a line each.
        off_target: leaders that miss T by more than the objective accepts.
    """

    leaders: tuple[Retrained, ...]
    baseline: Retrained | None
    search_choice: Retrained | None
    seeds: int
    epochs: int | None
    search_epochs: int | None
    failures: tuple[str, ...]
    off_target: int

    @property
    def choice(self) -> Retrained:
        """The leader to hand over."""
        return self.leaders[0]

    def event(self) -> dict[str, Any]:
        """The choice as an event of the search's journal, with its gain over the baseline where that was retrained."""
        gain = self.baseline and self.choice.estimate - self.baseline.estimate
        return {
            "event": "recommended",
            "trial": self.choice.child.trial.number,
            "by": "retraining",
            "estimate": self.choice.estimate.value,
            "low": self.choice.estimate.low,
            "high": self.choice.estimate.high,
            "epochs": self.epochs,
            "gain": gain and [gain.value, gain.low, gain.high],
        }


def retrain(
    path: Path,
    k: int,
    seeds: int = SEEDS,
    epochs: int | None = None,
    workers: int | None = None,
    ray_address: str | None = None,
    watch: Callable[[Trials], None] = lambda trials: None,
) -> tuple[Folder, Retraining]:
    """Retrain a run's leaders and its baseline, and hand over the best of them.

    Trainings are kept in the run's `retrain.jsonl`; the choice goes into its journal and its best.yaml.

    Args:
        path: the run's folder.
        k: how many of the networks that the controller estimated best; what was handed over comes along in any case.
        seeds: trainings of each network, at least 2.
        epochs: of a training; None for 4 times the proxy's.
        workers: trainings at a time; None for the recipe's.
        ray_address: of a running Ray cluster.
        watch: called after every training.

    Raises:
        InputError: no run there, it is still running, no child has finished, or the options can't be used.
        KeyboardInterrupt: the user stopped it; the same call goes on.
    """
    folder = Folder.open(path)
    folder.ledger()  # refuses a run that has not begun, whose journal the next line would create
    with Journal(folder.journal) as journal:
        events = journal.replay()
        ledger = Ledger.of(events)
        ranked = _ranked(ledger, k, [event["trial"] for event in events if event["event"] == "recommended"])
        if not ranked:
            raise no_result(path, ledger)
        now = Recipe.load(str(path / RECIPE))
        moved = {name: getattr(now, name) for name in ("executor", "space", "baseline")}
        began = ledger.recipe.model_copy(update=moved)
        recipe = _recipe(began, seeds, epochs, workers)
        evaluator = make_evaluator(recipe.with_source_of(now))
        check_unchanged(ledger.contents, evaluator.contents(ledger.baseline.trial.architecture))
        networks = [(child.trial.number, child.trial.architecture) for child, _ in ranked]
        trials = repeated(networks, range(1, seeds + 1), recipe.seed)
        results = train(path / RETRAIN, recipe, evaluator, trials, ray_address, watch)
        found = _compare(ledger, ranked, seeds, recipe, [results[trial.number] for trial in trials])
        if not _recorded(events, found):
            journal.append(found.event())
    found.choice.child.trial.architecture.save(folder.best)
    return folder, found


def _ranked(ledger: Ledger, k: int, recommended: list[int]) -> list[tuple[Child, int]]:
    """What to retrain, with the ranks in the search: k leaders, what was handed over so far, and the baseline (0)."""
    best, baseline = ledger.best(), ledger.baseline
    handed_over = BASELINE in recommended and baseline.reward is not None
    if handed_over:  # a leader like any other
        best = sorted([*best, baseline], key=lambda child: -(child.reward or 0.0))
    wanted = {*recommended, *(child.trial.number for child in ledger.leaders(k))}
    chosen = [(child, rank) for rank, child in enumerate(best, 1) if child.trial.number in wanted]
    compared = chosen and baseline.reward is not None and not handed_over
    return [*chosen, (baseline, 0)] if compared else chosen


def _recipe(recipe: Recipe, seeds: int, epochs: int | None, workers: int | None) -> Recipe:
    if seeds < 2:
        raise InputError(f"--seeds {seeds}: must be at least 2; one training says nothing about its own luck")
    if recipe.proxy is None:
        if epochs is not None:
            raise InputError("--epochs: this run looked its children up in a benchmark, which trains nothing")
        return whole_trainings(recipe, None, workers)
    if epochs is not None and epochs < recipe.proxy.epochs:
        raise InputError(f"--epochs {epochs}: must be at least the {recipe.proxy.epochs} of the search")
    return whole_trainings(recipe, epochs or LONGER * recipe.proxy.epochs, workers)


def _compare(
    ledger: Ledger,
    ranked: list[tuple[Child, int]],
    seeds: int,
    recipe: Recipe,
    results: list[Measurement | Failure],
) -> Retraining:
    """Estimate every network's reward from its retrainings.

    Args:
        ledger: of the search.
        ranked: the networks and their ranks.
        seeds: trainings of each network.
        recipe: that retrained them.
        results: one for each network, seed by seed.

    Raises:
        InputError: too many trainings failed to say anything.
    """
    measured: list[tuple[Child, int, tuple[float, ...]]] = []
    failures = []
    for i, (child, rank) in enumerate(ranked):
        own = results[i :: len(ranked)]
        failed = [result.reason for result in own if isinstance(result, Failure)]
        if failed:
            name = child.trial.architecture.name
            failures.append(f"{name}: {len(failed)} of {seeds} trainings, the last by {failed[-1]}")
        accuracies = [result.accuracy for result in own if isinstance(result, Measurement)]
        if accuracies:
            measured.append((child, rank, tuple(float(ledger.objective(a, child.cost)) for a in accuracies)))
    if not any(rank for _, rank, _ in measured) or all(len(rewards) < 2 for _, _, rewards in measured):
        raise InputError(f"too few retrainings succeeded to choose by; failed: {'; '.join(failures)}")
    retrained = _estimated(measured)

    def misses(one: Retrained) -> bool:
        return not ledger.objective.meets_target(one.child.cost or 0.0)

    leaders = sorted((one for one in retrained if one.rank), key=lambda one: (misses(one), -one.estimate.value))
    return Retraining(
        tuple(leaders),
        next((one for one in retrained if not one.rank), None),
        next((one for one in leaders if one.child is ledger.search_choice), None),
        seeds,
        recipe.proxy.epochs if recipe.proxy else None,
        ledger.recipe.proxy.epochs if ledger.recipe.proxy else None,
        tuple(failures),
        sum(map(misses, leaders)),
    )


def _estimated(measured: list[tuple[Child, int, tuple[float, ...]]]) -> list[Retrained]:
    """Children with their ranks and rewards, the baseline last; it is no leader, so it isn't shrunk towards them."""
    noise = Noise.pooled([rewards for _, _, rewards in measured])
    estimates = shrink([rewards for _, rank, rewards in measured if rank], noise)
    estimates += [noise.mean(rewards) for _, rank, rewards in measured if not rank]
    return [
        Retrained(child, rank, rewards, noise.mean(rewards), estimate)
        for (child, rank, rewards), estimate in zip(measured, estimates, strict=True)
    ]


def _recorded(events: list[Event], found: Retraining) -> bool:
    """Whether the journal ends with this very choice, because the command was given again."""
    return {**found.event(), "time": events[-1].get("time")} == events[-1]
