"""What retrainings, audits and grids found, as tables and words."""

from __future__ import annotations

from rich.table import Table

from nas.audit import Agreement, Audit
from nas.cam import Cam
from nas.grid import Grid, Point, Trained
from nas.grid_plan import ALONE, GROWTHS, Plan
from nas.quantities import format_quantity, plural
from nas.retrain import Retrained, Retraining
from nas.scaling import Coefficients
from nas.statistics import FEWEST, Estimate, kendall_tau
from nas.tables import plain
from search_space import cost

_ALIKE = "advice: don't search with it yet: all networks are equally accurate under it; train longer (proxy.epochs)."
TRUSTED = 0.4  # least tau, with 95% confidence, of a proxy to trust: it orders 70% of pairs as the reference does


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
    length = f"{plural(found.epochs or 0, 'epoch')} (search: {found.search_epochs})"
    how = f"trained {found.seeds} times with fresh seeds for {length}"
    if found.epochs is None:
        how = f"looked up {found.seeds} times in the benchmark with fresh seeds, a rehearsal of retraining"
    return (
        f"{many}{' and the baseline' if found.baseline else ''}: {how}. Rewards with their 95% intervals; an estimate "
        f"is {_how_estimated(len(found.leaders))}."
    )


def _how_estimated(leaders: int) -> str:
    """What an estimate is, for so many leaders (see `nas.statistics.shrink`)."""
    if leaders < FEWEST:
        return "the mean"
    return "the mean drawn towards that of all leaders by as much as their spread looks like seed noise"


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
        lines.append(
            f"against the {role} {other.child.trial.architecture.name}: {gain.value:+.4f}, "
            f"95% interval {gain.low:+.4f} to {gain.high:+.4f}: {_clear(gain)}"
        )
    return lines


def _clear(gain: Estimate) -> str:
    if gain.low == gain.high:
        return "all trainings of a network gave the same accuracy, which tells nothing of their luck"
    return "a clear difference" if gain.low > 0 else "clearly worse" if gain.high < 0 else "can't be told apart"


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
        f"forecast for {forecast.children} children, {forecast.workers} at a time: {_time(forecast.hours)} "
        f"({forecast.child_seconds:.1f} s each, {forecast.children / forecast.hours:,.0f} an hour), journal "
        f"{_bytes(forecast.journal_bytes)}, packed images {_bytes(forecast.image_bytes)} on every host",
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


def cam_table(found: Cam) -> Table:
    """The networks of the activation maps: what they cost and how accurate they are."""
    headings = ("grown in", "FLOPs", "params", "layers", "pixels", "last map", "accuracy")
    shown = plain(headings, ("grown in",))
    for view in found.views:
        network, size = view.architecture, view.maps.shape[-1]
        costs = (format_quantity(cost.flops(network)), format_quantity(cost.params(network)))
        counts = (str(sum(stage.layers for stage in network.stages)), str(network.resolution), f"{size} x {size}")
        shown.add_row(view.name, *costs, *counts, f"{view.accuracy:.2%}")
    return shown


def _advice(found: Audit) -> list[str]:
    """In plain words: whether to trust the proxy, what it can't see, and what would help."""
    low = min(found.tau_single.low, found.tau_reward.low)  # accuracy is learned, the reward ranks
    right = found.right
    lines = [
        f"One training each puts the better of two of these networks first {right.value:.0%} of the time "
        f"({right.low:.0%} to {right.high:.0%}; a coin: 50%), and can't tell apart two within "
        f"{found.least_difference:.1f} points."
    ]
    if low >= TRUSTED:
        lines.append("advice: trust the proxy for the search, and retrain its leaders (nas top RUN --retrain).")
    elif low > 0:
        lines.append("advice: a rough guide. It finds good regions; the order of its leaders needs nas top --retrain.")
    else:
        lines.append("advice: don't search with it yet: its order can't be told from chance.")
    if low < TRUSTED and found.noise_share > 0.5:
        lines.append("Seed noise is the larger part: more epochs, more reward images or a larger proxy would help.")
    elif low < TRUSTED:
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


def plan_words(plan: Plan) -> str:
    """What a grid is going to train, and how much work that is."""
    settings, base, proxy = plan.settings, plan.base, plan.recipe.proxy
    assert proxy is not None
    points = sum(len(candidate.coefficients) for candidate in plan.candidates)
    once, again, compared = plan.trainings
    comparison = f", up to {compared} for the growth in one dimension" if compared else ""
    return (
        f"base {base.name} as this recipe's proxy: {base.resolution} px, {format_quantity(cost.flops(base))} FLOPs\n"
        f"grid of step {settings.step:g}: {points} times alpha, beta, gamma with a product within "
        f"{settings.tolerance:g} of 2, the paper's among them, round to {len(plan.candidates)} networks\n"
        f"{once} trainings, up to {again} of the base and the leaders with fresh seeds{comparison}, "
        f"{plural(proxy.epochs, 'epoch')} each: in FLOPs like {plan.work:.0f} trainings of the base"
    )


def grid_table(found: Grid) -> Table:
    """All candidates: the leaders by their estimates, then the others by their only training."""
    headings = ("rank", "alpha", "beta", "gamma", "product", "layers", "pixels", "FLOPs", "x base", "one training")
    shown = plain((*headings, "at x2 FLOPs", f"{found.plan.settings.seeds} more, at x2"), ())
    for rank, result in enumerate((*found.leaders, *found.others), 1):
        leads = rank <= len(found.leaders)
        shown.add_row(str(rank) if leads else "-", *_grid_cells(result), style=None if leads else "dim")
    return shown


def _grid_cells(result: Trained) -> list[str]:
    candidate, shares = result.candidate, result.candidate.coefficients[0]
    layers = sum(stage.layers for stage in candidate.network.stages)
    flops = format_quantity(cost.flops(candidate.network))
    return [
        *(f"{value:g}" for value in (shares.alpha, shares.beta, shares.gamma, round(shares.product, 3))),
        *(str(layers), str(candidate.network.resolution), flops, f"{candidate.growth:.2f}"),
        *("failed" if value is None else f"{value:.2%}" for value in (result.first, result.at_double)),
        "" if result.estimate is None else _percent(result.estimate),
    ]


def grid_words(found: Grid) -> str:
    """Which coefficients win, how sure that is, and what the figures are worth."""
    winner, lines = found.winner, [f"failed: {failure}" for failure in found.failures]
    assert winner.estimate is not None
    lines += [
        "Rounding makes true FLOPs unequal, so accuracies are compared at twice the base's: a doubling gained "
        f"{100 * found.gain:.2f} points on average over the base's {_percent(found.base)}; each is corrected by that.",
        f"Seed noise {100 * found.noise:.2f} points a training. Leaders have {found.plan.settings.seeds} more each; "
        f"an estimate is {_how_estimated(len(found.leaders))}.",
    ]
    if not found.gain:
        lines.append("Growing gained nothing here: the proxy is too short or too noisy to choose coefficients by.")
    if found.overlooked:
        lines.append(
            f"{plural(found.overlooked, 'candidate')} not trained again came within the seed noise of the last leader: "
            "more --leaders would tell."
        )
    shares = _shares(winner.candidate.coefficients[0])
    lines.append(f"winner: {shares}, estimated {_percent(winner.estimate)} at x2 FLOPs")
    if same := winner.candidate.coefficients[1:]:
        lines.append(f"  the same network at this size: {'; '.join(map(_shares, same))}")
    return "\n".join([*lines, *_rivals(found), *_grid_worth(found)])


def _rivals(found: Grid) -> list[str]:
    """The winner against the runner-up and the paper's coefficients."""
    winner, lines = found.winner, []
    second = found.leaders[1] if len(found.leaders) > 1 else None
    rivals = {"the runner-up": second, "the paper's": found.paper}
    if second is not None and second is found.paper:
        rivals = {"the runner-up, the paper's": second}
    for role, rival in rivals.items():
        if rival is winner:
            lines.append("The winner is the paper's.")
        elif rival is None or rival.estimate is None or winner.estimate is None:
            lines.append(f"There is no result of {role} to compare with.")
        else:
            shares = _shares(rival.candidate.coefficients[0])
            lines.append(f"against {role} {shares}: {_points(winner.estimate - rival.estimate)}")
    return lines


def _grid_worth(found: Grid) -> list[str]:
    settings, proxy = found.plan.settings, found.plan.recipe.proxy
    assert proxy is not None
    left_out = [f"{phi:g}" for phi in settings.phi if phi > found.scaler.most_phi]
    lines = [
        f"These are accuracies of small networks after {plural(proxy.epochs, 'epoch')}: they choose coefficients for "
        "such networks, and only suggest them for the family."
    ]
    if left_out:
        lines.append(f"phi {', '.join(left_out)}: left out of the family, a dimension would grow more than 100 times")
    return lines


def comparison_table(found: Grid) -> Table:
    """Growth in all dimensions beside growth in one, a row for each size."""
    dimensions = ("compound", *ALONE)
    shown = plain(("wished", *dimensions), (), "accuracy (true FLOPs, x base)")
    for wish in GROWTHS:
        points = [found.at(dimension, wish) for dimension in dimensions]
        shown.add_row(f"x{wish:g}", *("failed" if point is None else _point(point) for point in points))
    return shown


def comparison_words(found: Grid) -> str:
    """Whether compound growth is better than growth in each dimension alone."""
    lines = [
        f"Compound growth ({_shares(found.compound)}) against one dimension alone, the mean of all sizes corrected to "
        "equal FLOPs as above:"
    ]
    for dimension in ALONE:
        gain = found.advantage(dimension)
        lines.append(f"  {dimension:<10}  {'no result' if gain is None else _points(gain)}")
    return "\n".join(lines)


def _point(point: Point) -> str:
    return f"{_percent(point.estimate)} ({point.growth:.2f})"


def _points(gain: Estimate) -> str:
    low, high = 100 * gain.low, 100 * gain.high
    return f"{100 * gain.value:+.2f} points, 95% interval {low:+.2f} to {high:+.2f}: {_clear(gain)}"


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.2f} ± {100 * estimate.margin:.2f}%"


def _shares(shares: Coefficients) -> str:
    return f"alpha {shares.alpha:g}, beta {shares.beta:g}, gamma {shares.gamma:g}"
