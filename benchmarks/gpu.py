"""What children cost on a GPU: by how images lie in its memory, and several at a time.

usage: python benchmarks/gpu.py [RESOLUTION:WIDTH ...]      (32:0.5 64:1 128:1 by default)

Three random networks learn the built-in digits, one after the other as a worker trains children; each measurement has a
process of its own, for what a kernel's first use costs is paid once in a process. Prints seconds of the first epoch +
the median of the others, network by network; what channels last took of the time of channels first; and what the
other epochs of four workers at a time took of those of one.
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

NETWORKS, EPOCHS, CLASSES, WORKERS = 3, 5, 10, 4
LAYOUTS = {"first": sys.maxsize, "last": 0}


def epochs(channels_last_from: int, resolution: int, width: float) -> np.ndarray:
    """Seconds (networks, epochs)."""
    training.CHANNELS_LAST_FROM = channels_last_from
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


def measure(layout: str, workers: int, resolution: int, width: float) -> np.ndarray:
    """Seconds (workers, networks, epochs) of so many workers at a time; the first's are printed."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(epochs, LAYOUTS[layout], resolution, width) for _ in range(workers)]
        seconds = np.stack([job.result() for job in jobs])
    told = ", ".join(f"{network[0]:.2f} + {np.median(network[1:]):.2f}" for network in seconds[0])
    print(f"{resolution} px, width {width:g}, channels {layout}, {workers} at a time: {told} s", flush=True)
    return seconds


def main() -> None:
    """Measure each size."""
    if not torch.cuda.is_available():
        sys.exit("this needs a GPU; on a CPU channels are always last")
    for size in sys.argv[1:] or ("32:0.5", "64:1", "128:1"):
        resolution, width = int(size.split(":")[0]), float(size.split(":")[1])
        first, last = (measure(layout, 1, resolution, width) for layout in LAYOUTS)
        beside = measure("first", WORKERS, resolution, width)
        slower = np.median(beside[..., 1:]) / np.median(first[..., 1:])
        print(f"channels last took {last.sum() / first.sum():.2f} of channels first's time")
        print(f"an epoch of {WORKERS} at a time took {slower:.2f} of one alone", flush=True)


if __name__ == "__main__":
    main()
