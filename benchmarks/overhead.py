"""The driver's time per child beyond its training: children that do nothing, on Ray Tune and on the serial executor.

usage: python benchmarks/overhead.py [CHILDREN ...]      (100 1000 5000 by default)

Prints milliseconds per child between the first child's end and the last's, so that Ray's start isn't in them, and how
they grow: the ratio of the last tenth of the children to the first tenth.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from nas.evaluators import Measurement
from nas.evaluators.base import Report
from nas.executors import make_executor
from nas.journal import Journal
from nas.recipe import Recipe
from nas.study import Study
from search_space import Architecture


class Nothing:
    """An evaluator that takes no time."""

    def evaluate(self, architecture: Architecture, seed: int, report: Report) -> Measurement:
        """An accuracy from the seed."""
        return Measurement(seed / 2**32, 1, 0.0)


def finish_times(children: int, executor: str) -> np.ndarray:
    """Seconds at which each child was finished."""
    settings = [f"children={children}", f"executor.name={executor}", "controller.name=random"]
    recipe = Recipe.load("digits", settings)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        with Journal(path) as journal:
            study = Study(recipe, journal)
            make_executor(recipe).run(study, Nothing())
        events = [json.loads(line) for line in path.read_text().splitlines()]
    return np.array([event["time"] for event in events if event["event"] == "completed"])


def main() -> None:
    """Measure each number of children on both executors."""
    print(f"{'executor':>8} {'children':>8} {'ms/child':>9} {'last/first tenth':>17}")
    for executor in ("serial", "tune"):
        for children in map(int, sys.argv[1:] or ("100", "1000", "5000")):
            gaps = np.diff(finish_times(children, executor)) * 1e3
            tenth = max(1, len(gaps) // 10)
            growth = gaps[-tenth:].mean() / gaps[:tenth].mean()
            print(f"{executor:>8} {children:>8} {gaps.mean():>9.1f} {growth:>17.2f}", flush=True)


if __name__ == "__main__":
    main()
