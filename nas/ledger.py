"""The children of a run and what became of them, as the journal tells it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from controllers import Outcome, Suggestion
from nas.evaluators.base import Failure, Measurement
from nas.journal import FORMAT, Event, JournalError
from nas.objective import Objective
from nas.recipe import Recipe
from search_space import Architecture, SearchSpace, cost

BASELINE = 0  # the baseline's trial number; the children count from 1


@dataclass(frozen=True, slots=True)
class Trial:
    """One child to train.

    Attributes:
        number: 0 for the baseline, children from 1 in the order of their suggestion.
        key: of the architecture.
        seed: of its training, drawn from the study's seed and the trial's number.
    """

    number: int
    architecture: Architecture
    key: str
    seed: int


@dataclass(slots=True)
class Child:
    """A trial and what became of it.

    Attributes:
        suggestions: the controller's, the first and every repeat of the same network; none for the baseline.
        running: whether it was handed out in this process and isn't back.
        result: None while it is waiting or running.
        cost: of the deployed network in the objective's unit; None without a measurement.
        reward: None without a measurement.
    """

    trial: Trial
    suggestions: list[Suggestion] = field(default_factory=list)
    running: bool = False
    result: Measurement | Failure | None = None
    cost: float | None = None
    reward: float | None = None

    def outcome(self, suggestion: Suggestion) -> Outcome:
        """What the controller is told of one of the suggestions, once there is a result."""
        if isinstance(self.result, Measurement):
            return Outcome(suggestion, reward=self.reward, accuracy=self.result.accuracy, cost=self.cost)
        return Outcome(suggestion, failure=self.result.reason if self.result else "not finished")


class Ledger:
    """All children of a run.

    Attributes:
        recipe: of the run.
        space: of the deployed networks.
        objective: from accuracy and cost to the reward, as adapted so far.
        recommended: the child that was chosen at the end of the search or by retraining; None before that.
        children: by trial number, the baseline (0) included.
        by_key: the same by the architecture's key.
    """

    def __init__(self, recipe: Recipe, space: SearchSpace, baseline: Architecture) -> None:
        self.recipe = recipe
        self.space = space
        self.objective = recipe.make_objective()
        self.recommended: Child | None = None
        self.children: dict[int, Child] = {}
        self.by_key: dict[str, Child] = {}
        self.add(baseline, None)

    @classmethod
    def of(cls, events: list[Event]) -> Ledger:
        """The ledger of a journal's events, the first being the header; it needs no other file.

        Raises:
            InputError: an event is damaged.
        """
        header = events[0]
        if header.get("format") != FORMAT:
            raise JournalError(f"the journal's format must be {FORMAT}, not {header.get('format')!r}")
        recipe = Recipe.parse(header["recipe"], "journal")
        ledger = cls(recipe, SearchSpace(header["space"]), Architecture.from_dict(header["baseline"]))
        for event in events[1:]:
            ledger.apply(event)
        return ledger

    def apply(self, event: Event) -> Child | None:
        """Enter one journaled event; returns the child it is about.

        Raises:
            JournalError: the event lacks a field or names a child that there isn't.
        """
        try:
            return self._apply(event)
        except (KeyError, TypeError) as error:
            raise JournalError(f"the journal is damaged: no {error} in the event {dict(event)!r:.200}") from None

    def _apply(self, event: Event) -> Child | None:
        kind = event["event"]
        if kind in ("suggested", "repeated"):
            suggestion = Suggestion(
                tuple(event["actions"]), event["log_prob"], event["policy_version"], event.get("random", False)
            )
            if kind == "suggested":
                return self.add(self.space.decode(suggestion.actions), suggestion)
            self.children[event["trial"]].suggestions.append(suggestion)
        elif kind == "completed":
            measurement = Measurement(event["accuracy"], event["epochs"], event["seconds"])
            return self.settle(event["trial"], measurement, event["cost"])
        elif kind == "failed":
            return self.settle(event["trial"], Failure(event["reason"]), None)
        elif kind == "adapted":
            self.adapt(replace(self.objective, w=event["w"], w_above=event["w_above"]))
        elif kind == "recommended":
            self.recommended = self.children[event["trial"]]
        return self.children.get(event.get("trial", -1))

    def add(self, architecture: Architecture, suggestion: Suggestion | None) -> Child:
        """A new child, numbered by its place."""
        number = len(self.children)
        named = architecture if suggestion is None else architecture.with_(name=f"{self.recipe.name}-{number}")
        child = Child(
            Trial(number, named, architecture.key(), self.seed(number)), [] if suggestion is None else [suggestion]
        )
        self.children[number] = self.by_key[child.trial.key] = child
        return child

    def settle(self, number: int, result: Measurement | Failure, child_cost: float | None) -> Child:
        """Enter a result; a choice that was made without it no longer holds."""
        child, self.recommended = self.children[number], None
        child.running, child.result, child.cost = False, result, child_cost
        if isinstance(result, Measurement) and child_cost is not None:
            child.reward = float(self.objective(result.accuracy, child_cost))
        return child

    def adapt(self, objective: Objective) -> None:
        """Take another objective, and every reward under it."""
        self.objective = objective
        for child in self.children.values():
            if isinstance(child.result, Measurement) and child.cost is not None:
                child.reward = float(objective(child.result.accuracy, child.cost))

    def seed(self, number: int) -> int:
        """The training seed of a trial."""
        return int(np.random.SeedSequence([self.recipe.seed, number]).generate_state(1)[0])

    @property
    def baseline(self) -> Child:
        """The network to compare with."""
        return self.children[BASELINE]

    @property
    def winner(self) -> Child | None:
        """The child to hand over: the one that was chosen, before that the one with the highest reward."""
        return self.recommended or next(iter(self.best(1)), None)

    def finished(self) -> list[Child]:
        """Children with a result, the baseline left out."""
        return [child for number, child in self.children.items() if number != BASELINE and child.result is not None]

    def failed(self) -> list[Child]:
        """Children without a measurement, the baseline left out."""
        return [child for child in self.finished() if isinstance(child.result, Failure)]

    def running(self) -> list[Child]:
        """Children handed out in this process and not finished."""
        return [child for child in self.children.values() if child.running]

    def best(self, k: int | None = None) -> list[Child]:
        """The `k` measured children with the highest rewards (all by default), the baseline left out."""
        measured = [(child.reward, child) for child in self.finished() if child.reward is not None]
        return [child for _, child in sorted(measured, key=lambda pair: (-pair[0], pair[1].trial.number))][:k]


def finished_event(trial: Trial, result: Measurement | Failure, child_cost: float | None) -> dict[str, Any]:
    """A result as an event: raw accuracy and costs, so that another objective can be applied to the run later."""
    if isinstance(result, Failure):
        return {"event": "failed", "trial": trial.number, "reason": result.reason}
    return {
        "event": "completed",
        "trial": trial.number,
        "key": trial.key,
        "accuracy": result.accuracy,
        "epochs": result.epochs,
        "cost": child_cost,
        "flops": cost.flops(trial.architecture),
        "params": cost.params(trial.architecture),
        "seconds": round(result.seconds, 3),
    }
