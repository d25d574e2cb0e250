"""Architectures as torch modules, built from the same primitives that the cost model sums over."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import singledispatch

import torch
from torch import Tensor, nn

from search_space import layers
from search_space.architecture import Architecture
from search_space.blocks import Block

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": lambda: nn.ReLU6(inplace=True),
    "silu": lambda: nn.SiLU(inplace=True),
    "hard_swish": lambda: nn.Hardswish(inplace=True),
}


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018)."""

    def __init__(self, layer: layers.SqueezeExcite) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(layer.chs, layer.reduced_chs, 1)
        self.act = _ACTIVATIONS[layer.activation]()
        self.expand = nn.Conv2d(layer.reduced_chs, layer.chs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scale each channel; batch x chs x height x width in and out."""
        scale: Tensor = self.expand(self.act(self.reduce(x.mean((2, 3), keepdim=True))))
        return x * scale.sigmoid()


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): in training, a share of the images skips the branch."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Drop whole images of batch x chs x height x width; the others are scaled up to keep the mean."""
        if not self.training or self.rate == 0:
            return x
        keep = x.new_empty((len(x), 1, 1, 1)).bernoulli_(1 - self.rate)
        return x * keep / (1 - self.rate)


class Residual(nn.Module):
    """`post(drop_path(main(x)) + shortcut(x))`."""

    def __init__(self, block: Block, drop_path: float) -> None:
        super().__init__()
        self.main = _branch(block.main)
        self.drop_path = DropPath(drop_path)
        self.shortcut = _branch(block.shortcut or ())
        self.post = _sequence(block.post)

    def forward(self, x: Tensor) -> Tensor:
        """Batch x chs x height x width in and out."""
        out: Tensor = self.post(self.drop_path(self.main(x)) + self.shortcut(x))
        return out


class Network(nn.Module):
    """The torch module of an architecture.

    Attributes:
        architecture: what was built.
        parts: `stem`, then one sequence of blocks per stage, then `head`.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        parts = architecture.parts()
        blocks = sum(len(part.blocks) for part in parts[1:-1])
        index = 0
        self.parts = nn.Sequential()
        for part in parts:
            modules: list[nn.Module] = []
            for block in part.blocks:
                if block.shortcut is None:
                    modules.append(_branch(block.main + block.post))
                else:
                    modules.append(Residual(block, architecture.drop_path * index / blocks))
                index += part.name not in ("stem", "head")
            self.parts.add_module(part.name.replace("[", "_").removesuffix("]"), nn.Sequential(*modules))
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores (batch x classes) of images (batch x 3 x height x width)."""
        out: Tensor = self.parts(x)
        return out


def build(architecture: Architecture) -> Network:
    """The network with fresh weights from torch's global generator (seed it for reproducible ones)."""
    return Network(architecture)


def _sequence(primitives: Iterable[layers.Layer]) -> nn.Sequential:
    return nn.Sequential(*(_module(layer) for layer in primitives))


def _branch(primitives: Iterable[layers.Layer]) -> nn.Sequential:
    """A sequence that doesn't overwrite its input, which another branch or the backward pass may need."""
    sequence = _sequence(primitives)
    for first in list(sequence)[:1]:
        if isinstance(first, (nn.ReLU, nn.Hardtanh, nn.SiLU, nn.Hardswish)):
            first.inplace = False
    return sequence


@singledispatch
def _module(layer: layers.Layer) -> nn.Module:
    raise TypeError(f"no torch module for the primitive {layer!r}")


@_module.register
def _conv(layer: layers.Conv) -> nn.Module:
    padding = (layer.kernel_size - 1) // 2
    return nn.Conv2d(
        layer.in_chs, layer.out_chs, layer.kernel_size, layer.stride, padding, groups=layer.groups, bias=layer.bias
    )


@_module.register
def _norm(layer: layers.Norm) -> nn.Module:
    return nn.BatchNorm2d(layer.chs)  # PyTorch's epsilon, 1e-5, as in timm's EfficientNet; the release has 1e-3


@_module.register
def _activation(layer: layers.Activation) -> nn.Module:
    return _ACTIVATIONS[layer.name]()


@_module.register
def _squeeze_excite(layer: layers.SqueezeExcite) -> nn.Module:
    return SqueezeExcite(layer)


@_module.register
def _pool(layer: layers.Pool) -> nn.Module:
    padding = (layer.kernel_size - 1) // 2
    if layer.kind == "max":
        return nn.MaxPool2d(layer.kernel_size, layer.stride, padding)
    return nn.AvgPool2d(layer.kernel_size, layer.stride, padding, count_include_pad=False)


@_module.register
def _global_pool(layer: layers.GlobalPool) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


@_module.register
def _dropout(layer: layers.Dropout) -> nn.Module:
    return nn.Dropout(layer.rate)


@_module.register
def _linear(layer: layers.Linear) -> nn.Module:
    return nn.Linear(layer.in_chs, layer.out_chs)


def _initialise(module: nn.Module) -> None:
    """EfficientNet's and MnasNet's weights: He's normal over the fan-out, uniform +-1/sqrt(classes), zero biases."""
    if isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))
    elif isinstance(module, nn.Linear):
        bound = 1 / math.sqrt(module.out_features)
        nn.init.uniform_(module.weight, -bound, bound)
    if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
        nn.init.zeros_(module.bias)


def fvcore_flops(architecture: Architecture) -> int:
    """Fvcore's own count (conv + linear) of the built module: the independent check of `search_space.cost`."""
    from fvcore.nn import FlopCountAnalysis

    network = build(architecture).eval()
    image = torch.zeros(1, 3, architecture.resolution, architecture.resolution)
    counter = FlopCountAnalysis(network, image).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    by_operator = counter.by_operator()
    return int(by_operator["conv"] + by_operator["linear"])
