"""A search: it joins the controller, the ledger and the journal, and says what comes next."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import controllers
from controllers import Suggestion
from nas import __version__
from nas.evaluators.base import Failure, Measurement
from nas.journal import FORMAT, Event, Journal, JournalError
from nas.ledger import Child, Ledger, Trial, finished_event
from nas.objective import cost_function
from nas.recipe import Recipe
from search_space import InputError

MOST_REPEATS = 500  # suggestions in a row that were all known: the controller has nothing new to say


class Study:
    """A search, passive: an executor takes trials from `next_trial` and brings results to `finish`.

    Everything that happens is in the journal before it counts; a study over a journal with events continues where
    they end, the controller being asked and told again just as it was then.

    Attributes:
        ledger: the children and their results; trial 0 is the baseline.
        exhausted: the controller names only known networks.

    Raises:
        InputError: the recipe's space, baseline or controller options can't be used, or the journal belongs to
            another recipe; the message names the field.
    """

    def __init__(self, recipe: Recipe, journal: Journal, watch: Callable[[Study], None] = lambda study: None) -> None:
        self.ledger = Ledger(recipe, recipe.load_space(), recipe.load_baseline())
        self.exhausted = False
        self._repeats = 0  # suggestions of known networks since the last new network or result
        self._cost = cost_function(recipe.objective.cost)
        self._waiting: list[Trial] = [self.ledger.baseline.trial]
        self._journal = journal
        self._watch = watch
        try:
            self._controller = controllers.create(
                recipe.controller.name,
                self.ledger.space,
                objective=self.ledger.objective,
                cost=self._cost,
                seed=recipe.seed,
                **recipe.controller.options,
            )
        except InputError as error:
            raise InputError(f"controller.options: {error}") from None
        self._begin(journal.replay())

    @property
    def torn(self) -> bool:
        """Whether a crash had cut off the journal's last line, which was dropped."""
        return self._journal.torn

    @property
    def done(self) -> bool:
        """Whether every child has been handed out, or the controller names only known networks."""
        enough = len(self.ledger.children) > self.ledger.recipe.children
        return not self._waiting and (self.exhausted or enough)

    def next_trial(self) -> Trial | None:
        """The next child to train; None if there is none now, or, when `done`, none any more."""
        if not self._waiting:
            self._suggest()
        if not self._waiting:
            return None
        trial = self._waiting.pop(0)
        self.ledger.children[trial.number].running = True
        self._watch(self)
        return trial

    def finish(self, trial: Trial, result: Measurement | Failure) -> None:
        """Record what became of a trial, once; later results for the same trial are ignored.

        Raises:
            JournalError: the journal can't be written; the result doesn't count.
        """
        if self.ledger.children[trial.number].result is not None:
            return
        if isinstance(result, Measurement):  # numpy's numbers, which JSON has not, become Python's
            result = Measurement(float(result.accuracy), int(result.epochs), float(result.seconds))
            if not 0 <= result.accuracy <= 1:
                result = Failure(f"the accuracy is {result.accuracy}")
        cost = None if isinstance(result, Failure) else self._cost(trial.architecture)
        self._journal.append(finished_event(trial, result, cost))
        child = self.ledger.settle(trial.number, result, cost)
        self._count("failed" if isinstance(result, Failure) else "completed")
        self._journal_update(self._tell(child, child.suggestions))
        self._watch(self)

    def _begin(self, events: list[Event]) -> None:
        """Start a new journal, or go through one again."""
        if not events:
            self._journal.append(self._header())
            return
        self._check_header(events[0])
        updated: dict[str, float] = {}
        for event in events[1:]:
            updated = self._replay(event)
        self._journal_update(updated)  # the crash came between a result and the update that it led to

    def _replay(self, event: Event) -> dict[str, float]:
        """Apply one journaled event; returns the figures of the policy update that it led to, if it did."""
        child = self.ledger.apply(event)
        kind = event["event"]
        self._count(kind)
        if kind in ("suggested", "repeated"):
            self._controller.ask()
        if child is None:
            return {}
        if kind == "suggested":
            self._waiting.append(child.trial)
        elif kind == "repeated" and child.result is not None:
            return self._tell(child, child.suggestions[-1:])
        elif kind in ("completed", "failed"):
            self._waiting.remove(child.trial)
            return self._tell(child, child.suggestions)
        return {}

    def _suggest(self) -> None:
        """Ask the controller until it names a network that isn't known, and put it on the waiting list."""
        while self._repeats < MOST_REPEATS:
            if self.done:
                return
            (suggestion,) = self._controller.ask()
            known = self.ledger.by_key.get(self.ledger.space.decode(suggestion.actions).key())
            number = len(self.ledger.children) if known is None else known.trial.number
            event = _suggestion_event(suggestion, number, self.ledger.seed(number), repeated=known is not None)
            self._journal.append(event)
            child = self.ledger.apply(event)
            self._count(event["event"])
            if known is None and child is not None:
                self._waiting.append(child.trial)
                return
            if known is not None and known.result is not None:
                self._journal_update(self._tell(known, [suggestion]))
        self.exhausted = not self.ledger.running()

    def _count(self, kind: str) -> None:
        """Keep count of the repeats, in a replay as well: a resumed search gives up where it would have before."""
        if kind in ("suggested", "repeated", "completed", "failed"):
            self._repeats = self._repeats + 1 if kind == "repeated" else 0

    def _tell(self, child: Child, suggestions: Iterable[Suggestion]) -> dict[str, float]:
        """Tell the controller; returns the figures of the policy update that followed, if one did."""
        self._controller.tell([child.outcome(suggestion) for suggestion in suggestions])
        return self._controller.pop_diagnostics()

    def _journal_update(self, diagnostics: dict[str, float]) -> None:
        if diagnostics:
            self._journal.append({"event": "updated", **diagnostics})

    def _header(self) -> Event:
        """The first event: all that the search depends on, the content of the files that the recipe names included."""
        return {
            "event": "search",
            "format": FORMAT,
            "version": __version__,
            "recipe": self.ledger.recipe.model_dump(),
            "space": self.ledger.space.to_dict(),
            "baseline": self.ledger.baseline.trial.architecture.to_dict(),
        }

    def _check_header(self, found: Event) -> None:
        """Refuse to continue with another recipe, space or baseline; how it is executed may change.

        Raises:
            JournalError: the message names the field.
        """
        recipe, ours, folder = self.ledger.recipe, self._header(), self._journal.path.parent
        if found.get("format") != FORMAT:
            raise JournalError(f"{self._journal.path}: format: must be {FORMAT}, not {found.get('format')!r}")
        began = Recipe.parse(found.get("recipe", {}), str(self._journal.path))
        changed = began.model_copy(update={"executor": recipe.executor}).differs(recipe)
        for name in ("space", "baseline"):
            changed = changed or (f"{name}: the file is another" if found.get(name) != ours[name] else None)
        if changed:
            raise JournalError(
                f"{folder}: the recipe changed since the run began: {changed}; "
                "undo the change, or start a new search with another --out"
            )


def _suggestion_event(suggestion: Suggestion, number: int, seed: int, *, repeated: bool) -> dict[str, Any]:
    return {
        "event": "repeated" if repeated else "suggested",
        "trial": number,
        "actions": list(suggestion.actions),
        "log_prob": suggestion.log_prob,
        "policy_version": suggestion.policy_version,
        "seed": seed,
    }
