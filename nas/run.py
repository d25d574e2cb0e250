"""The life of a search from start to end."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

import controllers
from nas.benchmark_file import check_space
from nas.costs import EXACT_COSTS
from nas.evaluators import BenchmarkEvaluator, ProxyEvaluator, make_evaluator
from nas.evaluators.base import Contents, Measurement, check_unchanged
from nas.executors import make_executor
from nas.folder import RECIPE, Folder, no_result
from nas.grid_plan import coefficients
from nas.journal import Journal, JournalGoneError
from nas.ledger import Ledger
from nas.quantities import unreachable
from nas.recipe import Recipe
from nas.study import Study
from nas.verdict import verdict
from search_space import InputError, load_space
from search_space.files import write_file

_RETARGETABLE = ("name", "children", "objective", "controller", "executor", "scale", "space", "baseline")
"""Sections of its recipe that may change when a run is retargeted; of the last two, where their files are."""

_SOME = 100
"""Networks of the space of which some cost less than T and some more, where T isn't extreme."""


@dataclass(frozen=True)
class Searched:
    """A search that came to its end, and what measured its children."""

    folder: Folder
    study: Study
    evaluator: ProxyEvaluator | BenchmarkEvaluator


def start(
    recipe: Recipe, out: Path | None, ray_address: str | None, watch: Callable[[Folder, Study], None]
) -> Searched:
    """Run a new search to its end.

    Raises:
        InputError: the recipe, the data or `out` can't be used; nothing is left behind.
        KeyboardInterrupt: the user stopped it; `resume` goes on.
    """
    check(recipe)
    evaluator, contents = _prepared(recipe, trains=True)
    folder = Folder.create(recipe, out)
    with _gone_if_unused(folder):
        return _run(folder, recipe, evaluator, contents, ray_address, watch)


def resume(
    path: Path, settings: list[str], ray_address: str | None, watch: Callable[[Folder, Study], None]
) -> Searched:
    """Go on with a search after any stop; how it is executed may change, nothing else.

    A search that came to its end needs its images no more.

    Raises:
        InputError: no run there, a changed recipe, or data that can't be used; the journal stays as it is.
        KeyboardInterrupt: the user stopped it; `resume` goes on.
    """
    folder = Folder.open(path)
    recipe = Recipe.load(str(path / RECIPE), settings)
    evaluator, contents = _prepared(recipe, trains=not folder.events() or folder.ledger().judged is None)
    return _run(folder, recipe, evaluator, contents, ray_address, watch)


def relocate(path: Path, source: str) -> None:
    """Write into a run's recipe where its images, or its benchmark's file, are now.

    Raises:
        InputError: no run there, it is running, or what is there now can't be used; the recipe stays as it is.
    """
    folder, file = Folder.open(path), path / RECIPE
    with Journal(folder.journal):
        recipe = Recipe.load(str(file))
        moved = recipe.with_source_of(Recipe.load(str(file), source=source))
        contents = make_evaluator(moved).contents(moved.load_baseline())
        if events := folder.events():
            check_unchanged(Ledger.of(events).contents, contents)
        write_file(file, moved.to_yaml())


def add_scaling(path: Path) -> None:
    """Let a search that began without it go on to a family: its recipe gets a `scale` section, unless it has one.

    Raises:
        InputError: no run there, it is running, or it trains on no images.
    """
    recipe = path / RECIPE
    with Journal(Folder.open(path).journal):
        write_file(recipe, Recipe.load(str(recipe)).scaling().to_yaml())


def retarget(
    path: Path,
    settings: list[str],
    children: int | None,
    out: Path | None,
    ray_address: str | None,
    watch: Callable[[Folder, Study], None],
    source: str | None = None,
) -> Searched:
    """A new search with another objective that begins with the children of an earlier one.

    Accuracies don't depend on the objective, so every measured child counts again, under the new reward. Those that
    failed aren't trained again either, unless children are executed in another way now. Where T cancelled out of the
    earlier ranking, the objective becomes `auto`, unless the settings name another.

    Args:
        path: the folder of the earlier run, which stays as it is.
        settings: to lay over its recipe, the new target among them.
        children: how many more to train; as many as the earlier run by default, those that it took over left out.
        out: folder of the new run.
        ray_address: of a running Ray cluster.
        watch: called after every change.
        source: where the images, or the benchmark's file, are now; None for where they were.

    Raises:
        InputError: no run there, none of its children was measured, or the settings can't be used.
        KeyboardInterrupt: the user stopped it; `resume` goes on.
    """
    earlier = Folder.open(path).ledger()
    if not earlier.best(1):
        raise no_result(path, earlier)
    more = earlier.recipe.children - earlier.adopted if children is None else children
    laid_over = [*(["objective.name=auto"] if earlier.recipe.target_cancels else []), *settings]
    executor = Recipe.load(str(path / RECIPE), laid_over, source).executor
    known = earlier.finished() if executor == earlier.recipe.executor else earlier.measured()
    recipe = Recipe.load(str(path / RECIPE), [*laid_over, f"children={len(known) + more}"], source)
    _check_comparable(earlier, recipe)
    check(recipe)
    compared = isinstance(earlier.baseline.result, Measurement)
    evaluator, contents = _prepared(recipe, more > 0 or not compared)
    check_unchanged(earlier.contents, contents)
    folder, contents = Folder.create(recipe, out), contents or earlier.contents
    taken = [earlier.baseline, *known] if compared else known
    with _gone_if_unused(folder, len(taken)):
        with Journal(folder.part) as journal:
            study = Study(recipe, journal, cost=evaluator.cost_function(recipe.objective.cost), contents=contents)
            study.adopt(taken)
        folder.part.rename(folder.journal)  # a run appears when all are taken over
        return _run(folder, recipe, evaluator, contents, ray_address, watch)


@contextmanager
def _gone_if_unused(folder: Folder, adopted: int = 0) -> Iterator[None]:
    """Remove a new folder after a mistake that left it without results of its own, or a stop before its first event."""
    try:
        yield
    except JournalGoneError:
        raise  # what lies there now isn't this search's
    except BaseException as error:
        if not (folder.journal.exists() or folder.part.exists()):
            raise  # it was moved away
        events = folder.events()
        results = sum(event["event"] in ("completed", "failed") for event in events)
        if not events or (isinstance(error, InputError) and results <= adopted):
            shutil.rmtree(folder.path, ignore_errors=True)
        raise


def check(recipe: Recipe) -> None:
    """Refuse too few children for the controller, an empty grid to scale by, a T out of reach, an unknown baseline.

    Raises:
        InputError: the message says what it takes, or what can be reached.
    """
    name, options = recipe.controller.name, recipe.controller.options
    try:
        least = controllers.make_options(name, options).least_children
    except InputError as error:
        raise InputError(f"controller.options: {error}") from None
    if recipe.children < least:
        raise InputError(
            f"children: {recipe.children} is fewer than the {least} that {name} needs; give it more, or use random"
        )
    if recipe.scale:
        coefficients(recipe.scale.step, recipe.scale.tolerance)
    section, space = recipe.objective, recipe.load_space()
    _check_deployment(recipe)
    if recipe.benchmark:
        check_space(recipe.benchmark.source, space)
        if not space.contains(recipe.load_baseline()):
            raise InputError(
                f"baseline: {recipe.baseline} is outside the space {space.name}, and a benchmark knows no other network"
            )
    if section.cost not in EXACT_COSTS:
        return
    cost, rng = EXACT_COSTS[section.cost], np.random.default_rng(0)
    some = [cost(space.sample(rng)) for _ in range(_SOME)]
    if min(some) <= section.target <= max(some):
        return  # the range takes half a minute where stages have thousands of forms
    low, high = space.cost_range(cost)
    if not low <= section.target <= high:
        raise InputError(unreachable(section.target, low, high, section.cost, space.name))


def _check_deployment(recipe: Recipe) -> None:
    """Refuse a deployment that leaves out choices of the space.

    Raises:
        InputError: it names the field and the choices.
    """
    for decision in load_space(recipe.space).decisions:
        if (fixed := getattr(recipe.deployment, decision.name, None)) is not None:
            raise InputError(
                f"deployment.{decision.name}: {fixed} leaves out the choices {list(decision.choices)} of "
                f"{recipe.space}; null searches them"
            )


def _check_comparable(ledger: Ledger, recipe: Recipe) -> None:
    """Refuse another space or another way to measure: earlier children couldn't be ranked beside new ones.

    Raises:
        InputError: the message names the field.
    """
    changeable = {name: getattr(recipe, name) for name in _RETARGETABLE}
    changed = ledger.recipe.with_source_of(recipe).model_copy(update=changeable).differs(recipe)
    if recipe.load_space().to_dict() != ledger.space.to_dict():
        changed = changed or "space"
    if recipe.load_baseline().to_dict() != ledger.baseline.trial.architecture.to_dict():
        changed = changed or "baseline"
    if changed:
        raise InputError(f"{changed}: may not change, the run's children couldn't be ranked beside new ones")


def _prepared(recipe: Recipe, trains: bool) -> tuple[ProxyEvaluator | BenchmarkEvaluator, Contents | None]:
    """The evaluator and its contents; images are only looked for if something is to be trained."""
    if recipe.benchmark is None and not trains:
        return ProxyEvaluator.of(recipe), None
    evaluator = make_evaluator(recipe)
    return evaluator, evaluator.contents(recipe.load_baseline())


def _run(
    folder: Folder,
    recipe: Recipe,
    evaluator: ProxyEvaluator | BenchmarkEvaluator,
    contents: Contents | None,
    ray_address: str | None,
    watch: Callable[[Folder, Study], None],
) -> Searched:
    # A controller's matrices are small: threads cost more than they bring, and children that train need the cores.
    with Journal(folder.journal) as journal, threadpool_limits(1, None if recipe.benchmark else "blas"):
        cost = evaluator.cost_function(recipe.objective.cost)
        study = Study(recipe, journal, lambda study: watch(folder, study), cost, contents)
        watch(folder, study)
        if not study.done:
            make_executor(recipe, ray_address).run(study, evaluator)
        with threadpool_limits(1):  # as in every other process
            study.conclude(lambda ledger: verdict(ledger, evaluator))
    if study.ledger.winner is not None:
        study.ledger.winner.trial.architecture.save(folder.best)
    return Searched(folder, study, evaluator)
