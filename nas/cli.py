"""The `nas` command: arguments in, the library does the work, words out. Heavy imports happen where they are used."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search_space.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from nas.run import Folder
    from nas.study import Study

app = typer.Typer(
    help="Neural architecture search for an efficient image baseline.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)

STOPPED = 130

Set = Annotated[list[str] | None, typer.Option("--set", help="Lay a value over the recipe: objective.target=300M.")]
Workers = Annotated[int | None, typer.Option(help="Children at a time; as many as fit by default.")]
RayAddress = Annotated[str | None, typer.Option(help="A running Ray cluster: auto, or ray://HOST:10001.")]
Arch = Annotated[str, typer.Argument(help="A library name, a YAML file, or the folder of a run (its best).")]
Run = Annotated[Path, typer.Argument(help="The folder of a run.")]


@app.command()
def search(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe (digits, images, b0-imagenet) or a YAML file.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run; results/NAME by default.")] = None,
    data: Annotated[str | None, typer.Option(help="Image folder or .npz; short for --set data.source=PATH.")] = None,
    settings: Set = None,
    workers: Workers = None,
    ray_address: RayAddress = None,
) -> None:
    """Run a search.

    Example: nas search images --data photos --set children=60 --out results/photos
    """
    from nas import run
    from nas.recipe import Recipe

    chosen = Recipe.load(recipe, _settings(settings, workers, data))
    _search(lambda watch: run.start(chosen, out, ray_address, watch))


@app.command()
def resume(path: Run, workers: Workers = None, ray_address: RayAddress = None) -> None:
    """Go on with a search after any stop; every finished child is kept.

    Example: nas resume results/digits
    """
    from nas import run

    _search(lambda watch: run.resume(path, _settings(None, workers, None), ray_address, watch))


@app.command()
def top(path: Run, k: Annotated[int, typer.Option("-k", min=1, help="How many.")] = 10) -> None:
    """Show the ranking of a run, also while it is running.

    Example: nas top results/digits -k 5
    """
    from nas import console
    from nas.run import Folder

    ledger = Folder.open(path).ledger()
    _print(console.status_line(ledger, 0, 0), console.ranking(ledger, k))


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


def _settings(settings: list[str] | None, workers: int | None, data: str | None) -> list[str]:
    """All the values to lay over a recipe as `key=value`."""
    found = list(settings or [])
    if data is not None:
        found.append(f"data.source={json.dumps(data)}")
    if workers is not None:
        found.append(f"executor.workers={workers}")
    return found


def _search(go: Callable[[Callable[[Folder, Study], None]], tuple[Folder, Study]]) -> None:
    """Run or go on with a search, show how it is going, and end with what it found."""
    from rich.console import Console

    from nas import console

    seen: list[Folder] = []
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))

    def watch(folder: Folder, study: Study) -> None:
        if not seen:
            seen.append(folder)
            screen.print(f"searching in {folder.path}", highlight=False, soft_wrap=True)
            if study.torn:
                screen.print("a crash cut off the journal's last line; it is dropped, nothing else is lost")
        progress.update(study.ledger)

    screen = Console()
    try:
        with console.Progress(screen) as progress:
            folder, study = go(watch)
    except KeyboardInterrupt:
        where = seen[0].path if seen else None
        typer.echo(f"\nstopped; every finished child is kept. Go on with: nas resume {where}" if where else "\nstopped")
        sys.exit(STOPPED)
    ledger = study.ledger
    _print(console.ranking(ledger, 10), "", console.verdict(ledger))
    if study.exhausted:
        typer.echo("The controller has no more new networks to suggest, so the search ended early.")
    if not ledger.best(1):
        sys.exit(1)
    typer.echo(f"\n{folder.best}:\n{folder.best.read_text(encoding='utf-8')}")
    typer.echo(f"Next: nas show {folder.path}, nas top {folder.path}, nas export {folder.path} -o DIR")


def _print(*things: Any) -> None:
    """Print tables and lines; nothing is cut off where there is no terminal."""
    from rich.console import Console

    screen = Console() if sys.stdout.isatty() else Console(width=200)
    for thing in things:
        screen.print(thing, highlight=False, markup=False, soft_wrap=isinstance(thing, str))


if __name__ == "__main__":
    main()
