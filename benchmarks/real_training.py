"""Controllers side by side on real training: equal children, several seeds, the winners trained again.

Usage: python benchmarks/real_training.py digits 24 5 random ppo model_based
       python benchmarks/real_training.py images 20 3 random ppo model_based --set data.source=photos data.holdout=0.5

Each search is serial; one line per search is printed as it ends: the reward that the search saw of the network it
hands over, and the mean reward of that network trained again with `RETRAININGS` fresh seeds on the same split, which no
luck has chosen. Then the medians, and their ratio to the first controller's.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from nas import run
from nas.evaluators import ProxyEvaluator
from nas.recipe import Recipe

RETRAININGS = 3


def search(recipe: Recipe) -> tuple[float, float]:
    """The handed-over network's reward in the search, and its mean reward when trained again."""
    with tempfile.TemporaryDirectory() as folder:
        study = run.start(recipe, Path(folder) / "run", None, lambda *_: None).study
    winner = study.ledger.winner
    evaluator = ProxyEvaluator.of(recipe)
    again = [
        evaluator.evaluate(winner.trial.architecture, 10**6 + seed, lambda *_: None).accuracy
        for seed in range(RETRAININGS)
    ]
    assert winner.reward is not None
    assert winner.cost is not None
    return winner.reward, statistics.mean(study.ledger.objective(accuracy, winner.cost) for accuracy in again)


def main() -> None:
    """Run all searches and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("children", type=int)
    parser.add_argument("seeds", type=int)
    parser.add_argument("controllers", nargs="+")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="laid over the recipe")
    asked = parser.parse_args()
    found: dict[str, list[float]] = {controller: [] for controller in asked.controllers}
    for seed in range(asked.seeds):
        for controller in asked.controllers:
            fixed = [f"controller.name={controller}", f"seed={seed}", f"children={asked.children}"]
            seen, again = search(Recipe.load(asked.recipe, [*fixed, "executor.name=serial", *asked.set]))
            found[controller].append(again)
            print(f"seed {seed}  {controller:>12}  in the search {seen:.4f}  trained again {again:.4f}", flush=True)
    basis = statistics.median(found[asked.controllers[0]])
    for controller, rewards in found.items():
        median = statistics.median(rewards)
        print(f"{controller:>12}  median {median:.4f}  {median / basis:.3f} of {asked.controllers[0]}'s", flush=True)


if __name__ == "__main__":
    main()
