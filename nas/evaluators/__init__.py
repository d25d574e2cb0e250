"""Evaluators: how a child is measured."""

from nas.evaluators.base import Evaluator, Failure, Measurement
from nas.evaluators.proxy import ProxyEvaluator

__all__ = ["Evaluator", "Failure", "Measurement", "ProxyEvaluator"]
