"""The serial executor: one child after the other, in this process."""

from __future__ import annotations

from nas.evaluators.base import Evaluator
from nas.executors.base import Source, measure


class SerialExecutor:
    """Trains here; same recipe and seed give byte-identical journals, times aside."""

    def run(self, source: Source, evaluator: Evaluator) -> None:
        """Train until the source is done (see `Executor.run`)."""
        while trial := source.next_trial():
            source.finish(trial, measure(evaluator, trial.architecture, trial.seed, lambda epoch, accuracy: None))

    def workers(self) -> int:
        """One (see `Executor.workers`)."""
        return 1
