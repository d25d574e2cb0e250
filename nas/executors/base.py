"""What every executor offers: it pulls trials out of a source, such as a study, and hands the results back."""

from __future__ import annotations

from typing import Protocol

from nas.evaluators.base import Evaluator, Failure, Measurement
from nas.ledger import Trial


class Source(Protocol):
    """Where trials come from: a search (`nas.study.Study`) or a fixed list (`nas.trials.Trials`)."""

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


class Executor(Protocol):
    """Trains the trials of a source."""

    def run(self, source: Source, evaluator: Evaluator) -> None:
        """Train until the source is done.

        Raises:
            InputError: the user's data can't be used at all.
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
