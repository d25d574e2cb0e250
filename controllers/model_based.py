"""Model-based reinforcement learning of architectures: PPO trained against a fitted model of accuracy.

After DyNA-PPO (Angermueller et al., ICLR 2020): between real children the policy learns from a reward model, as long as
the model's cross-validated fit earns it; otherwise it learns from the children alone. What is special here is that the
reward is computed from accuracy, which is learned, and cost: FLOPs and params are counted, a device's are learned too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.spatial.distance import cdist

from controllers.accuracy_model import AccuracyModel
from controllers.base import Outcome, Problem, Suggestion, option
from controllers.ppo import PPO, PPOOptions
from controllers.reward_model import CACHED, LEAST, RewardModel
from controllers.threads import single_threaded
from search_space import Architecture
from search_space.space import Actions

_LEADERS, _MUTANTS, _LEAST_CHANGES = 10, 200, 2
"""Networks of the best estimated rewards, how many mutants are made of them in all, and the fewest decisions in which a
mutant differs; it differs in half of them at most."""

_CLIMBERS, _CLIMBS, _NEIGHBOURS = 3, 8, 128
"""The local search on the acquisition looks at so many of the best candidates, so often, and at so many neighbours of
each at most, for a field of a space may have thousands of choices."""

_AGAIN_AFTER = 20
"""Networks that must be known before leaders are trained again."""

_POOL = 64
"""Random networks of which the most unlike the others is taken while no outcome can tell."""

_WIDENING = 1 / 12
"""Power of the number of children under way that exploration grows with: what is expected of them is believed as if it
had been told, so that deviations are too small (GP-BUCB: Desautels, Krause & Burdick, JMLR 15, 2014, section 4)."""


@dataclass(frozen=True, slots=True)
class ModelBasedOptions(PPOOptions):
    """Options of `ModelBased`.

    Attributes:
        warm_up: Children that are drawn at random first.
        gate: The model counts as long as the rank correlation of its leave-one-out predictions isn't negative and may
            be this much, the upper end of its one-sided 95% interval: few children refute no model, many can.
        exploration: What the model's standard deviations are multiplied by, for it is surer of itself than it should
            be where it has been looking for the best.
        rollouts: Architectures per update of the policy against the model.
        model_updates: Such updates between two batches of real outcomes.
    """

    warm_up: int = option(10, low=2)
    gate: float = option(0.3, low=-1.0, high=1.0)
    exploration: float = option(2.5, low=0.0, high=1e3)
    rollouts: int = option(32, low=2, high=10_000)
    model_updates: int = option(1, low=0)

    @property
    def least_children(self) -> int:
        """See `Options.least_children`: the random ones, and one that the model chooses."""
        return max(self.warm_up, LEAST) + 1


class ModelBased(PPO):
    """PPO whose policy is trained on a Gaussian process of accuracy, and whose best candidate becomes the next child.

    A child is the one of the largest expected improvement (Jones et al. 1998) of the leaders, of mutants in which the
    policy takes some of a leader's decisions, and of what a local search finds from there. Suggestions under way count
    as observed at their expected accuracy, so that many at once spread; as long as too little has been observed, they
    are as unlike as can be. A candidate counts as much as it is likely not to fail (Gelbart, Snoek & Adams, UAI 2014,
    section 2.2), by a logistic regression on what failed. Leaders are trained again with other seeds, most often where
    half of what the model leaves unexplained is a network's own: the less of it is, the less another training teaches,
    and where all is, it teaches nothing. Trainings that broke down (`AccuracyModel.broken`) teach nothing of other
    networks. Where an outcome tells no accuracy or cost, the model is one of the reward.
    Real children count in the policy's own updates as if it had drawn them.
    """

    options_type: ClassVar[type[PPOOptions]] = ModelBasedOptions
    options: ModelBasedOptions

    def __init__(self, problem: Problem, options: ModelBasedOptions, seed: int) -> None:
        super().__init__(problem, options, seed)
        self.reward_model = RewardModel(problem)
        self._asked, self._due = 0, 0.0
        self._pending: dict[str, Actions] = {}
        self._known: set[str] = set()
        self._key = lru_cache(CACHED)(lambda actions: problem.space.decode(actions).key())
        self._rollouts, _ = self._sample()

    def _suggest(self) -> Suggestion:
        self._asked += 1
        warmed_up, again = self._warmed_up, False
        model = self._trusted_model() if warmed_up else None
        if model is not None:
            actions, again = self._choose(model)
        elif not warmed_up:
            actions = self.space.sample_actions(self.rng)
        elif self.reward_model.accuracy_model() is None:
            actions = self._unlike()
        else:
            actions = super()._suggest().actions
            if self._is_known(actions):
                actions = self._unlike()  # a repeat teaches the model nothing: it would never earn trust again
        self._pending[self._key(actions)] = actions
        with single_threaded(), torch.no_grad():
            log_prob = min(0.0, float(self._log_prob([actions])))
        return Suggestion(actions, log_prob, self._version, random=not warmed_up, again=again)

    def replace(self, asked: Suggestion, made: Suggestion) -> None:
        """See `Controller.replace`."""
        self._pending.pop(self._key(asked.actions), None)
        self._pending[self._key(made.actions)] = made.actions

    def _learn(self, outcome: Outcome) -> None:
        key, version = self._key(outcome.suggestion.actions), self._version
        if not outcome.stored:
            self.reward_model.add(outcome)
        self._known.add(key)
        self._pending.pop(key, None)
        super()._learn(outcome)
        if self._version > version:
            self._imagine()

    @property
    def _warmed_up(self) -> bool:
        """Whether enough was asked for; what others' suggestions told is as good."""
        return max(self._asked, len(self.reward_model.observed) + 1) > self.options.warm_up

    def leaders(self, k: int) -> list[Architecture]:
        """See `Controller.leaders`: by the rewards that the model estimates, once there is one."""
        model = self.reward_model.accuracy_model() if self._warmed_up else None
        if model is None:
            return super().leaders(k)
        return [self.space.decode(actions) for actions in self.reward_model.leaders(model, k)]

    def _imagine(self) -> None:
        """Train the policy against the model, if the model earns it."""
        model = self._trusted_model()
        self._diagnostics["model_trusted"] = float(model is not None)
        if model is None:
            return
        best = self._best(model, self.reward_model.leaders(model, 1))
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
        model = self.reward_model.accuracy_model()
        if model is None or not self._trusts(model):
            return None
        return model.fantasize(self.reward_model.rows(list(self._pending.values()))) if self._pending else model

    def _trusts(self, model: AccuracyModel) -> bool:
        """Whether the model's cross-validated fit is good enough (see `ModelBasedOptions.gate`)."""
        correlation, plausible = model.rank_correlation()
        return correlation >= min(0.0, self.options.gate) and plausible >= self.options.gate

    def _best(self, model: AccuracyModel, leaders: Sequence[Actions]) -> float:
        """The largest expected reward of the first leader and of what is under way."""
        rows = [*leaders[:1], *self._pending.values()]
        return float(self.reward_model.rewards(model.mean(self.reward_model.rows(rows)), rows).max())

    def _acquisition(self, model: AccuracyModel, actions: Sequence[Actions], best: float) -> np.ndarray:
        """Logarithms (n,) of the improvements on the reward `best` that are expected of networks."""
        exploration = self.options.exploration * (1 + len(self._pending)) ** _WIDENING
        return self.reward_model.log_expected_improvement(model, actions, best, exploration)

    def _choose(self, model: AccuracyModel) -> tuple[Actions, bool]:
        """Actions of the network that is most worth a training, and whether that is another training of a leader.

        A leader is trained again when that is due, and whenever all candidates are known: others are far worse.
        """
        due, leader = self._due, self._doubtful(model)
        if leader is not None and self._due >= 1:
            self._due -= 1
            return leader, True
        candidate = self._propose(model)
        if candidate is not None:
            return candidate, False
        unlike = self._unlike()
        if self._is_known(unlike):
            self._due = due  # the space is exhausted, and nothing is trained by which another training falls due
        elif leader is not None:
            return leader, True
        return unlike, False

    def _doubtful(self, model: AccuracyModel) -> Actions | None:
        """The leader to train again, once that is due: that of the highest estimated reward plus one standard error.

        Each call adds to `_due` the share of a training that falls due with a suggestion. None while that leader is
        under way, for the next is worth its training only once this one's outcome is known, and where other trainings
        tell nothing.
        """
        observed, accuracies, errors, own = self.reward_model.estimates(model)
        share = min(own, 1 - own)
        if not share or len(observed) < min(_AGAIN_AFTER, self.space.size):
            return None
        self._due = min(self._due, 1 + share * len(self._pending)) + share  # no more than falls due while these are
        hopes = dict(zip(observed, self.reward_model.rewards(accuracies + errors, observed).tolist(), strict=True))
        hoped = max(self.reward_model.leaders(model, _LEADERS), key=hopes.__getitem__)
        return None if self._key(hoped) in self._pending else hoped

    def _propose(self, model: AccuracyModel) -> Actions | None:
        """The best candidate that isn't known yet; None where all are."""
        leaders = self.reward_model.leaders(model, _LEADERS)
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
        ranked = sorted(scores, key=scores.__getitem__, reverse=True)
        return next((row for row in ranked if not self._is_known(row)), None)

    def _unlike(self) -> Actions:
        """The random new network that is least like any observed or under way, of a few (maximin distance)."""
        pool = [self.space.sample_actions(self.rng) for _ in range(_POOL)]
        pool = [row for row in pool if not self._is_known(row)] or pool
        others = [*self._pending.values(), *(row[0] for row in self.reward_model.observed)]
        if not others:
            return pool[0]
        return pool[int(cdist(self.reward_model.rows(pool), self.reward_model.rows(others)).min(1).argmax())]

    def _candidates(self, leaders: Sequence[Actions]) -> list[Actions]:
        """Where the local search begins: the leaders and their mutants."""
        return [*leaders, *self._mutants(leaders)]

    def _neighbours(self, actions: Actions) -> list[Actions]:
        """All that differ in one decision; some of them where a space has very many."""
        near = self.space.one_changed(actions)
        if len(near) <= _NEIGHBOURS:
            return near
        return [near[i] for i in self.rng.choice(len(near), _NEIGHBOURS, replace=False).tolist()]

    def _mutants(self, parents: Sequence[Actions]) -> list[Actions]:
        """Parents with several decisions as in rollouts of the policy."""
        samples = np.array(self._rollouts)[self.rng.integers(len(self._rollouts), size=_MUTANTS)]
        chosen = np.array(parents)[self.rng.integers(len(parents), size=_MUTANTS)]
        most = max(_LEAST_CHANGES, samples.shape[1] // 2)
        changes = self.rng.integers(_LEAST_CHANGES, most + 1, size=(_MUTANTS, 1))
        changed = self.rng.random(chosen.shape).argsort(1) < changes
        return [tuple(row) for row in np.where(changed, samples, chosen).tolist()]

    def _is_known(self, actions: Actions) -> bool:
        """Whether the network has an outcome, or is under way."""
        key = self._key(actions)
        return key in self._known or key in self._pending

    def state_dict(self) -> dict[str, Any]:
        """See `Controller.state_dict`."""
        return super().state_dict() | {
            "asked": self._asked,
            "due": self._due,
            "pending": [list(actions) for actions in self._pending.values()],
            "known": sorted(self._known),
            "rollouts": [list(actions) for actions in self._rollouts],
            "reward_model": self.reward_model.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Controller.load_state_dict`."""
        super().load_state_dict(state)
        self._asked, self._due = state["asked"], state["due"]
        self._pending = {self._key(actions): actions for actions in map(tuple, state["pending"])}
        self._known = set(state["known"])
        self._rollouts = [tuple(actions) for actions in state["rollouts"]]
        self.reward_model.load_state_dict(state["reward_model"])
