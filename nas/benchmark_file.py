"""Reads the files of benchmarks: one JSON line per trained network, every row checked against the search space.

Two formats are known by their fields: that of Accel-NASBench (`e`, `k`, `l`, `se`: expansion, kernel, layers and SE of
seven stages, `top1` in %, `macs`, `params`, and measured `throughput_*` and `latency_*`) and that of NAS-Bench-Macro
(`arch`: one digit per layer, `acc`: the accuracies of three seeds in %, `mean`, `params`, `flops`).
"""

from __future__ import annotations

import gzip
import json
import math
import os
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from nas.encoder import Encoder
from search_space import Architecture, InputError, SearchSpace, SpaceError, load_architecture, load_space
from search_space.cost import total
from search_space.space import Actions

REHEARSAL = "rehearsal"
"""The source that is no file: the surrogate that is shipped."""

_METRICS = ("throughput_", "latency_")
_GZIP = b"\x1f\x8b"
_DEFAULTS = {field.name: field.default for field in fields(Architecture)}  # of what a space may leave out
_MOST_APART = 0.1  # accuracies in [0, 1] of one network's trainings; chance explains no more


class BenchmarkError(InputError):
    """A benchmark's file that can't be used, or that isn't the search space's."""


@dataclass(frozen=True)
class Network:
    """What a file holds of one network.

    Attributes:
        line: where it is first.
        accuracies: of its trainings, in [0, 1].
        metrics: measured on devices, in the file's own unit, means of what its rows tell; without those that weren't
            measured (null in the file).
    """

    line: int
    accuracies: list[float]
    metrics: dict[str, float]


@dataclass(frozen=True)
class Format:
    """How a row tells its network and accuracies, and what the benchmark is for.

    Attributes:
        space: the library's space that the format describes.
        baseline: the library's network of that space to compare with.
        target: T in multiply-adds that its users search at.
        fields: that every row must have.
        flops: the field with the multiply-adds.
        actions: (row, space) -> the network's actions there.
        accuracies: row -> the accuracies in %.
        repeats: whether a network that was trained again has a row of its own.
    """

    space: str
    baseline: str
    target: float
    fields: tuple[str, ...]
    flops: str
    actions: Callable[[Mapping[str, Any], SearchSpace], Actions]
    accuracies: Callable[[Mapping[str, Any]], list[float]]
    repeats: bool


def read(path: str, space: SearchSpace) -> dict[Actions, Network]:
    """Read and check a file: its networks by their actions in the space.

    Different actions may lead to one network (NAS-Bench-Macro trained both orders of an identity and a layer): both
    are kept, as the benchmark's users count them. Repeated trainings of the same actions are put together.

    Raises:
        BenchmarkError: one line that names the file, the row and the field: no such file, another format, a missing
            field, NaN, an accuracy outside 0..100, a row that is there twice, trainings of one network that contradict
            each other, a network outside the space, or one whose FLOPs or params aren't those that the space's has.
    """
    kind: Format | None = None
    encode = Encoder(space)
    networks: dict[Actions, Network] = {}
    measurements: dict[tuple[Actions, str], list[float]] = defaultdict(list)
    rows: set[tuple[object, ...]] = set()
    for number, row in _rows(path):
        with _named(path, number):
            if kind is None:
                kind = _format_of(row)
                template = load_space(kind.space)
                metrics = [name for name in row if name.startswith(_METRICS)]
            _check_fields(row, [*kind.fields, *metrics])
            if late := [name for name in row if name.startswith(_METRICS) and name not in metrics]:
                raise BenchmarkError(f"{late[0]}: not in the rows before; write null where it wasn't measured")
            actions = _encoded(encode, template.decode(kind.actions(row, template)), space, row, kind)
            accuracies = [accuracy / 100 for accuracy in kind.accuracies(row)]
            measured = {name: _number(row[name], name, least=1e-9) for name in metrics if row[name] is not None}
            network = networks.setdefault(actions, Network(number, [], {}))
            told = (actions, *accuracies, *measured.items())
            if network.accuracies and (not kind.repeats or told in rows):
                raise BenchmarkError(f"{kind.fields[0]}: the same network as in line {network.line}")
            network.accuracies.extend(accuracies)
            low, high = min(network.accuracies), max(network.accuracies)
            if high - low > _MOST_APART:
                where = "" if network.line == number else f" here and in line {network.line}"
                raise BenchmarkError(
                    f"accuracy: one network has {100 * low:g}% and {100 * high:g}%{where}; leave out the training that "
                    "broke down"
                )
            rows.add(told)
            for name, value in measured.items():
                measurements[actions, name].append(value)
    for (actions, name), values in measurements.items():
        networks[actions].metrics[name] = fmean(values)
    if not networks:
        raise BenchmarkError(f"{path}: holds no row")
    if np.median([max(network.accuracies) for network in networks.values()]) <= 1 / 100:
        raise BenchmarkError(f"{path}: the accuracies must be in %, and most are not above 1")
    return networks


def format_of(source: str) -> Format:
    """The format of a benchmark: its space, and what to compare and aim at there.

    Args:
        source: a file, told by its first row, or `REHEARSAL`.

    Raises:
        BenchmarkError: the file can't be read or its format is unknown.
    """
    if source == REHEARSAL:
        return ACCEL
    for number, row in _rows(source):
        with _named(source, number):
            return _format_of(row)
    raise BenchmarkError(f"{source}: holds no row")


def check_space(source: str, space: SearchSpace) -> None:
    """Refuse a space of other networks than the benchmark's.

    Args:
        source: of the benchmark; see `format_of`.
        space: that is to be searched.

    Raises:
        BenchmarkError: it is one, or the file can't be read.
    """
    kind = format_of(source)
    network = load_architecture(kind.baseline) if source == REHEARSAL else _first(source, kind)
    if not space.contains(network):
        raise BenchmarkError(
            f"space: {space.name} is not the benchmark's: {source} has networks of {kind.space}, from which it differs "
            f"in `{difference(space, kind.space)}`"
        )


def difference(space: SearchSpace, library: str) -> str | None:
    """The first field in which a space differs from one of the library; None where only the name does."""
    theirs, ours = (_DEFAULTS | one.to_dict() for one in (load_space(library), space))
    return next((field for field in theirs if field != "name" and theirs[field] != ours[field]), None)


def _first(path: str, kind: Format) -> Architecture:
    """The network of a file's first row."""
    number, row = next(_rows(path))
    template = load_space(kind.space)
    with _named(path, number):
        _check_fields(row, kind.fields)
        return template.decode(kind.actions(row, template))


@contextmanager
def _named(path: str, number: int) -> Iterator[None]:
    """Put the file and the line before what is wrong with a row."""
    try:
        yield
    except BenchmarkError as error:
        raise BenchmarkError(f"{path}, line {number}: {error}") from None


def _rows(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers from 1 and rows."""
    path = os.path.expanduser(path)
    try:
        if Path(path).is_fifo():
            raise BenchmarkError(f"{path}: is a pipe; it is read more than once and must be a file")
        with Path(path).open("rb") as head:
            packed = head.read(len(_GZIP)) == _GZIP
        if path.endswith(".gz") and not packed:
            raise BenchmarkError(f"{path}: is not gzip, as its name says")
        opened = gzip.open if packed else open
        with opened(path, "rt", encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _row(line, f"{path}, line {number}")
    except OSError as error:
        reason = "damaged gzip" if isinstance(error, gzip.BadGzipFile) else error.strerror
        raise BenchmarkError(f"{path}: can't be read: {reason}") from None
    except (EOFError, zlib.error):
        raise BenchmarkError(f"{path}: can't be read: truncated or damaged gzip") from None
    except UnicodeDecodeError:
        raise BenchmarkError(f"{path}: can't be read: not a text file") from None


def _row(line: str, where: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        held = dict(pairs)
        if len(held) < len(pairs):
            names = [name for name, _ in pairs]
            raise BenchmarkError(f"{where}: {next(name for name in names if names.count(name) > 1)}: is there twice")
        return held

    try:
        row = json.loads(line, object_pairs_hook=unique)
    except BenchmarkError:
        raise
    except (ValueError, RecursionError):
        raise BenchmarkError(f"{where}: not JSON: {line.strip()[:40]!r}") from None
    if not isinstance(row, dict):
        raise BenchmarkError(f"{where}: must be a JSON object, not {line.strip()[:40]!r}")
    for name, value in row.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise BenchmarkError(f"{where}: {name}: must be a finite number, not {value}")
    return row


def _format_of(row: Mapping[str, Any]) -> Format:
    """The format that shares most fields with a row."""
    kind = max(FORMATS, key=lambda kind: sum(field in row for field in kind.fields) / len(kind.fields))
    if sum(field in row for field in kind.fields) < len(kind.fields) / 2:
        known = " nor ".join(f"{kind.space}'s ({', '.join(kind.fields)})" for kind in FORMATS)
        raise BenchmarkError(f"an unknown format: the fields are neither {known}")
    return kind


def _check_fields(row: Mapping[str, Any], fields: Sequence[str]) -> None:
    for field in fields:
        if field not in row:
            hint = "; write null where it wasn't measured" if field.startswith(_METRICS) else ""
            raise BenchmarkError(f"{field}: missing{hint}")


def _encoded(
    encode: Encoder, architecture: Architecture, space: SearchSpace, row: Mapping[str, Any], kind: Format
) -> Actions:
    """The network's actions in the space, its costs compared with the row's."""
    try:
        actions = encode(architecture)
    except SpaceError as error:
        raise BenchmarkError(f"{kind.fields[0]}: outside the space {space.name}: {error}") from None
    cost = total(architecture)
    for field, ours in ((kind.flops, cost.flops), ("params", cost.params)):
        if _number(row[field], field) != ours:
            raise BenchmarkError(f"{field}: {row[field]}, but this network of the space {space.name} has {ours}")
    return actions


def _number(value: Any, field: str, least: float = 0, most: float = math.inf) -> float:
    if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:
        raise BenchmarkError(f"{field}: must be a finite number, not {value!r:.40}")
    if not least <= value <= most:
        bounds = f"from {least:g} to {most:g}" if most < math.inf else "positive"
        raise BenchmarkError(f"{field}: must be {bounds}, not {value!r:.40}")
    return float(value)


_LETTERS = {"exp_ratio": "e", "kernel_size": "k", "layers": "l", "se_ratio": "se"}


def _accel_actions(row: Mapping[str, Any], space: SearchSpace) -> Actions:
    for field in _LETTERS.values():
        if not isinstance(row[field], list) or len(row[field]) != space.num_stages:
            raise BenchmarkError(f"{field}: must be a list of {space.num_stages} numbers, not {row[field]!r:.40}")
    actions = []
    for decision in space.decisions:
        stage, _, name = decision.name.partition(".")
        field, index = _LETTERS[name], int(stage.removeprefix("stages[").removesuffix("]"))
        choices = (0, 1) if field == "se" else decision.choices
        value = row[field][index]
        if type(value) not in (int, float) or value not in choices:
            raise BenchmarkError(f"{field}: {value!r:.40} in stage {index + 1} is not one of {list(choices)}")
        actions.append(choices.index(value))
    return tuple(actions)


def _macro_actions(row: Mapping[str, Any], space: SearchSpace) -> Actions:
    digits = row["arch"]
    if not isinstance(digits, str) or len(digits) != space.num_stages or set(digits) - set("012"):
        raise BenchmarkError(f"arch: must be {space.num_stages} digits from 0 to 2, not {digits!r:.40}")
    return tuple(map(int, digits))


def _macro_accuracies(row: Mapping[str, Any]) -> list[float]:
    if not isinstance(row["acc"], list) or len(row["acc"]) != 3:
        raise BenchmarkError(f"acc: must be three accuracies, not {row['acc']!r:.40}")
    _number(row["mean"], "mean", most=100)
    return [_number(value, "acc", most=100) for value in row["acc"]]


FORMATS = ACCEL, MACRO = (
    Format(
        space="accel-nasbench",
        baseline="efficientnet-b0",
        target=400e6,
        fields=("e", "k", "l", "se", "top1", "macs", "params"),
        flops="macs",
        actions=_accel_actions,
        accuracies=lambda row: [_number(row["top1"], "top1", most=100)],
        repeats=True,
    ),
    Format(
        space="nas-bench-macro",
        baseline="nas-bench-macro-e3k3",
        target=40e6,
        fields=("arch", "acc", "mean", "params", "flops"),
        flops="flops",
        actions=_macro_actions,
        accuracies=_macro_accuracies,
        repeats=False,
    ),
)
