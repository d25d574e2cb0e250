"""Controllers side by side on real training: the digits recipe, equal children, several seeds.

usage: python benchmarks/digits.py [CHILDREN] [SEEDS]      (24 children, 5 seeds by default)

Runs serial searches, two at a time, and prints each controller's final reward (of the best child) per seed, their
median, and the ratio of the median to random's.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from nas import run
from nas.recipe import Recipe

CONTROLLERS = ("random", "evolution", "ppo")


def final_reward(controller: str, seed: int, children: int) -> float:
    """Reward of the best child of one search."""
    settings = [f"controller.name={controller}", f"seed={seed}", f"children={children}", "executor.name=serial"]
    with tempfile.TemporaryDirectory() as folder:
        _, study = run.start(Recipe.load("digits", settings), Path(folder) / "run", None, lambda *_: None)
    return study.ledger.best(1)[0].reward or 0.0


def main() -> None:
    """Run all searches and print the table."""
    children, seeds = (int(value) for value in (sys.argv[1:] + ["24", "5"][len(sys.argv) - 1 :]))
    with ProcessPoolExecutor(2) as pool:
        jobs = {
            (name, seed): pool.submit(final_reward, name, seed, children)
            for seed in range(seeds)
            for name in CONTROLLERS
        }
        found = {name: [jobs[name, seed].result() for seed in range(seeds)] for name in CONTROLLERS}
    basis = statistics.median(found["random"])
    print(f"{children} children")
    for name, rewards in found.items():
        median = statistics.median(rewards)
        listed = " ".join(f"{reward:.4f}" for reward in rewards)
        print(f"{name:>10}  median {median:.4f}  {median / basis:.3f} of random's  ({listed})", flush=True)


if __name__ == "__main__":
    main()
