"""Costs: exact for every published network and for every row of two benchmarks."""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from search_space import Architecture, StageSpec, StemSpec, blocks, cost, load_architecture, load_space, register
from search_space.blocks import Block, conv_norm
from search_space.errors import InputError
from search_space.layers import ACTIVATIONS, Activation
from search_space.library import names
from search_space.transform import scale_width

ROOT = Path(__file__).parents[2]
FLOAT32 = 4


@pytest.mark.parametrize("name", names("architecture"))
def test_library_networks_cost_what_is_published(name, goldens):
    wanted = json.loads((goldens / "networks.json").read_text())
    network = load_architecture(name)
    assert {"params": cost.params(network), "flops": cost.flops(network)} == wanted[name]


def test_the_goldens_cover_the_library(goldens):
    assert set(json.loads((goldens / "networks.json").read_text())) == set(names("architecture"))


def test_every_network_of_nas_bench_macro(rows):
    space = load_space("nas-bench-macro")
    table = rows("nas_bench_macro")
    assert len(table) == space.size == 6561
    for row in table:
        total = cost.total(space.decode([int(digit) for digit in row["arch"]]))
        assert (total.params, total.flops) == (row["params"], row["flops"]), row["arch"]


def test_every_measured_network_of_accel_nasbench(rows):
    space = load_space("accel-nasbench")
    index = {decision.name: (i, decision.choices) for i, decision in enumerate(space.decisions)}
    assert len(index) == len(space.decisions)
    table = rows("accel_nasbench")
    assert len(table) > 3000
    for row in table:
        actions = [0] * len(index)
        for stage in range(7):
            for field, value in (
                ("exp_ratio", row["e"][stage]),
                ("kernel_size", row["k"][stage]),
                ("layers", row["l"][stage]),
                ("se_ratio", 0.25 * row["se"][stage]),
            ):
                i, choices = index[f"stages[{stage}].{field}"]
                actions[i] = choices.index(value)
        total = cost.total(space.decode(actions))
        assert (total.params, total.flops) == (row["params"], row["macs"]), row["id"]


@pytest.mark.parametrize("name", names("architecture"))
def test_parts_add_up(name):
    network = load_architecture(name)
    parts = [value for _, value in cost.per_part(network)]
    assert sum(part.flops for part in parts) == cost.flops(network)
    assert sum(part.params for part in parts) == cost.params(network)


@pytest.fixture(scope="module")
def measured():
    """What torch really allocates, as the benchmark measures it."""
    return runpy.run_path(str(ROOT / "benchmarks" / "memory.py"))["measured"]


def small_networks() -> list[Architecture]:
    """B0 and random networks of every space at half the width and a resolution that is measured fast."""
    rng = np.random.default_rng(0)
    sampled = [load_space(space).sample(rng).with_(name=f"{space}-{i}") for space in names("space") for i in range(2)]
    known = [load_architecture(name) for name in ("efficientnet-b0", "mobilenet-v2", "resnet-50")]
    return [scale_width(network, 0.5).with_(resolution=64) for network in [*known, *sampled]]


@pytest.mark.parametrize("network", small_networks(), ids=lambda network: network.name)
def test_memory_is_what_torch_allocates(network, measured):
    assert cost.inference_memory(network, 3) == pytest.approx(measured(network, 3), rel=0.02)
    for optimizer in cost.OPTIMIZERS:
        wanted = measured(network, 3, optimizer)
        assert cost.training_memory(network, 3, optimizer) == pytest.approx(wanted, rel=0.05), optimizer


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_memory_of_every_activation_and_skip(activation, measured):
    stage = StageSpec("mbconv", 2, 32, exp_ratio=4, se_ratio=0.25)
    stages = (replace(stage, skip="pool"), replace(stage, op="bottleneck", exp_ratio=0.25, stride=2, skip="pool"))
    stem = StemSpec(32, pool="max")
    network = Architecture(96, 10, stem, stages, activation=activation, dropout=0.2, drop_path=0.3)
    assert cost.inference_memory(network, 16) == pytest.approx(measured(network, 16), rel=0.02)
    assert cost.training_memory(network, 16) == pytest.approx(measured(network, 16, "rmsprop"), rel=0.05)


def test_the_first_block_is_never_dropped_and_needs_no_memory_for_it(measured):
    network = Architecture(64, 10, StemSpec(16), (StageSpec("conv", 1, 16),), drop_path=0.2)
    assert cost.training_memory(network, 8) == pytest.approx(measured(network, 8, "rmsprop"), rel=0.02)


@pytest.mark.parametrize("shortcut", [(), None])
def test_an_activation_that_opens_a_block_is_not_in_place(measured, monkeypatch, shortcut):
    """Pre-activation blocks, which a user may register, keep their input beside its activation."""
    monkeypatch.setattr(blocks, "_KINDS", dict(blocks._KINDS))

    @register("pre_activated")
    def pre_activated(stage, in_chs, stride, activation):
        return Block((Activation(activation), *conv_norm(in_chs, stage.out_chs, 3, stride)), shortcut)

    network = Architecture(64, 10, StemSpec(16), (StageSpec("pre_activated", 3, 16),), activation="silu")
    assert cost.inference_memory(network, 8) == pytest.approx(measured(network, 8), rel=0.02)
    assert cost.training_memory(network, 8) == pytest.approx(measured(network, 8, "sgd"), rel=0.1)


@pytest.mark.parametrize("name", names("architecture"))
def test_memory_rises_with_the_resolution_and_the_batch(name):
    network = load_architecture(name)
    for memory in (cost.inference_memory, cost.training_memory):
        by_size = [memory(network.with_(resolution=size), 8) for size in (96, 192, 320)]
        by_batch = [memory(network, batch_size) for batch_size in (8, 32, 128)]
        for values in (by_size, by_batch):
            assert values == sorted(values)
            assert values[-1] > 1.5 * values[0]


def test_inference_memory_by_hand():
    """A 1x1 convolution on 16 channels of 32 x 32: its input, its output, and the images, which the caller holds."""
    network = Architecture(32, 10, StemSpec(16, kernel_size=1, stride=1), (StageSpec("conv", 1, 16, skip="none"),))
    feature_map, images = 16 * 32 * 32, 3 * 32 * 32
    statistics = 2 * (FLOAT32 * 2 * 16 + 8)
    assert cost.weight_memory(network) == FLOAT32 * cost.params(network) + statistics
    # the convolution's output and the norm's, which makes 2 x 16 statistics, beside the block's input
    assert cost.inference_memory(network) - cost.weight_memory(network) == FLOAT32 * (images + 3 * feature_map + 32)


@pytest.mark.parametrize("batch_size", [0, -3])
def test_a_batch_without_images_is_refused(batch_size):
    network = load_architecture("efficientnet-b0")
    for memory in (cost.inference_memory, cost.training_memory):
        with pytest.raises(InputError, match=f"batch_size: must be 1 or more, not {batch_size}"):
            memory(network, batch_size)


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(InputError, match="optimizer: 'adam' is unknown; use one of rmsprop, sgd"):
        cost.training_memory(load_architecture("efficientnet-b0"), 1, "adam")
