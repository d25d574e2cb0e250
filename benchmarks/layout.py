"""The two layouts of images in memory on a GPU: what networks cost until their kernels are ready, and then per epoch.

usage: python benchmarks/layout.py [RESOLUTION:WIDTH ...]      (32:0.5 64:1 128:1 by default)

Three random networks learn the built-in digits, one after the other as a worker trains children; each layout has a
process of its own, for what a kernel's first use costs is paid once in a process. Prints seconds of the first epoch and
of the median of the others, network by network, and what channels last took of the time of channels first.
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

NETWORKS, CLASSES = 3, 10
LAYOUTS = {"first": sys.maxsize, "last": 0}


def epochs(channels_last_from: int, resolution: int, width: float) -> list[list[float]]:
    """Seconds of every epoch of every network."""
    training.CHANNELS_LAST_FROM = channels_last_from
    images, space = load(Data(source="digits"), resolution, seed=0), load_space("mbconv")
    settings = Training(epochs=5, batch_size=128, optimizer="rmsprop", lr=0.002, bn_momentum=0.8)
    rng, found = np.random.default_rng(0), []
    for _ in range(NETWORKS):
        network = build(for_proxy(space.sample(rng), resolution, width, 1, CLASSES))
        marks = [time.perf_counter()]

        def mark(epoch: int, accuracy: float, marks: list[float] = marks) -> None:
            marks.append(time.perf_counter())

        training.train(network, images, settings, seed=0, device="cuda", report=mark)
        found.append(np.diff(marks).tolist())
    return found


def main() -> None:
    """Measure each layout at each size."""
    if not torch.cuda.is_available():
        sys.exit("this needs a GPU; on a CPU channels are always last")
    for size in sys.argv[1:] or ("32:0.5", "64:1", "128:1"):
        resolution, width = size.split(":")
        totals = {}
        for layout, start in LAYOUTS.items():
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                found = process.submit(epochs, start, int(resolution), float(width)).result()
            totals[layout] = sum(map(sum, found))
            seconds = ", ".join(f"{first:.2f} + {np.median(others):.2f}" for first, *others in found)
            print(f"{size:>8} px:width, channels {layout:5}  first + other epochs (s): {seconds}", flush=True)
        print(f"{size:>8} px:width, channels last took {totals['last'] / totals['first']:.2f} of first's", flush=True)


if __name__ == "__main__":
    main()
