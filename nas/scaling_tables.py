"""A family as a table, and in words what a fit did to meet its wish."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from nas.fitting import TOLERANCE, MemoryFunction, Wish
from nas.quantities import format_quantity
from nas.scaling import Member, Scaler
from nas.tables import plain
from search_space import cost

_LAYERS = {"up": "rounded up", "nearest": "rounded to the nearest whole number", "down": "rounded down"}


def family_table(members: Sequence[Member], memory_of: MemoryFunction) -> Table:
    """What each member is, and its true costs beside the FLOPs that were wished for."""
    headings = ("network", "phi", "depth", "width", "res.", "pixels", "params", "FLOPs", "wished", "ratio", "memory")
    shown = plain(headings, ("network",))
    for member in members:
        network, by = member.architecture, member.multipliers
        shown.add_row(
            network.name,
            f"{member.phi:g}",
            *(f"{value:.4g}" for value in (by.depth, by.width, by.resolution)),
            str(network.resolution),
            *(format_quantity(value) for value in (cost.params(network), member.flops, member.wished_flops)),
            f"{member.flops / member.wished_flops:.3f}",
            f"{format_quantity(memory_of(network))}B",
        )
    return shown


def memory_words(batch_size: int, optimizer: str | None) -> str:
    """What the table's memory is."""
    what = f"training with {optimizer}" if optimizer else "inference"
    return f"FLOPs are one image's; memory is that of {what} at batch size {batch_size}, float32."


def fit_words(member: Member, scaler: Scaler, wish: Wish) -> str:
    """How near the member comes to the wish, and what was changed for it."""
    asked, took = scaler.rounding, member.rounding
    changes = []
    if took.divisor != asked.divisor:
        changes.append(f"channels are multiples of {took.divisor}, not {asked.divisor}")
    if took.resolution != asked.resolution:
        changes.append(f"pixels are multiples of {took.resolution}, not {asked.resolution}")
    if took.layers != asked.layers:
        changes.append(f"layers are {_LAYERS[took.layers]}, not {asked.layers}")
    if member.multipliers != scaler.multipliers(member.phi):
        changes.append("width takes up what whole layers and pixels leave")
    words = [_nearness(member, wish), *changes]
    if wish.miss(member.architecture) > TOLERANCE:
        words.insert(1, "nothing nearer was found, for layers, channels and pixels are whole")
    return "; ".join(words)


def _nearness(member: Member, wish: Wish) -> str:
    shares = wish.shares(member.architecture)
    if wish.is_limit:
        return f"{wish}: used " + ", ".join(f"{share:.1%} of the {what}" for what, share in shares.items())
    if shares["FLOPs"] == 1:
        return f"{wish}: met exactly"
    return f"{wish}: the nearest is {abs(shares['FLOPs'] - 1):.2%} {'above' if shares['FLOPs'] > 1 else 'below'}"
