"""What torch keeps in memory while images pass a network: the pass is played with sizes instead of tensors.

The play follows `nas.model` call by call. A tensor lives as long as something holds it: the caller its arguments, a
sequence the input of the module it is in, autograd what a gradient needs. Kernels' own workspaces are not tensors and
not counted. Sizes are numbers of float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from search_space.architecture import Architecture, Part
from search_space.blocks import Block
from search_space.errors import InputError
from search_space.layers import Activation, Dropout, GlobalPool, Layer, Norm, Pool, Shape, SqueezeExcite

NEED_INPUT = ("relu6", "silu", "hard_swish")
"""Activations whose gradient needs the input, so that in place they save a copy of it; relu's needs the output."""

Item = TypeVar("Item")


def inference_peaks(architecture: Architecture, batch_size: int) -> tuple[int, ...]:
    """Most numbers alive at once in stem, stages and head under `torch.inference_mode()`, the images included."""
    run = _Pass(batch_size)
    run.network(architecture)
    return tuple(run.peaks)


def training_peak(architecture: Architecture, batch_size: int, copies: int) -> int:
    """Most numbers alive at once in forward, cross-entropy, backward and optimizer step, images and gradients included.

    Args:
        architecture: what is trained.
        batch_size: images in a step.
        copies: how many the optimizer's step makes of all gradients.
    """
    run = _Pass(batch_size, tape=[], drop_path=architecture.drop_path > 0)
    gradients = run.backward(run.loss(run.network(architecture)))
    run.take(copies * gradients)
    return max(*run.peaks, run.peak)


@dataclass(eq=False, slots=True)
class _Tensor:
    """A piece of memory: its numbers, the shape of one image's share, and how many hold it."""

    size: int
    shape: Shape
    holders: int = 1


@dataclass(frozen=True, slots=True)
class _Step:
    """What autograd records of an operation.

    Attributes:
        out: the result; in place it is the input itself.
        inputs: what gets a gradient: a new tensor each, or the result's own if `shared`.
        saved: held until the gradients are made.
        params: numbers of the parameters' gradients, which stay.
        scratch: numbers alive only while the gradients are made.
        shared: an addition hands its result's gradient on.
    """

    out: _Tensor
    inputs: tuple[_Tensor, ...]
    saved: tuple[_Tensor, ...] = ()
    params: int = 0
    scratch: int = 0
    shared: bool = False


@dataclass(slots=True)
class _Pass:
    """A batch on its way; methods borrow the tensors they are given and hand over those they return.

    Attributes:
        tape: what autograd recorded; None in inference.
        live: numbers alive now.
        peak: most of them since the part under way began.
        peaks: most of them in each part that is done.
        images: what enters; it gets no gradient.
        block_input: of the block under way, which no activation may overwrite.
        begun: blocks that were begun, the stem's among them.
    """

    batch_size: int
    tape: list[_Step] | None = None
    drop_path: bool = False
    live: int = 0
    peak: int = 0
    peaks: list[int] = field(default_factory=list)
    images: _Tensor | None = None
    block_input: _Tensor | None = None
    begun: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"batch_size: must be 1 or more, not {self.batch_size}")

    def take(self, size: int, shape: Shape | None = None) -> _Tensor:
        self.live += size
        self.peak = max(self.peak, self.live)
        return _Tensor(size, shape or Shape(size, 1))

    def feature_map(self, shape: Shape) -> _Tensor:
        return self.take(self.batch_size * shape.elements, shape)

    def hold(self, tensor: _Tensor) -> _Tensor:
        tensor.holders += 1
        return tensor

    def drop(self, *tensors: _Tensor) -> None:
        for tensor in tensors:
            tensor.holders -= 1
            if tensor.holders == 0:
                self.live -= tensor.size

    def record(self, step: _Step) -> None:
        if self.tape is not None:
            self.tape.append(step)
            for tensor in step.saved:
                self.hold(tensor)

    def network(self, architecture: Architecture) -> _Tensor:
        """From images, which the caller goes on holding, to scores."""
        parts = architecture.parts()
        self.images = self.feature_map(parts[0].shapes[0])
        return self.sequence(parts, self.images, self.part)

    def sequence(self, items: Iterable[Item], x: _Tensor, call: Callable[[Item, _Tensor], _Tensor]) -> _Tensor:
        out = self.hold(x)
        for item in items:
            before, out = out, call(item, out)
            self.drop(before)
        return out

    def part(self, part: Part, x: _Tensor) -> _Tensor:
        self.peak = self.live
        out = self.sequence(part.blocks, x, self.block)
        self.peaks.append(self.peak)
        return out

    def block(self, block: Block, x: _Tensor) -> _Tensor:
        self.begun += 1
        self.block_input = x
        if block.shortcut is None:
            return self.sequence(block.main + block.post, x, self.layer)
        main = self.sequence(block.main, x, self.layer)
        if self.drop_path and self.begun > 2:  # after the stem, the first block's own rate is 0
            main = self.pointwise(self.pointwise(main))  # times who is kept, over the share of them
        total = self.pointwise(main, self.sequence(block.shortcut, x, self.layer))
        out = self.sequence(block.post, total, self.layer)
        self.drop(total)
        return out

    def pointwise(self, *inputs: _Tensor) -> _Tensor:
        """The scaled or added inputs, which are used up."""
        out = self.feature_map(inputs[0].shape)
        self.record(_Step(out, inputs, shared=len(inputs) > 1))
        self.drop(*inputs)
        return out

    def layer(self, layer: Layer, x: _Tensor) -> _Tensor:
        if isinstance(layer, Activation):
            return self.activation(layer, x)
        if isinstance(layer, Dropout) and (self.tape is None or layer.rate == 0):
            return self.hold(x)
        beside = self.take(self.beside(layer, x))
        out = self.feature_map(layer.out(x.shape))
        saved = (beside,) if isinstance(layer, (Dropout, GlobalPool)) else (beside, x)
        scratch = x.size if isinstance(layer, SqueezeExcite) else 0
        inputs = () if x is self.images else (x,)
        self.record(_Step(out, inputs, saved, layer.params, scratch))
        self.drop(beside)
        return out

    def beside(self, layer: Layer, x: _Tensor) -> int:
        """Numbers that a layer makes beside its output, and autograd saves."""
        if isinstance(layer, Norm):  # mean and deviation
            return 2 * layer.chs
        if isinstance(layer, SqueezeExcite):
            return 2 * self.batch_size * (layer.chs + layer.reduced_chs)
        if isinstance(layer, Pool) and layer.kind == "max":  # where each maximum was, in 8 bytes
            return 2 * self.batch_size * layer.out(x.shape).elements
        return x.size if isinstance(layer, Dropout) else 0  # which were kept

    def activation(self, layer: Activation, x: _Tensor) -> _Tensor:
        in_place, needs_input = x is not self.block_input, layer.name in NEED_INPUT
        saved = self.take(x.size) if in_place and needs_input and self.tape is not None else x
        out = self.hold(x) if in_place else self.feature_map(x.shape)
        self.record(_Step(out, (x,), (saved if needs_input else out,)))
        if saved is not x:
            self.drop(saved)
        return out

    def loss(self, scores: _Tensor) -> _Tensor:
        """Cross-entropy saves the log-probabilities."""
        out = self.feature_map(scores.shape)
        self.record(_Step(out, (scores,), (out,)))
        self.drop(scores)
        return out

    def backward(self, out: _Tensor) -> int:
        """Make all gradients, newest operation first; gives how many numbers the parameters' have."""
        assert self.tape is not None
        gradients, params = {out: self.take(out.size)}, 0
        self.drop(out)
        for step in reversed(self.tape):
            gradient = gradients.pop(step.out)
            self.take(step.params)
            params += step.params
            made = [self.hold(gradient) if step.shared else self.take(x.size) for x in step.inputs]
            self.drop(self.take(step.scratch))
            for x, new in zip(step.inputs, made, strict=True):
                if x in gradients:  # it is added to the one that is there
                    self.drop(new)
                else:
                    gradients[x] = new
            self.drop(gradient, *step.saved)
        return params
