"""Estimated memory beside what torch really allocates, for known networks and random ones, inference and training.

usage: python benchmarks/memory.py [BATCH_SIZE ...]      (1 8 by default)

On a GPU the measured peak is `torch.cuda.max_memory_allocated`. On a CPU there are two: the most bytes of tensors alive
at once, seen at every operation of forward, backward and optimizer; and the most that torch's allocator had given out,
which has oneDNN's workspaces in it. The optimizer updates all weights at once, as torch does by default on a GPU.
"""

from __future__ import annotations

import gc
import statistics
import sys
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from nas.model import build
from search_space import Architecture, cost, load_architecture, load_space
from search_space.transform import scale_depth, scale_width

Watch = Callable[[Callable[[], object], Iterable[Tensor]], int]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class LiveBytes(TorchDispatchMode):
    """Sees every tensor that an operation makes, and counts its memory until that is released.

    Attributes:
        live: bytes alive now.
        peak: most of them so far.
    """

    def __init__(self, there: Iterable[Tensor]) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known = WeakIdKeyDictionary()
        self._see(there)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation."""
        out = func(*args, **(kwargs or {}))
        self._see(leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor))
        return out

    def _see(self, tensors: Iterable[Tensor]) -> None:
        for storage in [tensor.untyped_storage() for tensor in tensors]:
            if storage not in self._known:
                self._known[storage] = weakref.finalize(storage, self._release, storage.nbytes())
                self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)

    def _release(self, size: int) -> None:
        self.live -= size


def tensors(work: Callable[[], object], there: Iterable[Tensor]) -> int:
    """Most bytes of tensors alive at once during the work, those that are there before included."""
    with LiveBytes(there) as seen:
        work()
    return seen.peak


def allocator(work: Callable[[], object], there: Iterable[Tensor]) -> int:
    """Most bytes that torch's allocator had given out at once, workspaces that kernels asked it for included."""
    if DEVICE.type == "cuda":
        gc.collect()
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated()
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        work()
    events = [event for event in profile.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return sum(tensor.nbytes for tensor in there) + max(accumulate(changes))


def measured(architecture: Architecture, batch_size: int, optimizer: str | None = None, watch: Watch = tensors) -> int:
    """Peak bytes of one inference, or of one training step with an optimizer: "rmsprop" or "sgd"."""
    network = build(architecture).to(DEVICE)
    images = torch.rand(batch_size, 3, architecture.resolution, architecture.resolution, device=DEVICE)
    there = [*network.parameters(), *network.buffers(), images]
    if optimizer is None:
        network.eval()
        with torch.inference_mode():
            return watch(lambda: network(images), there)
    kind = {"rmsprop": torch.optim.RMSprop, "sgd": torch.optim.SGD}[optimizer]
    updates = kind(network.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-5, foreach=True)
    labels = torch.zeros(batch_size, dtype=torch.long, device=DEVICE)

    def step() -> None:
        nn.functional.cross_entropy(network(images), labels).backward()
        updates.step()

    step()  # makes the optimizer's state
    updates.zero_grad()
    state = tree_leaves([list(values.values()) for values in updates.state.values()])
    return watch(step, [*there, *filter(torch.is_tensor, state)])


def networks() -> list[Architecture]:
    """Known ones, B2 by its published coefficients, and 20 random ones of the library's spaces."""
    rng = np.random.default_rng(0)
    b0, *others = (load_architecture(name) for name in ("efficientnet-b0", "mobilenet-v2", "resnet-50"))
    b2 = scale_depth(scale_width(b0, 1.1), 1.2).with_(resolution=260, name="efficientnet-b2")
    spaces = ("mbconv", "mnasnet", "accel-nasbench", "nas-bench-macro")
    drawn = [load_space(space).sample(rng).with_(name=f"{space}-{i}") for space in spaces for i in range(5)]
    return [b0, b2, *others, *drawn]


def main() -> None:
    """Print every comparison as it is measured, then the worst and the median error of each mode."""
    errors: dict[tuple[str, str], list[float]] = {}
    watches = (allocator,) if DEVICE.type == "cuda" else (tensors, allocator)
    headings = "".join(f"{watch.__name__:>13} {'error':>8}" for watch in watches)
    print(f"{'network':>18} {'mode':>9} {'batch':>5} {'estimate':>12} {headings}")
    for network in networks():
        for mode in ("inference", *cost.OPTIMIZERS):
            optimizer = None if mode == "inference" else mode
            for batch_size in map(int, sys.argv[1:] or ("1", "8")):
                memory = partial(cost.training_memory, optimizer=optimizer) if optimizer else cost.inference_memory
                estimate, cells = memory(network, batch_size), ""
                for watch in watches:
                    truth = measured(network, batch_size, optimizer, watch)
                    errors.setdefault((mode, watch.__name__), []).append(estimate / truth - 1)
                    cells += f"{truth / 2**20:>9.1f} MiB {estimate / truth - 1:>+8.2%}"
                print(f"{network.name:>18} {mode:>9} {batch_size:>5} {estimate / 2**20:>8.1f} MiB {cells}", flush=True)
    for (mode, name), found in errors.items():
        sizes = [abs(error) for error in found]
        print(f"{mode}, {name}: worst {max(sizes):.2%}, median {statistics.median(sizes):.3%} of {len(sizes)}")


if __name__ == "__main__":
    main()
