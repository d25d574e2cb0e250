"""Choices of a space that a proxy can't see: the deployed network differs, and what is trained is the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from nas.recipe import Proxy
from search_space import Architecture, SearchSpace

_BACKGROUNDS = 4
"""Random networks in which every choice is tried."""

_CLASSES = 2
"""Classes of the networks that are compared; any number gives the same answer."""


def unseen(space: SearchSpace, proxy: Proxy) -> list[str]:
    """Names of the decisions that change a network but never what is trained for it, as far as a few networks tell.

    Args:
        space: of the deployed networks.
        proxy: that is trained for them.
    """
    rng = np.random.default_rng(0)
    backgrounds = [space.sample_actions(rng) for _ in range(_BACKGROUNDS)]

    def alike(number: int) -> Iterator[bool]:
        """For networks that differ in this decision alone, whether the same is trained for both."""
        for actions in backgrounds:
            for choice in range(1, len(space.decisions[number].choices)):
                one, other = (space.decode((*actions[:number], i, *actions[number + 1 :])) for i in (0, choice))
                if one.key() != other.key():
                    yield _seen(proxy.child(one, _CLASSES)).key() == _seen(proxy.child(other, _CLASSES)).key()

    found = []
    for number, decision in enumerate(space.decisions):
        answers = alike(number)
        if next(answers, False) and all(answers):
            found.append(decision.name)
    return list(dict.fromkeys(found))


def _seen(child: Architecture) -> Architecture:
    """The network without the outer rings of kernels that only ever meet padding, for their maps are that small."""
    sizes = [part.out_shape.size for part in child.parts()[1:-1]]
    stages = (
        replace(stage, kernel_size=min(stage.kernel_size, 2 * size - 1)) if stage.stride == 1 else stage
        for stage, size in zip(child.stages, sizes, strict=True)
    )
    return child.with_(stages=tuple(stages))
