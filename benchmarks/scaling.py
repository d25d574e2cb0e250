"""The published family counted by fvcore, and the networks of the paper's table 3 grown in one dimension and in all.

usage: python benchmarks/scaling.py [published] [table3] [fit]      (all by default)

`published`: params and FLOPs of B0 to B7 from the preset, beside fvcore's own count of the built modules.
`table3`: MobileNetV1, MobileNetV2 and ResNet-50 by the multipliers of the paper's table 3 (arXiv 1905.11946).
`fit`: how near `CompoundScaler.fit` comes to FLOPs wishes from 1 to 60 times the base's, for the library's networks and
ones sampled from its spaces.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from nas.fitting import TOLERANCE
from nas.model import build, fvcore_flops
from nas.quantities import format_quantity
from nas.scaling import DIMENSIONS, CompoundScaler, EfficientNetScaler, Multipliers, grow
from search_space import cost, load_architecture, load_space
from search_space.library import names

GROWN = {
    "depth x4": Multipliers(4, 1, 1),
    "width x2": Multipliers(1, 2, 1),
    "resolution x2": Multipliers(1, 1, 2),
    "compound 1.4, 1.2, 1.3": Multipliers(1.4, 1.2, 1.3),
}


def published() -> None:
    """B0 to B7: our counts beside those of the built module."""
    print(f"{'network':16} {'params':>11} {'built':>11} {'FLOPs':>15} {'fvcore':>15} {'seconds':>8}")
    for member in EfficientNetScaler().family(load_architecture("efficientnet-b0"), range(8)):
        start, network = time.perf_counter(), member.architecture
        built = sum(parameter.numel() for parameter in build(network).parameters())
        counted = fvcore_flops(network)
        seconds = time.perf_counter() - start
        print(
            f"{network.name:16} {cost.params(network):11,} {built:11,} {member.flops:15,} {counted:15,} {seconds:8.1f}"
        )


def table3() -> None:
    """Params and FLOPs of grown networks, as multiples of the base's too, beside what the formula promises."""
    print(
        f"{'network':14} {'grown by':24} {'pixels':>6} {'params':>8} {'ratio':>6} {'FLOPs':>8} {'ratio':>6} {'wish':>5}"
    )
    for name in ("mobilenet-v1", "mobilenet-v2", "resnet-50"):
        base = load_architecture(name)
        rows = [(how, grow(base, by), by.flops) for how, by in {"": Multipliers(1, 1, 1), **GROWN}.items()]
        fitted = CompoundScaler().fit(base, flops=4 * cost.flops(base))
        for how, network, wish in [*rows, (f"compound fitted, phi {fitted.phi}", fitted.architecture, 4)]:
            params, flops = cost.params(network), cost.flops(network)
            ratios = params / cost.params(base), flops / cost.flops(base)
            print(
                f"{name:14} {how:24} {network.resolution:6} {format_quantity(params):>8} {ratios[0]:6.2f} "
                f"{format_quantity(flops):>8} {ratios[1]:6.2f} {wish:5.2f}"
            )


def fit() -> None:
    """Share of wishes met within 2%, the largest miss, and the time of a fit."""
    rng = np.random.default_rng(0)
    networks = [load_architecture(name) for name in names("architecture")]
    networks += [load_space(name).sample(rng) for name in names("space") for _ in range(3)]
    print(f"{'dimension':12} {'wishes':>6} {'met':>7} {'largest miss':>12} {'median':>7} {'ms':>6}")
    for dimension, coefficients in DIMENSIONS.items():
        scaler, misses, start = CompoundScaler(coefficients), [], time.perf_counter()
        for network in networks:
            for wish in cost.flops(network) * np.geomspace(1, 60, 40):
                misses.append(abs(scaler.fit(network, flops=float(wish)).flops / wish - 1))
        milliseconds = 1000 * (time.perf_counter() - start) / len(misses)
        met = np.mean(np.array(misses) <= TOLERANCE)
        print(
            f"{dimension:12} {len(misses):6} {met:7.1%} {max(misses):12.2%} {np.median(misses):7.2%} "
            f"{milliseconds:6.1f}"
        )


PARTS: dict[str, Callable[[], None]] = {"published": published, "table3": table3, "fit": fit}


def main(chosen: Sequence[str]) -> None:
    """Print the parts that are asked for."""
    for part in chosen or list(PARTS):
        print(f"\n{part}")
        PARTS[part]()


if __name__ == "__main__":
    main(sys.argv[1:])
