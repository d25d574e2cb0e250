"""What this machine lacks, memory or a GPU, is said before anything is allocated."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch

from nas.quantities import format_quantity
from nas.recipe import ExecutorSection, Recipe
from search_space import Architecture, InputError, cost


def check_gpu(executor: ExecutorSection) -> None:
    """Refuse to train on a GPU in this process if it has none.

    Raises:
        InputError: the message names the field.
    """
    if executor.gpus_per_child and not torch.cuda.is_available():
        raise InputError("executor.gpus_per_child: torch sees no GPU here; set it to 0")


def check_inference(architecture: Architecture) -> None:
    """Refuse a network that can't look at one image here.

    Raises:
        InputError: it says what the network needs and what there is.
    """
    _check(architecture, cost.inference_memory(architecture), "one image")


def check_training(architectures: Iterable[Architecture], recipe: Recipe) -> None:
    """Refuse networks that can't train here as the recipe says; children on GPUs have memory of their own.

    Raises:
        InputError: it says what the network needs and what there is.
    """
    assert recipe.proxy is not None
    if recipe.executor.gpus_per_child:
        return
    batch_size, optimizer = recipe.proxy.batch_size, recipe.proxy.optimizer
    for architecture in architectures:
        _check(architecture, cost.training_memory(architecture, batch_size, optimizer), f"batches of {batch_size}")


def _check(architecture: Architecture, needed: int, what: str) -> None:
    there_is = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there_is:
        raise InputError(
            f"{architecture.name}: needs {format_quantity(needed)}B of memory for {what}; "
            f"this machine has {format_quantity(there_is)}B"
        )
