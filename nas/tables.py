"""How tables look on the screen."""

from __future__ import annotations

from collections.abc import Container, Iterable

from rich.table import Table


def plain(headings: Iterable[str], words: Container[str], title: str | None = None) -> Table:
    """An empty table without borders; columns of `words` begin at the left, the others hold numbers."""
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in words else "right", no_wrap=True)
    return table
