"""What retrainings found, as a table and words."""

from __future__ import annotations

from rich.table import Table

from nas.quantities import format_quantity, plural
from nas.retrain import Retrained, Retraining
from nas.statistics import Estimate, kendall_tau
from nas.tables import clearness, how_estimated, plain
from search_space import cost


def retraining_table(found: Retraining, unit: str) -> Table:
    """The leaders by their estimates, the baseline below them.

    Args:
        found: to show.
        unit: of the objective's cost.
    """
    costs = dict.fromkeys((unit, "FLOPs"))
    headings = ("rank", "child", "search rank", "search reward", "retrained", "estimate", *costs)
    shown = plain(headings, ("rank", "child"))
    for rank, leader in enumerate(found.leaders, 1):
        shown.add_row(str(rank), *_cells(leader, unit))
    if found.baseline:
        shown.add_row("-", *_cells(found.baseline, unit), style="dim")
    return shown


def retraining_words(found: Retraining) -> str:
    """How they were trained, how much of the search's figure was luck, which one is chosen and how sure that is."""
    lines = [_setting(found), *(f"failed: {failure}" for failure in found.failures), *_luck(found)]
    if 0 < found.off_target < len(found.leaders):
        lines.append(f"target: {found.off_target} of {len(found.leaders)} leaders miss T by too much and rank last")
    elif found.off_target:
        lines.append("target: every leader misses T by too much")
    return "\n".join([*lines, *_choice(found)])


def _setting(found: Retraining) -> str:
    many = f"{len(found.leaders)} leaders" if len(found.leaders) > 1 else "The leader"
    if found.epochs is None:
        how = f"looked up {found.seeds} times in the benchmark with fresh seeds, a rehearsal of retraining"
    else:
        length = f"{plural(found.epochs, 'epoch')} (search: {found.search_epochs})"
        how = f"trained {found.seeds} times with fresh seeds for {length}"
    return (
        f"{many}{' and the baseline' if found.baseline else ''}: {how}. Rewards with their 95% intervals, by one seed "
        f"noise for all; an estimate is {how_estimated(len(found.leaders))}."
    )


def _luck(found: Retraining) -> list[str]:
    """How the search's figures held up; other epochs shift the level, so then only relative to the leaders' mean."""
    if len(found.leaders) < 2:
        return []
    search = [one.child.reward or 0.0 for one in found.leaders]
    again = [one.mean.value for one in found.leaders]
    first = min(range(len(search)), key=lambda i: found.leaders[i].rank)
    above = [values[first] - sum(values) / len(values) for values in (search, again)]
    name = found.leaders[first].child.trial.architecture.name
    lines = [
        f"luck: the best measured of these {len(search)}, {name}, was {above[0]:+.4f} from their mean, and retrained "
        f"is {above[1]:+.4f}; the two orders agree with Kendall's tau {kendall_tau(search, again):.2f}."
    ]
    if found.epochs == found.search_epochs:
        change = (sum(again) - sum(search)) / len(again)
        lines.append(
            f"Trained alike, the leaders' rewards changed by {change:+.4f} on average; a fall is the winner's curse."
        )
    return lines


def _choice(found: Retraining) -> list[str]:
    """The choice, and whether it can be told from the runner-up, from the search's own choice and from the baseline."""
    others = {"runner-up": found.leaders[1] if len(found.leaders) > 1 else None}
    if found.search_choice is not None and found.search_choice is not found.choice:
        others["search's choice"] = found.search_choice
    others["baseline"] = found.baseline
    name = found.choice.child.trial.architecture.name
    same = ", the search's choice too" if found.search_choice is found.choice else ""
    lines = [f"choice: {name}{same}, estimated reward {_with_margin(found.choice.estimate)}"]
    for role, other in others.items():
        if other is None:
            lines.append(f"There is no {role} to compare it with.")
            continue
        gain = found.choice.estimate - other.estimate
        lines.append(
            f"against the {role} {other.child.trial.architecture.name}: {gain.value:+.4f}, "
            f"95% interval {gain.low:+.4f} to {gain.high:+.4f}: {clearness(gain)}"
        )
    return lines


def _cells(one: Retrained, unit: str) -> list[str]:
    network, child = one.child.trial.architecture, one.child
    costs = {"FLOPs": float(cost.flops(network)), unit: child.cost or 0.0}
    return [
        network.name,
        str(one.rank or "-"),
        f"{child.reward:.4f}",
        _with_margin(one.mean),
        _with_margin(one.estimate) if one.rank else "",
        *(format_quantity(costs[name]) for name in dict.fromkeys((unit, "FLOPs"))),
    ]


def _with_margin(estimate: Estimate) -> str:
    return f"{estimate.value:.4f} ± {estimate.margin:.4f}"
