"""How to choose what to try next: controllers that propose architectures and learn from their rewards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any

from controllers.base import Controller, Options, Outcome, Problem, Suggestion
from controllers.evolution import Evolution
from controllers.model_based import ModelBased
from controllers.ppo import PPO
from controllers.random import RandomSearch
from controllers.reinforce import Reinforce
from search_space import Architecture, InputError, SearchSpace

_CONTROLLERS: dict[str, type[Controller[Any]]] = {
    "evolution": Evolution,
    "model_based": ModelBased,
    "ppo": PPO,
    "random": RandomSearch,
    "reinforce": Reinforce,
}
NAMES = tuple(_CONTROLLERS)

__all__ = ["NAMES", "Controller", "Options", "Outcome", "Problem", "Suggestion", "create", "make_options"]


def make_options(name: str, options: Mapping[str, Any]) -> Options:
    """The options of a controller, the given ones over the defaults.

    Raises:
        InputError: An unknown name or option, or a value of the wrong type or out of range.
    """
    if name not in _CONTROLLERS:
        raise InputError(f"controller: {name!r} is not one of {', '.join(NAMES)}")
    kind = _CONTROLLERS[name].options_type
    valid = [spec.name for spec in fields(kind)]
    for given in options:
        if given not in valid:
            raise InputError(f"{given}: no option of {name}, which has {', '.join(valid) or 'none'}")
    return kind(**options)


def create(
    name: str,
    space: SearchSpace,
    *,
    objective: Callable[[Any, Any], Any],
    cost: Callable[[Architecture], float],
    seed: int,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> Controller[Any]:
    """Build a controller by name.

    Args:
        name: One of `NAMES`.
        space: The search space.
        objective: (accuracy in [0, 1], cost) -> reward, element by element for arrays; it may change during a search.
        cost: Of the deployed network, in the unit that the objective expects; see `Problem`.
        seed: Of everything random in the controller, at least 0.
        options: The controller's own options over their defaults; see its options class.

    Raises:
        InputError: An unknown name or option, or a value of the wrong type or out of range.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed: expected an integer of at least 0, got {seed!r}")
    chosen = make_options(name, options)
    return _CONTROLLERS[name](Problem(space, objective, cost), chosen, seed)
