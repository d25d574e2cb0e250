"""The serial executor: one child after the other, in this process."""

from __future__ import annotations

from nas.evaluators.base import Evaluator
from nas.executors.base import measure
from nas.study import Study


class SerialExecutor:
    """Trains here; same recipe and seed give byte-identical journals, times aside."""

    def run(self, study: Study, evaluator: Evaluator) -> None:
        """Train until the study is done (see `Executor.run`)."""
        while trial := study.next_trial():
            study.finish(trial, measure(evaluator, trial.architecture, trial.seed, lambda epoch, accuracy: None))
