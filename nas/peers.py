"""Optimizers of other packages behind our ask/tell interface, for `nas bench` alone."""

from __future__ import annotations

from collections import defaultdict, deque
from importlib import import_module
from typing import Any

from controllers.base import Controller, Options, Outcome, Problem, Suggestion
from search_space import InputError

_EXTRA = "pip install -c constraints.txt -e '.[peers]'"


class OptunaTPE(Controller[Options]):
    """Optuna's multivariate tree-structured Parzen estimator (Bergstra et al. 2011), with its constant liar."""

    def __init__(self, problem: Problem, options: Options, seed: int) -> None:
        super().__init__(problem, options, seed)
        optuna = _import("optuna")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        sampler = optuna.samplers.TPESampler(multivariate=True, constant_liar=True, seed=seed)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._pending: defaultdict[tuple[int, ...], deque[Any]] = defaultdict(deque)

    def _suggest(self) -> Suggestion:
        trial = self._study.ask()
        choices = (range(len(decision.choices)) for decision in self.space.decisions)
        actions = tuple(trial.suggest_categorical(str(i), list(options)) for i, options in enumerate(choices))
        self._pending[actions].append(trial)
        return Suggestion(actions)

    def _learn(self, outcome: Outcome) -> None:
        self._study.tell(self._pending[outcome.suggestion.actions].popleft(), outcome.reward)


class PyGloveEvolution(Controller[Options]):
    """PyGlove's regularised evolution (Real et al. 2019), population 50, tournaments of 10."""

    def __init__(self, problem: Problem, options: Options, seed: int) -> None:
        super().__init__(problem, options, seed)
        pyglove = _import("pyglove")
        mutator = pyglove.evolution.mutators.Uniform(seed=seed)
        self._evolution = pyglove.evolution.regularized_evolution(
            mutator, population_size=50, tournament_size=10, seed=seed
        )
        choices = [pyglove.oneof(list(range(len(decision.choices)))) for decision in self.space.decisions]
        self._evolution.setup(pyglove.dna_spec(pyglove.List(choices)))
        self._pending: defaultdict[tuple[int, ...], deque[Any]] = defaultdict(deque)

    def _suggest(self) -> Suggestion:
        dna = self._evolution.propose()
        actions = tuple(dna.to_numbers())
        self._pending[actions].append(dna)
        return Suggestion(actions)

    def _learn(self, outcome: Outcome) -> None:
        self._evolution.feedback(self._pending[outcome.suggestion.actions].popleft(), outcome.reward)


PEERS: dict[str, type[Controller[Any]]] = {"optuna-tpe": OptunaTPE, "pyglove-evolution": PyGloveEvolution}


def _import(package: str) -> Any:
    """A package of the extra `peers`.

    Raises:
        InputError: it is not installed.
    """
    try:
        return import_module(package)
    except ImportError:
        raise InputError(f"--controllers: {package} is not installed: {_EXTRA}") from None
