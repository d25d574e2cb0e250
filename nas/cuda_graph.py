"""A function of tensors on a GPU, recorded once and replayed: its kernels start without waiting for the CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor


class Replayed:
    """Calls a function as a CUDA graph: the first call of each shape runs it, the second records it.

    After "whole-network capture" in the PyTorch manual (CUDA semantics, CUDA graphs); `make_graphed_callables` records
    no step of an optimizer, and for one shape only.

    The first run readies what a recording can't: kernels, and the state of an optimizer. The function must launch the
    same kernels each time and never look at a value on the CPU; what it changes besides its result (weights, say) it
    must change in place. Graphs and their memory last as long as this object.

    Args:
        function: Of tensors on the current GPU; returns one tensor.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function
        self.pool = torch.cuda.graph_pool_handle()
        self.recordings = dict[torch.Size, _Recording | None]()

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The function's result for inputs told apart by the first one's shape."""
        shape = inputs[0].shape
        if shape not in self.recordings:
            self.recordings[shape] = None
            return self._run(inputs)
        recording = self.recordings[shape] = self.recordings[shape] or self._record(inputs)
        for memory, tensor in zip(recording.inputs, inputs, strict=True):
            memory.copy_(tensor)
        recording.graph.replay()
        return recording.result.clone()

    def _run(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """On the stream that records it next."""
        stream, current = _stream(), torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            result = self.function(*inputs)
        current.wait_stream(stream)
        return result

    def _record(self, inputs: tuple[Tensor, ...]) -> _Recording:
        memory, graph = tuple(torch.empty_like(tensor) for tensor in inputs), torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, stream=_stream()):
            result = self.function(*memory)
        return _Recording(graph, memory, result)


@cache
def _stream() -> torch.cuda.Stream:
    """One for the whole process, for cuBLAS keeps some 32 MiB for each stream that it ever worked on."""
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


class _Recording(NamedTuple):
    """The graph of one shape, with the memory that it reads from and writes to."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    result: Tensor
