"""How tables and estimates look on the screen."""

from __future__ import annotations

from collections.abc import Container, Iterable

from rich.table import Table

from nas.statistics import FEWEST, Estimate


def plain(headings: Iterable[str], words: Container[str], title: str | None = None) -> Table:
    """An empty table without borders; columns of `words` begin at the left, the others hold numbers."""
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in words else "right", no_wrap=True)
    return table


def how_estimated(leaders: int) -> str:
    """What an estimate is, for so many leaders (see `nas.statistics.shrink`)."""
    if leaders < FEWEST:
        return "the mean"
    return "the mean shrunk towards that of all leaders by as much as their spread looks like seed noise"


def clearness(gain: Estimate) -> str:
    """Whether its interval leaves out zero."""
    if gain.low == gain.high:
        return "repeated trainings were identical, so seed noise is unknown"
    return "a clear difference" if gain.low > 0 else "clearly worse" if gain.high < 0 else "can't be told apart"
