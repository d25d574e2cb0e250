"""A network stage by stage, as a table."""

from __future__ import annotations

from rich.table import Table

from nas.quantities import format_quantity
from nas.tables import plain
from search_space import Architecture, cost
from search_space.architecture import Part


def stage_table(architecture: Architecture, beside: Architecture | None = None) -> Table:
    """Stage by stage: what it is, its output, FLOPs and params; another network beside it where given."""
    networks = [architecture] if beside is None or beside.key() == architecture.key() else [architecture, beside]
    names = [network.name for network in networks]
    headings = [heading for name in names for heading in (name, "output", "FLOPs", "params")]
    table = plain(["part", *headings], ["part", *names])
    columns = [{part.name: (part, part_cost) for part, part_cost in cost.per_part(network)} for network in networks]
    longest = max(columns, key=len)
    for name in longest:
        cells = []
        for network, column in zip(networks, columns, strict=True):
            cells += _part_cells(network, *column[name]) if name in column else [""] * 4
        table.add_row(name, *cells)
    totals = []
    for network in networks:
        total = cost.total(network)
        totals += ["", "", format_quantity(total.flops), format_quantity(total.params)]
    table.add_row("total", *totals, style="bold")
    return table


def _part_cells(network: Architecture, part: Part, part_cost: cost.Cost) -> list[str]:
    out = part.out_shape
    shape = f"{out.chs}x{out.size}x{out.size}"
    return [_describe(network, part.name), shape, format_quantity(part_cost.flops), format_quantity(part_cost.params)]


def _describe(network: Architecture, name: str) -> str:
    """A part in a few letters, as papers write it: `2 x mbconv6 k3 s2 se0.25`."""
    if name == "stem":
        stem = network.stem
        return f"conv k{stem.kernel_size} s{stem.stride}" + (" maxpool" if stem.pool == "max" else "")
    if name == "head":
        return "pool, linear" if network.head.out_chs is None else "conv k1, pool, linear"
    stage = network.stages[int(name[len("stages[") : -1])]
    ratio = f"{stage.exp_ratio:g}" if stage.op in ("mbconv", "bottleneck") else ""
    words = [f"{stage.layers} x {stage.op}{ratio}", f"k{stage.kernel_size}", f"s{stage.stride}"]
    words += [f"se{stage.se_ratio:g}"] if stage.se_ratio else []
    words += [f"skip {stage.skip}"] if stage.skip != "identity" else []
    return " ".join(words)
