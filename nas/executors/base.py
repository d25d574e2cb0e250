"""What every executor offers: it pulls trials out of a source, such as a study, and hands the results back."""

from __future__ import annotations

from typing import Protocol

import torch

from nas.evaluators.base import Contents, Evaluator, Failure, Measurement, Report, checked
from nas.ledger import Trial
from nas.training import Diverged, TimeLimitExceeded
from search_space import Architecture, InputError

OWN = (Diverged, TimeLimitExceeded, MemoryError, torch.OutOfMemoryError)
"""How a training fails by itself; after anything else its process may be what is broken, or its machine."""

_MOST_IN_A_ROW = 10
"""Children that fail by anything else, one after the other, before the search stops rather than use up all others."""


class Streak:
    """Counts trainings that failed, one after the other, otherwise than by themselves."""

    def __init__(self) -> None:
        self._length = 0

    def add(self, reason: str | None) -> None:
        """Enter what became of one more.

        Args:
            reason: why it failed; None if it didn't, or by itself.

        Raises:
            InputError: too many have failed.
        """
        self._length = 0 if reason is None else self._length + 1
        if self._length == _MOST_IN_A_ROW:
            raise InputError(
                f"{_MOST_IN_A_ROW} trainings failed one after the other, the last by {reason}; "
                "a machine or a setting may be to blame: fix it and resume; every result is kept"
            )


class Source(Protocol):
    """Where trials come from: a search (`nas.study.Study`) or a fixed list (`nas.trials.Trials`)."""

    @property
    def contents(self) -> Contents | None:
        """Of what the trials are measured on; None where nothing tells."""
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
