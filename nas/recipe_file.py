"""A recipe's file, and the values that are laid over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from nas.benchmark_file import FORMATS, format_of
from nas.recipe_errors import RecipeError
from search_space.errors import did_you_mean
from search_space.files import parse_yaml, read_yaml

_HERE = Path(__file__).parent
RUNS = _HERE / "runs" if (_HERE / "runs").is_dir() else _HERE.parent / "runs"


def names() -> tuple[str, ...]:
    """The shipped recipes."""
    return tuple(sorted(path.stem for path in RUNS.glob("*.yaml")))


def read(name_or_path: str) -> Mapping[str, Any]:
    """The mapping in a shipped recipe, by name, or in a YAML file, by path.

    Raises:
        InputError: no such recipe or file, or no YAML.
    """
    if name_or_path in names():
        return read_yaml(RUNS / f"{name_or_path}.yaml")
    path = Path(name_or_path)
    if path.exists() or path.suffix in (".yaml", ".yml"):
        return read_yaml(path)
    raise RecipeError(f"{name_or_path}: no such recipe or file; {did_you_mean(name_or_path, names(), 'shipped are')}")


def lay_over(file: Mapping[str, Any], settings: Sequence[str], source: str | None) -> dict[str, Any]:
    """A recipe's mapping with other values in it.

    Args:
        file: the mapping; it stays as it is.
        settings: `a.b=value` each. With another objective or controller than the file's, its exponents or options go.
        source: of the images, or of the benchmark in a recipe with one; a file of another benchmark brings its own
            space, baseline, T and noise.

    Raises:
        InputError: no `a.b=value`, no YAML in it, or no such benchmark.
    """
    values = deepcopy(dict(file))
    if source is not None:
        section = "benchmark" if has_benchmark(values) else "data"
        settings = [*(_brought(file, source, settings) if section == "benchmark" else []), *settings]
    _drop_what_belongs_to_another(values, settings)
    for setting in settings:
        path, separator, text = setting.partition("=")
        if not separator or not path:
            raise RecipeError(f"--set {setting}: must be key=value, such as objective.target=300M")
        _write(values, path.split("."), parse_yaml(text, f"--set {setting}"), f"--set {setting}")
    if source is not None:
        _write(values, [section, "source"], source, "--data")
    return values


def check_unit(file: Mapping[str, Any], settings: Sequence[str]) -> None:
    """Refuse another cost than the file's with the file's T, which is in another unit.

    Raises:
        RecipeError: `settings` say a cost and no T.
    """
    cost = _last("objective.cost", settings)
    if cost not in (None, _cost(file)) and _last("objective.target", settings) is None:
        raise RecipeError(f"--set objective.cost={cost}: needs --set objective.target=... too, T in its own unit")


def has_benchmark(values: object) -> bool:
    """Whether a recipe's mapping has a section `benchmark`."""
    return isinstance(values, Mapping) and values.get("benchmark") is not None


def _brought(file: Mapping[str, Any], source: str, settings: Sequence[str]) -> list[str]:
    """Settings that a benchmark's file brings to a recipe for another: its space, baseline, noise, and T in FLOPs."""
    kind = format_of(source)
    if file.get("space") not in {other.space for other in FORMATS if other is not kind}:
        return []
    brought = [f"space={kind.space}", f"baseline={kind.baseline}", "benchmark.noise=null"]
    in_flops = (_last("objective.cost", settings) or _cost(file)) == "flops"
    return [*brought, f"objective.target={kind.target:.0f}"] if in_flops else brought


def _cost(file: Mapping[str, Any]) -> Any:
    """What the recipe's file takes as cost."""
    section = file.get("objective")
    return section.get("cost", "flops") if isinstance(section, Mapping) else "flops"


def _last(field: str, settings: Sequence[str]) -> Any:
    """The value that is laid over a field last; None for nothing."""
    given = [setting.partition("=")[2] for setting in settings if setting.startswith(f"{field}=")]
    return parse_yaml(given[-1], f"--set {field}") if given else None


def _drop_what_belongs_to_another(values: dict[str, Any], settings: Sequence[str]) -> None:
    """Forget the file's exponents or options where another objective or controller than the file's is laid over it."""
    for name, default, own in (("objective", "mnasnet", ("w", "w_above")), ("controller", "model_based", ("options",))):
        chosen, section = _last(f"{name}.name", settings), values.get(name)
        if chosen is not None and isinstance(section, Mapping) and chosen != section.get("name", default):
            values[name] = {field: value for field, value in section.items() if field not in own}


def _write(values: dict[str, Any], path: Sequence[str], value: object, where: str) -> None:
    """Write a value into nested mappings; `where` is what asked for it."""
    for section in path[:-1]:
        if values.get(section) is None:
            values[section] = {}
        inner = values[section]
        if not isinstance(inner, dict):
            raise RecipeError(f"{where}: {section} holds no fields")
        values = inner
    values[path[-1]] = value
