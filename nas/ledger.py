"""The children of a run and what became of them, as the journal tells it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from heapq import nsmallest
from typing import Any

import numpy as np

from controllers import Outcome, Suggestion
from nas.evaluators.base import Contents, Failure, Measurement, in_range
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
        seed: of its training, drawn from the study's seed and the trial's number; of one that was taken over from
            another run, its own there.
        whole: whether it trains to its last epoch though others are stopped early: the baseline, with which all are
            compared, and further trainings of a known network, for a part of one can't be averaged with the first.
    """

    number: int
    architecture: Architecture
    key: str
    seed: int
    whole: bool = False


@dataclass(slots=True)
class Child:
    """A trial and what became of it.

    Attributes:
        suggestions: the controller's, the first and every one that its stored result answered; none for the baseline.
        again: later children that train the same network with other seeds; none of such a child itself.
        running: whether it was handed out in this process and isn't back.
        result: None while it is waiting or running.
        cost: of the deployed network in the objective's unit; None without a measurement.
        accuracy: mean of this training and those `again`, only the longest counted; None without a measurement.
        reward: of that accuracy and the cost; None without a measurement.
    """

    trial: Trial
    suggestions: list[Suggestion] = field(default_factory=list)
    again: list[Child] = field(default_factory=list)
    running: bool = False
    result: Measurement | Failure | None = None
    cost: float | None = None
    accuracy: float | None = None
    reward: float | None = None

    @property
    def accuracies(self) -> list[float]:
        """Accuracies of the network's trainings, in order; those that were stopped earlier than others don't count."""
        results = [child.result for child in (self, *self.again) if isinstance(child.result, Measurement)]
        longest = max((result.epochs for result in results), default=0)
        return [result.accuracy for result in results if result.epochs == longest]

    def score(self, objective: Objective) -> None:
        """Compute accuracy and reward from the results."""
        accuracies = self.accuracies
        if accuracies and self.cost is not None:
            self.accuracy = sum(accuracies) / len(accuracies)
            self.reward = float(objective(self.accuracy, self.cost))

    def outcome(self, suggestion: Suggestion) -> Outcome:
        """What the controller is told of one of the suggestions, once there is a result."""
        stored = suggestion is not self.suggestions[0]
        if self.reward is not None:
            return Outcome(suggestion, self.reward, self.accuracy, self.cost, stored=stored)
        reason = self.result.reason if isinstance(self.result, Failure) else "not finished"
        return Outcome(suggestion, failure=reason, stored=stored)


class Ledger:
    """All children of a run.

    Attributes:
        recipe: of the run.
        space: of the deployed networks.
        objective: from accuracy and cost to the reward, as adapted so far.
        recommended: the child that was chosen at the end of the search; None before that.
        retrained: the event by which retraining chose another, or the same; None if it didn't.
        judged: the event that tells whether the search beat random sampling; None before its end.
        children: by trial number, the baseline (0) included.
        by_key: the first child of each network by the architecture's key.
        adopted: children that were taken over from another run.
        contents: of what the children are measured on; None where it isn't known.
    """

    def __init__(
        self, recipe: Recipe, space: SearchSpace, baseline: Architecture, contents: Contents | None = None
    ) -> None:
        self.recipe = recipe
        self.space = space
        self.contents = contents
        self.adopted = 0
        self.objective = recipe.make_objective()
        self.recommended: Child | None = None
        self._leaders: list[Child] = []
        self.retrained: Event | None = None
        self.judged: Event | None = None
        self.children: dict[int, Child] = {}
        self.by_key: dict[str, Child] = {}
        self.add(baseline, None, self.seed(BASELINE))

    @classmethod
    def of(cls, events: list[Event]) -> Ledger:
        """The ledger of a journal's events, the first being the header; it needs no other file.

        Raises:
            InputError: an event is damaged.
        """
        header = events[0]
        if header.get("event") != "search":
            raise JournalError("the journal is damaged: its first line is missing")
        if header.get("format") != FORMAT:
            raise JournalError(f"the journal's format must be {FORMAT}, not {header.get('format')!r}")
        if missing := [name for name in ("baseline", "recipe", "space") if not isinstance(header.get(name), dict)]:
            raise JournalError(f"the journal is damaged: its first line lacks {', '.join(missing)}")
        if not isinstance(header.get("contents"), dict | None):
            raise JournalError("the journal is damaged: contents in its first line can't be used")
        recipe = Recipe.parse(header["recipe"], "journal")
        baseline = Architecture.from_dict(header["baseline"])
        ledger = cls(recipe, SearchSpace(header["space"]), baseline, header.get("contents"))
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
        except JournalError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            where = f"the {event.get('event')} event of trial {event.get('trial')}"
            why = f"lacks {error}" if isinstance(error, KeyError) else f"can't be used: {error}"
            if isinstance(error, KeyError) and type(error.args[0]) is int:
                why = f"is of a trial that was never suggested: {error}"
            raise JournalError(f"the journal is damaged: {where} {why}") from None

    def _apply(self, event: Event) -> Child | None:
        kind = event["event"]
        if kind in ("suggested", "repeated"):
            actions, told = tuple(event["actions"]), (float(event["log_prob"]), int(event["policy_version"]))
            architecture = self.space.decode(actions)
            again = kind == "suggested" and architecture.key() in self.by_key
            suggestion = Suggestion(actions, *told, random=event.get("random") is True, again=again)
            if kind == "suggested":
                self.adopted += event.get("adopted", False)
                return self.add(architecture, suggestion, event["seed"])
            self.children[event["trial"]].suggestions.append(suggestion)
        elif kind in ("completed", "failed") and self.children[event["trial"]].result is not None:
            raise JournalError(f"the journal is damaged: trial {event['trial']} has two results")
        elif kind == "completed":
            measurement = Measurement(event["accuracy"], event["epochs"], event["seconds"])
            if not (in_range(measurement) and 0 < float(event["cost"]) < math.inf):
                raise JournalError(f"the journal is damaged: a number out of range in {dict(event)!r:.200}")
            return self.settle(event["trial"], measurement, event["cost"])
        elif kind == "failed":
            return self.settle(event["trial"], Failure(event["reason"]), None)
        elif kind == "adapted":
            self.adapt(replace(self.objective, w=event["w"], w_above=event["w_above"]))
        elif kind == "recommended":
            chosen = self.children[event["trial"]]
            if event.get("by") == "retraining":
                self.retrained = event
            else:
                leaders = [self.children[number] for number in event.get("leaders", [])]
                self.recommended, self._leaders = chosen, leaders
        elif kind == "verdict":
            self.judged = event
        elif kind != "updated":
            raise JournalError(f"the journal is damaged: an event {kind!r} is unknown")
        return self.children.get(event.get("trial", -1))

    def add(self, architecture: Architecture, suggestion: Suggestion | None, seed: int) -> Child:
        """A new child, numbered by its place; if its network is known, another training of that."""
        number, key = len(self.children), architecture.key()
        named = architecture if suggestion is None else architecture.with_(name=f"{self.recipe.name}-{number}")
        trial = Trial(number, named, key, seed, whole=suggestion is None or key in self.by_key)
        child = Child(trial, [] if suggestion is None else [suggestion])
        self.children[number] = child
        first = self.by_key.setdefault(key, child)
        if first is not child:
            first.again.append(child)
        return child

    def settle(self, number: int, result: Measurement | Failure, child_cost: float | None) -> Child:
        """Enter a result; a choice and a verdict that were made without it no longer hold."""
        self.recommended = self.retrained = self.judged = None
        self._leaders = []
        child = self.children[number]
        child.running, child.result, child.cost = False, result, child_cost
        for one in (child, self.by_key[child.trial.key]):
            one.score(self.objective)
        return child

    def adapt(self, objective: Objective) -> None:
        """Take another objective, and every reward under it."""
        self.objective = objective
        for child in self.children.values():
            child.score(objective)

    def seed(self, number: int) -> int:
        """The training seed of a new trial; those that were taken over keep theirs, which must not come again."""
        return int(np.random.SeedSequence([self.recipe.seed + self.adopted, number]).generate_state(1)[0])

    @property
    def baseline(self) -> Child:
        """The network to compare with."""
        return self.children[BASELINE]

    @property
    def search_choice(self) -> Child | None:
        """The search's choice: the child that was chosen at its end, before that the one with the highest reward."""
        return self.recommended or next(iter(self.best(1)), None)

    @property
    def winner(self) -> Child | None:
        """The child to hand over: retraining's choice, or else the search's."""
        return self.children[self.retrained["trial"]] if self.retrained else self.search_choice

    def finished(self) -> list[Child]:
        """Children with a result, the baseline left out."""
        return [child for number, child in self.children.items() if number != BASELINE and child.result is not None]

    def failed(self) -> list[Child]:
        """Children without a measurement, the baseline left out."""
        return [child for child in self.finished() if isinstance(child.result, Failure)]

    def last_failure(self) -> str | None:
        """Why the last child without a measurement has none; None if there is no such child."""
        reasons = [child.result.reason for child in self.finished() if isinstance(child.result, Failure)]
        return reasons[-1] if reasons else None

    def running(self) -> list[Child]:
        """Children handed out in this process and not finished."""
        return [child for child in self.children.values() if child.running]

    def measured(self) -> list[Child]:
        """Children with a measurement, the baseline left out."""
        return [child for child in self.finished() if isinstance(child.result, Measurement)]

    def best(self, k: int | None = None) -> list[Child]:
        """First children of the `k` networks with the highest rewards (all by default), the baseline left out."""
        firsts = [child for child in self.by_key.values() if child is not self.baseline]
        rewards = [(child.reward, child) for child in firsts if child.reward is not None]
        count = len(rewards) if k is None else k
        return [child for _, child in nsmallest(count, rewards, key=lambda pair: (-pair[0], pair[1].trial.number))]

    def leaders(self, k: int) -> list[Child]:
        """First children of the `k` networks that the controller, at the end of the search, estimated best, best first.

        Where it named fewer, and before the end, those with the highest rewards follow; the baseline is left out.
        """
        ordered = {child.trial.number: child for child in (*self._leaders, *self.best()) if child is not self.baseline}
        return list(ordered.values())[:k]


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
        "seconds": result.seconds,
    }
