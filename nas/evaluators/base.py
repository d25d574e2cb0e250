"""What every evaluator offers: an architecture and a seed in, a measurement out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from search_space.architecture import Architecture
from search_space.errors import DataError

Report = Callable[[int, float], None]
Contents = dict[str, Any]
"""What identifies the data that children are measured on, wherever it lies: counts by what is counted, and a digest; of
images also `guess`, the accuracy of naming one class for all that measure the reward, and `left_out`, files that are no
images by extension, if there are any."""

_NOT_COMPARED = {"guess", "left_out"}
"""Contents that don't make the data others: a seed may choose the one, the other isn't used."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was measured of one child.

    Attributes:
        accuracy: on the reward's images, in [0, 1].
        epochs: trained; fewer than the proxy's if early stopping ended it.
        seconds: of training and measuring.
    """

    accuracy: float
    epochs: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a child has no measurement."""

    reason: str


class Evaluator(Protocol):
    """Measures architectures; it must be picklable, for it travels to the workers."""

    def contents(self, architecture: Architecture) -> Contents:
        """What identifies the data that an architecture is measured on.

        Raises:
            InputError: the user's data can't be used at all.
        """
        ...

    def evaluate(self, architecture: Architecture, seed: int, report: Report) -> Measurement:
        """Measure one architecture.

        Args:
            architecture: the deployed network.
            seed: of every random draw.
            report: called after every epoch with its number from 1 and the accuracy, for early stopping.

        Raises:
            InputError: the user's data can't be used; the search ends, if other workers can't use them either.
            Exception: anything else is a failed child, if other workers fail as well; the search goes on.
        """
        ...


def check_unchanged(then: Contents | None, now: Contents | None) -> None:
    """Refuse other images, or another benchmark's file, than earlier children were measured on: they can't be compared.

    Args:
        then: from a journal; None where it tells nothing. What only one of the two tells is ignored, and so is `guess`,
            for a seed may choose which images measure the reward, and what isn't an image.
        now: None where nothing is to be trained, so that nobody looked.

    Raises:
        DataError: they differ.
    """
    if then and now and _differ(then, now):
        source, was, is_now = _difference(then, now)
        raise DataError(
            f"{source}: its content changed since the run began, from {was} to {is_now}; new children couldn't "
            "be compared with the earlier ones: put it back, or start anew elsewhere"
        )


def check_same(driver: Contents, worker: Contents) -> None:
    """Refuse to measure on other data than where the search runs: children couldn't be compared.

    Args:
        driver: contents where the search runs.
        worker: contents where a child is to train.

    Raises:
        DataError: they differ.
    """
    if _differ(driver, worker):
        source, there, here = _difference(driver, worker)
        raise DataError(f"{source}: a worker has {here}, where the search runs there are {there}; copy the same to all")


def _differ(one: Contents, other: Contents) -> bool:
    return any(one[name] != other[name] for name in one.keys() & other.keys() - _NOT_COMPARED)


def _difference(one: Contents, other: Contents) -> tuple[str, str, str]:
    """The recipe's field that names the data, and the two that differ, in words."""
    first, second = (
        ", ".join(f"{count:,} {name}" for name, count in each.items() if isinstance(count, int))
        for each in (one, other)
    )
    source, order = ("benchmark.source", " or in another order") if "networks" in other else ("data.source", "")
    return source, first, second + (f" with other values{order}" if first == second else "")


def checked(result: Measurement | Failure) -> Measurement | Failure:
    """A result as a journal tells it again, in Python's own numbers; what can't be one is a failure.

    Seconds that can't be, as after a clock was set back, count as none: they cost no child.
    """
    if isinstance(result, Failure):
        return result
    if not isinstance(result, Measurement):
        return Failure(f"the evaluator returned {result!r:.100}, not a Measurement")
    try:
        accuracy, epochs, seconds = float(result.accuracy), int(result.epochs), round(float(result.seconds), 3)
    except (TypeError, ValueError, OverflowError) as error:
        return Failure(f"{result} isn't in numbers: {error}")
    if not 0 <= accuracy <= 1:
        return Failure(f"the accuracy is {accuracy}, not in [0, 1]")
    if epochs < 0:
        return Failure(f"the number of epochs is {epochs}")
    return Measurement(accuracy, epochs, seconds if 0 <= seconds < math.inf else 0.0)


def in_range(result: Measurement) -> bool:
    """Whether a measurement that was read from a file is one that can be."""
    kinds = type(result.accuracy) in (int, float), type(result.epochs) is int, type(result.seconds) in (int, float)
    return all(kinds) and 0 <= result.accuracy <= 1 and result.epochs >= 0 and 0 <= result.seconds < math.inf


def describe(error: BaseException) -> str:
    """An exception as the one-line reason of a failed child."""
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"[:500]
