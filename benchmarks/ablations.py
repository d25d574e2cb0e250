"""What each part of the model_based controller is worth: searches of a benchmark without it.

Usage: python benchmarks/ablations.py [--data FILE] [--seeds 20] [--budgets 50 100 200] [--broken 0.03]

Prints the median regret (accuracy points) of the architecture handed over; the protocol is that of `nas bench`. With
`--broken`, this share of the trainings breaks down and shows an accuracy of 0.1%.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from controllers.accuracy_model import AccuracyModel
from controllers.base import Controller, Outcome, Problem
from controllers.model_based import ModelBased, ModelBasedOptions
from controllers.ppo import PPO
from controllers.reward_model import RewardModel
from controllers.threads import single_threaded
from nas.benchmark_file import format_of
from nas.evaluators.benchmark import BenchmarkEvaluator
from nas.objective import Objective
from search_space import Architecture, load_space
from search_space.cost import flops
from search_space.space import Actions

_CHANCE = 0.001


class WithoutGate(ModelBased):
    """Trusts the model whatever its fit."""

    def _trusts(self, model: AccuracyModel) -> bool:
        return True


class WithoutExactCost(ModelBased):
    """Learns the reward itself."""

    def __init__(self, problem: Problem, options: ModelBasedOptions, seed: int) -> None:
        super().__init__(problem, options, seed)
        self.reward_model.learns_reward = True


class WithoutShrinkage(ModelBased):
    """Hands over the luckiest observation."""

    def recommend(self) -> Architecture | None:
        """The network of the best single reward."""
        observed = self.reward_model.observed
        return self.space.decode(max(observed, key=lambda row: row[1])[0]) if observed else None


class WithoutSecondTrainings(ModelBased):
    """Trains every network once."""

    def _doubtful(self, model: AccuracyModel) -> Actions | None:
        return None


class WithoutPolicy(ModelBased):
    """Mutates the leaders as the policy did before it learned anything."""

    def _imagine(self) -> None:
        pass


class Credulous(RewardModel):
    """Learns from all trainings."""

    def _fit(self, log: Sequence[float] | None) -> AccuracyModel:
        model = super()._fit(log)
        model._least = -np.inf
        return model


class WithBrokenTrainings(ModelBased):
    """Learns also from trainings that broke down."""

    def __init__(self, problem: Problem, options: ModelBasedOptions, seed: int) -> None:
        super().__init__(problem, options, seed)
        self.reward_model = Credulous(problem)


class WithRollouts(ModelBased):
    """Takes the policy's rollouts as candidates too."""

    def _candidates(self, leaders: Sequence[Actions]) -> list[Actions]:
        return [*super()._candidates(leaders), *self._rollouts]


class WithoutMutations(ModelBased):
    """Takes the policy's samples alone, without local search."""

    def _candidates(self, leaders: Sequence[Actions]) -> list[Actions]:
        with single_threaded():
            return self.policy.sample(self.rng, self.options.rollouts)[0]

    def _neighbours(self, actions: Actions) -> list[Actions]:
        return []


VARIANTS: dict[str, type[Controller[Any]]] = {
    "model_based": ModelBased,
    "without the model (ppo)": PPO,
    "without the gate": WithoutGate,
    "without the exact cost": WithoutExactCost,
    "without shrinkage": WithoutShrinkage,
    "without second trainings": WithoutSecondTrainings,
    "without the policy": WithoutPolicy,
    "without mutations": WithoutMutations,
    "with broken trainings": WithBrokenTrainings,
    "with rollouts": WithRollouts,
}


def handed_over(
    controller: Controller[Any],
    evaluator: BenchmarkEvaluator,
    objective: Objective,
    budgets: Sequence[int],
    rng: np.random.Generator,
    broken: float = 0.0,
) -> Iterator[Architecture]:
    """What a controller hands over after each budget of one search, a child at a time.

    `rng` draws the noise, and which share `broken` of the trainings breaks down.
    """
    for child in range(1, max(budgets) + 1):
        (suggestion,) = controller.ask()
        accuracy = float(evaluator.observe([suggestion.actions], rng)[0])
        if broken and rng.random() < broken:
            accuracy = _CHANCE
        cost = flops(evaluator.space.decode(suggestion.actions))
        controller.tell([Outcome(suggestion, float(objective(accuracy, cost)), accuracy, cost)])
        if child in budgets:
            handed = controller.recommend()
            assert handed is not None
            yield handed


def regrets(
    kind: type[Controller[Any]],
    evaluator: BenchmarkEvaluator,
    objective: Objective,
    best: float,
    budgets: Sequence[int],
    seed: int,
    broken: float = 0.0,
) -> list[float]:
    """Regret in points, against the `best` reward, after each budget of one search."""
    controller = kind(Problem(evaluator.space, objective, flops), kind.options_type(), seed)
    found = handed_over(controller, evaluator, objective, budgets, np.random.default_rng(10_000 + seed), broken)
    return [100 * (best - float(objective(evaluator.accuracy(handed), flops(handed)))) for handed in found]


def main() -> None:
    """Run every variant and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="rehearsal")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--budgets", type=int, nargs="+", default=[50, 100, 200])
    parser.add_argument("--broken", type=float, default=0.0)
    arguments = parser.parse_args()
    kind = format_of(arguments.data)
    space = load_space(kind.space)
    evaluator = BenchmarkEvaluator.load(arguments.data, space)
    objective = Objective(target=kind.target)
    best = evaluator.best_reward(objective, flops)[1]
    for name, variant in VARIANTS.items():
        seeds = range(arguments.seeds)
        found = [
            regrets(variant, evaluator, objective, best, arguments.budgets, seed, arguments.broken) for seed in seeds
        ]
        medians = ", ".join(f"{median:.2f}" for median in np.median(found, axis=0))
        print(f"{name:26s} {medians} after {arguments.budgets} children", flush=True)


if __name__ == "__main__":
    main()
