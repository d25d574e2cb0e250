"""What a user wishes a grown network to cost, and the search for the size that meets it."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from nas.quantities import format_quantity, told_apart
from search_space import cost
from search_space.architecture import Architecture
from search_space.errors import InputError

TOLERANCE = 0.02
"""A wish counts as met within this relative distance."""

MemoryFunction = Callable[[Architecture], int]


@dataclass(frozen=True, slots=True)
class Wish:
    """With FLOPs alone, a network near them is wanted; with memory, both are limits (the paper's equation 2).

    Attributes:
        flops: multiply-adds for one image.
        memory: bytes.
        memory_of: bytes that a network needs.

    Raises:
        InputError: neither is given, or one isn't above 0.
    """

    flops: float | None
    memory: float | None
    memory_of: MemoryFunction

    def __post_init__(self) -> None:
        if self.flops is None and self.memory is None:
            raise InputError("--flops, --memory: give at least one")
        for name, value in (("--flops", self.flops), ("--memory", self.memory)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} {value:g}: must be a number above 0")

    def __str__(self) -> str:
        given = {"--flops": self.flops, "--memory": self.memory}
        return ", ".join(f"{name} {format_quantity(value)}" for name, value in given.items() if value is not None)

    @property
    def is_limit(self) -> bool:
        """Whether nothing may lie above it."""
        return self.memory is not None

    def shares(self, architecture: Architecture) -> dict[str, float]:
        """What the network takes of each budget."""
        shares = {} if self.flops is None else {"FLOPs": cost.flops(architecture) / self.flops}
        return shares if self.memory is None else shares | {"memory": self.memory_of(architecture) / self.memory}

    def share(self, architecture: Architecture) -> float:
        """What the network takes of the tightest budget."""
        return max(self.shares(architecture).values())

    def miss(self, architecture: Architecture) -> float:
        """How far the network is from it, as a share of it."""
        return abs(1 - self.share(architecture))

    def check(self, smallest: Architecture) -> None:
        """Refuse what not even the smallest network meets.

        Raises:
            InputError: it says what that one needs.
        """
        if self.share(smallest) > 1 + (0 if self.is_limit else TOLERANCE):
            budgets = (
                ("--flops", self.flops, cost.flops(smallest), "FLOPs"),
                ("--memory", self.memory, self.memory_of(smallest), "bytes of memory"),
            )
            told = [
                (option, *told_apart(wished, costs), unit)
                for option, wished, costs, unit in budgets
                if wished is not None
            ]
            wishes = " and ".join(f"{option} {given}" for option, given, _, _ in told)
            needs = " and ".join(f"{needed} {unit}" for _, _, needed, unit in told)
            raise InputError(f"{wishes}: nothing fits; the smallest member, {smallest.name} itself, needs {needs}")

    def last_within(self, at: Callable[[int], Architecture], most: int) -> int:
        """The last of the sizes 0 to `most` that doesn't exceed it, for costs only rise with the size; 0 if all do."""
        return max(0, bisect_right(range(most + 1), 1.0, key=lambda size: self.share(at(size))) - 1)
