"""The serial executor: one child after the other, in this process."""

from __future__ import annotations

from nas.evaluators.base import Evaluator, Failure, Measurement, describe
from nas.executors.base import OWN, Source, Streak, measure
from nas.ledger import Trial
from search_space import InputError


class SerialExecutor:
    """Trains here; same recipe and seed give byte-identical journals, times aside."""

    def run(self, source: Source, evaluator: Evaluator) -> None:
        """Train until the source is done (see `Executor.run`)."""
        failures = Streak()
        while trial := source.next_trial():
            result, failed = _measured(evaluator, trial)
            source.finish(trial, result)
            failures.add(failed)

    def workers(self) -> int:
        """One (see `Executor.workers`)."""
        return 1


def _measured(evaluator: Evaluator, trial: Trial) -> tuple[Measurement | Failure, str | None]:
    """The child's measurement, or why there is none: a failed child is a result; the reason again unless its own."""
    try:
        return measure(evaluator, trial.architecture, trial.seed, lambda epoch, accuracy: None), None
    except InputError:
        raise
    except Exception as error:
        reason = describe(error)
        return Failure(reason), None if isinstance(error, OWN) else reason
