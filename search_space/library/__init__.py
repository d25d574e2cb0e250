"""Known networks and named spaces, one YAML file each."""

from __future__ import annotations

from pathlib import Path

from search_space.architecture import FORMAT, Architecture
from search_space.errors import InputError, did_you_mean
from search_space.space import SearchSpace, read_space

_BENCHMARKS = Path(__file__).parent / "benchmarks"  # networks that a benchmark's searches are compared with
_FILES = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.yaml"))}


def names(kind: str) -> tuple[str, ...]:
    """Names of the library's `architecture`s or `space`s."""
    wanted = FORMAT.replace("architecture", kind)
    return tuple(name for name, path in _FILES.items() if f"format: {wanted}\n" in path.read_text(encoding="utf-8"))


def load_architecture(name_or_path: str | Path) -> Architecture:
    """A network of the library by name, or of a YAML file by path.

    Raises:
        InputError: neither a known name nor a valid architecture file.
    """
    return Architecture.load(_find(name_or_path, "architecture"))


def load_space(name_or_path: str | Path) -> SearchSpace:
    """A search space of the library by name, or of a YAML file by path.

    Raises:
        InputError: neither a known name nor a valid space file.
    """
    return read_space(_find(name_or_path, "space"))


def _find(name_or_path: str | Path, kind: str) -> Path:
    name = str(name_or_path)
    known = names(kind)
    if name in known:
        return _FILES[name]
    if Path(name).name == name and (unpublished := _BENCHMARKS / f"{name}.yaml").is_file():
        return unpublished
    path = Path(name)
    if path.exists() or path.suffix in (".yaml", ".yml"):
        return path
    raise InputError(f"{name}: no such {kind} or file; {did_you_mean(name, known, 'the library has')}")
