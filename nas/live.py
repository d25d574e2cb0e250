"""Long jobs on the screen: how they are going, a clean end when the user stops them, and what they found."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from pathlib import Path
from shlex import quote
from typing import TypeVar

import typer
from rich.console import Console

from nas import (
    bench,
    console,
    family,
    grid,
    grid_files,
    grid_plan,
    grid_tables,
    retrain,
    retrain_tables,
    scaling_tables,
)
from nas.bench import Bench, Search
from nas.bench_plot import write_plot
from nas.bench_table import bench_table
from nas.console import show
from nas.evaluators import BenchmarkEvaluator
from nas.folder import SCALE, Folder
from nas.grid_plan import Plan
from nas.progress import BenchProgress, SearchProgress, TrialsProgress, TurnsProgress
from nas.recipe import Recipe
from nas.run import Searched
from nas.scaling import Rounding
from nas.study import MOST_REPEATS, Study
from nas.trials import Trials
from search_space import Architecture
from search_space.files import write_file

Result = TypeVar("Result")

STOPPED = 128 + signal.SIGINT
"""Exit code of what the user stopped."""

THE_SAME = "the same command"
_KEPT = "; every finished training is kept. Go on with {}."


def run_search(
    go: Callable[[Callable[[Folder, Study], None]], Searched], workers: int | None, ray_address: str | None
) -> None:
    """Run or go on with a search, show how it is going, and end with what it found; then scale, if the run says so."""
    seen: list[Folder] = []

    def say(line: str) -> None:
        screen.print(line, highlight=False, markup=False, soft_wrap=True)

    def watch(folder: Folder, study: Study) -> None:
        if not seen:
            seen.append(folder)
            say(f"searching in {folder.path}")
            ledger, recipe = study.ledger, study.ledger.recipe
            told = (
                console.images_words(recipe, ledger.contents),
                console.classes_words(recipe, ledger.baseline.trial.architecture, ledger.contents),
                console.gpu_words(recipe),
                console.latency_words(ledger),
                console.blind_words(recipe, ledger.space),
            )
            for words in filter(None, told):
                say(words)
            if study.torn:
                say("a crash cut off the journal's last line; it is dropped, nothing else is lost")
            if study.ledger.retrained and not study.done:
                say("what retraining chose among the first children no longer holds; give nas top RUN --retrain again")
        progress.update(study.ledger)

    def kept() -> str:
        return f"; every finished child is kept. Go on with: nas resume {quote(str(seen[0].path))}" if seen else ""

    screen = Console()
    with _stoppable(kept), SearchProgress(screen) as progress:
        searched = go(watch)
    _report(searched)
    _then_scale(searched.folder, searched.study.ledger.recipe, workers, ray_address)


def _report(searched: Searched) -> None:
    """What a search found; it ends here, with exit code 1, where that is nothing."""
    folder, ledger = searched.folder, searched.study.ledger
    show(console.verdict(ledger))
    if isinstance(searched.evaluator, BenchmarkEvaluator):
        show(f"benchmark {searched.evaluator}")
    if ledger.best(1):
        show(*filter(None, [console.target_words(ledger), console.failures_words(ledger)]))
        show("", console.ranking(ledger, 10))
    if searched.study.exhausted:
        typer.echo(
            f"The controller suggested only known networks {MOST_REPEATS} times in a row: the search ended after "
            f"{len(ledger.finished()):,} of {ledger.recipe.children:,} children."
        )
    if not ledger.best(1):
        sys.exit(1)
    typer.echo(f"\n{folder.best}:\n{folder.best.read_text(encoding='utf-8')}")
    run = quote(str(folder.path))
    typer.echo(f"Next: nas show {run}, nas top {run}, nas export {run} -o DIR, nas scale {run} -o DIR")


def _then_scale(folder: Folder, recipe: Recipe, workers: int | None, ray_address: str | None) -> None:
    """After a search whose recipe says so: retrain its leaders, search the coefficients for the best, and grow it."""
    if recipe.scale is None:
        return
    go_on = f"nas resume {quote(str(folder.path))}"
    typer.echo("\nscale: the leaders are trained again")
    run_retraining(folder.path, recipe.scale.retrain, recipe.scale.seeds, None, workers, ray_address, go_on)
    typer.echo("\nscale: alpha, beta and gamma for the choice")
    plan = grid_plan.prepare(Architecture.load(folder.best), recipe, Rounding())
    run_grid(plan, folder.path / SCALE, ray_address, go_on)


def run_grid(plan: Plan, out: Path, ray_address: str | None, go_on: str) -> None:
    """Train a grid and show which coefficients win."""
    show(grid_tables.plan_words(plan))
    found = train_list(lambda watch: grid.search(plan, out, ray_address, watch), go_on)
    written = grid_files.write(found, out)
    show(grid_tables.grid_table(found), "", grid_tables.grid_words(found))
    if plan.settings.compare:
        show("", grid_tables.comparison_table(found), grid_tables.comparison_words(found))
    show("", scaling_tables.family_table(found.family(), family.memory_function(1, None)))
    typer.echo(f"written to {out}: {', '.join(written)}")


def run_retraining(
    path: Path,
    k: int,
    seeds: int | None,
    epochs: int | None,
    workers: int | None,
    ray_address: str | None,
    go_on: str = THE_SAME,
) -> None:
    """Retrain the leaders of a run, show what that says, and hand over the best."""
    folder, found = train_list(
        lambda watch: retrain.retrain(
            path, k, retrain.SEEDS if seeds is None else seeds, epochs, workers, ray_address, watch
        ),
        go_on,
    )
    ledger = folder.ledger()
    table = retrain_tables.retraining_table(found, console.unit_of(ledger.recipe.objective.cost))
    if opening := console.against_random(ledger):
        show(opening, "")
    show(table, "", retrain_tables.retraining_words(found), f"written to {folder.best}")


def run_bench(prepared: Bench, workers: int, out: Path) -> None:
    """Run the searches, show the table, and write what is finished, also when they end before their time."""
    _stop_like_ctrl_c()
    out.mkdir(parents=True)
    done: list[Search] = []
    status = 0
    try:
        with (
            BenchProgress(Console(), prepared.searches) as progress,
            closing(bench.run(prepared, workers)) as searches,
        ):
            for search in searches:
                done.append(search)
                progress.advance()
    except KeyboardInterrupt:
        status = STOPPED
        typer.echo(f"\nstopped after {len(done)} of {prepared.searches} searches")
    except BrokenProcessPool:
        status = 1
        typer.echo(f"a worker died after {len(done)} of {prepared.searches} searches; fewer --workers need less memory")
    finally:
        if done:
            summary = bench.summary(prepared, done)
            write_file(out / "bench.json", json.dumps(summary, indent=1) + "\n")
            write_plot(summary, out / "bench.html")
        else:
            out.rmdir()
    if done:
        show(bench_table(summary), "", f"benchmark {prepared.evaluator}")
        show(f"written to {out / 'bench.json'} and {out / 'bench.html'}")
    if status:
        sys.exit(status)


def train_list(go: Callable[[Callable[[Trials], None]], Result], go_on: str = THE_SAME) -> Result:
    """Train a fixed list, show how it is going, and end cleanly when the user stops it."""
    with _stoppable(lambda: _KEPT.format(go_on)), TrialsProgress(Console()) as progress:
        return go(progress.update)


def train_in_turn(go: Callable[[Callable[[str, int, float], None]], Result]) -> Result:
    """Train networks one after the other, show how it is going, and end cleanly when the user stops it."""
    with _stoppable(lambda: _KEPT.format(THE_SAME)), TurnsProgress(Console()) as progress:
        return go(progress.update)


@contextmanager
def _stoppable(kept: Callable[[], str]) -> Iterator[None]:
    """End on Ctrl-C and the like with exit code `STOPPED`; `kept` says what is and how to go on."""
    _stop_like_ctrl_c()
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"\nstopped{kept()}")
        sys.exit(STOPPED)


def _stop_like_ctrl_c() -> None:
    """Take termination and the end of the terminal, unless `nohup` has it ignored, for Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
