"""Block kinds: how one layer of a stage becomes primitives, and the registry that users extend.

A block kind is one function `(stage, in_chs, stride, activation) -> Block | None`, registered under the name that
`op:` uses in the YAML; None means that the layer does nothing. The cost model, the torch module, the exports and
`Architecture.key` all read what it returns, so a new kind is that one function:

    @register("conv")
    def conv(stage, in_chs, stride, activation): ...
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from search_space.layers import Activation, Conv, Layer, Norm, Pool, Shape, SqueezeExcite

if TYPE_CHECKING:
    from search_space.architecture import StageSpec


@dataclass(frozen=True, slots=True)
class Block:
    """Primitives of one block: `post(main(x) + shortcut(x))`.

    `shortcut` is None without an addition and empty where the input itself is added.
    """

    main: tuple[Layer, ...]
    shortcut: tuple[Layer, ...] | None = None
    post: tuple[Layer, ...] = ()

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Every primitive of the block."""
        return self.main + (self.shortcut or ()) + self.post

    def out(self, shape: Shape) -> Shape:
        """Shape of the output for an input of `shape`."""
        for layer in self.main:
            shape = layer.out(shape)
        return shape


BlockKind = Callable[["StageSpec", int, int, str], Block | None]
_KINDS: dict[str, BlockKind] = {}


def register(op: str, *, replace: bool = False) -> Callable[[BlockKind], BlockKind]:
    """Decorator that makes a block kind known under the name `op`.

    Raises:
        ValueError: the name is taken and `replace` is not set.
    """
    if op in _KINDS and not replace:
        raise ValueError(f"block kind {op!r} is registered already")

    def add(kind: BlockKind) -> BlockKind:
        _KINDS[op] = kind
        return kind

    return add


def kinds() -> tuple[str, ...]:
    """Names of all registered block kinds."""
    return tuple(_KINDS)


def added_kinds() -> dict[str, BlockKind]:
    """The block kinds that were registered outside this module; worker processes need them too."""
    return {op: kind for op, kind in _KINDS.items() if kind.__module__ != __name__}


def kind_of(op: str) -> BlockKind:
    """The block kind that is registered under a name."""
    return _KINDS[op]


def expand_stage(stage: StageSpec, in_chs: int, activation: str) -> tuple[Block, ...]:
    """Blocks of one stage; its stride belongs to the first layer."""
    return _expand(_KINDS[stage.op], stage, in_chs, activation)


@lru_cache(maxsize=1 << 16)
def _expand(kind: BlockKind, stage: StageSpec, in_chs: int, activation: str) -> tuple[Block, ...]:
    first = [kind(stage, in_chs, stage.stride, activation)] if stage.layers else []
    others = [kind(stage, stage.out_chs, 1, activation)] * (stage.layers - 1) if stage.layers > 1 else []
    return tuple(block for block in first + others if block is not None)


def conv_norm(in_chs: int, out_chs: int, kernel_size: int, stride: int = 1, groups: int = 1) -> tuple[Layer, ...]:
    """A convolution without bias and its batch normalisation."""
    return Conv(in_chs, out_chs, kernel_size, stride, groups), Norm(out_chs)


def squeeze_excite(stage: StageSpec, chs: int, in_chs: int, activation: str) -> tuple[Layer, ...]:
    """SE on `chs` channels, reduced to a share of the block's *input* channels as the EfficientNet release does."""
    if stage.se_ratio == 0:
        return ()
    return (SqueezeExcite(chs, max(1, int(in_chs * stage.se_ratio)), activation),)


def shortcut(stage: StageSpec, in_chs: int, stride: int) -> tuple[Layer, ...] | None:
    """The stage's skip where shapes allow it.

    `identity` adds the input itself where neither size nor channels change; `pool` adds a 3x3 average of it at the
    layer's stride where the channels don't change (MnasNet's pooling skip); `none` adds nothing.
    """
    if in_chs != stage.out_chs:
        return None
    if stage.skip == "pool":
        return (Pool("avg", 3, stride),)
    return () if stage.skip == "identity" and stride == 1 else None


@register("conv")
def conv(stage: StageSpec, in_chs: int, stride: int, activation: str) -> Block:
    """Convolution, norm, activation, SE. An expansion does nothing."""
    main = (*conv_norm(in_chs, stage.out_chs, stage.kernel_size, stride), Activation(activation))
    main += squeeze_excite(stage, stage.out_chs, in_chs, activation)
    return Block(main, shortcut(stage, in_chs, stride))


@register("depthwise_separable")
def depthwise_separable(stage: StageSpec, in_chs: int, stride: int, activation: str) -> Block:
    """Depthwise and pointwise convolution, an activation after each (MobileNetV1, arXiv 1704.04861, section 3.1).

    MnasNet's SepConv, whose pointwise convolution is linear, is `mbconv` with `exp_ratio: 1`.
    """
    main = (*conv_norm(in_chs, in_chs, stage.kernel_size, stride, in_chs), Activation(activation))
    main += squeeze_excite(stage, in_chs, in_chs, activation)
    main += (*conv_norm(in_chs, stage.out_chs, 1), Activation(activation))
    return Block(main, shortcut(stage, in_chs, stride))


@register("mbconv")
def mbconv(stage: StageSpec, in_chs: int, stride: int, activation: str) -> Block:
    """Inverted bottleneck: expand, depthwise, SE, linear projection (MobileNetV2, MnasNet, EfficientNet).

    `exp_ratio: 1` has no expansion convolution, as the releases do.
    """
    mid_chs = max(1, round(in_chs * stage.exp_ratio))
    main: tuple[Layer, ...] = ()
    if mid_chs != in_chs:
        main += (*conv_norm(in_chs, mid_chs, 1), Activation(activation))
    main += (*conv_norm(mid_chs, mid_chs, stage.kernel_size, stride, mid_chs), Activation(activation))
    main += squeeze_excite(stage, mid_chs, in_chs, activation)
    return Block(main + conv_norm(mid_chs, stage.out_chs, 1), shortcut(stage, in_chs, stride))


@register("identity")
def identity(stage: StageSpec, in_chs: int, stride: int, activation: str) -> Block | None:
    """No layer; where the stage changes size or channels, a 1x1 convolution and norm (NAS-Bench-Macro's identity)."""
    if stride == 1 and in_chs == stage.out_chs:
        return None
    return Block(conv_norm(in_chs, stage.out_chs, 1, stride))


@register("bottleneck")
def bottleneck(stage: StageSpec, in_chs: int, stride: int, activation: str) -> Block:
    """ResNet's bottleneck with the stride on the middle convolution (He et al. 2016; the "v1.5" of the releases).

    `exp_ratio` is the share of `out_chs` inside (0.25 in ResNet-50); the skip is projected where shapes differ.
    """
    mid_chs = max(1, round(stage.out_chs * stage.exp_ratio))
    main = (*conv_norm(in_chs, mid_chs, 1), Activation(activation))
    main += (*conv_norm(mid_chs, mid_chs, stage.kernel_size, stride), Activation(activation))
    main += conv_norm(mid_chs, stage.out_chs, 1) + squeeze_excite(stage, stage.out_chs, in_chs, activation)
    skip = shortcut(stage, in_chs, stride)
    if skip is None and stage.skip != "none":
        skip = conv_norm(in_chs, stage.out_chs, 1, stride)
    return Block(main, skip, (Activation(activation),))
