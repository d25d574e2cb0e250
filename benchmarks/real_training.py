"""Controllers side by side on real training: equal children, several seeds, the winners trained again.

usage: python benchmarks/real_training.py RECIPE CHILDREN SEEDS CONTROLLER... [-- key=value ...]
   eg: python benchmarks/real_training.py digits 24 5 random ppo model_based
       python benchmarks/real_training.py images 20 3 random ppo model_based -- data.source=photos data.holdout=0.5

Each search is serial; one line per search is printed as it ends: the reward that the search saw of the network it
hands over, and the mean reward of that network trained again with `RETRAININGS` fresh seeds on the same split, which no
luck has chosen. Then the medians, and their ratio to the first controller's.
"""

from __future__ import annotations

import statistics
import sys
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
    arguments, settings = sys.argv[1:], []
    if "--" in arguments:
        arguments, settings = arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 :]
    name, children, seeds, *names = arguments
    found: dict[str, list[float]] = {controller: [] for controller in names}
    for seed in range(int(seeds)):
        for controller in names:
            fixed = [f"controller.name={controller}", f"seed={seed}", f"children={children}", "executor.name=serial"]
            seen, again = search(Recipe.load(name, [*fixed, *settings]))
            found[controller].append(again)
            print(f"seed {seed}  {controller:>12}  in the search {seen:.4f}  trained again {again:.4f}", flush=True)
    basis = statistics.median(found[names[0]])
    for controller, rewards in found.items():
        median = statistics.median(rewards)
        print(f"{controller:>12}  median {median:.4f}  {median / basis:.3f} of {names[0]}'s", flush=True)


if __name__ == "__main__":
    main()
