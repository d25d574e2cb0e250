"""Executors: where the children train."""

from __future__ import annotations

from nas.executors.base import Executor
from nas.executors.serial import SerialExecutor
from nas.limits import check_gpu
from nas.recipe import Recipe
from search_space import InputError

__all__ = ["Executor", "SerialExecutor", "make_executor"]


def make_executor(recipe: Recipe, ray_address: str | None = None) -> Executor:
    """The executor that a recipe names; Ray is imported only for `tune`.

    Args:
        recipe: of the trainings.
        ray_address: of a running Ray cluster; None to begin one here.

    Raises:
        InputError: a cluster's address for an executor that uses none, or a GPU where this process has none.
    """
    if recipe.executor.name == "serial" or recipe.proxy is None:
        if ray_address is not None:
            instead = "; set executor.name=tune" if recipe.proxy else ""
            raise InputError(f"--ray-address: this recipe trains in one process, without Ray{instead}")
        if recipe.proxy is not None:
            check_gpu(recipe.executor)
        return SerialExecutor()
    from nas.executors.tune import TuneExecutor

    return TuneExecutor(recipe.executor, recipe.proxy.epochs, ray_address)
