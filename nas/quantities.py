"""Numbers as people write them: 400M, 1.8G, `2 epochs`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from search_space.errors import InputError

_SUFFIXES = {"K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}


def parse_quantity(text: str) -> float:
    """`400M`, `1.8G`, `4e8` or `400000000` as a number.

    Raises:
        ValueError: the text is none of these.
    """
    number, unit = text.strip(), 1.0
    if number[-1:].upper() in _SUFFIXES:
        number, unit = number[:-1], _SUFFIXES[number[-1].upper()]
    try:
        return float(number) * unit
    except ValueError:
        raise ValueError(f"must be a number such as 400M, 1.8G or 4e8, not {text!r}") from None


def parse_amount(option: str, text: str | None) -> float | None:
    """A command's option such as `1.8G` as a number, None as None.

    Raises:
        InputError: the text is no positive number; it names the option.
    """
    if text is None:
        return None
    try:
        value = parse_quantity(text)
    except ValueError as error:
        raise InputError(f"{option}: {error}") from None
    if not 0 < value < math.inf:
        raise InputError(f"{option}: must be positive, not {text}")
    return value


def unreachable(target: float, low: float, high: float, cost: str, space: str) -> str:
    """Why a recipe's T can't be met, in words: the space's networks cost from `low` to `high` in the unit of `cost`."""
    wrong, *ends = told_apart(target, low, high)
    return f"objective.target: {wrong} is outside what {space} reaches: {' to '.join(ends)} {cost}"


def told_apart(value: float, *others: float) -> list[str]:
    """A quantity and others for people, with as many digits as tell the first from the others."""
    texts: list[str] = []
    for digits in range(4, 18):
        texts = [format_quantity(number, digits) for number in (value, *others)]
        if texts[0] not in texts[1:]:
            break
    return texts


def commonest(counts: Mapping[str, int]) -> str:
    """The three that are counted most: `.heic, .mov, .txt, ...`."""
    return ", ".join([name for name, _ in Counter(counts).most_common(3)] + ["..."] * (len(counts) > 3))


def plural(number: int, what: str) -> str:
    """`1 epoch`, `2 epochs`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def format_quantity(value: float, digits: int = 4) -> str:
    """A count for people: 385.8M, 5.289M, 1.827G."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.{digits}g}{unit}"
    return f"{value:.{digits}g}"
