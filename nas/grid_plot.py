"""The plot of `nas scale --grid --compare`: accuracy against FLOPs for each way to grow, one offline HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from nas.quantities import format_quantity, plural
from search_space.files import write_file

# Okabe and Ito's colours, which the colour-blind can tell apart
_COLOURS = {"compound": "#D55E00", "width": "#0072B2", "depth": "#009E73", "resolution": "#CC79A7"}
_NUDGE = 1.006  # so that intervals at equal FLOPs stay side by side


def write_plot(figures: Mapping[str, Any], path: Path) -> None:
    """Draw a line with 95% intervals for each dimension, all from the base network on.

    Args:
        figures: see `nas.grid_files.write`.
        path: of the HTML file, which needs no network.

    Raises:
        InputError: the disk is full, or the folder can't be written.
    """
    figure, base, compound = go.Figure(), figures["base"], figures["compound"]
    growths: list[float] = sorted({point["wish"] for point in figures["comparison"]})
    for place, dimension in enumerate(_COLOURS):
        points = [point for point in figures["comparison"] if point["dimension"] == dimension]
        _add(figure, dimension, [base, *points], _NUDGE**place)
    shares = ", ".join(f"{name} {compound[name]:g}" for name in ("alpha", "beta", "gamma"))
    title = f"{base['name']} grown in one dimension or in several"
    trainings, epochs = plural(figures["settings"]["seeds"], "training"), plural(figures["epochs"], "epoch")
    details = f"means and 95% intervals of {trainings} of {epochs}"
    figure.update_layout(
        title={"text": f"{title}<br><sub>compound: {shares}; {details}</sub>"},
        xaxis={"title": "FLOPs (multiply-adds)", "type": "log", **_ticks(base["flops"], growths)},
        yaxis={"title": "accuracy of the proxy (%)"},
        template="plotly_white",
        font={"size": 15},
        legend={"title": "growth in"},
        margin={"t": 90},
    )
    write_file(path, figure.to_html(include_plotlyjs=True, config={"displaylogo": False}))


def _ticks(flops: float, growths: Sequence[float]) -> dict[str, Any]:
    """The base's FLOPs and the wished multiples of them."""
    at = [1.0, *growths]
    texts = [f"{format_quantity(flops * growth)}<br>x{growth:g}" for growth in at]
    return {"tickvals": [flops * growth for growth in at], "ticktext": texts}


def _add(figure: go.Figure, dimension: str, points: Sequence[Mapping[str, Any]], nudge: float) -> None:
    """One way to grow; points at the same network's FLOPs are drawn a little apart."""
    accuracies = [point["accuracy"] for point in points]
    texts = [
        f"{point['name']}<br>{format_quantity(point['flops'])} FLOPs, {point['resolution']} px" for point in points
    ]
    figure.add_scatter(
        x=[point["flops"] * (nudge if i else 1) for i, point in enumerate(points)],
        y=[100 * accuracy["value"] for accuracy in accuracies],
        error_y={
            "array": [100 * (accuracy["high"] - accuracy["value"]) for accuracy in accuracies],
            "thickness": 1.2,
            "width": 4,
        },
        mode="lines+markers",
        line={"color": _COLOURS[dimension], "width": 3.5 if dimension == "compound" else 2},
        marker={"size": 8},
        name=dimension,
        text=texts,
        hovertemplate="%{text}<br>%{y:.2f}%<extra>" + dimension + "</extra>",
    )
