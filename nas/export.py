"""Architectures as files for other tools, each checked by loading it back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from search_space import Architecture, InputError, cost

FORMATS = ("yaml",)


def export(architecture: Architecture, formats: Sequence[str], folder: Path) -> list[Path]:
    """Write `folder/<name>.<format>` for each format.

    Raises:
        InputError: an unknown format, a file with other content, or one that loads back as another network.
    """
    for name in formats:
        if name not in FORMATS:
            raise InputError(f"--format: {name!r} is unknown; use {', '.join(FORMATS)}")
    folder.mkdir(parents=True, exist_ok=True)
    return [_yaml(architecture, folder / f"{architecture.name}.yaml")]


def _yaml(architecture: Architecture, path: Path) -> Path:
    if path.exists() and path.read_bytes() != architecture.to_yaml().encode():
        raise InputError(f"{path}: exists and holds something else; choose another -o")
    architecture.save(path)
    again = Architecture.load(path)
    if (again.key(), cost.total(again)) != (architecture.key(), cost.total(architecture)):
        raise InputError(f"{path}: loads back as another network")
    return path
