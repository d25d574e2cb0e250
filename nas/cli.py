"""The `nas` command: arguments in, the library does the work, words out. Heavy imports happen where they are used."""

from __future__ import annotations

import json
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.exceptions import TyperException

from search_space.errors import InputError

if TYPE_CHECKING:
    from nas.scaling import Rounding

app = typer.Typer(
    help="Neural architecture search for an efficient image baseline.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)

BENCHED = "model_based,ppo,reinforce,evolution,random"

Set = Annotated[list[str] | None, typer.Option("--set", help="Override a value of the recipe: objective.target=300M.")]
Workers = Annotated[int | None, typer.Option(help="Children at a time; as many as fit by default.")]
RayAddress = Annotated[str | None, typer.Option(help="A running Ray cluster, on one of its nodes: auto, or HOST:6379.")]
Arch = Annotated[str, typer.Argument(help="A library name, a YAML file, or the folder of a run (its best).")]
ThenScale = Annotated[bool, typer.Option("--then-scale", help="Then retrain, find coefficients, write a family.")]
Moved = Annotated[str | None, typer.Option("--data", help="Where the images, or the benchmark's file, are now.")]
Run = Annotated[Path, typer.Argument(help="The folder of a run.")]
NewRun = Annotated[
    Path | None, typer.Option("-o", "--out", help="Folder of the new run; the next free results/NAME by default.")
]


@app.command()
def search(
    recipe: Annotated[
        str, typer.Argument(help="A shipped recipe (digits, images, rehearse-b0, b0-imagenet) or a YAML file.")
    ],
    out: NewRun = None,
    data: Annotated[str | None, typer.Option(help="Image folder or .npz, or the benchmark's file.")] = None,
    settings: Set = None,
    workers: Workers = None,
    ray_address: RayAddress = None,
    then_scale: ThenScale = False,
) -> None:
    """Run a search.

    Example: nas search images --data photos --set children=60 -o results/photos
    """
    from nas import live, run
    from nas.recipe import Recipe

    chosen = Recipe.load(recipe, _settings(settings, workers), data)
    chosen = chosen.scaling() if then_scale else chosen
    live.run_search(lambda watch: run.start(chosen, out, ray_address, watch), workers, ray_address)


@app.command()
def resume(
    path: Run,
    data: Moved = None,
    workers: Workers = None,
    ray_address: RayAddress = None,
    then_scale: ThenScale = False,
) -> None:
    """Go on with a search after any stop, and with what follows it; every finished training is kept.

    Example: nas resume results/digits
    """
    from nas import live, run

    if data is not None:
        run.relocate(path, data)
    if then_scale:
        run.add_scaling(path)
    live.run_search(lambda watch: run.resume(path, _settings(None, workers), ray_address, watch), workers, ray_address)


@app.command()
def retarget(
    path: Run,
    flops: Annotated[str, typer.Option(help="The new target T: 200M.")],
    children: Annotated[
        int | None, typer.Option(min=0, help="How many more to train; as many as RUN did by default.")
    ] = None,
    out: NewRun = None,
    data: Moved = None,
    settings: Set = None,
    workers: Workers = None,
    ray_address: RayAddress = None,
) -> None:
    """Continue a search for another FLOPs target; every training of the earlier run counts again.

    Example: nas retarget results/digits --flops 200M --children 20
    """
    from nas import live, run
    from nas.quantities import parse_amount
    from nas.recipe import LEAST_FLOPS

    target = parse_amount("--flops", flops)
    if target is not None and target < LEAST_FLOPS:
        raise InputError(f"--flops: {flops} multiply-adds is less than any network has; write {flops}M?")
    for setting in settings or []:
        if setting.partition("=")[0] in {"objective.cost", "objective.target", "children"}:
            raise InputError(f"--set {setting}: --flops and --children say that here")
    laid_over = [*_settings(settings, workers), "objective.cost=flops", f"objective.target={target!r}"]
    live.run_search(
        lambda watch: run.retarget(path, laid_over, children, out, ray_address, watch, data), workers, ray_address
    )


@app.command()
def top(
    path: Run,
    k: Annotated[int, typer.Option("-k", min=1, help="How many; the one handed over is always included.")] = 10,
    retrain: Annotated[bool, typer.Option("--retrain", help="Train those estimated best again, to choose.")] = False,
    seeds: Annotated[int | None, typer.Option(help="Retrainings of each network; 3 by default.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of a retraining; 4 times the proxy's by default.")] = None,
    data: Moved = None,
    workers: Workers = None,
    ray_address: RayAddress = None,
) -> None:
    """Show the ranking of a run, also while it is running; with --retrain, choose the winner by longer trainings.

    Example: nas top results/digits -k 5 --retrain
    """
    from nas import live, run

    if retrain:
        if data is not None:
            run.relocate(path, data)
        live.run_retraining(path, k, seeds, epochs, workers, ray_address)
        return
    given = {"--seeds": seeds, "--epochs": epochs, "--data": data, "--workers": workers, "--ray-address": ray_address}
    _refuse(given, "only with --retrain")
    from nas import console
    from nas.folder import Folder
    from nas.verdict import verdict

    ledger = Folder.open(path).ledger()
    status = console.status_line(ledger, 0, 0)
    if ledger.winner is None:
        console.show(status, console.no_result(ledger))
    else:
        opening = console.against_random(ledger) or f"So far: {verdict(ledger)}"
        best, failures = console.best(ledger, ledger.winner), console.failures_words(ledger)
        console.show(*filter(None, (opening, status, best, failures)), console.ranking(ledger, k))


@app.command()
def audit(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe or a YAML file.")],
    networks: Annotated[int, typer.Option(help="How many to train, the baseline included: 10 to 30.")] = 16,
    epochs: Annotated[int | None, typer.Option(help="Epochs of the reference; 4 times the proxy's by default.")] = None,
    data: Annotated[str | None, typer.Option(help="Image folder or .npz.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder; results/NAME-audit by default.")] = None,
    settings: Set = None,
    workers: Workers = None,
    ray_address: RayAddress = None,
) -> None:
    """Ask before a search whether its proxy ranks networks as a longer training does, and what the search will take.

    Example: nas audit images --data photos --networks 16
    """
    from nas import audit, audit_tables, console, live
    from nas.recipe import Recipe

    chosen = Recipe.load(recipe, _settings(settings, workers), data)
    folder, found = live.train_list(
        lambda watch: audit.audit(chosen, networks, epochs, out, workers, ray_address, watch)
    )
    words = (
        audit_tables.audit_words(found),
        console.images_words(chosen, found.contents),
        console.classes_words(chosen, chosen.load_baseline(), found.contents),
        console.blind_words(chosen, chosen.load_space()),
    )
    console.show(audit_tables.audit_table(found), "", *filter(None, words), f"written to {folder / audit.AUDIT}")


@app.command()
def show(arch: Arch) -> None:
    """Show a network stage by stage beside EfficientNet-B0.

    Example: nas show results/digits
    """
    from nas import console
    from nas.folder import find_architecture
    from nas.stage_table import stage_table
    from search_space import load_architecture

    network = find_architecture(arch)
    shared = {"num_classes": network.num_classes, "resolution": network.resolution}
    try:
        console.show(stage_table(network, load_architecture("efficientnet-b0").with_(**shared)))
    except InputError as error:
        console.show(stage_table(network), f"{error}: it can't stand beside this one")


@app.command()
def profile(arch: Arch, as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Count FLOPs and params, per stage and in all, and memory; measure latency.

    Example: nas profile efficientnet-b0 --json
    """
    from nas import console
    from nas.folder import find_architecture
    from nas.profile import profile as measure
    from nas.quantities import format_quantity
    from nas.stage_table import stage_table

    architecture = find_architecture(arch)
    figures = measure(architecture)
    if as_json:
        typer.echo(json.dumps(figures, indent=2))
        return
    console.show(
        stage_table(architecture),
        f"FLOPs {figures['flops']:,} multiply-adds (conv + linear; fvcore counts {figures['fvcore_flops']:,})",
        f"params {figures['params']:,}",
        f"memory, float32: weights {format_quantity(figures['weight_bytes'])}B, "
        f"inference {format_quantity(figures['inference_memory_bytes'])}B (batch 1), "
        f"training {format_quantity(figures['training_memory_bytes'])}B "
        f"(batch {figures['training']['batch_size']}, {figures['training']['optimizer']})",
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
    from nas.folder import find_architecture

    for path in write(find_architecture(arch), formats.split(","), out):
        typer.echo(path)


@app.command()
def scale(  # noqa: PLR0913, PLR0917 (one option each)
    arch: Arch,
    phi: Annotated[str | None, typer.Option(help="Members: 1..7 or 1,2.5; 0 is ARCH itself. 0..7 by default.")] = None,
    preset: Annotated[str | None, typer.Option(help="efficientnet: the release's B0 to B7, not powers.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Depth at phi 1; 1.2 by default.")] = None,
    beta: Annotated[float | None, typer.Option(help="Width at phi 1; 1.1 by default.")] = None,
    gamma: Annotated[float | None, typer.Option(help="Resolution at phi 1; 1.15 by default.")] = None,
    any_product: Annotated[bool, typer.Option("--any-product", help="Let alpha beta^2 gamma^2 be far from 2.")] = False,
    dimension: Annotated[str | None, typer.Option(help="depth, width, resolution or compound (default).")] = None,
    divisor: Annotated[int, typer.Option(help="Channels are multiples of it.")] = 8,
    round_resolution: Annotated[int, typer.Option(help="Pixels are multiples of it.")] = 1,
    flops: Annotated[
        str | None, typer.Option(help="One member within 2% of them, or as near as possible: 1.8G.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="The largest member within both this and --flops; 500M is 5e8 bytes.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, max=2**20, help="Images for memory; 1 by default.")] = None,
    train_with: Annotated[str | None, typer.Option(help="Memory of training: rmsprop or sgd.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder for one YAML file each.")] = None,
    grid: Annotated[bool, typer.Option("--grid", help="Find alpha, beta and gamma by training first.")] = False,
    recipe: Annotated[str | None, typer.Option(help="How the grid's networks train; images by default.")] = None,
    data: Annotated[str | None, typer.Option(help="Image folder or .npz for the grid.")] = None,
    settings: Set = None,
    step: Annotated[float | None, typer.Option(help="Step of the grid; 0.1 by default.")] = None,
    tolerance: Annotated[float | None, typer.Option(help="How far alpha beta^2 gamma^2 may be from 2; 0.1.")] = None,
    leaders: Annotated[int | None, typer.Option(help="Candidates to train again; 4 by default.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Trainings of each leader; 3 by default.")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Also grow by width, depth, resolution alone.")] = False,
    workers: Workers = None,
    ray_address: RayAddress = None,
) -> None:
    """Grow a network into a family by compound scaling; without -o only show it.

    With --grid the coefficients are those that win on your images; the same command again goes on after any stop.

    Example: nas scale efficientnet-b0 --flops 1.8G --memory 500M -o results/family

    Example: nas scale efficientnet-b0 --grid --data photos -o results/grid
    """
    from nas import console, family, scaling_tables
    from nas.fitting import Wish
    from nas.folder import find_architecture
    from nas.quantities import parse_amount
    from nas.scaling import Rounding

    rounding = Rounding(divisor, round_resolution)
    laid_over: dict[str, Any] = {"step": step, "tolerance": tolerance, "leaders": leaders, "seeds": seeds}
    laid_over["compare"] = compare or None
    if grid:
        shares = {"--alpha": alpha, "--beta": beta, "--gamma": gamma, "--any-product": any_product or None}
        budgets = {"--flops": flops, "--memory": memory, "--batch-size": batch_size, "--train-with": train_with}
        _refuse({"--preset": preset, "--dimension": dimension, **shares, **budgets}, "not with --grid")
        laid_over["phi"] = None if phi is None else family.parse_phis(phi)
        section = [f"scale.{name}={json.dumps(value)}" for name, value in laid_over.items() if value is not None]
        given = [*_settings(settings, workers), *section]
        _scale_by_grid(arch, recipe or "images", data, given, rounding, out, ray_address)
        return
    training = {"--recipe": recipe, "--data": data, "--set": settings, "--ray-address": ray_address}
    options = {f"--{name}": value for name, value in laid_over.items()}
    _refuse({**training, **options, "--workers": workers}, "only with --grid")
    scaler = family.make_scaler(preset, dimension, (alpha, beta, gamma), rounding, any_product)
    images = batch_size or 1
    memory_of = family.memory_function(images, train_with)
    if flops is None and memory is None:
        members, words = scaler.family(find_architecture(arch), family.phis(phi, scaler)), []
    else:
        in_bytes = memory.rstrip("Bb") if memory else None  # 500MB as well as 500M
        wish = Wish(parse_amount("--flops", flops), parse_amount("--memory", in_bytes), memory_of)
        member = family.fit(find_architecture(arch), scaler, wish, phi)
        members, words = [member], [scaling_tables.fit_words(member, scaler, wish)]
    written = family.write(members, out) if out else []
    units = scaling_tables.memory_words(images, train_with)
    console.show(scaling_tables.family_table(members, memory_of), units, *words, *map(str, written))


@app.command()
def compare(
    family: Annotated[
        list[str], typer.Argument(help="Folders of YAML files (nas scale -o), YAML files or library names.")
    ],
    form: Annotated[str, typer.Option("--format", help="text or markdown.")] = "text",
) -> None:
    """Show networks beside published ones: params, FLOPs, the ratio to ours, and the accuracies that were published.

    Example: nas compare results/family --format markdown
    """
    from nas import compare as comparison
    from nas import console

    if form not in ("text", "markdown"):
        raise InputError(f"--format {form}: unknown; use text or markdown")
    members = comparison.find_members(family)
    rows, words = comparison.compare(members), comparison.words(members)
    if form == "markdown":
        typer.echo(f"{comparison.markdown(rows)}\n\n{words}")
        return
    console.show(comparison.table(rows), "", words)


@app.command()
def cam(  # noqa: PLR0913, PLR0917 (one option each)
    arch: Arch,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the picture and the weights.")],
    recipe: Annotated[str, typer.Option(help="A shipped recipe or a YAML file: how they train.")] = "images",
    data: Annotated[str | None, typer.Option(help="Image folder or .npz.")] = None,
    images: Annotated[int, typer.Option(help="Held-out images in the picture, spread over the classes.")] = 8,
    phi: Annotated[float, typer.Option(help="Phi of the compound-scaled network.")] = 2,
    alpha: Annotated[float, typer.Option(help="Its depth at phi 1.")] = 1.2,
    beta: Annotated[float, typer.Option(help="Its width at phi 1.")] = 1.1,
    gamma: Annotated[float, typer.Option(help="Its resolution at phi 1.")] = 1.15,
    any_product: Annotated[bool, typer.Option("--any-product", help="Let alpha beta^2 gamma^2 be far from 2.")] = False,
    settings: Set = None,
) -> None:
    """Show where networks look: class activation maps of ARCH grown in width, depth, resolution and all three.

    The five train alike, the grown ones at equal FLOPs. The same command again trains only what is missing.

    Example: nas cam efficientnet-b0 --recipe images --data photos -o results/cam
    """
    from nas import console, live
    from nas.cam import FINE
    from nas.cam import cam as look
    from nas.cam_plot import write_plot
    from nas.cam_table import cam_table
    from nas.folder import find_architecture
    from nas.recipe import Recipe
    from nas.scaling import Coefficients, CompoundScaler

    scaler = CompoundScaler(Coefficients(alpha, beta, gamma), FINE, any_product)
    network, chosen = find_architecture(arch), Recipe.load(recipe, _settings(settings, None), data)
    found = live.train_in_turn(lambda watch: look(network, chosen, out, images, phi, scaler, watch))
    write_plot(found, out / "cam.png")
    console.show(cam_table(found), "", f"written to {out / 'cam.png'}")


@app.command()
def bench(  # noqa: PLR0913, PLR0917 (one option each)
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write bench.json and bench.html into.")],
    data: Annotated[str, typer.Option(help="The benchmark's file; the shipped surrogate by default.")] = "rehearsal",
    controllers: Annotated[str, typer.Option(help="Names, also optuna-tpe and pyglove-evolution.")] = BENCHED,
    budgets: Annotated[str, typer.Option(help="Numbers of children after which regret is measured.")] = "50,100,200",
    seeds: Annotated[int, typer.Option(help="Searches of each controller.")] = 20,
    space: Annotated[str | None, typer.Option(help="A space or its file; the benchmark's own by default.")] = None,
    objective: Annotated[str, typer.Option(help="mnasnet, hard, absolute or auto.")] = "mnasnet",
    target: Annotated[str | None, typer.Option(help="T in FLOPs; the benchmark's own by default.")] = None,
    noise: Annotated[float | None, typer.Option(help="Standard deviation of an observed accuracy, in points.")] = None,
    in_flight: Annotated[int, typer.Option(help="Children kept under way.")] = 1,
    settings: Annotated[list[str] | None, typer.Option("--set", help="A controller's option: ppo.lr=0.01.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Searches at a time.")] = 2,
) -> None:
    """Compare controllers on a benchmark at equal budgets, over many seeds.

    Example: nas bench --controllers ppo,random --budgets 50,100,200 --seeds 20 -o results/bench
    """
    from nas import bench as benches
    from nas import live
    from nas.quantities import parse_amount

    setup = benches.Setup(
        source=data,
        space=space,
        controllers=tuple(name.strip() for name in controllers.split(",")),
        budgets=benches.parse_budgets(budgets),
        seeds=seeds,
        objective=objective,
        target=parse_amount("--target", target),
        noise=noise,
        in_flight=in_flight,
        options=benches.parse_options(settings or []),
    )
    if out.exists():
        raise InputError(f"--out {out}: exists; choose another name")
    live.run_bench(benches.Bench(setup), workers, out)


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # names may have letters that the terminal lacks
    try:
        sys.exit(app(standalone_mode=False))  # 130 after Ctrl-C
    except TyperException as error:
        words = error.format_message()
        typer.echo(words if words.startswith("Usage") else f"nas: {words}", err=True)
        sys.exit(error.exit_code)
    except InputError as error:
        typer.echo(f"nas: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        typer.echo(f"nas: {error.filename or 'input/output'}: {error.strerror or error}", err=True)
        sys.exit(2)


def _settings(settings: list[str] | None, workers: int | None) -> list[str]:
    """All the values to lay over a recipe as `key=value`."""
    return [*(settings or []), *([] if workers is None else [f"executor.workers={workers}"])]


def _refuse(options: dict[str, Any], why: str) -> None:
    """Refuse options that say nothing here.

    Raises:
        InputError: one of them was given.
    """
    for option, value in options.items():
        if value is not None:
            raise InputError(f"{option}: {why}")


def _scale_by_grid(
    arch: str,
    recipe: str,
    data: str | None,
    settings: list[str],
    rounding: Rounding,
    out: Path | None,
    address: str | None,
) -> None:
    """Search the coefficients for a network and write its family (see `scale`)."""
    from nas import grid_plan, live
    from nas.folder import find_architecture
    from nas.recipe import Recipe

    if out is None:
        raise InputError("-o: --grid needs a folder for its trainings and the family")
    plan = grid_plan.prepare(find_architecture(arch), Recipe.load(recipe, settings, data), rounding)
    live.run_grid(plan, out, address, live.THE_SAME)


if __name__ == "__main__":
    main()
