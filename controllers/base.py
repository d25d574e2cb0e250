"""What every controller shares: ask/tell, its options, and the memory from which it recommends an architecture."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from search_space import Architecture, InputError, SearchSpace
from search_space.errors import shown


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One architecture to measure, as the choice taken at every decision of the space.

    Attributes:
        actions: Index of the chosen alternative, one per decision.
        log_prob: Log-probability (nats) under the policy of that time, also where something else chose the actions
            (`ModelBased`); 0 for controllers without a policy.
        policy_version: Number of updates the policy had seen when it made it.
        random: Whether it was drawn before anything was learned, so that it is a fair sample of random search.
        again: Whether to train it with another seed if it is known already, instead of taking its stored result.
    """

    actions: tuple[int, ...]
    log_prob: float = 0.0
    policy_version: int = 0
    random: bool = False
    again: bool = False


Observation = tuple[float | None, float | None, float | None]
"""The reward at the time it was told (None for a failure), the accuracy, the cost."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a suggestion: a finite reward, or a failure with its reason.

    Attributes:
        suggestion: what was measured.
        reward: the objective's; None if it failed.
        accuracy: in [0, 1], where it is known.
        cost: in the objective's unit, where it is known.
        failure: the reason.
        stored: Whether it was told before and answers another suggestion of the same network: nothing was trained.

    Raises:
        InputError: Neither or both of reward and failure are given, or a number is NaN or infinite.
    """

    suggestion: Suggestion
    reward: float | None = None
    accuracy: float | None = None
    cost: float | None = None
    failure: str | None = None
    stored: bool = False

    def __post_init__(self) -> None:
        if (self.reward is None) == (self.failure is None):
            raise InputError("an outcome has either a reward or a failure, not both and not neither")
        for name in ("reward", "accuracy", "cost"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise InputError(f"{name}: {value} is not a finite number; report the child as a failure")

    @property
    def observation(self) -> Observation:
        """What was observed."""
        return self.reward, self.accuracy, self.cost


@dataclass(frozen=True, slots=True)
class Problem:
    """What is searched: the space, the reward, and what the cost in it is.

    Attributes:
        space: The search space.
        objective: (accuracy in [0, 1], cost) -> reward, element by element for arrays; what it gives may change during
            a search (an adaptive exponent), so rewards are computed when they are needed.
        cost: Of the deployed network, in the unit the objective expects. Controllers compare it with
            `search_space.cost.flops` and `params`, which they count themselves, and never call it: any other is
            learned from what outcomes tell.
    """

    space: SearchSpace
    objective: Callable[[Any, Any], Any]
    cost: Callable[[Architecture], float]

    def reward(self, observation: Observation) -> float:
        """Under the objective as it is now; as it was told where accuracy or cost is missing; -inf for a failure."""
        reward, accuracy, cost = observation
        if reward is None:
            return -math.inf
        return reward if accuracy is None or cost is None else float(self.objective(accuracy, cost))


def option(default: float, low: float, high: float = 1e6) -> Any:
    """A field of `Options`: its default, whose type it must have, and its inclusive bounds."""
    return field(default=default, metadata={"low": low, "high": high})


@dataclass(frozen=True, slots=True)
class Options:
    """Base of a controller's options, declared with `option`.

    Raises:
        InputError: A value has the wrong type or lies outside its bounds.
    """

    def __post_init__(self) -> None:
        for spec in fields(self):
            value, low, high = getattr(self, spec.name), spec.metadata["low"], spec.metadata["high"]
            whole = isinstance(spec.default, int)
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                raise InputError(f"{spec.name}: expected {'an integer' if whole else 'a number'}, got {shown(value)}")
            if not low <= value <= high:
                raise InputError(f"{spec.name}: {value!s:.40} is outside [{low:g}, {high:g}]")

    @property
    def least_children(self) -> int:
        """Children below which the controller never does what it is for."""
        return 1


class Memory:
    """The outcomes observed so far, averaged per distinct network.

    Repeated children of one network are draws of the same noisy quantity, so their mean counts, not the luckiest.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._seen: dict[str, tuple[tuple[int, ...], list[Observation]]] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, outcome: Outcome) -> None:
        """Add one measured child."""
        actions = outcome.suggestion.actions
        key = self._problem.space.decode(actions).key()
        self._seen.setdefault(key, (actions, []))[1].append(outcome.observation)

    def top(self, k: int) -> list[tuple[int, ...]]:
        """Actions of the first `k` networks of `ranked`."""
        return [actions for actions, _ in self.ranked()[:k]]

    def ranked(self) -> list[tuple[tuple[int, ...], float]]:
        """Actions and mean reward of every network, best first; the first seen wins a tie."""
        means = [
            (actions, sum(map(self._problem.reward, observations)) / len(observations))
            for actions, observations in self._seen.values()
        ]
        return sorted(means, key=lambda entry: -entry[1])

    def state(self) -> list[tuple[list[int], list[Observation]]]:
        """The content in plain lists."""
        return [(list(actions), list(observations)) for actions, observations in self._seen.values()]

    def restore(self, state: Iterable[tuple[list[int], list[Observation]]]) -> None:
        """Replace the content with that of `state`."""
        self._seen = {}
        for actions, observations in state:
            for reward, accuracy, cost in observations:
                self.add(Outcome(Suggestion(tuple(actions)), reward, accuracy, cost))


OptionsT = TypeVar("OptionsT", bound=Options)


class Controller(ABC, Generic[OptionsT]):
    """Proposes architectures and learns from what became of them.

    `ask` never waits: outcomes may come late, out of order, in batches of any size, never, or for suggestions that
    another process made. `ask` changes nothing that was learned, and `ask(2)` is `ask(1)` twice. Equal seeds and equal
    calls give equal suggestions.
    """

    options_type: ClassVar[type[Options]] = Options

    def __init__(self, problem: Problem, options: OptionsT, seed: int) -> None:
        self.problem = problem
        self.space = problem.space
        self.options = options
        self.rng = np.random.default_rng(seed)
        self.memory = Memory(problem)

    def ask(self, n: int = 1) -> list[Suggestion]:
        """Return `n` suggestions."""
        return [self._suggest() for _ in range(n)]

    def tell(self, outcomes: Iterable[Outcome]) -> None:
        """Learn from outcomes, in the order given.

        Raises:
            SpaceError: An outcome's actions lie outside the space; then nothing is learned from any of them.
        """
        outcomes = list(outcomes)
        for outcome in outcomes:
            self.space.decode(outcome.suggestion.actions)
        for outcome in outcomes:
            if outcome.reward is not None:
                self.memory.add(outcome)
            self._learn(outcome)

    def replace(self, asked: Suggestion, made: Suggestion) -> None:
        """Take `made` as suggested in the place of `asked`, the last one: another processor may round differently."""

    def recommend(self) -> Architecture | None:
        """The architecture to hand over: the first of the leaders; None before any success."""
        return next(iter(self.leaders(1)), None)

    def leaders(self, k: int) -> list[Architecture]:
        """The `k` observed architectures that are worth most, best first, or as many as there are: by mean reward."""
        return [self.space.decode(actions) for actions in self.memory.top(k)]

    def pop_diagnostics(self) -> dict[str, float]:
        """Figures of the policy update since the last call; empty if there was none."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """All that the next `ask` and `tell` depend on, as tensors and plain Python values."""
        return {"rng": self.rng.bit_generator.state, "memory": self.memory.state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where the controller that wrote `state` stood."""
        self.rng.bit_generator.state = state["rng"]
        self.memory.restore(state["memory"])

    @abstractmethod
    def _suggest(self) -> Suggestion:
        """Make one suggestion; only the random stream and the record of what is under way may change."""

    def _learn(self, outcome: Outcome) -> None:
        """Learn from one outcome, which `memory` already holds."""
