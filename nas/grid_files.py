"""What a grid search leaves in its folder: the figures, the plot of the comparison and the family."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nas.family import write as write_family
from nas.grid import Grid
from nas.scaling import Member
from nas.statistics import Estimate
from search_space import Architecture, InputError, cost
from search_space.files import write_file

FIGURES, PLOT, FAMILY = "grid.json", "grid.html", "family"


def write(found: Grid, folder: Path) -> list[str]:
    """Write the figures, the plot of the comparison and the family, which takes the place of an earlier one.

    Returns:
        What there is now in the folder.
    """
    family = found.family()
    figures = _figures(found, family)
    write_family(family, folder / FAMILY, _earlier_family(folder / FIGURES))
    (folder / PLOT).unlink(missing_ok=True)
    write_file(folder / FIGURES, json.dumps(figures, indent=1, allow_nan=False) + "\n")
    if found.points:
        from nas.grid_plot import write_plot

        write_plot(figures, folder / PLOT)
    return [FIGURES, *([PLOT] if found.points else []), *([f"{FAMILY}/"] if family else [])]


def _earlier_family(figures: Path) -> list[str]:
    """Names of the networks that an earlier call wrote.

    Raises:
        InputError: its figures are damaged.
    """
    if not figures.exists():
        return []
    try:
        return [member["name"] for member in json.loads(figures.read_text(encoding="utf-8"))["family"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{figures}: damaged; move it away, and the same command writes it again") from None


def _figures(found: Grid, family: Sequence[Member]) -> dict[str, Any]:
    """Everything that was found, for programs and for the plot; accuracies in [0, 1]."""
    plan = found.plan
    assert plan.recipe.proxy is not None
    return {
        "network": plan.architecture.name,
        "base": {**_size(plan.base), "accuracy": _interval(found.base)},
        "settings": plan.settings.model_dump(),
        "epochs": plan.recipe.proxy.epochs,
        "gain_per_doubling": found.gain,
        "noise": found.noise,
        "winner": asdict(found.scaler.coefficients),
        "compound": asdict(found.compound),
        "candidates": [
            {
                "coefficients": [asdict(shares) for shares in result.candidate.coefficients],
                **_size(result.candidate.network),
                "growth": result.candidate.growth,
                "accuracy": result.first,
                "accuracies_again": result.again,
                "accuracy_at_double": result.at_double,
                "estimate_at_double": result.estimate and _interval(result.estimate),
            }
            for result in (*found.leaders, *found.others)
        ],
        "comparison": [
            {
                "dimension": point.dimension,
                "wish": point.wish,
                "growth": point.growth,
                **_size(point.network),
                "accuracies": point.accuracies,
                "accuracy": _interval(point.estimate),
            }
            for point in found.points
        ],
        "family": [{"phi": one.phi, "wished_flops": one.wished_flops, **_size(one.architecture)} for one in family],
        "failures": found.failures,
    }


def _size(network: Architecture) -> dict[str, Any]:
    figures = {"resolution": network.resolution, "flops": cost.flops(network), "params": cost.params(network)}
    return {"name": network.name, "layers": network.layers, **figures}


def _interval(estimate: Estimate) -> dict[str, float]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}
