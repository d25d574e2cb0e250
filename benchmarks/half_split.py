"""The surrogate's own winner's curse: search on a fit of one half of a benchmark, judge by a fit of the other.

Usage: python benchmarks/half_split.py FILE [--seeds 10] [--budgets 100 300 1000]

Accel-NASBench's format, T = 400M, model_based, observations with the surrogate's own noise. Prints the median gain over
EfficientNet-B0, in points of reward, of the architecture handed over after each budget: judged by the half that was
searched and by the other half, and the share of the gain that the other half confirms. Every seed searches both halves.
"""

from __future__ import annotations

import argparse
import gzip
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from ablations import handed_over
from threadpoolctl import threadpool_limits

import controllers
from nas.benchmark_file import format_of
from nas.evaluators.benchmark import BenchmarkEvaluator
from nas.objective import Objective
from search_space import Architecture, load_architecture, load_space
from search_space.cost import flops

OBJECTIVE = Objective(target=400e6)


def halves(source: Path) -> list[BenchmarkEvaluator]:
    """Surrogates of two random halves of the file's lines."""
    lines = (gzip.open if source.suffix == ".gz" else open)(source, "rt").readlines()
    order, space = np.random.default_rng(0).permutation(len(lines)), load_space(format_of(str(source)).space)
    fitted = []
    with tempfile.TemporaryDirectory() as folder:
        for i, rows in enumerate(np.array_split(order, 2)):
            path = Path(folder) / f"half{i}.jsonl"
            path.write_text("".join(lines[row] for row in sorted(rows)))
            fitted.append(BenchmarkEvaluator.load(str(path), space))
    return fitted


def points(evaluator: BenchmarkEvaluator, architecture: Architecture) -> float:
    """The reward, in points, of what the evaluator holds for true."""
    return 100 * float(OBJECTIVE(evaluator.accuracy(architecture), flops(architecture)))


def gains(fitted: Sequence[BenchmarkEvaluator], budgets: Sequence[int], job: tuple[int, int]) -> list[list[float]]:
    """Gains over B0 after each budget of the search with this (half, seed), by its own and by the other half."""
    half, seed = job
    own, b0 = fitted[half], load_architecture("efficientnet-b0")
    controller = controllers.create("model_based", own.space, objective=OBJECTIVE, cost=flops, seed=seed)
    found = handed_over(controller, own, OBJECTIVE, budgets, np.random.default_rng([seed, half]))
    return [[points(judge, handed) - points(judge, b0) for judge in (own, fitted[1 - half])] for handed in found]


def main() -> None:
    """Run all searches and print a line for each budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--budgets", type=int, nargs="+", default=[100, 300, 1000])
    arguments = parser.parse_args()
    jobs = [(half, seed) for seed in range(arguments.seeds) for half in (0, 1)]
    with ProcessPoolExecutor(initializer=threadpool_limits, initargs=(1,)) as pool:
        found = list(pool.map(partial(gains, halves(arguments.file), arguments.budgets), jobs))
    for budget, (own, other) in zip(arguments.budgets, np.median(found, axis=0), strict=True):
        print(f"{budget:5} children  own half {own:+.2f}  other half {other:+.2f}  ratio {other / own:.2f}", flush=True)


if __name__ == "__main__":
    main()
