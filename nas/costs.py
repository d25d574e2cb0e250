"""What a deployed network costs: FLOPs and params counted, latency measured here."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import cache

from search_space import cost
from search_space.architecture import Architecture

CostFunction = Callable[[Architecture], float]
LATENCY_WARMUP, LATENCY_RUNS = 3, 10

EXACT_COSTS = {"flops": cost.flops, "params": cost.params}
"""Costs that are counted, not measured, by their names in a recipe."""

COSTS = (*EXACT_COSTS, "latency")
"""Names of the costs that need no benchmark."""


def cost_function(name: str) -> CostFunction:
    """The cost of the deployed network: `flops` and `params` exactly, `latency` in ms, measured here once."""
    if name == "latency":
        measured = cache(latency_ms)
        return lambda architecture: measured(architecture.with_(name="any"))  # whatever the child is called
    return EXACT_COSTS[name]


def latency_ms(architecture: Architecture) -> float:
    """Median milliseconds of one image through the network, on the GPU if there is one, else on the CPU."""
    import torch

    from nas.model import build
    from nas.training import seeded

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with seeded(0):
        network = build(architecture).eval()
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
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
