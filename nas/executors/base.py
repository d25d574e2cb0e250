"""What every executor offers: it pulls trials out of a source, such as a study, and hands the results back."""

from __future__ import annotations

from typing import Protocol

from nas.evaluators.base import Contents, Evaluator, Failure, Measurement, Report, checked
from nas.ledger import Trial
from nas.training import Diverged, TimeLimitExceeded
from search_space import Architecture, InputError

OWN = (Diverged, TimeLimitExceeded)
"""How a training fails by itself; after anything else its process may be what is broken, or its machine."""

_MOST_IN_A_ROW = 10
"""Children that fail by anything else, one after the other, before the search stops rather than use up all others."""


class Source(Protocol):
    """Where trials come from: a search (`nas.study.Study`) or a fixed list (`nas.trials.Trials`)."""

    @property
    def contents(self) -> Contents | None:
        """What identifies the data that the trials are measured on; None where nothing tells."""
        ...

    @property
    def done(self) -> bool:
        """Whether every trial has been handed out."""
        ...

    def next_trial(self) -> Trial | None:
        """The next trial; None if there is none now, or, when `done`, none any more."""
        ...

    def finish(self, trial: Trial, result: Measurement | Failure) -> None:
        """Record what became of a trial."""
        ...


class ResultBuffer:
    """Brings results to a source; a failure that a machine may be to blame for waits until one ends in another way.

    Where too many fail in a row, those that wait are never recorded: `resume` trains them again.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._waiting: list[tuple[Trial, Failure]] = []

    def deliver(self, trial: Trial, result: Measurement | Failure, suspect: bool) -> None:
        """Bring a result.

        Args:
            trial: that was trained.
            result: what became of it.
            suspect: of a failure, whether it failed otherwise than by itself.

        Raises:
            InputError: too many have, one after the other.
            JournalError: a result can't be written.
        """
        if isinstance(result, Measurement) or not suspect:
            try:
                self.flush()
            finally:  # a full disk may still have room for this one
                self._source.finish(trial, result)
            return
        self._waiting.append((trial, result))
        if len(self._waiting) == _MOST_IN_A_ROW:
            self._waiting.clear()
            raise InputError(
                f"{_MOST_IN_A_ROW} trainings failed one after the other, the last by {result.reason}; a machine or a "
                "setting may be to blame: fix it and go on, which trains them again; every result is kept"
            )

    def flush(self) -> bool:
        """Bring what waits, for nothing else will tell; returns whether anything did.

        Raises:
            JournalError: a result can't be written.
        """
        any_waiting = bool(self._waiting)
        while self._waiting:
            self._source.finish(*self._waiting.pop(0))
        return any_waiting


def measure(evaluator: Evaluator, architecture: Architecture, seed: int, report: Report) -> Measurement:
    """What an evaluator measures (see `Evaluator.evaluate`).

    Raises:
        ValueError: it returned something else.
    """
    result = checked(evaluator.evaluate(architecture, seed, report))
    if isinstance(result, Failure):
        raise ValueError(result.reason)
    return result


class Executor(Protocol):
    """Trains the trials of a source."""

    def run(self, source: Source, evaluator: Evaluator) -> None:
        """Train until the source is done.

        Raises:
            InputError: the user's data can't be used at all, or one child after the other fails.
            JournalError: a result can't be written; if only the disk is full, what was being trained is kept.
            KeyboardInterrupt: the user stopped the search; finished children are in the journal.
        """
        ...

    def workers(self) -> int:
        """How many it trains at a time.

        Raises:
            InputError: no machine has what a child needs.
        """
        ...
