"""A search: it joins the controller, the ledger and the journal, and says what comes next."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import controllers
from controllers import Suggestion
from nas import __version__
from nas.costs import CostFunction, cost_function
from nas.evaluators.base import Contents, Failure, Measurement, check_unchanged, checked, describe
from nas.journal import FORMAT, Event, Journal, JournalError
from nas.ledger import Child, Ledger, Trial, finished_event
from nas.objective import Objective, final_objective
from nas.recipe import Recipe
from nas.verdict import Verdict, verdict
from search_space import InputError

MOST_REPEATS = 500  # suggestions in a row that were all known: the controller has nothing new to say
MOST_LEADERS = 50  # networks that are named at the end as those to train again
ADAPT_EVERY = 10  # measured children from one adaptation of the objective to the next


class Study:
    """A search, passive: an executor takes trials from `next_trial` and brings results to `finish`.

    Everything that happens is in the journal before it counts; a study over a journal with events continues where
    they end, the controller being asked and told again just as it was then.

    Args:
        recipe: of the search.
        journal: new, or of the same recipe.
        watch: called after every change.
        cost: of a deployed network, positive; by default what the recipe's objective names.
        contents: of what the children are measured on; None where nothing tells.

    Attributes:
        ledger: the children and their results; trial 0 is the baseline.
        exhausted: the controller names only known networks.

    Raises:
        InputError: the recipe's space, baseline or controller options can't be used, or the journal belongs to
            another recipe; the message names the field.
    """

    def __init__(
        self,
        recipe: Recipe,
        journal: Journal,
        watch: Callable[[Study], None] = lambda study: None,
        cost: CostFunction | None = None,
        contents: Contents | None = None,
    ) -> None:
        self.ledger = Ledger(recipe, recipe.load_space(), recipe.load_baseline(), contents)
        self.exhausted = False
        self._repeats = 0  # suggestions of known networks since the last new network or result
        self._adapted_at = 0  # measured children at the objective's last adaptation
        self._cost = cost or cost_function(recipe.objective.cost)
        self._waiting: list[Trial] = [self.ledger.baseline.trial]
        self._journal = journal
        self._watch = watch
        adopted = sum(event.get("adopted", False) for event in journal.replay())
        try:
            self._controller = controllers.create(
                recipe.controller.name,
                self.ledger.space,
                objective=self._reward,
                cost=self._cost,
                seed=recipe.seed + adopted,  # what was taken over must not be drawn again
                options=recipe.controller.options,
            )
        except InputError as error:
            raise InputError(f"controller.options: {error}") from None
        self._begin(journal.replay())

    @property
    def torn(self) -> bool:
        """Whether a crash had cut off the journal's last line, which was dropped."""
        return self._journal.torn

    @property
    def contents(self) -> Contents | None:
        """What identifies the data that the children are measured on; None where nothing tells."""
        return self.ledger.contents

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
            InputError: the network's cost can't be used; the result doesn't count here.
            JournalError: see `Journal.append`; the result doesn't count here.
        """
        if self.ledger.children[trial.number].result is not None:
            return
        result, cost = self._with_cost(trial, checked(result))
        self._journal.append(finished_event(trial, result, cost))
        child = self.ledger.settle(trial.number, result, cost)
        self._repeats = 0
        self._journal_update(self._tell(child, child.suggestions))
        self._watch(self)

    def _with_cost(self, trial: Trial, result: Measurement | Failure) -> tuple[Measurement | Failure, float | None]:
        """A result and the network's cost; a failure where that can't be measured, as of a network that is too large.

        Raises:
            InputError: the cost isn't positive and finite, or can't be measured even of the baseline.
        """
        if isinstance(result, Failure):
            return result, None
        name = trial.architecture.name
        try:
            cost = float(self._cost(trial.architecture))
        except InputError:
            raise
        except Exception as error:
            problem = f"the cost of {name} can't be measured: {describe(error)}"
            if trial is self.ledger.baseline.trial:
                raise InputError(problem) from None
            return Failure(problem), None
        if not 0 < cost < math.inf:
            raise InputError(f"cost: {name} costs {cost}; a cost must be positive and finite")
        return result, cost

    def adopt(self, children: Iterable[Child]) -> None:
        """Take over finished children of another search of the same space, as if they were this one's."""
        for child in children:
            ours = self.ledger.by_key.get(child.trial.key)
            if child.suggestions:
                repeated = ours is not None and ours.result is None  # the baseline, which the space holds too
                number = ours.trial.number if ours is not None and repeated else len(self.ledger.children)
                event = _suggestion_event(child.suggestions[0], number, child.trial.seed, repeated=repeated)
                ours = self._record({**event, "adopted": True})
            if ours is not None and child.result is not None:
                self.finish(ours.trial, child.result)

    def conclude(self, judge: Callable[[Ledger], Verdict] = verdict) -> None:
        """At the end of the search, record which child is handed over, and whether that beats random sampling."""
        if not self.done or self.ledger.judged is not None:
            return
        if self.ledger.recommended is None:
            self._hand_over()
        if self.ledger.recommended is not None:
            self._record({"event": "verdict", **asdict(judge(self.ledger))})

    def _hand_over(self) -> None:
        """Adapt the objective until T is met, and choose."""

        def handed_over(objective: Objective) -> Child | None:
            self.ledger.adapt(objective)
            return self._recommended()

        def its_cost(objective: Objective) -> float | None:
            chosen = handed_over(objective)
            return None if chosen is None else chosen.cost

        before = self.ledger.objective
        objective = final_objective(before, its_cost)
        chosen = handed_over(objective.at_target())
        leaders = [self.ledger.by_key[network.key()].trial.number for network in self._controller.leaders(MOST_LEADERS)]
        self.ledger.adapt(objective)
        if objective != before:
            self._record(_adapted_event(objective))
        if chosen is not None:
            self._record({"event": "recommended", "trial": chosen.trial.number, "leaders": leaders})

    def _reward(self, accuracy: Any, cost: Any) -> Any:
        """The reward under the objective as it is now."""
        return self.ledger.objective(accuracy, cost)

    def _recommended(self) -> Child | None:
        """The child that the controller would hand over now."""
        architecture = self._controller.recommend()
        return None if architecture is None else self.ledger.by_key.get(architecture.key())

    def _adapt_now_and_then(self) -> None:
        """Let the objective follow what would be handed over, every `ADAPT_EVERY` measured children."""
        if self.ledger.objective.adapts and len(self.ledger.measured()) - self._adapted_at >= ADAPT_EVERY:
            chosen = self._recommended()
            if chosen is not None and chosen.cost is not None:
                self._record(_adapted_event(self.ledger.objective.adapted(chosen.cost)))

    def _record(self, event: Event) -> Child | None:
        """Journal an event of the study itself, then enter it; returns the child it is about."""
        self._journal.append(event)
        return self._enter(event)

    def _enter(self, event: Event) -> Child | None:
        """Enter an event, new or journaled; returns the child it is about.

        Repeats are counted in a replay as well: a resumed search gives up where it would have before.
        """
        child, kind = self.ledger.apply(event), event["event"]
        if kind in ("suggested", "repeated", "completed", "failed"):
            self._repeats = self._repeats + 1 if kind == "repeated" else 0
        elif kind == "adapted":
            self._adapted_at = len(self.ledger.measured())
        return child

    def _begin(self, events: list[Event]) -> None:
        """Start a new journal, or go through one again."""
        if not events:
            self._journal.append(self._header())
            return
        self._check_header(events[0])
        whole = Ledger.of(events)
        over = whole.judged is not None and all(child.result is not None for child in whole.children.values())
        updated: dict[str, float] = {}
        for event in events[1:]:
            updated = self._replay(event, learns=not over)
        self._journal_update(updated)  # the crash came between a result and the update that it led to
        self.exhausted = self._repeats >= MOST_REPEATS and not self._waiting

    def _replay(self, event: Event, learns: bool) -> dict[str, float]:
        """Apply one journaled event; returns the figures of the policy update that it led to, if it did.

        Args:
            event: of the journal.
            learns: whether the controller is asked and told again as it was then; it need not be after a search's end.
        """
        if learns and event.get("event") == "adapted":
            self._controller.recommend()  # as then, for it may have fitted a model
        child, kind = self._enter(event), event["event"]
        if child is not None and kind == "suggested":
            self._waiting.append(child.trial)
        elif child is not None and kind in ("completed", "failed"):
            self._waiting.remove(child.trial)
        return self._learn_again(event, child) if learns and child is not None else {}

    def _learn_again(self, event: Event, child: Child) -> dict[str, float]:
        """Ask or tell the controller what a journaled event of a child says it was; returns as `_tell` does."""
        kind = event["event"]
        if kind in ("suggested", "repeated") and not event.get("adopted"):
            (asked,) = self._controller.ask()
            made = child.suggestions[-1]
            if asked.actions != made.actions:  # another processor rounds otherwise
                self._controller.replace(asked, made)
        if kind == "repeated" and child.result is not None:
            return self._tell(child, child.suggestions[-1:])
        if kind in ("completed", "failed"):
            return self._tell(child, child.suggestions)
        return {}

    def _suggest(self) -> None:
        """Ask the controller until it names what is to be trained, and put that on the waiting list."""
        while self._repeats < MOST_REPEATS:
            if self.done:
                return
            self._adapt_now_and_then()
            (suggestion,) = self._controller.ask()
            key = self.ledger.space.decode(suggestion.actions).key()
            known = None if suggestion.again else self.ledger.by_key.get(key)
            number = len(self.ledger.children) if known is None else known.trial.number
            seed = self.ledger.seed(number) if known is None else known.trial.seed
            child = self._record(_suggestion_event(suggestion, number, seed, repeated=known is not None))
            if known is None and child is not None:
                self._waiting.append(child.trial)
                return
            if known is not None and known.result is not None:
                self._journal_update(self._tell(known, known.suggestions[-1:]))
        self.exhausted = not self.ledger.running()

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
            "contents": self.ledger.contents,
        }

    def _check_header(self, found: Event) -> None:
        """Refuse to continue with another recipe, space or baseline.

        How it is executed, what follows, and where its files are may change.

        Raises:
            JournalError: the message names the field.
        """
        recipe, ours, folder = self.ledger.recipe, self._header(), self._journal.path.parent
        if found.get("format") != FORMAT:
            raise JournalError(f"{self._journal.path}: format: must be {FORMAT}, not {found.get('format')!r}")
        began = Recipe.parse(found.get("recipe", {}), str(self._journal.path))
        changeable = {name: getattr(recipe, name) for name in ("executor", "scale", "space", "baseline")}
        changed = began.with_source_of(recipe).model_copy(update=changeable).differs(recipe)
        check_unchanged(found.get("contents"), self.ledger.contents)
        for name in ("space", "baseline"):
            changed = changed or (f"{name}: the file is another" if found.get(name) != ours[name] else None)
        if changed:
            raise JournalError(
                f"{folder}: the recipe changed since the run began: {changed}; "
                "undo the change, or start a new search with another --out"
            )


def _adapted_event(objective: Objective) -> Event:
    return {"event": "adapted", "w": objective.w, "w_above": objective.w_above}


def _suggestion_event(suggestion: Suggestion, number: int, seed: int, *, repeated: bool) -> dict[str, Any]:
    return {
        "event": "repeated" if repeated else "suggested",
        "trial": number,
        "actions": list(suggestion.actions),
        "log_prob": suggestion.log_prob,
        "policy_version": suggestion.policy_version,
        "random": suggestion.random,
        "seed": seed,
    }
