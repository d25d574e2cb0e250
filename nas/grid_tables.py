"""What a grid is going to train and what it found, as tables and words."""

from __future__ import annotations

from rich.table import Table

from nas.grid import Grid, Point, Trained
from nas.grid_plan import ALONE, GROWTHS, Plan
from nas.quantities import format_quantity, plural
from nas.scaling import Coefficients
from nas.statistics import Estimate
from nas.tables import clearness, how_estimated, plain
from search_space import cost


def plan_words(plan: Plan) -> str:
    """What a grid is going to train, and how much work that is."""
    settings, base, proxy = plan.settings, plan.base, plan.recipe.proxy
    assert proxy is not None
    points = sum(len(candidate.coefficients) for candidate in plan.candidates)
    once, again, compared = plan.trainings
    comparison = f", up to {compared} for the growth in one dimension" if compared else ""
    return (
        f"base {base.name} as this recipe's proxy: {base.resolution} px, {format_quantity(cost.flops(base))} FLOPs\n"
        f"grid of step {settings.step:g}: {points} triples of alpha, beta, gamma, those with a product within "
        f"{settings.tolerance:g} of 2 and the paper's, round to {plural(len(plan.candidates), 'network')}\n"
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
    flops = format_quantity(cost.flops(candidate.network))
    return [
        *(f"{value:g}" for value in (shares.alpha, shares.beta, shares.gamma, round(shares.product, 3))),
        *(str(candidate.network.layers), str(candidate.network.resolution), flops, f"{candidate.growth:.2f}"),
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
        f"an estimate is {how_estimated(len(found.leaders))}.",
    ]
    if not found.gain:
        lines.append("Growing gained nothing here: the proxy is too short or too noisy to choose coefficients by.")
    if found.overlooked:
        lines.append(
            f"{plural(found.overlooked, 'candidate')} not trained again came within the seed noise of the last leader: "
            "more leaders (--leaders, or scale.leaders in a recipe) would tell."
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
    return f"{100 * gain.value:+.2f} points, 95% interval {low:+.2f} to {high:+.2f}: {clearness(gain)}"


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.2f} ± {100 * estimate.margin:.2f}%"


def _shares(shares: Coefficients) -> str:
    return f"alpha {shares.alpha:g}, beta {shares.beta:g}, gamma {shares.gamma:g}"
