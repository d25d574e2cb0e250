"""What the command says of a search: its ranking, its verdict, how it is going."""

from __future__ import annotations

import re
from collections import Counter

from rich.console import Console
from rich.table import Table

from nas.blind import unseen
from nas.evaluators.base import Contents, Failure, Measurement
from nas.ledger import Child, Ledger
from nas.objective import BAND
from nas.quantities import commonest, format_quantity, plural
from nas.recipe import Recipe
from nas.tables import plain
from nas.verdict import recorded_verdict
from search_space import Architecture, SearchSpace, cost

_UNITS = {"flops": "FLOPs", "params": "params", "latency": "ms", "throughput": "images/s"}
_STEADY = 5  # trainings of a network, whose mean few others can beat by luck
_WIDEST = 10_000  # columns of any table
_REASONS = 3  # of failures, that are told
_BETTER = {"FLOPs": "fewer", "params": "fewer", "ms": "less", "images/s": "more"}


def unit_of(cost_name: str) -> str:
    """The unit of a cost by its name in a recipe: `latency_zcu102` is in ms, as `latency` is."""
    return _UNITS[cost_name.split("_", maxsplit=1)[0]]


def status_line(ledger: Ledger, done_here: int, seconds: float) -> str:
    """Children done, running, failed; the best; children per hour and the time left at the pace of this process."""
    finished, total = len(ledger.finished()), ledger.recipe.children
    running, begun = len(ledger.running()), len(ledger.children) - 1  # without the baseline
    others = f"{begun - finished} not finished" if begun > finished and not running else f"{running} running"
    words = [f"{finished}/{total} done, {others}, {len(ledger.failed())} failed"]
    leader = ledger.best(1)
    if leader:
        words.append(f"best {_summary(ledger, leader[0])}")
    elif ledger.baseline.reward is not None:
        words.append(f"baseline {_summary(ledger, ledger.baseline)}")
    if ledger.objective.adapts:  # and with it every reward
        words.append(_exponents(ledger))
    if done_here and seconds > 0:
        pace = done_here / seconds
        words += [f"{3600 * pace:.0f} children/h", f"{duration((total - finished) / pace)} left"]
    return " | ".join(words)


def ranking(ledger: Ledger, k: int) -> Table:
    """The best `k` children, the one that is handed over wherever it ranks, and the baseline."""
    unit = unit_of(ledger.recipe.objective.cost)
    costs = dict.fromkeys((unit, "FLOPs", "params"))
    headings = ("rank", "child", "reward", "accuracy", *costs, "trainings", "epochs", "seconds")
    table = plain(headings, ("rank", "child"))
    for rank, child in enumerate(ledger.best(), 1):
        if rank <= k or child is ledger.winner:
            table.add_row(str(rank), *_cells(child, unit), style="bold" if child is ledger.winner else None)
    if ledger.baseline.reward is not None:
        table.add_row("-", *_cells(ledger.baseline, unit), style="dim")
    return table


def against_random(ledger: Ledger) -> str:
    """Whether the search beat random sampling; empty before its end."""
    judged = recorded_verdict(ledger)
    return f"{'Before retraining: ' if ledger.retrained else ''}{judged}" if judged else ""


def verdict(ledger: Ledger) -> str:
    """Whether the search beat random sampling, then its winner next to the baseline, in words, either way."""
    winner, baseline = ledger.winner, ledger.baseline
    if winner is None:
        return no_result(ledger)
    inside = "" if ledger.space.contains(baseline.trial.architecture) else f" (outside the space {ledger.space.name})"
    lines = [against_random(ledger), best(ledger, winner)]
    if baseline.reward is None or winner.reward is None:
        reason = baseline.result.reason if isinstance(baseline.result, Failure) else "it has not finished"
        return "\n".join([*lines, f"baseline  no result: {reason}"])
    if winner is baseline:
        return "\n".join([*lines, "The choice is the baseline itself: no other network's reward is estimated higher."])
    lines.append(f"baseline  {_summary(ledger, baseline)}  ({baseline.trial.architecture.name}{inside})")
    lines.append(_place(ledger, baseline))
    gain = winner.reward - baseline.reward
    where = "in the same benchmark" if ledger.recipe.benchmark else "under the same proxy"
    more = f"{abs(gain):.4f} {'above' if gain > 0 else 'below'} the baseline's {where}"
    out_of = plural(len(ledger.best()), "network")
    lines.append(f"The choice out of {out_of} has a reward {more}. {_trust(ledger, winner, gain)}.")
    return "\n".join(lines)


def best(ledger: Ledger, winner: Child) -> str:
    """What is handed over, in a line."""
    return f"best      {_summary(ledger, winner)}  ({winner.trial.architecture.name}{_rank(ledger)})"


def images_words(recipe: Recipe, contents: Contents | None) -> str:
    """How many images were found, and which files are none; empty where there are none."""
    if contents is None or recipe.data is None:
        return ""
    words = f"{contents['images']:,} images of {contents['classes']:,} classes in {recipe.data.source}"
    if others := contents.get("left_out"):
        words += f"; left out: {plural(sum(others.values()), 'file')} of other kinds ({commonest(others)})"
    return words


def classes_words(recipe: Recipe, baseline: Architecture, contents: Contents | None) -> str:
    """That the deployed network has other classes than the images, which nobody said; empty otherwise."""
    counted, there = baseline.num_classes, (contents or {}).get("classes")
    if there in (None, counted) or recipe.deployment.num_classes is not None:
        return ""
    return (
        f"FLOPs and params are those of a network with {counted:,} classes, and the images have {there}: "
        f"--set deployment.num_classes={there} counts as many"
    )


def blind_words(recipe: Recipe, space: SearchSpace) -> str:
    """Which choices the proxy can't see; empty where it sees all, or there is none."""
    names = unseen(space, recipe.proxy) if recipe.proxy else []
    if not names:
        return ""
    return (
        "the proxy trains the same network whatever is chosen for these, so only cost and luck decide: "
        f"{', '.join(names)}; fix them in the space, or set proxy.width, proxy.resolution or proxy.final_size so that "
        "they differ"
    )


def gpu_words(recipe: Recipe) -> str:
    """That a GPU is left idle; empty where none is, or nothing trains."""
    import torch

    if recipe.proxy is None or recipe.executor.gpus_per_child or not torch.cuda.is_available():
        return ""
    return "children train on the CPU though there is a GPU: --set executor.gpus_per_child=1 trains them on it"


def latency_words(ledger: Ledger) -> str:
    """That other children at work lengthen a measured latency; empty where none are, or none is measured."""
    if ledger.recipe.objective.cost != "latency" or ledger.recipe.executor.name == "serial":
        return ""
    return (
        "latency is measured here, beside the children that train, which lengthen it; executor.name=serial avoids that"
    )


def no_result(ledger: Ledger) -> str:
    """That no child was measured, and why the last one wasn't."""
    reason = ledger.last_failure()
    return f"No child has a result. {f'The last failure: {reason}' if reason else ''}".strip()


def _trust(ledger: Ledger, winner: Child, gain: float) -> str:
    """How far to believe the winner's gain over the baseline."""
    if ledger.retrained:
        event = ledger.retrained
        longer = f"Retrained for {plural(event['epochs'], 'epoch')}" if event.get("epochs") else "Retrained"
        if event.get("gain") is None:
            return f"{longer}, its reward is estimated at {event['estimate']:.4f}"
        above, low, high = event["gain"]
        believed = ": believe that" if low < high else "; repeats were identical, so seed noise is unknown"
        return f"{longer}, the gain is estimated at {above:+.4f} (95% interval {low:+.4f} to {high:+.4f}){believed}"
    if _noiseless(ledger):
        return "It was looked up without noise, so none of this is luck"
    did = "looked up" if ledger.recipe.benchmark else "trained"
    times, baselines = len(winner.accuracies), len(ledger.baseline.accuracies)
    theirs = "one alone" if baselines == 1 else f"the mean of {baselines}"
    if gain <= 0:
        advice = "more children, or less noise, may find one that beats it"
    elif times < _STEADY:
        advice = f"the best of many results is partly the luckiest, and the baseline's is {theirs}: expect less of it"
    else:
        advice = f"their mean counts, in which little is luck; the baseline's is {theirs}"
    return f"It was {did} {'once' if times == 1 else f'{times} times'}; {advice}"


def _rank(ledger: Ledger) -> str:
    """Why the winner isn't the child with the highest reward, where it isn't."""
    if not (ledger.recommended or ledger.retrained):
        return ": the best measured so far; the search's end chooses"
    ranked = ledger.best()
    if ledger.winner is None or ledger.winner not in ranked[1:]:
        return ""
    how = "best as estimated from all children"
    if ledger.retrained:
        how = "chosen by retraining"
    elif ledger.objective.adapts and ledger.objective.meets_target(ledger.winner.cost):
        how = "the best at the target as estimated from all children"
    return f": {_ordinal(ranked.index(ledger.winner) + 1)} as measured, {how}"


def _place(ledger: Ledger, baseline: Child) -> str:
    """The baseline's rank among the networks, and the accuracy found at its own cost."""
    rewards = [child.reward for child in ledger.best() if child.reward is not None]
    rank = 1 + sum(reward > (baseline.reward or 0) for reward in rewards)
    words = f"The baseline's reward would rank {_ordinal(rank)} beside those of {plural(len(rewards), 'network')}."
    unit = unit_of(ledger.recipe.objective.cost)
    own, ratio = f"{format_quantity(baseline.cost or 0)} {unit}", ledger.objective.ratio
    rivals = [child for child in ledger.best() if ratio(child.cost) <= ratio(baseline.cost)]
    if not rivals or baseline.accuracy is None:
        return f"{words} No child has its {own} or {_BETTER[unit]}."
    rival = max(rivals, key=lambda child: (child.accuracy, -ratio(child.cost)))
    luckiest = f", the luckiest of {len(rivals):,}" if len(rivals) > 1 and not _noiseless(ledger) else ""
    return (
        f"{words} At its {unit} or {_BETTER[unit]} the best accuracy seen is {rival.accuracy:.2%} "
        f"({format_quantity(rival.cost or 0)} {unit}){luckiest}; its own is {baseline.accuracy:.2%} ({own})."
    )


def _noiseless(ledger: Ledger) -> bool:
    return ledger.recipe.benchmark is not None and ledger.recipe.benchmark.noise == 0


def _ordinal(number: int) -> str:
    suffix = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{suffix}"


def target_words(ledger: Ledger) -> str:
    """How near the network that is handed over comes to T, and why it may not."""
    if ledger.winner is None or ledger.winner.cost is None:
        return ""
    objective, section = ledger.objective, ledger.recipe.objective
    cost_share = ledger.winner.cost / section.target
    unit, side = unit_of(section.cost), "above" if cost_share > 1 else "below"
    adapted = f" ({_exponents(ledger)})" if objective.adapts else ""
    words = (
        f"target    {format_quantity(section.target)} {unit}, objective {section.name}{adapted}: "
        f"the best is at {format_quantity(ledger.winner.cost)}, {abs(cost_share - 1):.1%} {side}"
    )
    if section.name == "auto":
        words += _cheaper(ledger, ledger.winner)
    ratio = objective.ratio(ledger.winner.cost)
    if not BAND[0] <= ratio <= BAND[1]:
        hint = "--set objective.name=auto hits it"
        if section.name == "auto":
            words += "; the controller knows none that meets it: train more children, or set another T"
        elif ledger.recipe.target_cancels:
            words += f"; with a single exponent T has no effect on the ranking: {hint}"
        elif section.name == "absolute" or ratio > 1:
            words += f"; {hint}"
    return words


def failures_words(ledger: Ledger) -> str:
    """Why children failed, the commonest reasons first, whatever numbers are in them; empty where none did."""
    reasons = Counter(
        re.sub(r"\d[\d.]*", "N", child.result.reason) for child in ledger.failed() if isinstance(child.result, Failure)
    )
    told = [f"{count} x {reason}" for reason, count in reasons.most_common(_REASONS)]
    more = [f"and {plural(len(reasons) - _REASONS, 'other reason')}"] if len(reasons) > _REASONS else []
    return f"failed    {'; '.join([*told, *more])}" if told else ""


def _exponents(ledger: Ledger) -> str:
    """The objective's exponents as they are now."""
    below, above = (f"{round(w or 0.0, 3):g}" for w in (ledger.objective.w, ledger.objective.w_above))
    return f"exponents {below} up to T, {above} above"


def _cheaper(ledger: Ledger, winner: Child) -> str:
    """What was measured to be at least as accurate as the winner below the target's band."""
    ratio = ledger.objective.ratio
    below = [child for child in ledger.best() if ratio(child.cost) < BAND[0] and ratio(child.cost) < ratio(winner.cost)]
    rival = max(below, key=lambda child: child.accuracy or 0, default=None)
    if rival is None or (rival.accuracy or 0) < (winner.accuracy or 0):
        return ""
    name, at = rival.trial.architecture.name, format_quantity(rival.cost or 0)
    unit = unit_of(ledger.recipe.objective.cost)
    how = "better" if (rival.accuracy or 0) > (winner.accuracy or 0) else "as good"
    return f"; {name} off the target was measured to be {how}: accuracy {rival.accuracy:.2%}, {at} {unit}"


def _cells(child: Child, unit: str) -> list[str]:
    network, result = child.trial.architecture, child.result
    if not isinstance(result, Measurement) or child.reward is None or child.accuracy is None or child.cost is None:
        return []
    costs = {"FLOPs": cost.flops(network), "params": cost.params(network)} | {unit: child.cost}
    shown = [format_quantity(costs[name]) for name in dict.fromkeys((unit, "FLOPs", "params"))]
    return [
        network.name,
        f"{child.reward:.4f}",
        f"{child.accuracy:.2%}",
        *shown,
        str(len(child.accuracies)),
        str(result.epochs),
        f"{result.seconds:.1f}",
    ]


def _summary(ledger: Ledger, child: Child) -> str:
    """`reward 0.9512 (accuracy 94.10%, 352.1M FLOPs)`."""
    if child.accuracy is None or child.cost is None:
        return "no result"
    unit = unit_of(ledger.recipe.objective.cost)
    return f"reward {child.reward:.4f} (accuracy {child.accuracy:.2%}, {format_quantity(child.cost)} {unit})"


def duration(seconds: float) -> str:
    """`2h05m`, `3m20s`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s"


def show(*things: Table | str) -> None:
    """Print tables and lines; a terminal wraps what is wider than itself, so that no figure is cut off."""
    screen = Console(width=_WIDEST, emoji=False)
    for thing in things:
        screen.print(thing, highlight=False, markup=False, soft_wrap=isinstance(thing, str))
