"""The serial executor: one child after the other, in this process."""

from __future__ import annotations

from nas.evaluators.base import Evaluator, Failure, Measurement, describe
from nas.executors.base import Source
from nas.ledger import Trial
from search_space import InputError


class SerialExecutor:
    """Trains here; same recipe and seed give byte-identical journals, times aside."""

    def run(self, source: Source, evaluator: Evaluator) -> None:
        """Train until the source is done (see `Executor.run`)."""
        while trial := source.next_trial():
            source.finish(trial, _measured(evaluator, trial))

    def workers(self) -> int:
        """One (see `Executor.workers`)."""
        return 1


def _measured(evaluator: Evaluator, trial: Trial) -> Measurement | Failure:
    """The child's measurement, or the reason why there is none: a failed child is a result, the search goes on."""
    try:
        return evaluator.evaluate(trial.architecture, trial.seed, lambda epoch, accuracy: None)
    except InputError:
        raise
    except Exception as error:
        return Failure(describe(error))
