"""What every executor offers: it pulls trials out of a study and hands the results back."""

from __future__ import annotations

from typing import Protocol

from nas.evaluators.base import Evaluator, Failure, Measurement, Report, describe
from nas.study import Study
from search_space import Architecture, InputError


class Executor(Protocol):
    """Trains the children of a study."""

    def run(self, study: Study, evaluator: Evaluator) -> None:
        """Train until the study is done.

        Raises:
            InputError: the user's data can't be used at all.
            KeyboardInterrupt: the user stopped the search; finished children are in the journal.
        """
        ...


def measure(evaluator: Evaluator, architecture: Architecture, seed: int, report: Report) -> Measurement | Failure:
    """The child's measurement, or the reason why there is none: a failed child is a result, the search goes on.

    Raises:
        InputError: the user's data can't be used at all.
    """
    try:
        return evaluator.evaluate(architecture, seed, report)
    except InputError:
        raise
    except Exception as error:
        return Failure(describe(error))
