"""A fixed list of trainings under one recipe: a search's leaders again, an audit's networks, the points of a grid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from nas import __version__
from nas.evaluators.base import Contents, Evaluator, Failure, Measurement, check_unchanged, checked, in_range
from nas.executors import make_executor
from nas.journal import Event, Journal, JournalError
from nas.ledger import Trial
from nas.recipe import Recipe
from search_space import Architecture, InputError

FORMAT = "baseline-nas/trials/1"
LONGER = 4  # times the proxy's epochs, unless the user says how many
DEPENDS = ("seed", "data", "proxy", "benchmark")  # the recipe's fields that a training depends on


class Trials:
    """A list of trials, passive as a study is: an executor takes them and brings their results.

    Every result is in the journal before it counts. It belongs to a network and a seed, not to a place in the list:
    over an earlier journal, a longer or shorter list trains only what the journal lacks, and once more what failed.

    Attributes:
        recipe: that trains them.
        trials: the list, each numbered by its place.
        grown_from: the network that all of them were grown from; a journal that was begun from another is refused.
        contents: of what they are measured on; None where nobody looked.
        results: those so far, by the trial's number.

    Raises:
        JournalError: the journal is damaged or was begun under other settings; the message names the field.
        DataError: it was begun on other images.
    """

    def __init__(
        self,
        recipe: Recipe,
        trials: Sequence[Trial],
        journal: Journal,
        watch: Callable[[Trials], None] = lambda trials: None,
        grown_from: Architecture | None = None,
        contents: Contents | None = None,
    ) -> None:
        self.recipe = recipe
        self.trials = tuple(trials)
        self.grown_from = grown_from
        self.contents = contents
        self._journal = journal
        self._watch = watch
        known = self._known()
        found = {trial.number: known.get((trial.key, trial.seed)) for trial in self.trials}
        self.results: dict[int, Measurement | Failure] = {
            number: result for number, result in found.items() if result is not None
        }
        self._waiting = [trial for trial in self.trials if trial.number not in self.results]

    @property
    def done(self) -> bool:
        """Whether every trial has been handed out."""
        return not self._waiting

    def next_trial(self) -> Trial | None:
        """The next trial to train; None if there are no more."""
        return self._waiting.pop(0) if self._waiting else None

    def finish(self, trial: Trial, result: Measurement | Failure) -> None:
        """Record what became of a trial.

        Raises:
            JournalError: see `Journal.append`; the result doesn't count here.
        """
        result = checked(result)
        event: dict[str, Any] = {"key": trial.key, "seed": trial.seed, "name": trial.architecture.name}
        if isinstance(result, Failure):
            event |= {"event": "failed", "reason": result.reason}
        else:
            event |= {"event": "completed", **asdict(result)}
        first = [self._header()] if self._journal.empty else []
        self._journal.append(*first, event)
        self.results[trial.number] = result
        self._watch(self)

    def _header(self) -> Event:
        """The first event, written just before the first result: a list that trained nothing binds to nothing."""
        settings = {name: value for name, value in self.recipe.model_dump().items() if name in DEPENDS}
        header: dict[str, Any] = {
            "event": "trials",
            "format": FORMAT,
            "version": __version__,
            "settings": settings,
            "contents": self.contents,
        }
        if self.grown_from:
            header["grown_from"] = {"name": self.grown_from.name, "key": self.grown_from.key()}
        return header

    def _known(self) -> dict[tuple[str, int], Measurement]:
        """The results of an earlier list in the same journal."""
        events = self._journal.replay()
        try:
            if events:
                self._check_header(events[0])
            return {(event["key"], event["seed"]): _result(event) for event in events[1:] if "reason" not in event}
        except KeyError as error:
            raise JournalError(f"{self._journal.path}: damaged: an event lacks {error}") from None
        except (TypeError, AttributeError):
            raise JournalError(f"{self._journal.path}: damaged: a field is of another kind or range") from None

    def _check_header(self, header: Event) -> None:
        path = self._journal.path
        if header.get("format") != FORMAT:
            raise JournalError(f"{path}: format: must be {FORMAT}, not {header.get('format')!r}")
        began = Recipe.parse({**self.recipe.model_dump(), **header.get("settings", {})}, str(path))
        changed = began.with_source_of(self.recipe).differs(self.recipe)
        if changed:
            was, now = (_value(recipe, changed) for recipe in (began, self.recipe))
            raise JournalError(
                f"{path}: {changed} changed since these trainings began, from {was} to {now}; "
                "undo it, or move the file away"
            )
        check_unchanged(header.get("contents"), self.contents)
        began_with = header.get("grown_from", {"name": "no network", "key": None})
        if began_with["key"] != (self.grown_from and self.grown_from.key()):
            raise JournalError(
                f"{path}: these trainings grew another network ({began_with['name']}), or in another shape; undo what "
                "changed of it or of proxy.resolution, width and final_size, or choose another folder"
            )


def train(
    path: Path,
    recipe: Recipe,
    evaluator: Evaluator,
    trials: Sequence[Trial],
    ray_address: str | None = None,
    watch: Callable[[Trials], None] = lambda trials: None,
    grown_from: Architecture | None = None,
) -> dict[int, Measurement | Failure]:
    """Train what the journal at `path` doesn't hold yet; the results by trial number.

    Raises:
        InputError: the data or the journal can't be used.
        KeyboardInterrupt: the user stopped it; the same call goes on.
    """
    with Journal(path) as journal:
        listed = Trials(recipe, trials, journal, watch, grown_from, evaluator.contents(trials[0].architecture))
        watch(listed)
        if not listed.done:
            make_executor(recipe, ray_address).run(listed, evaluator)
    return listed.results


def check_journal(path: Path, recipe: Recipe) -> None:
    """Refuse to go on with an earlier journal, if there is one, that belongs to other trainings.

    Raises:
        JournalError: it does; the message names the field.
    """
    if path.exists():
        with Journal(path) as journal:
            Trials(recipe, [], journal)


def make_folder(folder: Path, journal: str, what: str) -> None:
    """Make the folder of a list of trainings, unless it is there already.

    Args:
        folder: of the user's choice.
        journal: the file by which an earlier run of the same kind is known.
        what: kind of run, for the message.

    Raises:
        InputError: the folder holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"-o {folder}: is not a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / journal).exists():
        raise InputError(f"-o {folder}: exists and holds no {what}; choose another name")
    folder.mkdir(parents=True, exist_ok=True)


def repeated(networks: Sequence[tuple[int, Architecture]], repeats: Iterable[int], seed: int) -> list[Trial]:
    """Each network several times with fresh seeds, whichever other networks there are.

    Args:
        networks: a number that stays the same, such as a child's, and the network.
        repeats: numbers from 1, one for each training of a network; another number is another seed.
        seed: the study's; these seeds differ from those of its children.
    """
    trials: list[Trial] = []
    for repeat in repeats:
        for number, network in networks:
            fresh = int(np.random.SeedSequence([seed, number, repeat]).generate_state(1)[0])
            trials.append(Trial(len(trials), network, network.key(), fresh))
    return trials


def whole_trainings(recipe: Recipe, epochs: int | None, workers: int | None) -> Recipe:
    """The recipe for trainings to their last epoch: no early stopping, the time limit in proportion to the epochs.

    Args:
        recipe: of the search.
        epochs: of a training; None for the proxy's.
        workers: trainings at a time; None for the recipe's.

    Raises:
        RecipeError: the recipe can't have these.
    """
    values = recipe.model_dump()
    executor = values["executor"]
    executor["early_stopping"] = None
    if workers is not None:
        executor["workers"] = workers
    if epochs is not None:
        executor["time_limit"] *= epochs / values["proxy"]["epochs"]
        values["proxy"]["epochs"] = epochs
    return Recipe.parse(values, recipe.name)


def _value(recipe: Recipe, path: str) -> Any:
    """The field of a recipe at a path such as `proxy.epochs`."""
    value: Any = recipe.model_dump()
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _result(event: Event) -> Measurement:
    """A journaled measurement.

    Raises:
        KeyError, TypeError: the event is damaged.
    """
    result = Measurement(event["accuracy"], event["epochs"], event["seconds"])
    if not in_range(result):
        raise TypeError(f"{result} can't be")
    return result
