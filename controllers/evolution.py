"""Regularised (aging) evolution, Real et al. 2019 (arXiv 1802.01548), algorithm 1."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, ClassVar

from controllers.base import Controller, Observation, Options, Outcome, Problem, Suggestion, option

_TRIES = 20
"""Draws after which a known architecture is suggested again: a small space may hold nothing new."""


@dataclass(frozen=True, slots=True)
class EvolutionOptions(Options):
    """Options of `Evolution`; the paper's 100 and 25 are for searches of 20,000 children, not of hundreds.

    Attributes:
        population_size: Living individuals; the oldest dies when another arrives. As many are drawn at random first.
        sample_size: Individuals in a tournament, whose best becomes the parent.
    """

    population_size: int = option(20, low=2)
    sample_size: int = option(10, low=1)


class Evolution(Controller[EvolutionOptions]):
    """Mutates the best of a random sample of the youngest individuals, drawn without replacement.

    A child is an individual once its outcome is told, so any number may be under way. A failure is an individual
    that loses every tournament: it takes a place and ages like the others, but is a parent only among failures.
    """

    options_type: ClassVar[type[Options]] = EvolutionOptions

    def __init__(self, problem: Problem, options: EvolutionOptions, seed: int) -> None:
        super().__init__(problem, options, seed)
        self._population: deque[tuple[tuple[int, ...], Observation]] = deque(maxlen=options.population_size)
        self._asked = 0
        self._known: set[str] = set()

    def _suggest(self) -> Suggestion:
        drawn = max(self._asked, len(self._population))  # told outcomes of others make a population too
        warm = drawn >= self.options.population_size and len(self._population) > 0
        self._asked += 1
        for _ in range(_TRIES):
            actions = self._mutate(self._parent()) if warm else self.space.sample_actions(self.rng)
            key = self.space.decode(actions).key()
            if key not in self._known:
                break
        self._known.add(key)
        return Suggestion(actions, random=not warm)

    def replace(self, asked: Suggestion, made: Suggestion) -> None:
        """See `Controller.replace`."""
        self._known.discard(self.space.decode(asked.actions).key())
        self._known.add(self.space.decode(made.actions).key())

    def _parent(self) -> tuple[int, ...]:
        size = min(self.options.sample_size, len(self._population))
        entrants = self.rng.choice(len(self._population), size=size, replace=False)
        individuals = (self._population[int(i)] for i in entrants)
        return max(individuals, key=lambda individual: self.problem.reward(individual[1]))[0]

    def _mutate(self, actions: tuple[int, ...]) -> tuple[int, ...]:
        """Give one decision that has an effect another value, such that another network results."""
        parent, active = self.space.decode(actions).key(), self.space.active(actions)
        for index in self.rng.permutation(len(actions)).tolist():
            choices = len(self.space.decisions[index].choices)
            for shift in self.rng.permutation(choices - 1).tolist() if active[index] else ():
                value = (actions[index] + 1 + shift) % choices
                child = (*actions[:index], value, *actions[index + 1 :])
                if self.space.decode(child).key() != parent:
                    return child
        return actions  # the space holds a single network

    def _learn(self, outcome: Outcome) -> None:
        actions = outcome.suggestion.actions
        self._known.add(self.space.decode(actions).key())
        self._population.append((actions, outcome.observation))

    def state_dict(self) -> dict[str, Any]:
        """See `Controller.state_dict`."""
        population = [(list(actions), observation) for actions, observation in self._population]
        return super().state_dict() | {
            "population": population,
            "asked": self._asked,
            "known": sorted(self._known),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Controller.load_state_dict`."""
        super().load_state_dict(state)
        self._population.clear()
        self._population.extend((tuple(actions), observation) for actions, observation in state["population"])
        self._asked = state["asked"]
        self._known = set(state["known"])
