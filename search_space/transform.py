"""Architectures made from architectures: wider or narrower, and the variant for small images."""

from __future__ import annotations

import math
from dataclasses import replace

from search_space.architecture import Architecture


def make_divisible(chs: float, divisor: int = 8) -> int:
    """Channels rounded to a multiple of `divisor`, never below 90% of what was asked (the EfficientNet release)."""
    rounded = max(divisor, int(chs + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * chs else rounded


def scale_width(architecture: Architecture, width: float) -> Architecture:
    """The network with `width` times the channels everywhere, stem and head included, rounded to multiples of 8."""
    if width == 1:
        return architecture
    head = architecture.head.out_chs
    return architecture.with_(
        stem=replace(architecture.stem, out_chs=make_divisible(architecture.stem.out_chs * width)),
        stages=tuple(replace(stage, out_chs=make_divisible(stage.out_chs * width)) for stage in architecture.stages),
        head=replace(architecture.head, out_chs=None if head is None else make_divisible(head * width)),
    )


def for_small_images(architecture: Architecture, resolution: int, final_size: int) -> Architecture:
    """The network at `resolution`, with as many strides taken out as small images need.

    Strides go from the input on (max pool, stem, stages) until the last feature map measures at least `final_size`
    pixels, which is what networks for CIFAR-sized images do; at 224 pixels nothing changes.
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
