"""What a retraining and an audit found, as tables and words."""

from __future__ import annotations

from rich.table import Table

from nas.audit import Audit, Tau
from nas.objective import format_quantity
from nas.retrain import Retrained, Retraining
from nas.statistics import Estimate, kendall_tau
from search_space import cost

TRUSTED = 0.4  # least tau, with 95% confidence, of a proxy to trust: it orders 70% of pairs as the reference does


def retraining_table(found: Retraining, unit: str) -> Table:
    """The leaders by their estimates, the baseline below them.

    Args:
        found: to show.
        unit: of the objective's cost.
    """
    shown = Table(box=None, pad_edge=False)
    for heading in ("rank", "child"):
        shown.add_column(heading, no_wrap=True)
    costs = dict.fromkeys((unit, "FLOPs"))
    for heading in ("search rank", "search reward", "retrained", "estimate", *costs):
        shown.add_column(heading, justify="right", no_wrap=True)
    for rank, leader in enumerate(found.leaders, 1):
        shown.add_row(str(rank), *_cells(leader, unit))
    if found.baseline:
        shown.add_row("-", *_cells(found.baseline, unit), style="dim")
    return shown


def retraining_words(found: Retraining) -> str:
    """How they were trained, how much of the search's figure was luck, which one is chosen and how sure that is."""
    lines = [_setting(found), *(f"failed: {failure}" for failure in found.failures), *_luck(found)]
    if found.off_target:
        lines.append(f"target: {found.off_target} of {len(found.leaders)} leaders miss T by too much and rank last")
    return "\n".join([*lines, *_choice(found)])


def _setting(found: Retraining) -> str:
    many = f"{len(found.leaders)} leaders" if len(found.leaders) > 1 else "The leader"
    how = f"trained {found.seeds} times with fresh seeds for {found.epochs} epochs (search: {found.search_epochs})"
    if found.epochs is None:
        how = f"looked up {found.seeds} times in the benchmark with fresh seeds, a rehearsal of retraining"
    return (
        f"{many}{' and the baseline' if found.baseline else ''}: {how}. Rewards with their 95% intervals; an estimate "
        "is the mean drawn towards that of all leaders by as much as their spread looks like seed noise."
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
        f"luck: in the search its leader {name} stood {above[0]:+.4f} from the mean of these {len(search)}, retrained "
        f"it stands {above[1]:+.4f}; the two orders agree with Kendall's tau {kendall_tau(search, again):.2f}."
    ]
    if found.epochs == found.search_epochs:
        change = (sum(again) - sum(search)) / len(again)
        lines.append(
            f"Trained alike, the leaders' rewards changed by {change:+.4f} on average; a fall is the winner's curse."
        )
    return lines


def _choice(found: Retraining) -> list[str]:
    """The choice, and whether it can be told from the runner-up and from the baseline."""
    name = found.choice.child.trial.architecture.name
    lines = [f"choice: {name}, estimated reward {_with_margin(found.choice.estimate)}"]
    for other, role in (
        (found.leaders[1] if len(found.leaders) > 1 else None, "runner-up"),
        (found.baseline, "baseline"),
    ):
        if other is None:
            lines.append(f"There is no {role} to compare it with.")
            continue
        gain = found.choice.estimate - other.estimate
        clear = "a clear difference" if gain.low > 0 else "clearly worse" if gain.high < 0 else "can't be told apart"
        lines.append(
            f"against the {role} {other.child.trial.architecture.name}: {gain.value:+.4f}, "
            f"95% interval {gain.low:+.4f} to {gain.high:+.4f}: {clear}"
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


def audit_table(found: Audit) -> Table:
    """The audited networks by FLOPs: accuracies under the proxy, seed by seed, and under the reference."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column("network", no_wrap=True)
    for heading in ("FLOPs", "proxy, seed 1", "seed 2", "reference", "rank by proxy", "by reference"):
        shown.add_column(heading, justify="right", no_wrap=True)
    by_proxy = sorted(found.networks, key=lambda network: -sum(network.proxy))
    by_reference = sorted(found.networks, key=lambda network: -network.reference)
    for network in found.networks:
        accuracies = [f"{accuracy:.2%}" for accuracy in (*network.proxy, network.reference)]
        ranks = [str(order.index(network) + 1) for order in (by_proxy, by_reference)]
        shown.add_row(network.name, format_quantity(network.flops), *accuracies, *ranks)
    return shown


def audit_words(found: Audit) -> str:
    """Rank agreement, seed noise, the forecast, and what follows."""
    forecast = found.forecast
    lines = [f"left out: {failure}" for failure in found.failures]
    lines += [
        f"{len(found.networks)} networks, proxy {found.proxy_epochs} epochs, reference {found.reference_epochs} epochs",
        "Kendall's tau between proxy and reference, with the 95% interval of a bootstrap over networks:",
        f"  accuracy, one training (what the search sees)  {_tau(found.tau_single)}",
        f"  accuracy, mean of two trainings                {_tau(found.tau_mean)}",
        f"  reward, one training                           {_tau(found.tau_reward)}",
        f"seed noise {found.seed_noise:.2f} points beside a spread of {found.spread:.2f} points between networks: "
        f"{found.noise_share:.0%} of the variance of single trainings is noise",
        f"forecast for {forecast.children} children, {forecast.workers} at a time: {_time(forecast.hours)} "
        f"({forecast.child_seconds:.1f} s each, {forecast.children / forecast.hours:,.0f} an hour), journal "
        f"{_bytes(forecast.journal_bytes)}, packed images {_bytes(forecast.image_bytes)} on every host",
        *_advice(found),
    ]
    return "\n".join(lines)


def _advice(found: Audit) -> list[str]:
    """In plain words: whether to trust the proxy, what it can't see, and what would help."""
    tau = found.tau_single
    low, right, high = (50 * (1 + value) for value in (tau.low, tau.value, tau.high))
    lines = [
        f"One training each puts the better of two of these networks first {right:.0f}% of the time ({low:.0f}% to "
        f"{high:.0f}%; a coin: 50%), and can't tell apart two within {found.least_difference:.1f} points."
    ]
    if tau.low >= TRUSTED:
        lines.append("advice: trust the proxy for the search, and retrain its leaders (nas top RUN --retrain).")
    elif tau.low > 0:
        lines.append("advice: a rough guide. It finds good regions; the order of its leaders needs nas top --retrain.")
    else:
        lines.append("advice: don't search with it yet: its order can't be told from chance.")
    if tau.low < TRUSTED and found.noise_share > 0.5:
        lines.append("Seed noise is the larger part: more epochs, more reward images or a larger proxy would help.")
    elif tau.low < TRUSTED:
        lines.append(
            "Seed noise is the smaller part: a proxy nearer to the reference (epochs, resolution, width) would help; "
            "more networks in the audit would narrow the interval."
        )
    return lines


def _tau(tau: Tau) -> str:
    return f"{tau.value:.2f} ({tau.low:.2f} to {tau.high:.2f})"


def _time(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"


def _bytes(count: int) -> str:
    return f"{format_quantity(count)}B"
