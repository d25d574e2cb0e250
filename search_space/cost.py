"""Exact FLOPs and params and the peak activation memory of an architecture, from the numbers alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from search_space.architecture import Architecture, Part
from search_space.blocks import Block
from search_space.layers import Activation, Dropout, Layer, Shape

BYTES_PER_NUMBER = 4


@dataclass(frozen=True, slots=True)
class Cost:
    """What a network or a part of it costs.

    Attributes:
        flops: multiply-adds of convolutions and linear layers for one image (fvcore's conv + linear).
        params: trainable numbers.
        peak_activations: most numbers alive at once while one image passes, inputs and outputs included.
    """

    flops: int
    params: int
    peak_activations: int

    def __add__(self, other: Cost) -> Cost:
        peak = max(self.peak_activations, other.peak_activations)
        return Cost(self.flops + other.flops, self.params + other.params, peak)


def flops(architecture: Architecture) -> int:
    """Multiply-adds for one image at the architecture's resolution: convolutions and linear layers."""
    return total(architecture).flops


def params(architecture: Architecture) -> int:
    """Trainable numbers."""
    return total(architecture).params


def activation_memory(architecture: Architecture, batch_size: int = 1) -> int:
    """Peak bytes of float32 activations in inference.

    Counted per primitive: its input, its output (the same memory for activations and dropout), and what the block's
    shortcut keeps.
    """
    return total(architecture).peak_activations * batch_size * BYTES_PER_NUMBER


def total(architecture: Architecture) -> Cost:
    """Cost of the whole network; stages are cached, so a search asks for thousands a second."""
    cost = Cost(0, 0, 0)
    for part in architecture.parts():
        cost += part_cost(part)
    return cost


def per_part(architecture: Architecture) -> tuple[tuple[Part, Cost], ...]:
    """Stem, stages and head with the cost of each, for tables."""
    return tuple((part, part_cost(part)) for part in architecture.parts())


@lru_cache(maxsize=1 << 16)
def part_cost(part: Part) -> Cost:
    """Cost of a stem, a stage or a head; equal blocks in a row are counted once and repeated."""
    total = cost = Cost(0, 0, 0)
    key: tuple[int, Shape] | None = None
    for block, shape, out in zip(part.blocks, part.shapes, part.shapes[1:], strict=False):
        if key != (id(block), shape):
            key, cost = (id(block), shape), _block_cost(block, shape, out)
        total += cost
    return total


def _block_cost(block: Block, shape: Shape, out: Shape) -> Cost:
    """Main branch, then the shortcut beside the main branch's output, then what follows the addition."""
    if block.shortcut is None:
        return _chain(block.main + block.post, shape, held=0)
    cost = _chain(block.main, shape, held=shape.elements, input_held=True)
    return cost + _chain(block.shortcut, shape, held=out.elements) + _chain(block.post, out, held=0)


def _chain(layers: tuple[Layer, ...], shape: Shape, held: int, input_held: bool = False) -> Cost:
    """Layers in a row while `held` numbers must be kept for later.

    The chain's own input counts only once when it is what is held.
    """
    flops = params = peak = 0
    size = shape.elements
    kept = 0 if input_held else held
    for layer in layers:
        out = layer.out(shape)
        out_size = out.elements
        alive = kept + out_size + (0 if isinstance(layer, (Activation, Dropout)) else size)
        flops += layer.flops(shape)
        params += layer.params
        peak = max(peak, alive)
        shape, size, kept = out, out_size, held
    return Cost(flops, params, peak)
