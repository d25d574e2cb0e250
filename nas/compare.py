"""A family beside published networks, as in EfficientNet's table 2 (Tan & Le 2019, arXiv 1905.11946)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from nas.quantities import format_quantity
from nas.tables import plain
from search_space import Architecture, cost, load_architecture
from search_space.architecture import FORMAT
from search_space.errors import InputError
from search_space.files import read_yaml
from search_space.library import names

PUBLISHED = Path(__file__).with_name("published.yaml")
PUBLISHED_CLASSES = 1000
HEADINGS = ("network", "params", "FLOPs", "ImageNet top-1", "beside ours", "params ratio", "FLOPs ratio")
SOURCE = (
    "Ratios are published / ours, to our network that is nearest in FLOPs (GPipe, whose FLOPs are not published: in "
    "params). Accuracies are those that Tan & Le 2019 (arXiv 1905.11946) print; ours have none until trained there."
)


@dataclass(frozen=True, slots=True)
class Row:
    """A network of the comparison.

    Attributes:
        flops: multiply-adds of one image; None where they are not published.
        top1: published ImageNet accuracy in percent; None for one of ours.
        beside: the name of our nearest network; None for one of ours, as are the ratios.
        params_ratio: its params / those of our nearest.
        flops_ratio: its FLOPs / those of our nearest; None where they are not published.
    """

    name: str
    params: int
    flops: int | None
    top1: float | None = None
    beside: str | None = None
    params_ratio: float | None = None
    flops_ratio: float | None = None

    @property
    def ours(self) -> bool:
        """Whether it is a member of the family."""
        return self.beside is None


def find_members(families: Iterable[str]) -> list[Architecture]:
    """The networks of folders, YAML files and library names, each network once.

    Files of a folder that say they are something else of baseline-nas, such as a recipe, are passed over.

    Raises:
        InputError: an unknown name, a file that isn't an architecture, or a folder without one; the message names it.
    """
    members: dict[str, Architecture] = {}
    for family in families:
        known = family in names("architecture") or not Path(family).is_dir()
        found = [load_architecture(family)] if known else _in_folder(Path(family))
        for member in found:
            members.setdefault(member.key(), member)
    return list(members.values())


def compare(members: Sequence[Architecture]) -> list[Row]:
    """The members and every published network once, smallest FLOPs first, one of unknown FLOPs last."""
    ours = [Row(member.name, cost.params(member), cost.flops(member)) for member in members]
    published = [_beside(ours, **values) for values in read_yaml(PUBLISHED)["networks"]]
    return sorted(ours + published, key=lambda row: math.inf if row.flops is None else row.flops)


def table(rows: Sequence[Row]) -> Table:
    """The comparison for a terminal; our networks stand out."""
    shown = plain(HEADINGS, ("network", "beside ours"))
    for row in rows:
        shown.add_row(*_cells(row), style="bold" if row.ours else None)
    return shown


def markdown(rows: Sequence[Row]) -> str:
    """The comparison as a Markdown table; our networks are in bold."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---|---:|---:|---:|---|---:|---:|"]
    for row in rows:
        name, *cells = (cell.replace("\\", "\\\\").replace("|", "\\|") for cell in _cells(row))
        lines.append("| " + " | ".join([f"**{name}**" if row.ours else name, *cells]) + " |")
    return "\n".join(lines)


def words(members: Sequence[Architecture]) -> str:
    """What the ratios and accuracies are, and what makes them unequal."""
    others = [member for member in members if member.num_classes != PUBLISHED_CLASSES]
    if not others:
        return SOURCE
    counts = " and ".join(f"{count:,}" for count in sorted({member.num_classes for member in others}))
    which = "Ours" if len(others) == len(members) else f"{len(others)} of ours"
    published = f"the published ones {PUBLISHED_CLASSES:,}, which alone changes params."
    return f"{SOURCE} {which} tell {counts} classes apart, {published}"


def _in_folder(folder: Path) -> list[Architecture]:
    members = []
    for path in sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".yml")):
        kind = read_yaml(path).get("format")
        if kind == FORMAT or not str(kind).startswith("baseline-nas/"):
            members.append(Architecture.load(path))
    if not members:
        raise InputError(f"{folder}: no architecture (*.yaml) in this folder")
    return members


def _beside(ours: Sequence[Row], name: str, params: int, flops: int | None, top1: float) -> Row:
    """A published network and its ratios to the nearest of ours."""

    def distance(row: Row) -> float:
        return abs(math.log(params / row.params if flops is None or not row.flops else flops / row.flops))

    nearest = min(ours, key=distance)
    ratio = flops / nearest.flops if flops and nearest.flops else None
    return Row(name, params, flops, top1, nearest.name, params / nearest.params, ratio)


def _cells(row: Row) -> list[str]:
    """As text, in the order of `HEADINGS`."""
    return [
        row.name,
        format_quantity(row.params),
        "not published" if row.flops is None else format_quantity(row.flops),
        "ours, not measured" if row.top1 is None else f"{row.top1:.1f}%",
        row.beside or "",
        "" if row.params_ratio is None else f"{row.params_ratio:.2f}x",
        "" if row.flops_ratio is None else f"{row.flops_ratio:.2f}x",
    ]
