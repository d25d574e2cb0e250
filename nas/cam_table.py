"""The networks of activation maps, as a table."""

from __future__ import annotations

from rich.table import Table

from nas.cam import Cam
from nas.quantities import format_quantity
from nas.tables import plain
from search_space import cost


def cam_table(found: Cam) -> Table:
    """The networks of the activation maps: what they cost and how accurate they are."""
    headings = ("grown in", "FLOPs", "params", "layers", "pixels", "last map", "accuracy")
    shown = plain(headings, ("grown in",))
    for view in found.views:
        network, size = view.architecture, view.maps.shape[-1]
        costs = (format_quantity(cost.flops(network)), format_quantity(cost.params(network)))
        counts = (str(network.layers), str(network.resolution), f"{size} x {size}")
        shown.add_row(view.name, *costs, *counts, f"{view.accuracy:.2%}")
    return shown
