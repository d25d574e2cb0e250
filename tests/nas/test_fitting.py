"""Wishes for FLOPs and memory, and the search for the size that meets them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.fitting import Wish
from search_space import InputError, cost, load_architecture

NETWORK = load_architecture("mobilenet-v2")


def larger(steps):
    return NETWORK.with_(resolution=224 + steps)


@given(st.floats(0.5, 8), st.integers(1, 300))
def test_the_last_size_within_a_wish(growth, most):
    wish = Wish(growth * cost.flops(NETWORK), None, cost.inference_memory)
    last = wish.last_within(larger, most)
    sizes = [cost.flops(larger(steps)) <= wish.flops for steps in range(most + 1)]
    assert last == max((steps for steps, within in enumerate(sizes) if within), default=0)


def test_the_tightest_budget_counts():
    flops, memory = cost.flops(NETWORK), cost.inference_memory(NETWORK)
    wish = Wish(2 * flops, 4 * memory, cost.inference_memory)
    assert wish.shares(NETWORK) == {"FLOPs": 0.5, "memory": 0.25}
    assert (wish.share(NETWORK), wish.miss(NETWORK)) == (0.5, 0.5)
    assert str(Wish(5e8, 1e9, cost.inference_memory)) == "--flops 500M, --memory 1G"


def test_flops_alone_may_be_exceeded_a_little_and_limits_may_not():
    almost = cost.flops(NETWORK) * 0.99
    assert Wish(almost, None, cost.inference_memory).check(NETWORK) is None
    for wish in (Wish(almost, 1e12, cost.inference_memory), Wish(0.97 * almost, None, cost.inference_memory)):
        with pytest.raises(InputError, match=r"nothing fits; the smallest member, mobilenet-v2 itself, needs 300\.8M"):
            wish.check(NETWORK)


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
@pytest.mark.parametrize("name", ["flops", "memory"])
def test_amounts_that_cant_be_are_refused_by_name(name, value):
    with pytest.raises(InputError, match=rf"^--{name} .*: must be a number above 0$"):
        Wish(**{"flops": 1e9, "memory": 1e9, name: value}, memory_of=cost.inference_memory)
