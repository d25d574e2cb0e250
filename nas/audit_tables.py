"""What an audit found, as a table and words."""

from __future__ import annotations

from rich.table import Table

from nas.audit import Agreement, Audit
from nas.quantities import format_quantity, plural
from nas.tables import plain

_ALIKE = "advice: don't search with it yet: all networks are equally accurate under it; train longer (proxy.epochs)."
_TRUSTED = 0.4  # least tau, with 95% confidence, of a proxy to trust: it orders 70% of pairs as the reference does


def audit_table(found: Audit) -> Table:
    """The audited networks by FLOPs: accuracies under the proxy, seed by seed, and under the reference."""
    headings = ("network", "FLOPs", "proxy, seed 1", "seed 2", "reference", "rank by proxy", "by reference")
    shown = plain(headings, ("network",))
    by_proxy = sorted((sum(network.proxy) for network in found.networks), reverse=True)
    by_reference = sorted((network.reference for network in found.networks), reverse=True)
    for network in found.networks:
        accuracies = [f"{accuracy:.2%}" for accuracy in (*network.proxy, network.reference)]
        ranks = by_proxy.index(sum(network.proxy)) + 1, by_reference.index(network.reference) + 1
        shown.add_row(network.name, format_quantity(network.flops), *accuracies, *map(str, ranks))
    return shown


def audit_words(found: Audit) -> str:
    """Rank agreement, seed noise, the forecast, and what follows."""
    forecast, differ = found.forecast, bool(found.spread or found.seed_noise)
    lines = [f"left out: {failure}" for failure in found.failures]
    lines += [
        f"{len(found.networks)} networks, proxy {plural(found.proxy_epochs, 'epoch')}, reference "
        f"{plural(found.reference_epochs, 'epoch')}",
        *(_agreement(found) if differ else [_ALIKE]),
        f"forecast for {forecast.children - 1} children and the baseline, {forecast.workers} at a time: "
        f"{_time(forecast.hours)} ({forecast.child_seconds:.1f} s each, "
        f"{forecast.children / forecast.hours:,.0f} an hour), journal {_bytes(forecast.journal_bytes)}, "
        f"packed images {_bytes(forecast.image_bytes)} on every host",
        *(_advice(found) if differ else []),
    ]
    return "\n".join(lines)


def _agreement(found: Audit) -> list[str]:
    """How alike proxy and reference rank, and how much of the proxy's differences is luck."""
    return [
        "Kendall's tau between proxy and reference, with the 95% interval of a bootstrap over networks:",
        f"  accuracy, one training (what the search sees)  {_tau(found.tau_single)}",
        f"  accuracy, mean of two trainings                {_tau(found.tau_mean)}",
        f"  reward, one training                           {_tau(found.tau_reward)}",
        f"seed noise {found.seed_noise:.2f} points beside a spread of {found.spread:.2f} points between networks: "
        f"{found.noise_share:.0%} of the variance of single trainings is noise",
    ]


def _advice(found: Audit) -> list[str]:
    """In plain words: whether to trust the proxy, what it can't see, and what would help."""
    low = min(found.tau_single.low, found.tau_reward.low)  # accuracy is learned, the reward ranks
    right = found.right
    lines = [
        f"One training each puts the better of two of these networks first {right.value:.0%} of the time "
        f"({right.low:.0%} to {right.high:.0%}; a coin: 50%), and can't tell apart two within "
        f"{found.least_difference:.1f} points."
    ]
    if low >= _TRUSTED:
        lines.append("advice: trust the proxy for the search, and retrain its leaders (nas top RUN --retrain).")
    elif low > 0:
        lines.append("advice: a rough guide. It finds good regions; the order of its leaders needs nas top --retrain.")
    else:
        lines.append("advice: don't search with it yet: its order can't be told from chance.")
    if low < _TRUSTED and found.noise_share > 0.5:
        lines.append("Seed noise is the larger part: more epochs, more reward images or a larger proxy would help.")
    elif low < _TRUSTED:
        lines.append(
            "Seed noise is the smaller part: a proxy nearer to the reference (epochs, resolution, width) would help; "
            "more networks in the audit would narrow the interval."
        )
    return lines


def _tau(tau: Agreement) -> str:
    return f"{tau.value:.2f} ({tau.low:.2f} to {tau.high:.2f})"


def _time(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"


def _bytes(count: int) -> str:
    return f"{format_quantity(count)}B"
