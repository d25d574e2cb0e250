"""The plot of `nas bench`: regret against children, one offline HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from nas.quantities import format_quantity
from search_space.files import write_file

# Okabe and Ito's colours, which the colour-blind can tell apart
_COLOURS = ("0,114,178", "213,94,0", "0,158,115", "204,121,167", "86,180,233", "230,159,0", "0,0,0", "148,148,0")


def write_plot(summary: Mapping[str, Any], path: Path) -> None:
    """Draw median regret with its quartiles, of every controller with a finished search.

    Args:
        summary: see `nas.bench.summary`.
        path: of the HTML file, which needs no network.

    Raises:
        InputError: the disk is full, or the folder can't be written.
    """
    figure, setup = go.Figure(), summary["setup"]
    budgets = setup["budgets"]
    for number, (name, figures) in enumerate(summary["controllers"].items()):
        if figures["seeds"]:
            _add(figure, name, figures, budgets, _COLOURS[number % len(_COLOURS)])
    title = f"{setup['space']}, T = {format_quantity(setup['target'])} FLOPs, objective {setup['objective']}"
    seeds = {figures["seeds"] for figures in summary["controllers"].values() if figures["seeds"]}
    searches = " to ".join(map(str, sorted({min(seeds), max(seeds)})))
    noun = "search" if seeds == {1} else "searches"
    details = f"medians and quartiles of {searches} {noun}, noise {setup['noise']:.2g} points"
    ticks = {"tickvals": budgets, "ticktext": [f"{budget:,}" for budget in budgets]}
    figure.update_layout(
        title={"text": f"{title}<br><sub>{details}, {setup['in_flight']} in flight</sub>"},
        xaxis={"title": "measured children", "type": "log", **ticks},
        yaxis={"title": "regret of the hand-over (accuracy points)", "rangemode": "tozero"},
        template="plotly_white",
        font={"size": 15},
        legend={"title": "controller"},
        margin={"t": 90},
    )
    write_file(path, figure.to_html(include_plotlyjs=True, config={"displaylogo": False}))


def _add(figure: go.Figure, name: str, figures: Mapping[str, Any], budgets: list[int], colour: str) -> None:
    """A line of medians in a band of quartiles; a click on the legend takes both away."""
    figure.add_scatter(
        x=[*budgets, *reversed(budgets)],
        y=[*figures["regret_q75"], *reversed(figures["regret_q25"])],
        fill="toself",
        fillcolor=f"rgba({colour},0.15)",
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
        legendgroup=name,
    )
    figure.add_scatter(
        x=budgets,
        y=figures["regret_median"],
        mode="lines+markers",
        line={"color": f"rgb({colour})", "width": 2.5},
        zorder=1,
        name=name,
        legendgroup=name,
        hovertemplate=f"{name}: %{{y:.2f}} points after %{{x:,}} children<extra></extra>",
    )
