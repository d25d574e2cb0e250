"""Architectures made from architectures: wider or narrower, deeper, and the variant for small images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from search_space.architecture import Architecture

ROUND: dict[str, Callable[[float], int]] = {
    "up": math.ceil,
    "nearest": lambda value: math.floor(value + 0.5),
    "down": math.floor,
}
"""Ways to round a number of layers."""


def make_divisible(chs: float, divisor: int = 8) -> int:
    """Channels rounded to a multiple of `divisor`, never below 90% of what was asked (the EfficientNet release)."""
    rounded = max(divisor, int(chs + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * chs else rounded


def scale_width(architecture: Architecture, width: float, divisor: int = 8) -> Architecture:
    """The network with `width` times the channels everywhere, stem and head included, in multiples of `divisor`.

    When widening, no layer gets fewer channels than it had, even if that count isn't a multiple of `divisor`.
    """
    if width == 1:
        return architecture

    def scaled(chs: int) -> int:
        rounded = make_divisible(chs * width, divisor)
        return max(rounded, chs) if width > 1 else rounded

    head = architecture.head.out_chs
    return architecture.with_(
        stem=replace(architecture.stem, out_chs=scaled(architecture.stem.out_chs)),
        stages=tuple(replace(stage, out_chs=scaled(stage.out_chs)) for stage in architecture.stages),
        head=replace(architecture.head, out_chs=None if head is None else scaled(head)),
    )


def scale_depth(architecture: Architecture, depth: float, rounded: str = "up") -> Architecture:
    """The network with `depth` times the layers in every stage, rounded `up`, to the `nearest` or `down`.

    The release rounds up. A stage of 0 layers keeps 0, one with layers keeps at least one.
    """

    def scaled(layers: int) -> int:
        wanted = round(layers * depth, 6)  # 5 * 1.2 is 6, not a little more
        return min(layers, 1) if wanted < 1 else ROUND[rounded](wanted)

    stages = tuple(replace(stage, layers=scaled(stage.layers)) for stage in architecture.stages)
    return architecture.with_(stages=stages)


def for_small_images(architecture: Architecture, resolution: int, final_size: int) -> Architecture:
    """The network at `resolution`, with as many strides taken out as small images need.

    Strides go from the input on (max pool, stem, stages) until the resolution divided by those that are left is at
    least `final_size`, which is what networks for CIFAR-sized images do; at 224 pixels nothing changes.
    """
    stem, stages = architecture.stem, list(architecture.stages)

    def fits() -> bool:
        strides = (stem.stride, 2 if stem.pool == "max" else 1, *(stage.stride for stage in stages))
        return resolution >= min(final_size, resolution) * math.prod(strides)

    if not fits():
        stem = replace(stem, pool="none")
    if not fits():
        stem = replace(stem, stride=1)
    for i, stage in enumerate(stages):
        if fits():
            break
        stages[i] = replace(stage, stride=1)
    return architecture.with_(resolution=resolution, stem=stem, stages=tuple(stages))


def for_proxy(
    architecture: Architecture, resolution: int, width: float, final_size: int, num_classes: int
) -> Architecture:
    """The network a proxy child trains: small images, narrower, the data's own number of classes.

    Dropout and stochastic depth are left out: they pay off in long trainings and slow short ones down.
    """
    small = for_small_images(scale_width(architecture, width), resolution, final_size)
    return small.with_(num_classes=num_classes, dropout=0.0, drop_path=0.0)
