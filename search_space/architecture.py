"""Architectures: frozen, validated values that are the same thing as a small YAML file."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

from search_space.blocks import Block, BlockKind, conv_norm, expand_stage, kind_of, kinds
from search_space.errors import ArchitectureError, InputError, shown
from search_space.files import flow, read_format, write_file
from search_space.layers import ACTIVATIONS, Activation, Dropout, GlobalPool, Layer, Linear, Pool, Shape

FORMAT = "baseline-nas/architecture/1"
SKIPS = ("identity", "pool", "none")
_LARGEST = 1 << 20

T = TypeVar("T")


def _integer(where: str, value: object, least: int = 1) -> None:
    if type(value) is not int or not least <= value <= _LARGEST:
        raise ArchitectureError(f"{where}: must be a whole number from {least} to {_LARGEST:,}, not {shown(value)}")


def _number(where: str, value: object, low: float, high: float) -> None:
    if type(value) not in (int, float) or not low <= value <= high:  # type: ignore[operator]
        raise ArchitectureError(f"{where}: must be a number from {low:g} to {high:g}, not {shown(value)}")


def _file_name(where: str, value: object) -> None:
    """Refuse a name that would be hidden, or that leads out of its folder."""
    if not (isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()) or re.search(r"^\.|[/\\]", value):
        raise ArchitectureError(f"{where}: must be text that can name a file, not {shown(value)}")


def _kernel(where: str, value: object) -> None:
    if type(value) is not int or value not in range(1, 32, 2):
        raise ArchitectureError(f"{where}: must be an odd number of pixels from 1 to 31, not {shown(value)}")


def _choice(where: str, value: object, names: tuple[str, ...], otherwise: str = "") -> None:
    if value not in names:
        raise ArchitectureError(f"{where}: {shown(value)} is unknown; use one of {', '.join(names)}{otherwise}")


@dataclass(frozen=True, slots=True)
class StageSpec:
    """Layers of one kind in a row; the stride belongs to the first.

    Attributes:
        op: a block kind (`search_space.kinds()`).
        layers: how many; 0 leaves the stage out.
        kernel_size: of the spatial convolution, odd, in pixels.
        stride: of the first layer.
        exp_ratio: channels inside the block per input channel (`bottleneck`: per output channel).
        out_chs: output channels of every layer.
        se_ratio: channels inside squeeze-and-excitation per block input channel; 0 for none.
        skip: `identity`, `pool` or `none`.
    """

    op: str
    layers: int
    out_chs: int
    kernel_size: int = 3
    stride: int = 1
    exp_ratio: float = 1
    se_ratio: float = 0
    skip: str = "identity"

    def __post_init__(self) -> None:
        _choice("op", self.op, kinds(), " or register it (search_space.register)")
        _integer("layers", self.layers, 0)
        _integer("out_chs", self.out_chs)
        _kernel("kernel_size", self.kernel_size)
        _integer("stride", self.stride)
        _number("exp_ratio", self.exp_ratio, 0.01, 100)
        _number("se_ratio", self.se_ratio, 0, 1)
        _choice("skip", self.skip, SKIPS)
        if self.layers == 0 and self.stride != 1:
            raise ArchitectureError(f"layers: 0 would drop the stage's stride of {self.stride}")


@dataclass(frozen=True, slots=True)
class StemSpec:
    """The first convolution, norm and activation; `pool: max` adds ResNet's 3x3 max pooling of stride 2."""

    out_chs: int
    kernel_size: int = 3
    stride: int = 2
    pool: str = "none"

    def __post_init__(self) -> None:
        _integer("out_chs", self.out_chs)
        _kernel("kernel_size", self.kernel_size)
        _integer("stride", self.stride)
        _choice("pool", self.pool, ("none", "max"))


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """The last 1x1 convolution, norm and activation before the global pool; `out_chs: null` leaves them out."""

    out_chs: int | None = None

    def __post_init__(self) -> None:
        if self.out_chs is not None:
            _integer("out_chs", self.out_chs)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A named piece of an expanded network: `stem`, `stages[i]` or `head`.

    Equal pieces are one object, so what is derived from a part can be cached by it.

    Attributes:
        blocks: in order.
        shapes: the input of each block, then the output of the last.
    """

    name: str
    blocks: tuple[Block, ...]
    shapes: tuple[Shape, ...]

    @property
    def out_shape(self) -> Shape:
        """Shape of the part's output."""
        return self.shapes[-1]


@dataclass(frozen=True, slots=True)
class Architecture:
    """A whole network.

    Attributes:
        resolution: height and width of the input images in pixels, 8 or more.
        activation: one of `search_space.layers.ACTIVATIONS`.
        dropout: rate before the classifier.
        drop_path: stochastic depth rate (Huang et al. 2016); of n blocks, block i from 0 has drop_path * i / n, as in
            the EfficientNet release.

    Raises:
        ArchitectureError: a value that no network can have; the message names the stage and the field.
    """

    resolution: int
    num_classes: int
    stem: StemSpec
    stages: tuple[StageSpec, ...]
    head: HeadSpec = HeadSpec()
    activation: str = "relu"
    dropout: float = 0.0
    drop_path: float = 0.0
    name: str = "unnamed"

    def __post_init__(self) -> None:
        _integer("resolution", self.resolution, 8)
        _integer("num_classes", self.num_classes)
        _choice("activation", self.activation, ACTIVATIONS)
        _number("dropout", self.dropout, 0, 0.99)
        _number("drop_path", self.drop_path, 0, 0.99)
        _file_name("name", self.name)
        if not self.stages:
            raise ArchitectureError("stages: must hold at least one stage")
        size = _shrunk("stem.stride", self.resolution, self.stem.stride)
        if self.stem.pool == "max":
            size = _shrunk("stem.pool", size, 2)
        for i, stage in enumerate(self.stages):
            if stage.stride > 1:
                size = _shrunk(f"stages[{i}].stride", size, stage.stride)

    def parts(self) -> tuple[Part, ...]:
        """The network as primitives: stem, stages, head. Everything else reads this one expansion."""
        parts = [_part("stem", self.stem, Shape(3, self.resolution), self.activation)]
        for name, stage in zip(_stage_names(len(self.stages)), self.stages, strict=True):
            parts.append(_part(name, stage, parts[-1].out_shape, self.activation, kind_of(stage.op)))
        return (*parts, _head(self.head, parts[-1].out_shape, self.activation, self.dropout, self.num_classes))

    @property
    def layers(self) -> int:
        """Number of layers in all stages together."""
        return sum(stage.layers for stage in self.stages)

    def key(self) -> str:
        """16 hex digits, the same for two architectures exactly if they expand to the same network."""
        parts = self.parts()
        blocks = [block for part in parts[1:-1] for block in part.blocks]
        drops = self.drop_path if any(block.shortcut is not None for block in blocks[1:]) else 0  # never the first
        digest = blake2b(f"{self.resolution} {float(drops)}".encode(), digest_size=8)
        for part in parts:
            digest.update(_fingerprint(part))
        return digest.hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """The content of the YAML file, without its `format` line."""
        values = asdict(self)
        order = ("name", "resolution", "num_classes", "activation", "stem", "stages", "head", "dropout", "drop_path")
        return {name: list(values[name]) if name == "stages" else values[name] for name in order}

    def to_yaml(self) -> str:
        """The YAML text; `from_yaml` reads it back to an equal value."""
        lines = [f"format: {FORMAT}"]
        for name, value in self.to_dict().items():
            if name == "stages":
                lines += ["stages:", *(f"  - {flow(stage)}" for stage in value)]
            else:
                lines.append(f"{name}: {flow(value)}")
        return "\n".join(lines) + "\n"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Architecture:
        """The inverse of `to_dict`.

        Raises:
            ArchitectureError: a missing, unknown or invalid field; the message gives its path.
        """
        stages = values.get("stages", ())
        if not isinstance(stages, (list, tuple)):
            raise ArchitectureError("stages: must be a list of stages")
        made = {"stages": tuple(build(StageSpec, stage, f"stages[{i}]") for i, stage in enumerate(stages))}
        made |= {name: build(kind, values[name], name) for name, kind in _PARTS.items() if name in values}
        return build(cls, {**values, **made})

    @classmethod
    def load(cls, path: str | Path) -> Architecture:
        """Read a YAML file.

        Raises:
            InputError: the file can't be read or isn't a valid architecture; the message names the file and field.
        """
        values = read_format(Path(path), FORMAT)
        try:
            return cls.from_dict(values)
        except InputError as error:
            raise type(error)(f"{path}: {error}") from None

    def save(self, path: str | Path) -> None:
        """Write the YAML file.

        Raises:
            InputError: the disk is full, or the folder can't be written.
        """
        write_file(Path(path), self.to_yaml())

    def with_(self, **changes: Any) -> Architecture:
        """A copy with some fields changed, validated anew."""
        return replace(self, **changes)


_PARTS: dict[str, type] = {"stem": StemSpec, "head": HeadSpec}


def build(kind: type[T], values: object, where: str = "") -> T:
    """A dataclass from a mapping of its fields.

    Raises:
        ArchitectureError: a missing, unknown or invalid field; `where` prefixes its path.
    """
    prefix = f"{where}." if where else ""
    if not isinstance(values, Mapping):
        raise ArchitectureError(f"{where}: must be a mapping of fields, not {shown(values)}")
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise ArchitectureError(f"{prefix}{name}: unknown field; use one of {', '.join(known)}")
    for name, field in known.items():
        if name not in values and field.default is MISSING:
            raise ArchitectureError(f"{prefix}{name}: missing")
    try:
        return kind(**values)
    except ArchitectureError as error:
        raise ArchitectureError(f"{prefix}{error}") from None


def _shrunk(where: str, size: int, stride: int) -> int:
    """The size after a stride.

    Raises:
        ArchitectureError: the stride would leave less than one pixel.
    """
    if stride > size:
        raise ArchitectureError(
            f"{where}: {stride} would shrink {size} px below 1 px; use a larger resolution or fewer strides"
        )
    return math.ceil(size / stride)


@lru_cache
def _stage_names(count: int) -> tuple[str, ...]:
    return tuple(f"stages[{i}]" for i in range(count))


@lru_cache(maxsize=1 << 16)
def _part(name: str, spec: StemSpec | StageSpec, shape: Shape, activation: str, kind: BlockKind | None = None) -> Part:
    """Cached by the block kind too, which may be registered anew under its name."""
    blocks = _stem(spec, activation) if isinstance(spec, StemSpec) else expand_stage(spec, shape.chs, activation)
    shapes = [shape]
    for block, previous in zip(blocks, (None, *blocks), strict=False):
        repeated = block is previous and shapes[-1] == shapes[-2]
        shapes.append(shapes[-1] if repeated else block.out(shapes[-1]))
    return Part(name, blocks, tuple(shapes))


def _stem(stem: StemSpec, activation: str) -> tuple[Block, ...]:
    main: tuple[Layer, ...] = (*conv_norm(3, stem.out_chs, stem.kernel_size, stem.stride), Activation(activation))
    return (Block((*main, Pool("max", 3, 2)) if stem.pool == "max" else main),)


@lru_cache(maxsize=1 << 12)
def _head(head: HeadSpec, shape: Shape, activation: str, dropout: float, num_classes: int) -> Part:
    main: tuple[Layer, ...] = ()
    if head.out_chs is not None:
        main = (*conv_norm(shape.chs, head.out_chs, 1), Activation(activation))
    main += (GlobalPool(), Dropout(float(dropout)), Linear(head.out_chs or shape.chs, num_classes))
    return Part("head", (Block(main),), (shape, Shape(num_classes, 1)))


@lru_cache(maxsize=1 << 16)
def _fingerprint(part: Part) -> bytes:
    return b"".join(blake2b(repr(block).encode(), digest_size=16).digest() for block in part.blocks)
