"""What trainings told of the rewards of all networks: a model of accuracy, and the exact cost.

FLOPs and params are counted, so only accuracy is learned and the reward is computed; a device's cost is learned too,
and so is where trainings fail.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import log_expit, ndtr

from controllers.accuracy_model import AccuracyModel
from controllers.base import Outcome, Problem
from controllers.features import COST_COLUMNS, Features
from search_space.space import Actions

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

LEAST = 4
"""Outcomes below which no model is fitted."""

_REFIT = 1.15
"""The model is fitted anew each time there are so many times as many outcomes; in between, outcomes are added to it."""

_FITS = 5
"""Fits in a row at most, each without the trainings that broke down by the one before."""

_MOST_ROWS, _BEST_ROWS = 1000, 700
"""A new fit takes so many outcomes at most: those of the best estimated rewards, and others evenly from the rest."""

_SHARPNESS = 10.0
"""Inverse strength of the L2 penalty of the logistic regression that tells networks that fail from others."""

_LEAST_DEVIATION, _FAR = 1e-9, -30.0
"""Least deviation of a reward; and the standardised distance to the best below which the improvement is taken from its
asymptote."""

CACHED = 20_000
"""Networks whose features, costs and keys are kept."""


class RewardModel:
    """Rewards of networks as their trainings and their costs tell.

    Where an outcome tells no accuracy or no cost, the reward itself is learned in the accuracy's place.

    Attributes:
        observed: Actions, reward, accuracy and cost of every training that ended well, in order.
        learns_reward: Whether the reward itself is learned.
    """

    def __init__(self, problem: Problem) -> None:
        self.observed: list[tuple[Actions, float, float | None, float | None]] = []
        self.learns_reward = False
        self._problem = problem
        self._features = Features(problem.space, one_hot=False)
        self._cache: dict[Actions, tuple[np.ndarray, float]] = {}
        self._ended: list[tuple[Actions, bool]] = []
        self._told_costs: dict[Actions, float] = {}
        self._model: AccuracyModel | None = None
        self._cost_model: AccuracyModel | None = None
        self._success_model: LogisticRegression | None = None
        self._fitted: list[int] = []  # outcomes that the last fit took
        self._added: list[int] = []  # those that were added to it
        self._modelled = self._refitted_at = 0  # outcomes that the model has seen, and those at the last fit

    def add(self, outcome: Outcome) -> None:
        """Keep what a training told."""
        actions = outcome.suggestion.actions
        self._ended.append((actions, outcome.reward is not None))
        self._success_model = None
        if outcome.reward is None:
            return
        self.observed.append((actions, outcome.reward, outcome.accuracy, outcome.cost))
        if outcome.cost is not None:
            self._told_costs[actions] = outcome.cost
        if not self.learns_reward and (outcome.accuracy is None or outcome.cost is None):
            self.learns_reward, self._model = True, None

    def accuracy_model(self) -> AccuracyModel | None:
        """The model of what was observed; None while that is less than `LEAST` outcomes."""
        observed = len(self.observed)
        if observed < LEAST:
            return None
        if self._model is None or observed >= _REFIT * self._refitted_at:
            self._fitted, self._added = self._chosen_rows(), []
            self._model, self._refitted_at = self._fit_sound(), observed
            self._cost_model = self._fit_cost()
        elif self._modelled < observed:
            for new in range(self._modelled, observed):  # one at a time, so that a restored state adds as this one did
                row, target = self.rows([self.observed[new][0]]), self._targets([new])
                if not self._model.breaks(row, target)[0]:
                    self._model.add(row, target)
                    self._added.append(new)
        self._modelled = observed
        return self._model

    def rows(self, actions: Sequence[Actions]) -> np.ndarray:
        """Features (n, columns), the accuracy model's input."""
        return np.array([features for features, _ in self._look_up(actions)])

    def costs(self, actions: Sequence[Actions]) -> np.ndarray:
        """Costs (n,) in the objective's unit, counted; a device's as told, or else learned."""
        if self._cost_model is None:
            return np.array([counted for _, counted in self._look_up(actions)])
        learned = np.exp(-self._cost_model.mean(self.rows(actions)))
        return np.array([self._told_costs.get(row, cost) for row, cost in zip(actions, learned, strict=True)])

    def rewards(self, accuracies: np.ndarray, actions: Sequence[Actions]) -> np.ndarray:
        """Rewards (n,) of accuracies (n,) at the networks' own costs."""
        if self.learns_reward:
            return accuracies
        rewards: np.ndarray = np.broadcast_to(self._problem.objective(accuracies, self.costs(actions)), len(actions))
        return rewards

    def log_expected_improvement(
        self, model: AccuracyModel, actions: Sequence[Actions], best: float, exploration: float
    ) -> np.ndarray:
        """Logarithms (n,) of the expected improvements on `best`, each times the probability of not failing.

        Args:
            model: of accuracy.
            actions: of the n networks.
            best: the reward to improve on.
            exploration: what the model's standard deviations are multiplied by.
        """
        expected, high = (self.rewards(accuracy, actions) for accuracy in model.spread(self.rows(actions)))
        deviation = (exploration * (high - expected)).clip(_LEAST_DEVIATION)
        improvement = np.log(deviation) + _log_expected_improvement((expected - best) / deviation)
        promised: np.ndarray = improvement + self._log_success(actions)
        return promised

    def estimates(self, model: AccuracyModel) -> tuple[list[Actions], np.ndarray, np.ndarray, float]:
        """The n observed networks, estimated accuracies (n,), standard errors (n,) of their outcomes, their own share.

        An estimate is the model's, and a share of what the network's own outcomes say beyond it, the larger the more
        there are: a smooth model can't know what makes a single network special. Trainings that broke down are left
        out, and so are networks that had no other.
        """
        told = [*self._fitted, *self._added]
        numbers: dict[Actions, int] = {}
        networks = np.array([numbers.setdefault(self.observed[i][0], len(numbers)) for i in told])
        counts, own = np.bincount(networks), model.own_share(networks)
        expected = model.fitted()[: len(told)]
        beyond = self._targets(told) - expected
        trusted = np.bincount(networks, beyond) * own / (1 + (counts - 1) * own)
        accuracies = np.bincount(networks, expected) / counts + trusted
        return list(numbers), accuracies, beyond.std() / np.sqrt(counts), own

    def leaders(self, model: AccuracyModel, k: int) -> list[Actions]:
        """The `k` observed networks with the best estimated rewards, best first."""
        observed, accuracies, _, _ = self.estimates(model)
        return [observed[i] for i in np.argsort(-self.rewards(accuracies, observed), kind="stable")[:k].tolist()]

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on as this one would, in Python's own types."""
        return {
            "ended": [(list(actions), succeeded) for actions, succeeded in self._ended],
            "observed": [(list(actions), *numbers) for actions, *numbers in self.observed],
            "fitted": list(self._fitted),
            "refitted_at": self._refitted_at,
            "log": None if self._model is None else self._model.log.tolist(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the state of another."""
        self.observed = [(tuple(actions), *numbers) for actions, *numbers in state["observed"]]
        self._ended, self._success_model = [(tuple(actions), succeeded) for actions, succeeded in state["ended"]], None
        self._told_costs = {actions: cost for actions, _, _, cost in self.observed if cost is not None}
        self.learns_reward = any(accuracy is None or cost is None for _, _, accuracy, cost in self.observed)
        self._fitted, self._added = list(state["fitted"]), []
        self._refitted_at = self._modelled = state["refitted_at"]
        self._cache, self._model = {}, None if state["log"] is None else self._fit(state["log"])
        self._cost_model = None if self._model is None else self._fit_cost()

    def _chosen_rows(self) -> list[int]:
        """Which outcomes a new fit takes, so that its time stays bounded."""
        count = len(self.observed)
        if self._model is None or count <= _MOST_ROWS:
            return list(range(count))
        actions = [row[0] for row in self.observed]
        order = np.argsort(-self.rewards(self._model.mean(self.rows(actions)), actions), kind="stable")
        spread = np.linspace(_BEST_ROWS, count - 1, _MOST_ROWS - _BEST_ROWS).astype(int)
        return sorted(order[:_BEST_ROWS].tolist() + order[spread].tolist())

    def _fit_sound(self) -> AccuracyModel:
        """A model of the chosen outcomes less those of trainings that broke down: they tell nothing of other networks.

        They are chosen again for the next fit, for once there are others like them, a region is bad.
        """
        model = self._fit(None)
        for _ in range(1, _FITS):
            broken = model.broken()
            if not broken.any():
                break
            self._fitted = [outcome for outcome, left_out in zip(self._fitted, broken, strict=True) if not left_out]
            model = self._fit(None)
        return model

    def _fit(self, log: Sequence[float] | None) -> AccuracyModel:
        """A model of the chosen outcomes."""
        actions = [self.observed[i][0] for i in self._fitted]
        return AccuracyModel(self._features.kinds, self._features(actions), self._targets(self._fitted), log)

    def _fit_cost(self) -> AccuracyModel | None:
        """A model of the costs, larger being better, where they can't be counted."""
        if self.learns_reward or self._problem.cost in COST_COLUMNS:
            return None
        actions = [self.observed[i][0] for i in self._fitted]
        negative = -np.log(np.array([self.observed[i][3] for i in self._fitted], float))
        return AccuracyModel(self._features.kinds, self._features(actions), negative)

    def _targets(self, outcomes: Iterable[int]) -> np.ndarray:
        """What the model learns from some of the outcomes."""
        column = 1 if self.learns_reward else 2
        return np.array([self.observed[i][column] for i in outcomes])

    def _look_up(self, actions: Sequence[Actions]) -> list[tuple[np.ndarray, float]]:
        """Features and counted cost of each network."""
        if len(self._cache) > CACHED:
            self._cache = {}
        new = [row for row in dict.fromkeys(actions) if row not in self._cache]
        if new:
            rows, costs = self._features.with_costs(new)
            counted = costs[:, COST_COLUMNS.get(self._problem.cost, 0)].astype(float)
            self._cache.update(zip(new, zip(rows, counted, strict=True), strict=True))
        return [self._cache[row] for row in actions]

    def _log_success(self, actions: Sequence[Actions]) -> np.ndarray:
        """Logarithms (n,) of the probabilities that trainings of networks don't fail."""
        if all(succeeded for _, succeeded in self._ended):
            return np.zeros(len(actions))
        if self._success_model is None:
            from sklearn.linear_model import LogisticRegression

            rows, succeeded = zip(*self._ended, strict=True)
            self._success_model = LogisticRegression(C=_SHARPNESS, solver="newton-cholesky").fit(
                self.rows(rows), succeeded
            )
        log_success: np.ndarray = log_expit(self._success_model.decision_function(self.rows(actions)))
        return log_success


def _log_expected_improvement(z: np.ndarray) -> np.ndarray:
    """Logarithms (n,) of E[max(0, z + e)], e standard normal, also where that is too small for a float."""
    near = z.clip(_FAR)
    density = np.exp(-(near**2) / 2) / np.sqrt(2 * np.pi)
    far = z.clip(max=_FAR)
    tail = -(far**2 - _FAR**2) / 2 - 2 * np.log(far / _FAR)
    improvement: np.ndarray = np.log(density + near * ndtr(near)) + tail
    return improvement
