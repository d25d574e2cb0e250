"""Exact FLOPs and params of an architecture and what it needs of memory, from the numbers alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from search_space.architecture import Architecture, Part
from search_space.errors import InputError
from search_space.layers import Layer, Norm, Shape
from search_space.memory import inference_peaks, training_peak

BYTES_PER_NUMBER = 4
OPTIMIZERS = {"rmsprop": (2, 2), "sgd": (1, 1)}  # numbers for each weight: kept as state, and made in a step


@dataclass(frozen=True, slots=True)
class Cost:
    """What a network or a part of it costs.

    Attributes:
        flops: multiply-adds of convolutions and linear layers for one image (fvcore's conv + linear).
        params: trainable numbers.
    """

    flops: int
    params: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.params + other.params)


def flops(architecture: Architecture) -> int:
    """Multiply-adds for one image at the architecture's resolution: convolutions and linear layers."""
    return total(architecture).flops


def params(architecture: Architecture) -> int:
    """Trainable numbers."""
    return total(architecture).params


def weight_memory(architecture: Architecture) -> int:
    """Bytes of float32 weights, and of the running statistics that batch norms keep beside them."""
    layers = [layer for part in architecture.parts() for block in part.blocks for layer in block.layers]
    norms = [layer for layer in layers if isinstance(layer, Norm)]
    statistics = sum(layer.params for layer in norms)  # a mean and a variance beside each scale and shift
    counters = 8 * len(norms)  # torch's int64 num_batches_tracked
    return (params(architecture) + statistics) * BYTES_PER_NUMBER + counters


def inference_memory(architecture: Architecture, batch_size: int = 1) -> int:
    """Peak bytes in float32 inference: weights, running statistics and activations, the images included."""
    return weight_memory(architecture) + max(inference_peaks(architecture, batch_size)) * BYTES_PER_NUMBER


def training_memory(architecture: Architecture, batch_size: int, optimizer: str = "rmsprop") -> int:
    """Peak bytes of a float32 training step: forward, cross-entropy, backward, and a step for all weights at once.

    Weights, running statistics, gradients, the optimizer's state and temporary copies, what autograd saves, the images.

    Args:
        architecture: what is trained.
        batch_size: images in a step.
        optimizer: one of `OPTIMIZERS`, with momentum and weight decay.

    Raises:
        InputError: the optimizer is unknown.
    """
    if optimizer not in OPTIMIZERS:
        raise InputError(f"optimizer: {optimizer!r} is unknown; use one of {', '.join(OPTIMIZERS)}")
    state, copies = OPTIMIZERS[optimizer]
    numbers = state * params(architecture) + training_peak(architecture, batch_size, copies)
    return weight_memory(architecture) + numbers * BYTES_PER_NUMBER


def total(architecture: Architecture) -> Cost:
    """Cost of the whole network; stages are cached, so a search asks for thousands a second."""
    return sum((part_cost(part) for part in architecture.parts()), Cost(0, 0))


def per_part(architecture: Architecture) -> tuple[tuple[Part, Cost], ...]:
    """Stem, stages and head, each with its cost."""
    return tuple((part, part_cost(part)) for part in architecture.parts())


@lru_cache(maxsize=1 << 16)
def part_cost(part: Part) -> Cost:
    """Cost of a stem, a stage or a head; equal blocks in a row are counted once and repeated."""
    whole = cost = Cost(0, 0)
    key: tuple[int, Shape] | None = None
    for block, shape, out in zip(part.blocks, part.shapes, part.shapes[1:], strict=False):
        if key != (id(block), shape):
            key = (id(block), shape)
            cost = _chain(block.main, shape) + _chain(block.shortcut or (), shape) + _chain(block.post, out)
        whole += cost
    return whole


def _chain(layers: tuple[Layer, ...], shape: Shape) -> Cost:
    flops = params = 0
    for layer in layers:
        flops += layer.flops(shape)
        params += layer.params
        shape = layer.out(shape)
    return Cost(flops, params)
