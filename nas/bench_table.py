"""The searches of controllers side by side, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from nas.tables import plain


def bench_table(summary: Mapping[str, Any]) -> Table:
    """Median regrets with quartiles, a row for each controller and a column for each budget."""
    budgets = [f"{budget:,} children" for budget in summary["setup"]["budgets"]]
    headings = ("controller", "seeds", *budgets, "ms per child")
    title = "regret in accuracy points: median (quartiles)"
    if summary["setup"]["objective"] == "auto":
        title += "; beside the best reward under hard, whose network may miss T"
    table = plain(headings, ("controller",), title)
    for name, figures in summary["controllers"].items():
        if not figures["seeds"]:
            continue
        quartiles = zip(figures["regret_median"], figures["regret_q25"], figures["regret_q75"], strict=True)
        cells = [f"{median:.2f} ({low:.2f}-{high:.2f})" for median, low, high in quartiles]
        table.add_row(name, str(figures["seeds"]), *cells, f"{1000 * figures['seconds_per_child']:.1f}")
    return table
