"""A family on the command line: which members are wanted, by which scaler, and its folder of YAML files."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

from nas.export import export
from nas.fitting import MemoryFunction, Wish
from nas.scaling import DIMENSIONS, PAPER, PRESETS, Coefficients, CompoundScaler, Member, Rounding, Scaler
from search_space import Architecture, cost
from search_space.errors import InputError

PHIS = range(8)
MOST_MEMBERS = 100


def phis(text: str | None, scaler: Scaler) -> list[float]:
    """The members that are asked for; by default those of 0 to 7 that the scaler grows to.

    Raises:
        InputError: see `parse_phis`.
    """
    if text is not None:
        return parse_phis(text)
    most = scaler.most_phi if isinstance(scaler, CompoundScaler) else math.inf
    return [float(phi) for phi in PHIS if phi <= most]


def parse_phis(text: str) -> list[float]:
    """`1..7` or `1,2.5` as numbers.

    A member between the network itself (0) and phi = 1 is asked for by its FLOPs.

    Raises:
        InputError: not numbers, below 1 and not 0, or too many.
    """
    first, dots, last = text.partition("..")
    try:
        asked = range(int(first), int(last) + 1) if dots else text.split(",")
        phis = [float(phi) for phi in asked[: MOST_MEMBERS + 1]]
    except (ValueError, OverflowError):
        raise InputError(f"--phi {text}: must be numbers such as 1..7 or 1,2.5") from None
    if not 0 < len(phis) <= MOST_MEMBERS:
        raise InputError(f"--phi {text}: must be 1 to {MOST_MEMBERS} members, the smaller phi first")
    for phi in phis:
        if not (math.isfinite(phi) and (phi == 0 or phi >= 1)):
            raise InputError(f"--phi {phi:g}: must be 1 or more, or 0 for the network itself; sizes between: --flops")
    return list(dict.fromkeys(float(f"{phi:g}") for phi in phis))  # as in the members' names


def make_scaler(
    preset: str | None,
    dimension: str | None,
    coefficients: Sequence[float | None],
    rounding: Rounding,
    any_product: bool,
) -> Scaler:
    """The scaler that the options ask for.

    Args:
        preset: one of `PRESETS`.
        dimension: one of `DIMENSIONS`; compound by default.
        coefficients: alpha, beta and gamma; the paper's where None.
        rounding: of channels and pixels.
        any_product: see `CompoundScaler`.

    Raises:
        InputError: an unknown name, options that exclude each other, or coefficients that can't be.
    """
    given = any(value is not None for value in coefficients)
    if preset is not None:
        if preset not in PRESETS:
            raise InputError(f"--preset: {preset!r} is unknown; use {', '.join(PRESETS)}")
        if given or any_product or dimension is not None:
            raise InputError(
                "--preset: has its own growth; leave out --alpha, --beta, --gamma, --any-product and --dimension"
            )
        return PRESETS[preset](rounding)
    if dimension is not None and dimension not in DIMENSIONS:
        raise InputError(f"--dimension: {dimension!r} is unknown; use one of {', '.join(DIMENSIONS)}")
    if dimension not in (None, "compound"):
        if given or any_product:
            raise InputError(f"--dimension {dimension}: grows alone; leave out --alpha, --beta, --gamma, --any-product")
        return CompoundScaler(DIMENSIONS[dimension], rounding)
    papers = (PAPER.alpha, PAPER.beta, PAPER.gamma)
    shares = [paper if value is None else value for value, paper in zip(coefficients, papers, strict=True)]
    return CompoundScaler(Coefficients(*shares), rounding, any_product)


def memory_function(batch_size: int, optimizer: str | None) -> MemoryFunction:
    """Bytes for inference, or for training where an optimizer is given.

    Raises:
        InputError: the optimizer is unknown.
    """
    if optimizer is None:
        return partial(cost.inference_memory, batch_size=batch_size)
    if optimizer not in cost.OPTIMIZERS:
        raise InputError(f"--train-with: {optimizer!r} is unknown; use one of {', '.join(cost.OPTIMIZERS)}")
    return partial(cost.training_memory, batch_size=batch_size, optimizer=optimizer)


def fit(architecture: Architecture, scaler: Scaler, wish: Wish, phi: str | None) -> Member:
    """The one member that meets a wish.

    Raises:
        InputError: a phi or a preset is given as well, or nothing meets the wish.
    """
    if phi is not None:
        raise InputError("--phi: is found by --flops and --memory; leave it out")
    if not isinstance(scaler, CompoundScaler):
        raise InputError("--preset: has only its own sizes; leave it out, or --flops and --memory")
    return scaler.fit(architecture, wish.flops, wish.memory, wish.memory_of)


def write(members: Sequence[Member], folder: Path, earlier: Collection[str] = ()) -> list[Path]:
    """One YAML file for each member, checked by loading it back; writing the same family again changes nothing.

    Args:
        members: to write.
        folder: to write into.
        earlier: names of the members of an earlier family there, whose place this one takes.

    Raises:
        InputError: the folder holds anything else; it stays as it is.
    """
    texts = {f"{member.architecture.name}.yaml": member.architecture.to_yaml() for member in members}
    old = {folder / f"{name}.yaml" for name in earlier}
    if folder.exists() and not folder.is_dir():
        raise InputError(f"-o {folder}: exists and is not a folder; choose another name")
    for path in sorted({*folder.iterdir()} - old) if folder.is_dir() else []:
        if path.name not in texts or not path.is_file() or path.read_bytes() != texts[path.name].encode():
            raise InputError(f"-o {folder}: exists and holds something else ({path.name}); choose another name")
    for path in old.intersection(folder.iterdir() if folder.is_dir() else ()):
        path.unlink()
    return [path for member in members for path in export(member.architecture, ["yaml"], folder)]
