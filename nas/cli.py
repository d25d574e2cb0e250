"""The `nas` command: arguments in, the library does the work, words out. Heavy imports happen where they are used."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from search_space.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from nas.bench import Bench, Search
    from nas.run import Folder
    from nas.study import Study
    from nas.trials import Trials

Result = TypeVar("Result")

app = typer.Typer(
    help="Neural architecture search for an efficient image baseline.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)

STOPPED = 130
BENCHED = "model_based,ppo,reinforce,evolution,random"

Set = Annotated[list[str] | None, typer.Option("--set", help="Lay a value over the recipe: objective.target=300M.")]
Workers = Annotated[int | None, typer.Option(help="Children at a time; as many as fit by default.")]
RayAddress = Annotated[str | None, typer.Option(help="A running Ray cluster: auto, or ray://HOST:10001.")]
Arch = Annotated[str, typer.Argument(help="A library name, a YAML file, or the folder of a run (its best).")]
Run = Annotated[Path, typer.Argument(help="The folder of a run.")]


@app.command()
def search(
    recipe: Annotated[
        str, typer.Argument(help="A shipped recipe (digits, images, rehearse-b0, b0-imagenet) or a YAML file.")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder of the run; results/NAME by default.")] = None,
    data: Annotated[str | None, typer.Option(help="Image folder or .npz, or the benchmark's file.")] = None,
    settings: Set = None,
    workers: Workers = None,
    ray_address: RayAddress = None,
) -> None:
    """Run a search.

    Example: nas search images --data photos --set children=60 --out results/photos
    """
    from nas import run
    from nas.recipe import Recipe

    chosen = Recipe.load(recipe, _settings(settings, workers), data)
    _search(lambda watch: run.start(chosen, out, ray_address, watch))


@app.command()
def resume(path: Run, workers: Workers = None, ray_address: RayAddress = None) -> None:
    """Go on with a search after any stop; every finished child is kept.

    Example: nas resume results/digits
    """
    from nas import run

    _search(lambda watch: run.resume(path, _settings(None, workers), ray_address, watch))


@app.command()
def retarget(
    path: Run,
    flops: Annotated[str, typer.Option(help="The new target T: 200M.")],
    children: Annotated[
        int | None, typer.Option(min=0, help="How many more to train; the recipe's by default.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the new run; the next free results/NAME by default.")
    ] = None,
    settings: Set = None,
    workers: Workers = None,
    ray_address: RayAddress = None,
) -> None:
    """Search on for another FLOPs target; every child of the earlier run counts again, none is trained twice.

    Example: nas retarget results/digits --flops 200M --children 20
    """
    from nas import run

    target = ["objective.cost=flops", f"objective.target={json.dumps(flops)}"]
    laid_over = [*target, *_settings(settings, workers)]
    _search(lambda watch: run.retarget(path, laid_over, children, out, ray_address, watch))


@app.command()
def top(
    path: Run,
    k: Annotated[int, typer.Option("-k", min=1, help="How many.")] = 10,
    retrain: Annotated[bool, typer.Option("--retrain", help="Train them again and hand over the best.")] = False,
    seeds: Annotated[int | None, typer.Option(help="Retrainings of each network; 3 by default.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Of a retraining; 4 times the proxy's by default.")] = None,
    workers: Workers = None,
    ray_address: RayAddress = None,
) -> None:
    """Show the ranking of a run, also while it is running; with --retrain, choose the winner by longer trainings.

    Example: nas top results/digits -k 5 --retrain
    """
    if retrain:
        _retrain(path, k, seeds, epochs, workers, ray_address)
        return
    given = {"--seeds": seeds, "--epochs": epochs, "--workers": workers, "--ray-address": ray_address}
    for option, value in given.items():
        if value is not None:
            raise InputError(f"{option}: only with --retrain")
    from nas import console
    from nas.run import Folder

    ledger = Folder.open(path).ledger()
    _print(console.status_line(ledger, 0, 0), console.ranking(ledger, k))


@app.command()
def audit(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe or a YAML file.")],
    networks: Annotated[int, typer.Option(help="How many to train, the baseline included: 10 to 30.")] = 16,
    epochs: Annotated[int | None, typer.Option(help="Of the reference; 4 times the proxy's by default.")] = None,
    data: Annotated[str | None, typer.Option(help="Image folder or .npz.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder; results/NAME-audit by default.")] = None,
    settings: Set = None,
    workers: Workers = None,
    ray_address: RayAddress = None,
) -> None:
    """Ask before a search whether its proxy ranks networks as a longer training does, and what the search will take.

    Example: nas audit images --data photos --networks 16
    """
    from nas import audit, summaries
    from nas.recipe import Recipe

    chosen = Recipe.load(recipe, _settings(settings, workers), data)
    folder, found = _train_list(lambda watch: audit.audit(chosen, networks, epochs, out, workers, ray_address, watch))
    _print(summaries.audit_table(found), "", summaries.audit_words(found), f"written to {folder / audit.AUDIT}")


@app.command()
def show(arch: Arch) -> None:
    """Show a network stage by stage beside EfficientNet-B0.

    Example: nas show results/digits
    """
    from nas import console
    from nas.run import find_architecture
    from search_space import load_architecture

    _print(console.stages(find_architecture(arch), load_architecture("efficientnet-b0")))


@app.command()
def profile(arch: Arch, as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Count FLOPs, params and memory, and measure latency, per stage and in all.

    Example: nas profile efficientnet-b0 --json
    """
    from nas import console
    from nas.profile import profile as measure
    from nas.run import find_architecture

    architecture = find_architecture(arch)
    figures = measure(architecture)
    if as_json:
        typer.echo(json.dumps(figures, indent=2))
        return
    _print(
        console.stages(architecture),
        f"FLOPs {figures['flops']:,} multiply-adds (conv + linear; fvcore counts {figures['fvcore_flops']:,})",
        f"params {figures['params']:,}",
        f"activation memory {figures['activation_memory_bytes'] / 2**20:.1f} MiB at its peak, batch 1, float32",
        f"latency {figures['latency_ms']:.1f} ms a {architecture.resolution} px image on this {figures['device']}",
    )


@app.command()
def export(
    arch: Arch,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write into.")],
    formats: Annotated[str, typer.Option("--format", help="yaml.")] = "yaml",
) -> None:
    """Write a network to a file and check it by loading it back.

    Example: nas export results/digits --format yaml -o exported
    """
    from nas.export import export as write
    from nas.run import find_architecture

    for path in write(find_architecture(arch), formats.split(","), out):
        typer.echo(path)


@app.command()
def bench(  # noqa: PLR0913, PLR0917 (one option each)
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write bench.json and bench.html into.")],
    data: Annotated[str, typer.Option(help="The benchmark's file; the shipped surrogate by default.")] = "rehearsal",
    controllers: Annotated[str, typer.Option(help="Names, also optuna-tpe and pyglove-evolution.")] = BENCHED,
    budgets: Annotated[str, typer.Option(help="Children after which regret is taken.")] = "50,100,200",
    seeds: Annotated[int, typer.Option(help="Searches of each controller.")] = 20,
    space: Annotated[str | None, typer.Option(help="A space or its file; the benchmark's own by default.")] = None,
    objective: Annotated[str, typer.Option(help="mnasnet, hard, absolute or auto.")] = "mnasnet",
    target: Annotated[str, typer.Option(help="T in FLOPs.")] = "400M",
    noise: Annotated[float | None, typer.Option(help="Of an observed accuracy, in points.")] = None,
    in_flight: Annotated[int, typer.Option(help="Children always under way.")] = 1,
    settings: Annotated[list[str] | None, typer.Option("--set", help="A controller's option: ppo.lr=0.01.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Searches at a time.")] = 2,
) -> None:
    """Compare controllers on a benchmark at equal budgets, over many seeds.

    Example: nas bench --controllers ppo,random --budgets 50,100,200 --seeds 20 -o results/bench
    """
    from nas import bench as benches

    setup = benches.Setup(
        source=data,
        space=space,
        controllers=tuple(name.strip() for name in controllers.split(",")),
        budgets=benches.parse_budgets(budgets),
        seeds=seeds,
        objective=objective,
        target=benches.parse_target(target),
        noise=noise,
        in_flight=in_flight,
        options=benches.parse_options(settings or []),
    )
    if out.exists():
        raise InputError(f"--out {out}: exists; choose another name")
    _bench(benches.Bench(setup), workers, out)


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2, never a traceback."""
    try:
        app()
    except InputError as error:
        typer.echo(f"nas: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        typer.echo(f"nas: {error.filename or 'input/output'}: {error.strerror}", err=True)
        sys.exit(2)


def _settings(settings: list[str] | None, workers: int | None) -> list[str]:
    """All the values to lay over a recipe as `key=value`."""
    return [*(settings or []), *([] if workers is None else [f"executor.workers={workers}"])]


def _search(go: Callable[[Callable[[Folder, Study], None]], tuple[Folder, Study]]) -> None:
    """Run or go on with a search, show how it is going, and end with what it found."""
    from rich.console import Console

    from nas import console
    from nas.evaluators import make_evaluator
    from nas.verdict import verdict

    seen: list[Folder] = []
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))

    def say_if_torn(study: Study) -> None:
        if study.torn:
            screen.print("a crash cut off the journal's last line; it is dropped, nothing else is lost")

    def watch(folder: Folder, study: Study) -> None:
        if not seen:
            seen.append(folder)
            screen.print(f"searching in {folder.path}", highlight=False, soft_wrap=True)
            say_if_torn(study)
        progress.update(study.ledger)

    screen = Console()
    try:
        with console.Progress(screen) as progress:
            folder, study = go(watch)
    except KeyboardInterrupt:
        where = seen[0].path if seen else None
        typer.echo(f"\nstopped; every finished child is kept. Go on with: nas resume {where}" if where else "\nstopped")
        sys.exit(STOPPED)
    if not seen:  # all children had their results already
        say_if_torn(study)
    ledger = study.ledger
    evaluator = make_evaluator(ledger.recipe) if ledger.recipe.benchmark else None
    outcome = console.verdict(ledger, verdict(ledger, evaluator))
    _print(outcome, console.target_words(ledger), "", console.ranking(ledger, 10))
    if study.exhausted:
        typer.echo("The controller has no more new networks to suggest, so the search ended early.")
    if not ledger.best(1):
        sys.exit(1)
    typer.echo(f"\n{folder.best}:\n{folder.best.read_text(encoding='utf-8')}")
    typer.echo(f"Next: nas show {folder.path}, nas top {folder.path}, nas export {folder.path} -o DIR")


def _retrain(
    path: Path, k: int, seeds: int | None, epochs: int | None, workers: int | None, ray_address: str | None
) -> None:
    """Retrain the leaders of a run, show what that says, and hand over the best."""
    from nas import console, retrain, summaries

    folder, found = _train_list(
        lambda watch: retrain.retrain(
            path, k, retrain.SEEDS if seeds is None else seeds, epochs, workers, ray_address, watch
        )
    )
    measured = folder.ledger().recipe.objective.cost
    unit = console.unit_of(measured)
    _print(summaries.retraining_table(found, unit), "", summaries.retraining_words(found), f"written to {folder.best}")


def _bench(prepared: Bench, workers: int, out: Path) -> None:
    """Run the searches, show the table, and write what is finished, also when the user stops it."""
    from rich.console import Console

    from nas import bench, console
    from nas.bench_plot import write_plot

    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    out.mkdir(parents=True)
    done: list[Search] = []
    stopped = False
    try:
        with (
            console.BenchProgress(Console(), prepared.searches) as progress,
            closing(bench.run(prepared, workers)) as searches,
        ):
            for search in searches:
                done.append(search)
                progress.advance()
    except KeyboardInterrupt:
        stopped = True
        typer.echo(f"\nstopped after {len(done)} of {prepared.searches} searches")
    summary = bench.summary(prepared, done)
    (out / "bench.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    write_plot(summary, out / "bench.html")
    _print(console.bench(summary), "", f"written to {out / 'bench.json'} and {out / 'bench.html'}")
    if stopped:
        sys.exit(STOPPED)


def _train_list(go: Callable[[Callable[[Trials], None]], Result]) -> Result:
    """Train a fixed list, show how it is going, and end cleanly when the user stops it."""
    from rich.console import Console

    from nas import console

    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    try:
        with console.TrialsProgress(Console()) as progress:
            return go(progress.update)
    except KeyboardInterrupt:
        typer.echo("\nstopped; every finished training is kept. Go on with the same command.")
        sys.exit(STOPPED)


def _print(*things: Any) -> None:
    """Print tables and lines; nothing is cut off where there is no terminal."""
    from rich.console import Console

    screen = Console() if sys.stdout.isatty() else Console(width=200)
    for thing in things:
        screen.print(thing, highlight=False, markup=False, soft_wrap=isinstance(thing, str))


if __name__ == "__main__":
    main()
