"""Whether a search beat random sampling at an equal number of children, with an interval."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from controllers.accuracy_model import AccuracyModel
from controllers.features import COST_COLUMNS, Features
from nas.costs import EXACT_COSTS
from nas.evaluators.base import Evaluator, Measurement
from nas.evaluators.benchmark import BenchmarkEvaluator
from nas.journal import JournalError
from nas.ledger import Child, Ledger
from nas.objective import Objective
from nas.statistics import Floats

LEAST_RANDOM = 5
"""Fewer random children than these say nothing about random sampling."""

RANDOM_RUNS = 40
"""Just enough for 2.5% of further runs to lie below the lowest, and as many above the highest (1 / (n + 1) each)."""

_INTERVAL = (0.025, 0.5, 0.975)
_DIGITS = 4  # of a reward, as it is shown and judged
_CHANCE = 0.1  # an accuracy is chance up to guess + this * min(guess, 1 - guess)
_DRAWS = 400
_POOL = (1000, 4000)  # random architectures at which an accuracy model is drawn
_UPPER_QUARTILE = 0.6745  # of the standard normal distribution
_BROKEN = 3.0  # standard deviations below what was expected of a training that broke down
_LOST = 0.05  # share of the median accuracy, or reward, that such a training falls short of at least
_ROWS = 1500  # children that the accuracy model is fitted to at most
_STREAM = 7  # sets the verdict's random draws apart from the children's

Basis = Literal["warm-up", "random runs"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A search against random sampling of as many children.

    Attributes:
        children: measured in the search.
        basis: `warm-up` for an estimate from the run's children, `random runs` for real ones on a benchmark.
        gain: reward of the search less that of random sampling, the median; None if it can't be told.
        low: lower end of its 95% interval.
        high: upper end of it.
        reason: why it can't be told; empty otherwise.
    """

    children: int
    basis: Basis
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""

    @property
    def beats(self) -> bool | None:
        """Whether the search beat random sampling; None if that can't be told, for the interval contains 0."""
        if self.low is None or self.high is None or round(self.low, _DIGITS) <= 0 <= round(self.high, _DIGITS):
            return None
        return self.low > 0

    def __str__(self) -> str:
        """The verdict in words."""
        if self.gain is None:
            return f"Whether this beat random sampling can't be told: {self.reason}."
        heads = {True: "Beat", False: "Did not beat", None: "Can't tell whether this beat"}
        against = {
            "warm-up": f"the choice of {self.children:,} random children, estimated from this run, without noise",
            "random runs": f"the choice of {RANDOM_RUNS} real random runs of {self.children:,} children, without noise",
        }
        return (
            f"{heads[self.beats]} random sampling: reward {self.gain:+.{_DIGITS}f} "
            f"(95% interval {self.low:+.{_DIGITS}f} to {self.high:+.{_DIGITS}f}) against {against[self.basis]}."
        )


def recorded_verdict(ledger: Ledger) -> Verdict | None:
    """The verdict on a search as it was at its end; None before that."""
    if ledger.judged is None:
        return None
    try:
        recorded = Verdict(**{field.name: ledger.judged[field.name] for field in fields(Verdict)})
        str(recorded)  # its values are of their kinds
        return recorded
    except KeyError as error:
        raise JournalError(f"the journal is damaged: the verdict event lacks {error}") from None
    except (TypeError, ValueError) as error:
        raise JournalError(f"the journal is damaged: the verdict event can't be used: {error}") from None


def verdict(ledger: Ledger, evaluator: Evaluator | None = None) -> Verdict:
    """Compare a search with random sampling of as many children.

    The rewards, without noise, of what each hands over are compared. On a benchmark that knows every network's cost,
    `RANDOM_RUNS` real random runs are made. Elsewhere a model is fitted to the accuracies of all children, of which the
    random ones show it the bulk of the space; trainings that broke down are left out, and random sampling loses as
    large a share of its own. In each function drawn from the model's posterior, as many random children as the search
    had are observed with a training's noise; the best observed reward picks one, and its reward without noise is
    compared. The random children alone can't tell: the best of hundreds lies far out in the tail of tens. Random
    sampling picks by what the search's own choice is picked by: under `auto`, the accuracy of those that meet T.

    Args:
        ledger: of the search, finished or not.
        evaluator: that measured the children, where it is at hand.
    """
    measured = ledger.measured()
    benchmark = evaluator if isinstance(evaluator, BenchmarkEvaluator) else None
    if benchmark and ledger.recipe.objective.cost not in (*EXACT_COSTS, *benchmark.metrics):
        benchmark = None
    basis: Basis = "random runs" if benchmark else "warm-up"
    choice = ledger.search_choice
    if choice is None:
        return Verdict(0, basis, reason="no child has a result")
    if reason := _guessing(ledger, measured, choice) or _nothing_learned(ledger, measured) or _stopped_early(measured):
        return Verdict(len(measured), basis, reason=reason)
    rng = np.random.default_rng(np.random.SeedSequence([ledger.recipe.seed, _STREAM]))
    if benchmark:
        gains = _against_runs(ledger, choice, len(measured), benchmark, rng)
    else:
        if reason := _too_few_random(measured):
            return Verdict(len(measured), basis, reason=reason)
        gains = _against_draws(ledger, choice, measured, rng)
    # One more draw lies below the i-th of n with probability i / (n + 1) (Hyndman & Fan 1996, definition 6).
    low, gain, high = np.quantile(gains, _INTERVAL, method="weibull").tolist()
    return Verdict(len(measured), basis, gain, low, high)


def _guessing(ledger: Ledger, measured: list[Child], choice: Child) -> str:
    """Why nothing can be told where most children, or the choice, are no better than chance; empty otherwise."""
    guessing = int(_at_chance(ledger, _accuracies(measured)).sum())
    if 2 * guessing > len(measured):
        told = f"{guessing} of {len(measured)} children are"
    elif _at_chance(ledger, np.array([choice.accuracy])).any():
        told = "the choice is"
    else:
        return ""
    told = f"{told} no better than naming the commonest class ({_guess(ledger):.2%})"
    return f"{told}; train longer (proxy.epochs), or on more images"


def _nothing_learned(ledger: Ledger, measured: list[Child]) -> str:
    """Why a search of random children alone can't be compared with them; empty otherwise."""
    if not all(_is_random(child) for child in measured):
        return ""
    name = ledger.recipe.controller.name
    if name == "random":
        return "this search is random sampling itself"
    return f"all its children were drawn at random, before {name} had learned anything; give it more children"


def _stopped_early(measured: list[Child]) -> str:
    """Why accuracies after different numbers of epochs tell nothing of random sampling; empty where they are equal."""
    epochs = {child.result.epochs for child in measured if isinstance(child.result, Measurement)}
    if len(epochs) == 1:
        return ""
    return f"children were stopped after {min(epochs)} to {max(epochs)} epochs: what they reached can't be compared"


def _guess(ledger: Ledger) -> float:
    """Accuracy of naming the commonest class for all; 0 where there are no classes, so that nothing is chance."""
    contents = ledger.contents or {}
    guess: float = contents.get("guess", 1 / contents.get("classes", math.inf))
    return guess


def _at_chance(ledger: Ledger, accuracies: Floats) -> NDArray[np.bool_]:
    """Which (n,) are no better than a guess."""
    guess = _guess(ledger)
    at_chance: NDArray[np.bool_] = accuracies <= guess + _CHANCE * min(guess, 1 - guess)
    return at_chance


def _too_few_random(measured: list[Child]) -> str:
    """Why random sampling isn't known where too few children are random; empty otherwise."""
    random = sum(_is_random(child) for child in measured)
    told = f"that takes the results of {LEAST_RANDOM} random children, and there are {random}"
    return told if random < LEAST_RANDOM else ""


def _is_random(child: Child) -> bool:
    """Whether the controller drew it before it had learned anything."""
    return bool(child.suggestions) and child.suggestions[0].random


def _accuracies(children: list[Child]) -> Floats:
    """Accuracies (n,) of single trainings, not the means of networks trained several times."""
    return np.array([child.result.accuracy for child in children if isinstance(child.result, Measurement)])


def _rewards(ledger: Ledger, children: list[Child]) -> Floats:
    """Rewards (n,) of single trainings."""
    return np.array(ledger.objective(_accuracies(children), np.array([child.cost for child in children])))


def _against_draws(ledger: Ledger, choice: Child, measured: list[Child], rng: np.random.Generator) -> Floats:
    """Gains over what as many random children hand over, each in another function of the posterior (`_DRAWS`,)."""
    features, fitted = Features(ledger.space, one_hot=False), _thinned(measured)
    exact = ledger.recipe.objective.cost in EXACT_COSTS
    y = _accuracies(fitted) if exact else _rewards(ledger, fitted)
    x = features([child.suggestions[0].actions for child in fitted])
    model, sound = _sound_model(features.kinds, x, y, ~_at_chance(ledger, _accuracies(fitted)))
    share = sound[[_is_random(child) for child in fitted]].mean()
    count = max(1, round(len(measured) * share))
    others = [ledger.space.sample_actions(rng) for _ in range(int(np.clip(count, *_POOL)))]
    pool = [choice.suggestions[0].actions, *others]
    costs = features.costs(pool)[:, COST_COLUMNS[EXACT_COSTS[ledger.recipe.objective.cost]] if exact else 0]

    def rewards(values: Floats, rows: NDArray[np.int64], objective: Objective = ledger.objective) -> Floats:
        return np.array(objective(values.clip(0, 1), costs[rows])) if exact else values

    gains = []
    for values in model.sample(features(pool), _DRAWS, rng):
        drawn = rng.integers(1, len(pool), size=count)
        chosen = drawn[np.argmax(rewards(model.observe(values[drawn], rng), drawn, ledger.objective.at_target()))]
        both = np.array([0, chosen])
        ours, theirs = rewards(values[both], both)
        gains.append(ours - theirs)
    return np.array(gains)


def _sound_model(
    kinds: NDArray[np.int64], x: Floats, y: Floats, sound: NDArray[np.bool_]
) -> tuple[AccuracyModel, NDArray[np.bool_]]:
    """A model of the trainings that didn't break down, and which (n,) these are.

    The others, far below what is expected of them by the spread of the better half, would widen the noise, and with it
    what random sampling seems able to find.

    Args:
        kinds: of the columns (columns,); see `AccuracyModel`.
        x: the networks' features (n, columns).
        y: what their trainings showed (n,).
        sound: which of them (n,) didn't break down as far as is known.
    """
    residuals = AccuracyModel(kinds, x[sound], y[sound]).loo_residuals()
    middle, upper = np.quantile(residuals, (0.5, 0.75))
    sound = sound.copy()
    as_expected = residuals >= middle - _BROKEN * (upper - middle) / _UPPER_QUARTILE
    sound[sound] = as_expected | (y[sound] >= (1 - _LOST) * np.median(y[sound]))
    return AccuracyModel(kinds, x[sound], y[sound]), sound


def _thinned(measured: list[Child]) -> list[Child]:
    """At most `_ROWS` children: the random ones first, then the others evenly from best to worst."""
    if len(measured) <= _ROWS:
        return measured
    random = [child for child in measured if _is_random(child)][:_ROWS]
    others = sorted((child for child in measured if not _is_random(child)), key=lambda child: -(child.reward or 0.0))
    kept = np.linspace(0, len(others) - 1, _ROWS - len(random)).astype(int).tolist()
    return random + [others[i] for i in kept]


def _against_runs(
    ledger: Ledger, choice: Child, count: int, evaluator: BenchmarkEvaluator, rng: np.random.Generator
) -> Floats:
    """Noise-free gains over what each of `RANDOM_RUNS` random runs of equal length hands over (RANDOM_RUNS,)."""
    cost = evaluator.cost_function(ledger.recipe.objective.cost)
    ours = ledger.objective(evaluator.accuracy(choice.trial.architecture), choice.cost)
    gains = []
    for _ in range(RANDOM_RUNS):
        actions = [ledger.space.sample_actions(rng) for _ in range(count)]
        costs = evaluator.costs(cost, actions)
        chosen = int(np.argmax(ledger.objective.at_target()(evaluator.observe(actions, rng), costs)))
        gains.append(ours - ledger.objective(evaluator.accuracies([actions[chosen]])[0], costs[chosen]))
    return np.array(gains)
