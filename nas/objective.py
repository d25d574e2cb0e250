"""Rewards: accuracy against cost, and the costs themselves."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from search_space import cost
from search_space.architecture import Architecture

CostFunction = Callable[[Architecture], float]
LATENCY_WARMUP, LATENCY_RUNS = 3, 10
_SUFFIXES = {"K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9}


@dataclass(frozen=True, slots=True)
class Objective:
    """ACC(m) * [COST(m) / T]^w (MnasNet, arXiv 1807.11626, equations 2 and 3).

    With one exponent on both sides T cancels out of the ranking; a `w_above` of its own makes T count. The paper's
    hard form is `w=0, w_above=-1`, its soft form and the default `w=-0.07` on both sides.

    Attributes:
        target: T, in the cost's unit: multiply-adds, parameters or milliseconds.
        w: the exponent up to T.
        w_above: the exponent above T; None for `w`.
    """

    target: float
    w: float = -0.07
    w_above: float | None = None

    def __call__(self, accuracy: float, cost: float) -> float:
        """The reward of an accuracy in [0, 1] at a cost in the target's unit."""
        above = self.w if self.w_above is None else self.w_above
        exponent = self.w if cost <= self.target else above
        return accuracy * float((cost / self.target) ** exponent)


def cost_function(name: str) -> CostFunction:
    """The cost of the deployed network: `flops` and `params` exactly, `latency` measured on this machine in ms."""
    if name == "latency":
        return cache(latency_ms)
    return {"flops": cost.flops, "params": cost.params}[name]


def latency_ms(architecture: Architecture) -> float:
    """Median milliseconds of one image through the network, on the GPU if there is one, else on the CPU."""
    import torch

    from nas.model import build

    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = build(architecture).eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = torch.zeros(1, 3, architecture.resolution, architecture.resolution, device=device)
    times = []
    with torch.inference_mode():
        for _ in range(LATENCY_WARMUP + LATENCY_RUNS):
            start = time.perf_counter()
            network(image)
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[LATENCY_WARMUP:])


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


def format_quantity(value: float) -> str:
    """A count for people: 385.8M, 5.289M, 1.827G."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:g}"
