"""Model-based reinforcement learning of architectures: PPO trained against a fitted model of accuracy.

After DyNA-PPO (Angermueller et al., ICLR 2020): between real children the policy learns from a reward model, as long as
the model's cross-validated fit earns it; otherwise it learns from the children alone. What is special here is that the
reward is computed from accuracy, which is learned, and cost: FLOPs and params are counted, a device's are learned too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.spatial.distance import cdist
from scipy.special import log_expit, ndtr
from sklearn.linear_model import LogisticRegression

from controllers.accuracy_model import AccuracyModel
from controllers.base import Outcome, Problem, Suggestion, option
from controllers.features import Features
from controllers.ppo import PPO, PPOOptions
from controllers.threads import single_threaded
from search_space import Architecture
from search_space.cost import flops, params
from search_space.space import Actions

_LEAST = 4
"""Outcomes below which no model is fitted."""

_REFIT = 1.15
"""The model is fitted anew each time there are so many times as many outcomes; in between, outcomes are added to it."""

_MOST_ROWS, _BEST_ROWS = 500, 350
"""A new fit takes so many outcomes at most: those of the best estimated rewards, and others evenly from the rest."""

_LEADERS, _MUTANTS, _LEAST_CHANGES = 10, 200, 2
"""Networks of the best estimated rewards, how many mutants are made of them in all, and the fewest decisions in which a
mutant differs; it differs in half of them at most."""

_CLIMBERS, _CLIMBS = 3, 8
"""The local search on the acquisition looks at all neighbours of the best candidates, several times."""

_AGAIN_AFTER = 20
"""Networks that must be known before leaders are trained again."""

_SHARPNESS = 10.0
"""Of the border between networks that fail and others: inverse strength of the regression's L2 penalty."""

_POOL = 64
"""Random networks of which the most unlike the others is taken while no outcome can tell."""

_WIDENING = 1 / 12
"""Power of the number of children under way that exploration grows with: what is expected of them is believed as if it
had been told, so that deviations are too small (GP-BUCB: Desautels, Krause & Burdick, JMLR 15, 2014, section 4)."""

_LEAST_DEVIATION, _FAR = 1e-9, -30.0
"""Of a reward; and the standardised distance to the best below which the improvement is taken from its asymptote."""

_CACHED = 20_000
"""Networks whose features and costs are kept."""


@dataclass(frozen=True, slots=True)
class ModelBasedOptions(PPOOptions):
    """Options of `ModelBased`.

    Attributes:
        warm_up: Children that are drawn at random first.
        gate: The model counts if the rank correlation of its leave-one-out predictions is at least this. The default
            asks for little: a model that learned nothing expects the mean, the exact cost decides, and that measured
            better than the policy alone.
        exploration: What the model's standard deviations are multiplied by, for it is surer of itself than it should
            be where it has been looking for the best.
        rollouts: Architectures per update of the policy against the model.
        model_updates: Such updates between two batches of real outcomes.
    """

    warm_up: int = option(10, low=2)
    gate: float = option(0.0, low=-1.0, high=1.0)
    exploration: float = option(2.5, low=0.0, high=1e3)
    rollouts: int = option(32, low=2)
    model_updates: int = option(1, low=0)

    @property
    def least_children(self) -> int:
        """See `Options.least_children`: the random ones, and one that the model chooses."""
        return max(self.warm_up, _LEAST) + 1


class ModelBased(PPO):
    """PPO whose policy is trained on a Gaussian process of accuracy, and whose best candidate becomes the next child.

    A child is the one of the largest expected improvement (Jones et al. 1998) of the leaders, of mutants in which the
    policy takes some of a leader's decisions, and of what a local search finds from there. Suggestions under way count
    as observed at their expected accuracy, so that many at once spread; as long as too little has been observed, they
    are as unlike as can be. A candidate counts as much as it is likely not to fail (Gelbart, Snoek & Adams, UAI 2014,
    section 2.2), by a logistic regression on what failed. Leaders are trained again with other seeds, most often where
    half of what the model leaves unexplained is a network's own: the less of it is, the less another training teaches,
    and where all is, it teaches nothing. Where an outcome tells no accuracy or cost, the model is one of the reward.
    """

    options_type: ClassVar[type[PPOOptions]] = ModelBasedOptions
    options: ModelBasedOptions

    def __init__(self, problem: Problem, options: ModelBasedOptions, seed: int) -> None:
        super().__init__(problem, options, seed)
        self._features = Features(problem.space, one_hot=False)
        self._cache: dict[Actions, tuple[np.ndarray, float]] = {}
        self._asked, self._due = 0, 0.0
        self._pending: dict[str, Actions] = {}
        self._known: set[str] = set()
        self._ended: list[tuple[Actions, bool]] = []
        self._told_costs: dict[Actions, float] = {}
        self._observed: list[tuple[Actions, float, float | None, float | None]] = []
        self._blind = False
        self._rollouts, _ = self._sample()
        self._model: AccuracyModel | None = None
        self._cost_model: AccuracyModel | None = None
        self._success_model: LogisticRegression | None = None
        self._fitted: list[int] = []
        self._modelled = self._refitted_at = 0

    def _suggest(self) -> Suggestion:
        self._asked += 1
        warmed_up = self._warmed_up
        model = self._trusted_model() if warmed_up else None
        doubtful = None if model is None else self._doubtful(model)
        if doubtful is not None:
            actions = doubtful
        elif model is not None:
            actions = self._propose(model)
        elif not warmed_up:
            actions = self.space.sample_actions(self.rng)
        elif self._model is None:
            actions = self._unlike()
        else:
            actions = super()._suggest().actions
        self._pending[self._key(actions)] = actions
        with single_threaded(), torch.no_grad():
            log_prob = min(0.0, float(self._log_prob([actions])))
        return Suggestion(actions, log_prob, self._version, random=not warmed_up, again=doubtful is not None)

    def _learn(self, outcome: Outcome) -> None:
        actions, version = outcome.suggestion.actions, self._version
        key = self._key(actions)
        if outcome.suggestion.again or key not in self._known:  # else it is a stored result
            self._enter(outcome)
        self._known.add(key)
        self._pending.pop(key, None)
        super()._learn(outcome)
        if self._version > version:
            self._imagine()

    def _enter(self, outcome: Outcome) -> None:
        """Keep what a training told."""
        actions = outcome.suggestion.actions
        self._ended.append((actions, outcome.reward is not None))
        self._success_model = None
        if outcome.reward is None:
            return
        self._observed.append((actions, outcome.reward, outcome.accuracy, outcome.cost))
        if outcome.cost is not None:
            self._told_costs[actions] = outcome.cost
        if not self._blind and (outcome.accuracy is None or outcome.cost is None):
            self._blind, self._model = True, None

    @property
    def _warmed_up(self) -> bool:
        """Whether enough was asked for; what others' suggestions told is as good."""
        return max(self._asked, len(self._observed) + 1) > self.options.warm_up

    def recommend(self) -> Architecture | None:
        """The observed network with the best estimated reward; None before any success."""
        model = self._current_model() if self._warmed_up else None
        if model is None:
            best = self.memory.top(1)
            return self.space.decode(best[0]) if best else None
        return self.space.decode(self._leaders(model, 1)[0])

    def _imagine(self) -> None:
        """Train the policy against the model, if the model earns it."""
        model = self._trusted_model()
        if model is None:
            return
        best = self._best(model, self._leaders(model, 1))
        for _ in range(self.options.model_updates):
            self._rollouts, log_probs = self._sample()
            with single_threaded():
                self._train(self._rollouts, log_probs, self._acquisition(model, self._rollouts, best).tolist())

    def _sample(self) -> tuple[list[Actions], list[float]]:
        """Rollouts of the policy, and their log-probabilities."""
        with single_threaded():
            return self.policy.sample(self.rng, self.options.rollouts)

    def _trusted_model(self) -> AccuracyModel | None:
        """The model, with what is under way taken as expected; None if it doesn't earn trust."""
        model = self._current_model()
        if model is None or not self._trusts(model):
            return None
        return model.expecting(self._rows(list(self._pending.values()))) if self._pending else model

    def _trusts(self, model: AccuracyModel) -> bool:
        """Whether the model's cross-validated fit is good enough."""
        return model.rank_correlation() >= self.options.gate

    def _current_model(self) -> AccuracyModel | None:
        """The model of what was observed; None while that is too little."""
        observed = len(self._observed)
        if observed < _LEAST:
            return None
        if self._model is None or observed >= _REFIT * self._refitted_at:
            self._fitted = self._chosen_rows()
            self._model, self._refitted_at = self._fit(None), observed
            self._cost_model = self._fit_cost()
        elif self._modelled < observed:
            for new in range(self._modelled, observed):  # one at a time, so that a restored state adds as this one did
                self._model.add(self._rows([self._observed[new][0]]), self._targets([new]))
        self._modelled = observed
        return self._model

    def _chosen_rows(self) -> list[int]:
        """Which outcomes a new fit takes, so that its time stays bounded."""
        count = len(self._observed)
        if self._model is None or count <= _MOST_ROWS:
            return list(range(count))
        actions = [row[0] for row in self._observed]
        order = np.argsort(-self._rewards(self._model.mean(self._rows(actions)), actions), kind="stable")
        spread = np.linspace(_BEST_ROWS, count - 1, _MOST_ROWS - _BEST_ROWS).astype(int)
        return sorted(order[:_BEST_ROWS].tolist() + order[spread].tolist())

    def _fit(self, log: Sequence[float] | None) -> AccuracyModel:
        """A model of the chosen outcomes."""
        actions = [self._observed[i][0] for i in self._fitted]
        return AccuracyModel(self._features.kinds, self._features(actions), self._targets(self._fitted), log)

    def _fit_cost(self) -> AccuracyModel | None:
        """A model of the costs, larger being better, where they can't be counted."""
        if self._blind or self._counts:
            return None
        chosen = [self._observed[i] for i in self._fitted]
        negative = -np.log([cost or 1.0 for _, _, _, cost in chosen])
        return AccuracyModel(self._features.kinds, self._features([row[0] for row in chosen]), negative)

    @property
    def _counts(self) -> bool:
        """Whether the cost is FLOPs or params, which take microseconds to count; a device's must be learned."""
        return self.problem.cost in (flops, params)

    def _targets(self, rows: Iterable[int]) -> np.ndarray:
        """What the model learns from some of the outcomes."""
        column = 1 if self._blind else 2
        return np.array([self._observed[i][column] for i in rows])

    def _look_up(self, actions: Sequence[Actions]) -> list[tuple[np.ndarray, float]]:
        """Features and counted cost of each network."""
        if len(self._cache) > _CACHED:
            self._cache = {}
        new = [row for row in dict.fromkeys(actions) if row not in self._cache]
        if new:
            rows, costs = self._features.with_costs(new)
            counted = costs[:, int(self.problem.cost is params)].astype(float)
            self._cache.update(zip(new, zip(rows, counted, strict=True), strict=True))
        return [self._cache[row] for row in actions]

    def _rows(self, actions: Sequence[Actions]) -> np.ndarray:
        """Features (n, columns)."""
        return np.array([features for features, _ in self._look_up(actions)])

    def _costs(self, actions: Sequence[Actions]) -> np.ndarray:
        """Costs (n,), counted; a device's as told, or else learned."""
        if self._cost_model is None:
            return np.array([counted for _, counted in self._look_up(actions)])
        learned = np.exp(-self._cost_model.mean(self._rows(actions)))
        return np.array([self._told_costs.get(row, cost) for row, cost in zip(actions, learned, strict=True)])

    def _rewards(self, accuracies: np.ndarray, actions: Sequence[Actions]) -> np.ndarray:
        """Rewards (n,) of accuracies (n,) at the networks' own costs."""
        if self._blind:
            return accuracies
        rewards: np.ndarray = np.broadcast_to(self.problem.objective(accuracies, self._costs(actions)), len(actions))
        return rewards

    def _best(self, model: AccuracyModel, leaders: Sequence[Actions]) -> float:
        """The largest expected reward of the first leader and of what is under way."""
        rows = [*leaders[:1], *self._pending.values()]
        return float(self._rewards(model.mean(self._rows(rows)), rows).max())

    def _acquisition(self, model: AccuracyModel, actions: Sequence[Actions], best: float) -> np.ndarray:
        """Logarithms (n,) of the improvements on the reward `best` that are expected of networks, for they may fail."""
        expected, high = (self._rewards(accuracy, actions) for accuracy in model.spread(self._rows(actions)))
        exploration = self.options.exploration * (1 + len(self._pending)) ** _WIDENING
        deviation = (exploration * (high - expected)).clip(_LEAST_DEVIATION)
        improvement = np.log(deviation) + _log_improvement((expected - best) / deviation)
        promised: np.ndarray = improvement + self._log_success(actions)
        return promised

    def _log_success(self, actions: Sequence[Actions]) -> np.ndarray:
        """Logarithms (n,) of the probabilities that trainings of networks don't fail."""
        if all(succeeded for _, succeeded in self._ended):
            return np.zeros(len(actions))
        if self._success_model is None:
            rows, succeeded = zip(*self._ended, strict=True)
            self._success_model = LogisticRegression(C=_SHARPNESS, solver="newton-cholesky").fit(
                self._rows(rows), succeeded
            )
        log_success: np.ndarray = log_expit(self._success_model.decision_function(self._rows(actions)))
        return log_success

    def _estimates(self, model: AccuracyModel) -> tuple[list[Actions], np.ndarray, np.ndarray, float]:
        """The n observed networks, estimated accuracies (n,), standard errors (n,) of their outcomes, their own share.

        An estimate is the model's, and a share of what the network's own outcomes say beyond it, the larger the more
        there are: a smooth model can't know what makes a single network special.
        """
        told = [*self._fitted, *range(self._refitted_at, len(self._observed))]
        numbers: dict[Actions, int] = {}
        networks = np.array([numbers.setdefault(self._observed[i][0], len(numbers)) for i in told])
        counts, own = np.bincount(networks), model.own_share(networks)
        expected = model.fitted()[: len(told)]
        beyond = self._targets(told) - expected
        trusted = np.bincount(networks, beyond) * own / (1 + (counts - 1) * own)
        accuracies = np.bincount(networks, expected) / counts + trusted
        return list(numbers), accuracies, beyond.std() / np.sqrt(counts), own

    def _leaders(self, model: AccuracyModel, k: int) -> list[Actions]:
        """The `k` observed networks with the best estimated rewards, best first."""
        observed, accuracies, _, _ = self._estimates(model)
        return [observed[i] for i in np.argsort(-self._rewards(accuracies, observed), kind="stable")[:k].tolist()]

    def _doubtful(self, model: AccuracyModel) -> Actions | None:
        """The leader to train again, if one is due: that of the highest estimated reward plus one standard error.

        None while that one is under way: the next is worth its training only once this one's outcome is known.
        """
        observed, accuracies, errors, own = self._estimates(model)
        if len(observed) < min(_AGAIN_AFTER, self.space.size):
            return None
        share = min(own, 1 - own)
        self._due = min(self._due, 1 + share * len(self._pending)) + share  # no more than falls due while these are
        if self._due < 1:
            return None
        hopes = dict(zip(observed, self._rewards(accuracies + errors, observed).tolist(), strict=True))
        hoped = max(self._leaders(model, _LEADERS), key=hopes.__getitem__)
        if self._key(hoped) in self._pending:
            return None
        self._due -= 1
        return hoped

    def _propose(self, model: AccuracyModel) -> Actions:
        """The best candidate that isn't known yet; a random network where all are."""
        leaders = self._leaders(model, _LEADERS)
        best = self._best(model, leaders)
        scores: dict[Actions, float] = {}

        def score(candidates: Sequence[Actions]) -> None:
            new = [row for row in dict.fromkeys(candidates) if row not in scores]
            if new:
                scores.update(zip(new, self._acquisition(model, new, best).tolist(), strict=True))

        score(self._candidates(leaders))
        climbed: set[Actions] = set()
        for _ in range(_CLIMBS):
            top = sorted(scores, key=scores.__getitem__, reverse=True)[:_CLIMBERS]
            fresh = [row for row in top if row not in climbed]
            climbed.update(fresh)
            score([neighbour for row in fresh for neighbour in self._neighbours(row)])
        for row in sorted(scores, key=scores.__getitem__, reverse=True):
            key = self._key(row)
            if key not in self._known and key not in self._pending:
                return row
        return self.space.sample_actions(self.rng)

    def _unlike(self) -> Actions:
        """Of some random networks the one least like any that was observed or is under way (maximin distance)."""
        pool = [self.space.sample_actions(self.rng) for _ in range(_POOL)]
        others = [*self._pending.values(), *(row[0] for row in self._observed)]
        if not others:
            return pool[0]
        return pool[int(cdist(self._rows(pool), self._rows(others)).min(1).argmax())]

    def _candidates(self, leaders: Sequence[Actions]) -> list[Actions]:
        """Where the local search begins: the leaders and their mutants."""
        return [*leaders, *self._mutants(leaders)]

    def _neighbours(self, actions: Actions) -> list[Actions]:
        return self.space.one_changed(actions)

    def _mutants(self, parents: Sequence[Actions]) -> list[Actions]:
        """Parents with several decisions as in rollouts of the policy."""
        samples = np.array(self._rollouts)[self.rng.integers(len(self._rollouts), size=_MUTANTS)]
        chosen = np.array(parents)[self.rng.integers(len(parents), size=_MUTANTS)]
        most = max(_LEAST_CHANGES, samples.shape[1] // 2)
        changes = self.rng.integers(_LEAST_CHANGES, most + 1, size=(_MUTANTS, 1))
        changed = self.rng.random(chosen.shape).argsort(1) < changes
        return [tuple(row) for row in np.where(changed, samples, chosen).tolist()]

    def _key(self, actions: Actions) -> str:
        return self.space.decode(actions).key()

    def state_dict(self) -> dict[str, Any]:
        """See `Controller.state_dict`."""
        return super().state_dict() | {
            "asked": self._asked,
            "due": self._due,
            "pending": [list(actions) for actions in self._pending.values()],
            "known": sorted(self._known),
            "ended": [(list(actions), succeeded) for actions, succeeded in self._ended],
            "observed": [(list(actions), *numbers) for actions, *numbers in self._observed],
            "rollouts": [list(actions) for actions in self._rollouts],
            "fitted": list(self._fitted),
            "refitted_at": self._refitted_at,
            "log": None if self._model is None else self._model.log.tolist(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Controller.load_state_dict`."""
        super().load_state_dict(state)
        self._asked, self._due = state["asked"], state["due"]
        self._pending = {self._key(actions): tuple(actions) for actions in state["pending"]}
        self._known = set(state["known"])
        self._observed = [(tuple(actions), *numbers) for actions, *numbers in state["observed"]]
        self._ended, self._success_model = [(tuple(actions), succeeded) for actions, succeeded in state["ended"]], None
        self._told_costs = {actions: cost for actions, _, _, cost in self._observed if cost is not None}
        self._blind = any(accuracy is None or cost is None for _, _, accuracy, cost in self._observed)
        self._rollouts = [tuple(actions) for actions in state["rollouts"]]
        self._fitted = list(state["fitted"])
        self._refitted_at = self._modelled = state["refitted_at"]
        self._cache, self._model = {}, None if state["log"] is None else self._fit(state["log"])
        self._cost_model = None if self._model is None else self._fit_cost()


def _log_improvement(z: np.ndarray) -> np.ndarray:
    """Logarithms (n,) of E[max(0, z + e)], e standard normal, also where that is too small for a float."""
    near = z.clip(_FAR)
    density = np.exp(-(near**2) / 2) / np.sqrt(2 * np.pi)
    far = z.clip(max=_FAR)
    tail = -(far**2 - _FAR**2) / 2 - 2 * np.log(far / _FAR)
    improvement: np.ndarray = np.log(density + near * ndtr(near)) + tail
    return improvement
