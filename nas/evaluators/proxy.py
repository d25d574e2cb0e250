"""The evaluator that trains: a small proxy of the architecture on the user's images."""

from __future__ import annotations

import faulthandler
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache

import torch

from nas import training
from nas.costs import CostFunction, cost_function
from nas.data import ImageData, load
from nas.evaluators.base import Contents, Measurement, Report
from nas.model import build
from nas.recipe import Data, Proxy, Recipe
from search_space.architecture import Architecture
from search_space.errors import DataError

_HANGS, _MARGIN = 1.1, 60.0
"""A training hangs after so many times its time limit and so many seconds more: a healthy one looks at the time between
batches."""


@dataclass(frozen=True)
class ProxyEvaluator:
    """Trains the proxy of an architecture and measures it on the held-out images.

    Attributes:
        split_seed: of the split into training and reward images: the study's, so that all children share it.
        threads: CPU threads of a child.
        gpu: whether children train on a GPU.
        time_limit: seconds after which a child is given up.
        expendable: whether the process is a worker, which ends if a training hangs, for nothing else stops that.
    """

    data: Data
    proxy: Proxy
    split_seed: int
    threads: int
    gpu: bool
    time_limit: float
    expendable: bool = False

    @classmethod
    def of(cls, recipe: Recipe) -> ProxyEvaluator:
        """The evaluator that a recipe with images describes."""
        assert recipe.data is not None
        assert recipe.proxy is not None
        executor = recipe.executor
        return cls(
            data=recipe.data,
            proxy=recipe.proxy,
            split_seed=recipe.seed,
            threads=max(1, int(executor.cpus_per_child)),
            gpu=executor.gpus_per_child > 0,
            time_limit=executor.time_limit,
            expendable=executor.name == "tune",
        )

    @property
    def device(self) -> str:
        """On which children train, as torch names it."""
        return "cuda" if self.gpu else "cpu"

    def cost_function(self, name: str) -> CostFunction:
        """The cost of the deployed network (see `nas.costs.cost_function`)."""
        return cost_function(name)

    def contents(self, architecture: Architecture) -> Contents:
        """What identifies the images that an architecture trains on (see `ImageData.contents`)."""
        return self.images(architecture).contents

    def images(self, architecture: Architecture) -> ImageData:
        """The images that an architecture trains on, packed once per host and loaded once per process.

        Raises:
            DataError: the data can't be used, or have more classes than the architecture.
        """
        resolution = self.proxy.resolution or architecture.resolution
        images = _images(self.data, resolution, self.split_seed, self.proxy.share)
        found, offered = len(images.classes), architecture.num_classes
        if offered < found:
            raise DataError(
                f"{architecture.name}: num_classes {offered} is fewer than the {found} classes of {self.data.source}; "
                "in a search deployment.num_classes sets it"
            )
        return images

    def child(self, architecture: Architecture) -> Architecture:
        """The network that is trained for an architecture: its proxy, with the classes of the images.

        Raises:
            DataError: the data can't be used.
        """
        return self.proxy.child(architecture, len(self.images(architecture).classes))

    def evaluate(self, architecture: Architecture, seed: int, report: Report) -> Measurement:
        """Train and measure one child (see `Evaluator.evaluate`).

        Raises:
            DataError: the data can't be used.
            Diverged: the loss, or an output, was not finite.
            TimeLimitExceeded: `time_limit` passed.
        """
        images = self.images(architecture)
        start = time.monotonic()
        torch.set_num_threads(self.threads)
        deadline = start + self.time_limit
        with _ended_after(_HANGS * self.time_limit + _MARGIN) if self.expendable else nullcontext():
            with training.seeded(seed):
                network = build(self.child(architecture))
            result = training.train(
                network, images, self.proxy, seed=seed, device=self.device, report=report, deadline=deadline
            )
        return Measurement(result.accuracy, len(result.accuracies), time.monotonic() - start)


@contextmanager
def _ended_after(seconds: float) -> Iterator[None]:
    """End the process, with its stack on stderr, if the block takes longer."""
    faulthandler.dump_traceback_later(min(seconds, threading.TIMEOUT_MAX), exit=True, file=2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@lru_cache(maxsize=16)
def _images(data: Data, resolution: int, seed: int, share: float) -> ImageData:
    return load(data, resolution, seed).subset(share)
