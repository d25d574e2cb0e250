"""The serial executor: one child after the other, in this process."""

from __future__ import annotations

from nas.evaluators.base import Evaluator, Failure, Measurement, describe
from nas.executors.base import OWN, ResultBuffer, Source, measure
from nas.ledger import Trial
from search_space import InputError


class SerialExecutor:
    """Trains here; same recipe and seed give byte-identical journals, times aside."""

    def run(self, source: Source, evaluator: Evaluator) -> None:
        """Train until the source is done (see `Executor.run`)."""
        results = ResultBuffer(source)
        while (trial := source.next_trial()) or results.flush():
            if trial is not None:
                results.deliver(trial, *_measured(evaluator, trial))

    def workers(self) -> int:
        """One (see `Executor.workers`)."""
        return 1


def _measured(evaluator: Evaluator, trial: Trial) -> tuple[Measurement | Failure, bool]:
    """The child's measurement, or why there is none; and whether it failed otherwise than by itself."""
    try:
        return measure(evaluator, trial.architecture, trial.seed, lambda epoch, accuracy: None), False
    except InputError:
        raise
    except Exception as error:
        return Failure(describe(error)), not isinstance(error, OWN)
