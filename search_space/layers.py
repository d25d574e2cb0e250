"""The primitive layers a network is made of, each with its output shape, FLOPs and parameters.

FLOPs are multiply-adds of convolutions and linear layers (one fused multiply-add = one FLOP), as the papers and
fvcore's `conv` and `linear` count them; every other layer counts zero. Images and kernels are square and a kernel of k
is padded by (k - 1) // 2, so a stride of s maps n pixels to ceil(n / s).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ACTIVATIONS = ("relu", "relu6", "silu", "hard_swish")


@dataclass(frozen=True, slots=True)
class Shape:
    """Shape of one image's feature map: `chs` channels of `size` x `size` pixels."""

    chs: int
    size: int

    @property
    def elements(self) -> int:
        """Numbers in the feature map."""
        return self.chs * self.size * self.size


class Layer:
    """A primitive: by default it keeps the shape and has neither parameters nor FLOPs."""

    __slots__ = ()

    def out(self, shape: Shape) -> Shape:
        """Shape of the output for an input of `shape`."""
        return shape

    def flops(self, shape: Shape) -> int:
        """Multiply-adds on an input of `shape`, batch 1."""
        return 0

    @property
    def params(self) -> int:
        """Trainable numbers."""
        return 0


@dataclass(frozen=True, slots=True)
class Conv(Layer):
    """Convolution, `groups` = `in_chs` for a depthwise one."""

    in_chs: int
    out_chs: int
    kernel_size: int
    stride: int = 1
    groups: int = 1
    bias: bool = False

    def out(self, shape: Shape) -> Shape:
        return Shape(self.out_chs, -(-shape.size // self.stride))

    def flops(self, shape: Shape) -> int:
        return self.out(shape).elements * self.kernel_size**2 * self.in_chs // self.groups

    @property
    def params(self) -> int:
        return self.out_chs * (self.kernel_size**2 * self.in_chs // self.groups + self.bias)


@dataclass(frozen=True, slots=True)
class Norm(Layer):
    """Batch normalisation (Ioffe & Szegedy 2015): a scale and a shift per channel."""

    chs: int

    @property
    def params(self) -> int:
        return 2 * self.chs


@dataclass(frozen=True, slots=True)
class Activation(Layer):
    """One of `ACTIVATIONS`, elementwise."""

    name: str


@dataclass(frozen=True, slots=True)
class SqueezeExcite(Layer):
    """Squeeze-and-excitation (Hu et al. 2018): global pool, two 1x1 convolutions with bias, sigmoid, scale."""

    chs: int
    reduced_chs: int
    activation: str

    def flops(self, shape: Shape) -> int:
        return 2 * self.chs * self.reduced_chs

    @property
    def params(self) -> int:
        return 2 * self.chs * self.reduced_chs + self.reduced_chs + self.chs


@dataclass(frozen=True, slots=True)
class Pool(Layer):
    """Max or average pooling over `kernel_size` x `kernel_size` pixels."""

    kind: Literal["max", "avg"]
    kernel_size: int
    stride: int

    def out(self, shape: Shape) -> Shape:
        return Shape(shape.chs, -(-shape.size // self.stride))


@dataclass(frozen=True, slots=True)
class GlobalPool(Layer):
    """Average over all pixels."""

    def out(self, shape: Shape) -> Shape:
        return Shape(shape.chs, 1)


@dataclass(frozen=True, slots=True)
class Dropout(Layer):
    """Dropout in training, nothing in evaluation."""

    rate: float


@dataclass(frozen=True, slots=True)
class Linear(Layer):
    """Fully connected layer with bias on a 1 x 1 feature map."""

    in_chs: int
    out_chs: int

    def out(self, shape: Shape) -> Shape:
        return Shape(self.out_chs, 1)

    def flops(self, shape: Shape) -> int:
        return self.in_chs * self.out_chs

    @property
    def params(self) -> int:
        return (self.in_chs + 1) * self.out_chs
