"""Is a recipe's proxy worth trusting, and what will the whole search cost? Asked before GPU-hours are spent."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.costs import cost_function
from nas.evaluators import ProxyEvaluator
from nas.evaluators.base import Contents, Failure, Measurement
from nas.executors import make_executor
from nas.folder import RESULTS
from nas.journal import Journal, parse
from nas.recipe import Recipe
from nas.run import check
from nas.statistics import Floats, Noise, kendall_tau, share_in_order, tau_interval
from nas.study import Study
from nas.trials import LONGER, Trials, check_journal, make_folder, repeated, train, whole_trainings
from search_space import Architecture, InputError, SearchSpace, cost
from search_space.files import write_file
from search_space.space import Actions

AUDIT = "audit.json"
PROXY = "proxy.jsonl"
NETWORKS = (10, 30)  # fewer say nothing, more cost like a search
DRAWS = 64  # drawn for each network that is chosen
LEAST = 8  # networks that must be trained in every way; of fewer, tau's bootstrap interval is far too narrow
A_TIME = 1700000000.123  # as long as any
SAMPLE = 40  # children of the rehearsal that measures the journal
REPEATABILITY = 2.77  # standard deviations: 95% of the differences between two repeats are less (ISO 5725-6)


@dataclass(frozen=True, slots=True)
class Network:
    """One network of an audit.

    Attributes:
        flops: of the deployed network, in multiply-adds.
        proxy: accuracy under the proxy, seed by seed, in [0, 1].
        reference: accuracy under the reference.
    """

    name: str
    flops: int
    proxy: tuple[float, ...]
    reference: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far proxy and reference order networks alike: a tau or a share, with its 95% bootstrap interval over them."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the whole search will take, at the pace of the audit.

    Attributes:
        children: to train, the baseline included.
        workers: children at a time.
        child_seconds: mean of a training under the proxy.
        hours: of the search, without early stopping.
        journal_bytes: of the journal, by a rehearsal of its events.
        image_bytes: of the packed images, once per host.
    """

    children: int
    workers: int
    child_seconds: float
    hours: float
    journal_bytes: int
    image_bytes: int


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found.

    Attributes:
        contents: of the images.
        networks: by FLOPs, those with a failed training left out.
        failures: why networks were left out, a line each.
        proxy_epochs: of a child.
        reference_epochs: of a reference training.
        tau_single: Kendall's, of the accuracy of one training, which is what a search sees.
        tau_mean: of the mean accuracy of two.
        tau_reward: of the reward of one training.
        right: share of the pairs of networks of which one training each puts the better one first; a tie is half right.
        seed_noise: standard deviation between trainings of one network under the proxy, in accuracy points.
        spread: standard deviation between networks, the noise taken out, in accuracy points.
        noise_share: of the variance of single trainings, from 0 to 1.
        least_difference: accuracy points below which one training each can't tell two networks apart (95%).
    """

    recipe: str
    contents: Contents
    networks: tuple[Network, ...]
    failures: tuple[str, ...]
    proxy_epochs: int
    reference_epochs: int
    tau_single: Agreement
    tau_mean: Agreement
    tau_reward: Agreement
    right: Agreement
    seed_noise: float
    spread: float
    noise_share: float
    least_difference: float
    forecast: Forecast


def audit(
    recipe: Recipe,
    networks: int = 16,
    epochs: int | None = None,
    out: Path | None = None,
    workers: int | None = None,
    ray_address: str | None = None,
    watch: Callable[[Trials], None] = lambda trials: None,
) -> tuple[Path, Audit]:
    """Train spread-out networks under the proxy and under the reference, and compare.

    Args:
        recipe: of the search to come.
        networks: how many, the baseline included; 10 to 30.
        epochs: of the reference; None for 4 times the proxy's.
        out: the audit's folder; None for `results/NAME-audit`. What an earlier audit trained there isn't trained again.
        workers: trainings at a time; None for the recipe's.
        ray_address: of a running Ray cluster.
        watch: called after every training.

    Returns:
        The folder, with `audit.json` and the trainings' journals in it, and what was found.

    Raises:
        InputError: the recipe, the data or an option can't be used, or too many trainings failed.
        KeyboardInterrupt: the user stopped it; the same call goes on.
    """
    settings = _settings(recipe, networks, epochs, workers)
    check(recipe)
    baseline = recipe.load_baseline()
    data = ProxyEvaluator.of(recipe).images(baseline)
    journal_bytes = _journal_bytes(recipe)
    chosen = [baseline, *spread_out(recipe.load_space(), baseline, networks - 1, recipe.seed)]
    at_a_time = make_executor(settings["proxy"][0], ray_address).workers()
    folder = out or RESULTS / f"{recipe.name}-audit"
    make_folder(folder, PROXY, "audit")
    for name, (setting, _) in settings.items():
        check_journal(folder / f"{name}.jsonl", setting)
    results: list[list[Measurement | Failure]] = [[] for _ in chosen]
    for name, (setting, repeats) in settings.items():
        trials = repeated(list(enumerate(chosen)), repeats, recipe.seed)
        found = train(folder / f"{name}.jsonl", setting, ProxyEvaluator.of(setting), trials, ray_address, watch)
        for trial in trials:
            results[trial.number % len(chosen)].append(found[trial.number])
        _check_enough(chosen, results)
    seconds = [r.seconds for own in results for r in own[:-1] if isinstance(r, Measurement)]
    forecast = _forecast(recipe, at_a_time, float(np.mean(seconds)), journal_bytes, data.images.nbytes)
    summary = _summary(recipe, data.contents, chosen, results, settings["reference"][0], forecast)
    write_file(folder / AUDIT, json.dumps(asdict(summary), indent=2) + "\n")
    return folder, summary


def spread_out(space: SearchSpace, baseline: Architecture, count: int, seed: int) -> list[Architecture]:
    """Different networks all over a space: one from each quantile of FLOPs, each as unlike the ones before as can be.

    Args:
        space: to draw from.
        baseline: which is there already.
        count: how many.
        seed: of the draws.

    Raises:
        InputError: the space has fewer networks.
    """
    rng = np.random.default_rng(seed)
    drawn: dict[str, tuple[Actions, Architecture]] = {}
    for actions in (space.sample_actions(rng) for _ in range(DRAWS * count)):
        network = space.decode(actions)
        drawn.setdefault(network.key(), (actions, network))
    drawn.pop(baseline.key(), None)
    if len(drawn) < count:
        raise InputError(
            f"--networks {count + 1}: {DRAWS * count} draws from the space {space.name} gave {len(drawn)} networks"
        )
    by_cost = sorted(drawn.values(), key=lambda pair: cost.flops(pair[1]))
    choices = np.array([_effective(space, actions) for actions, _ in by_cost])
    nearest = np.full(len(by_cost), len(space.decisions))
    if space.contains(baseline):
        nearest = (choices != _effective(space, space.encode(baseline))).sum(axis=1)
    chosen: list[Architecture] = []
    for stratum in np.array_split(np.arange(len(by_cost)), count):
        pick = int(stratum[nearest[stratum].argmax()])
        nearest = np.minimum(nearest, (choices != choices[pick]).sum(axis=1))
        chosen.append(by_cost[pick][1].with_(name=f"network-{len(chosen) + 1}"))
    return chosen


def _effective(space: SearchSpace, actions: Actions) -> NDArray[np.int64]:
    """The actions, -1 for those without effect."""
    return np.where(space.active(actions), actions, -1)


def _settings(
    recipe: Recipe, networks: int, epochs: int | None, workers: int | None
) -> dict[str, tuple[Recipe, list[int]]]:
    """The two ways of training and the numbers of each network's repeats: no seed is shared between them.

    Raises:
        InputError: an option is out of range.
    """
    if recipe.proxy is None:
        raise InputError(
            f"{recipe.name}: looks its children up in a benchmark; an audit needs a recipe that trains them"
        )
    low, high = NETWORKS
    if not low <= networks <= high:
        raise InputError(f"--networks {networks}: must be {low} to {high}")
    if epochs is not None and epochs <= recipe.proxy.epochs:
        raise InputError(
            f"--epochs {epochs}: the reference must be longer than the proxy's {recipe.proxy.epochs} epochs"
        )
    longer = whole_trainings(recipe, epochs or LONGER * recipe.proxy.epochs, workers)
    return {"proxy": (whole_trainings(recipe, None, workers), [1, 2]), "reference": (longer, [3])}


def _journal_bytes(recipe: Recipe) -> int:
    """Bytes of the whole search's journal, from the first children of a rehearsal that trains nothing.

    Raises:
        InputError: the search itself couldn't begin.
    """
    with (
        tempfile.TemporaryDirectory(prefix="nas-audit-") as scratch,
        Journal(Path(scratch) / "journal.jsonl") as journal,
    ):
        study = Study(recipe, journal, cost=cost.flops)
        done = 0
        while done < SAMPLE and (trial := study.next_trial()):
            done += 1
            study.finish(trial, Measurement(1 / (2 + done), 1, 1.0))
        header, *events = [len(json.dumps({**event, "time": A_TIME})) + 1 for event in parse(journal.path)[0]]
        return header + round(sum(events) / done * (recipe.children + 1))


def _check_enough(chosen: Sequence[Architecture], results: Sequence[Sequence[Measurement | Failure]]) -> None:
    """Stop before more time is spent where nearly everything fails.

    Raises:
        InputError: too few networks are left without a failed training.
    """
    failures = _failures(chosen, results)
    if len(chosen) - len(failures) < LEAST:
        raise InputError(
            f"{len(failures)} of {len(chosen)} networks failed, too many to compare the rest; the last: {failures[-1]}"
        )


def _failures(chosen: Sequence[Architecture], results: Sequence[Sequence[Measurement | Failure]]) -> list[str]:
    """The networks with a failed training, a line each."""
    reasons = [[result.reason for result in own if isinstance(result, Failure)] for own in results]
    return [f"{network.name}: {why[-1]}" for network, why in zip(chosen, reasons, strict=True) if why]


def _summary(
    recipe: Recipe,
    contents: Contents,
    chosen: Sequence[Architecture],
    results: Sequence[Sequence[Measurement | Failure]],
    reference: Recipe,
    forecast: Forecast,
) -> Audit:
    """What the trainings say.

    Args:
        recipe: of the search.
        contents: of its images.
        chosen: the networks.
        results: of each network, the reference's last.
        reference: the recipe of the reference.
        forecast: of the search.
    """
    assert recipe.proxy is not None
    assert reference.proxy is not None
    measured = {
        i: [result.accuracy for result in own if isinstance(result, Measurement)] for i, own in enumerate(results)
    }
    whole = [i for i, own in enumerate(results) if len(measured[i]) == len(own)]
    whole.sort(key=lambda i: cost.flops(chosen[i]))
    *seeds, longer = np.array([measured[i] for i in whole]).T
    proxy = np.array(seeds)
    objective, price = recipe.make_objective(), cost_function(recipe.objective.cost)
    prices = np.array([price(chosen[i]) for i in whole])
    noise = Noise.pooled(proxy.T.tolist()).variance
    spread = max(0.0, float(proxy.mean(axis=0).var(ddof=1)) - noise / len(proxy))
    return Audit(
        recipe=recipe.name,
        contents=contents,
        networks=tuple(
            Network(chosen[i].name, cost.flops(chosen[i]), tuple(measured[i][:-1]), measured[i][-1]) for i in whole
        ),
        failures=tuple(_failures(chosen, results)),
        proxy_epochs=recipe.proxy.epochs,
        reference_epochs=reference.proxy.epochs,
        tau_single=_tau(proxy, longer, recipe.seed),
        tau_mean=_tau(proxy.mean(axis=0), longer, recipe.seed),
        tau_reward=_tau(objective(proxy, prices), objective(longer, prices), recipe.seed),
        right=Agreement(*share_in_order(proxy, longer, np.random.default_rng(recipe.seed))),
        seed_noise=100 * noise**0.5,
        spread=100 * spread**0.5,
        noise_share=noise / (noise + spread) if noise else 0.0,
        least_difference=100 * REPEATABILITY * noise**0.5,
        forecast=forecast,
    )


def _tau(proxy: Floats, reference: Floats, seed: int) -> Agreement:
    return Agreement(kendall_tau(proxy, reference), *tau_interval(proxy, reference, np.random.default_rng(seed)))


def _forecast(recipe: Recipe, workers: int, child_seconds: float, journal_bytes: int, image_bytes: int) -> Forecast:
    children = recipe.children + 1
    hours = child_seconds * children / workers / 3600
    return Forecast(children, workers, child_seconds, hours, journal_bytes, image_bytes)
