"""Evaluators: how a child is measured."""

from __future__ import annotations

from nas.evaluators.base import Evaluator, Failure, Measurement
from nas.evaluators.benchmark import BenchmarkEvaluator
from nas.evaluators.proxy import ProxyEvaluator
from nas.recipe import Recipe

__all__ = ["BenchmarkEvaluator", "Evaluator", "Failure", "Measurement", "ProxyEvaluator", "make_evaluator"]


def make_evaluator(recipe: Recipe) -> ProxyEvaluator | BenchmarkEvaluator:
    """The evaluator that a recipe describes, its images or its benchmark loaded.

    Raises:
        InputError: they can't be used; the message names the file.
    """
    if recipe.benchmark:
        return BenchmarkEvaluator.of(recipe)
    evaluator = ProxyEvaluator.of(recipe)
    evaluator.images(recipe.load_baseline())
    return evaluator
