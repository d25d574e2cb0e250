"""What children cost on a GPU: by how its kernels start, how images lie in its memory, and several children at a time.

usage: python benchmarks/gpu.py [RESOLUTION:WIDTH ...]      (32:0.5 64:1 128:1 by default)

Three random networks learn the built-in digits, one after the other as a worker trains children; each measurement has a
process of its own, for what a kernel's first use costs is paid once in a process. Prints seconds of the first epoch +
the median of the others, network by network; then the other epochs' time as a ratio to that of the children as they are
trained below `CHANNELS_LAST_FROM` pixels (kernels replayed, channels first, one at a time). Takes minutes, most of them
in the first epochs with channels last.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import torch

from nas import training
from nas.data import load
from nas.model import build
from nas.recipe import Data, Training
from search_space import load_space
from search_space.transform import for_proxy

NETWORKS, EPOCHS, CLASSES = 3, 5, 10
FIRST, LAST = sys.maxsize, 0
BASIS = "replayed"
WAYS = {  # whether kernels are replayed, pixels from which channels are last, workers at a time
    BASIS: (True, FIRST, 1),
    "launched": (False, FIRST, 1),
    "four at a time": (True, FIRST, 4),
    "channels last": (True, LAST, 1),
}


def epochs(replayed: bool, channels_last_from: int, resolution: int, width: float) -> np.ndarray:
    """Seconds (networks, epochs)."""
    training.CHANNELS_LAST_FROM = channels_last_from
    if not replayed:
        training.Replayed = lambda function: function
    images, space = load(Data(source="digits"), resolution, seed=0), load_space("mbconv")
    settings = Training(epochs=EPOCHS, batch_size=128, optimizer="rmsprop", lr=0.002, bn_momentum=0.8)
    rng, marks = np.random.default_rng(0), list[float]()
    for _ in range(NETWORKS):
        network = build(for_proxy(space.sample(rng), resolution, width, 1, CLASSES))
        marks.append(time.perf_counter())
        training.train(
            network, images, settings, seed=0, device="cuda", report=lambda *_: marks.append(time.perf_counter())
        )
    return np.diff(np.reshape(marks, (NETWORKS, EPOCHS + 1)))


def measure(way: str, resolution: int, width: float) -> float:
    """The median seconds of an epoch but a network's first; the first worker's are printed."""
    replayed, channels_last_from, workers = WAYS[way]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(epochs, replayed, channels_last_from, resolution, width) for _ in range(workers)]
        seconds = np.stack([job.result() for job in jobs])
    told = ", ".join(f"{network[0]:.2f} + {np.median(network[1:]):.2f}" for network in seconds[0])
    print(f"{resolution} px, width {width:g}, {way}: {told} s", flush=True)
    return float(np.median(seconds[..., 1:]))


def main() -> None:
    """Measure each size."""
    if not torch.cuda.is_available():
        sys.exit("this needs a GPU; on a CPU kernels are launched and channels are last")
    for size in sys.argv[1:] or ("32:0.5", "64:1", "128:1"):
        resolution, width = int(size.split(":")[0]), float(size.split(":")[1])
        seconds = {way: measure(way, resolution, width) for way in WAYS}
        for way in list(WAYS)[1:]:
            print(f"an epoch {way} took {seconds[way] / seconds[BASIS]:.2f} of one {BASIS}", flush=True)


if __name__ == "__main__":
    main()
