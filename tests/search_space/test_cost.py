"""Costs: exact for every published network and for every row of two benchmarks."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from search_space import Architecture, StageSpec, StemSpec, cost, load_architecture, load_space
from search_space.library import names
from search_space.transform import for_small_images

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
    assert max(part.peak_activations for part in parts) * FLOAT32 == cost.activation_memory(network)


def networks() -> list[Architecture]:
    rng = np.random.default_rng(0)
    sampled = [load_space(space).sample(rng) for space in names("space") for _ in range(5)]
    return [load_architecture(name) for name in names("architecture")] + sampled


@pytest.mark.parametrize("network", networks(), ids=lambda network: network.name)
def test_activation_memory_holds_at_least_every_layers_input_and_output(network):
    memory = cost.activation_memory(network)
    for part in network.parts():
        for block, shape in zip(part.blocks, part.shapes, strict=False):
            size = shape
            for layer in block.main:
                if layer.params:
                    out = layer.out(size)
                    assert memory >= FLOAT32 * (size.elements + out.elements)
                size = layer.out(size)
            if block.shortcut is not None:  # the addition: both branches are there
                assert memory >= 2 * FLOAT32 * block.out(shape).elements
    assert cost.activation_memory(network, batch_size=3) == 3 * memory


@pytest.mark.parametrize("name", names("architecture"))
def test_activation_memory_and_flops_rise_with_the_resolution(name):
    network = load_architecture(name)
    costs = [cost.total(network.with_(resolution=size)) for size in range(64, 321, 32)]
    for field in ("peak_activations", "flops"):
        values = [getattr(value, field) for value in costs]
        assert values == sorted(set(values))
    assert len({value.params for value in costs}) == 1


def one_stage(stage: StageSpec) -> int:
    network = Architecture(32, 10, StemSpec(16, kernel_size=1, stride=1), (stage,))
    return cost.per_part(network)[1][1].peak_activations


def test_activation_memory_by_hand():
    feature_map = 16 * 32 * 32
    conv = StageSpec("conv", 1, 16)
    assert one_stage(replace(conv, skip="none")) == 2 * feature_map  # in, out
    assert one_stage(conv) == 3 * feature_map  # the norm's in and out beside what the shortcut keeps
    assert one_stage(replace(conv, skip="pool")) == 3 * feature_map
    strided = replace(conv, out_chs=16, stride=2, skip="pool")
    assert one_stage(strided) == feature_map + 2 * feature_map // 4  # the pool's in and out, the main branch's out


def test_a_projected_shortcut_counts_both_branches():
    """Bottleneck from 16 to 64 channels at half the size: as many numbers before as after."""
    stage = StageSpec("bottleneck", 1, 64, stride=2, exp_ratio=0.25)
    assert one_stage(stage) == 3 * 16 * 32 * 32


def test_small_images_cost_less():
    network = load_architecture("efficientnet-b0")
    assert cost.flops(for_small_images(network, 32, 4)) < cost.flops(network)
