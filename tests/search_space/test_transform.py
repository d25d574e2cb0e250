"""Architectures made from architectures."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_space import load_architecture
from search_space.library import names
from search_space.transform import for_proxy, for_small_images, make_divisible, scale_depth, scale_width

NETWORKS = [load_architecture(name) for name in names("architecture")]
by_name = pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)


@pytest.mark.parametrize(
    ("chs", "rounded"), [(32 * 1.1, 32), (40 * 1.1, 48), (16 * 1.1, 16), (320 * 1.2, 384), (1, 8), (11, 16), (12, 16)]
)
def test_make_divisible_as_in_the_release(chs, rounded):
    assert make_divisible(chs) == rounded


@given(st.floats(1, 1e5), st.sampled_from([1, 4, 8, 16]))
def test_make_divisible_never_loses_more_than_a_tenth(chs, divisor):
    rounded = make_divisible(chs, divisor)
    assert rounded % divisor == 0
    assert rounded >= 0.9 * chs
    assert abs(rounded - chs) <= divisor


@by_name
@pytest.mark.parametrize("final_size", [1, 4, 7])
def test_networks_for_224_px_stay_as_they_are(network, final_size):
    assert for_small_images(network, 224, final_size) == network


@by_name
@pytest.mark.parametrize("resolution", [8, 9, 16, 28, 32, 48, 64, 97, 160])
@pytest.mark.parametrize("final_size", [1, 2, 4, 100])
def test_small_images_keep_their_final_size(network, resolution, final_size):
    small = for_small_images(network, resolution, final_size)
    assert small.resolution == resolution
    assert small.parts()[-2].out_shape.size >= min(final_size, resolution)
    assert [stage.layers for stage in small.stages] == [stage.layers for stage in network.stages]


@by_name
def test_strides_leave_from_the_input_on_and_no_more_than_needed(network):
    small = for_small_images(network, 32, 4)
    kept = [small.stem.stride, *(stage.stride for stage in small.stages)]
    was = [network.stem.stride, *(stage.stride for stage in network.stages)]
    removed = [i for i, (before, after) in enumerate(zip(was, kept, strict=True)) if before != after]
    assert removed == [i for i, stride in enumerate(was) if stride > 1][: len(removed)]
    assert math.prod(kept) <= 32 // 4 < math.prod(kept) * was[removed[-1]]
    assert small.stem.pool == "none"


def test_scale_width():
    b0 = load_architecture("efficientnet-b0")
    wide = scale_width(b0, 1.1)
    assert [stage.out_chs for stage in wide.stages] == [16, 24, 48, 88, 120, 208, 352]
    assert (wide.stem.out_chs, wide.head.out_chs) == (32, 1408)
    assert scale_width(b0, 1) == b0
    assert scale_width(load_architecture("resnet-50"), 0.5).head.out_chs is None


@by_name
@given(width=st.floats(1, 8), divisor=st.sampled_from([1, 2, 3, 4, 8, 16]))
def test_wider_is_nowhere_narrower_and_rounded(network, width, divisor):
    wide = scale_width(network, width, divisor)
    for before, after in zip(channels(network), channels(wide), strict=True):
        assert before <= after <= max(before, before * width + divisor)
        assert after % divisor == 0 or after == before


def test_channels_that_are_no_multiples_never_shrink_when_growing():
    network = load_architecture("efficientnet-b0")
    odd = network.with_(stages=(replace(network.stages[0], out_chs=17), *network.stages[1:]))
    assert scale_width(odd, 1.01).stages[0].out_chs == 17  # 17.17 would round to 16
    assert scale_width(odd, 0.99).stages[0].out_chs == 16


def channels(network):
    head = [] if network.head.out_chs is None else [network.head.out_chs]
    return [network.stem.out_chs, *(stage.out_chs for stage in network.stages), *head]


@pytest.mark.parametrize(
    ("depth", "rounded", "layers"),
    [
        (1, "up", [1, 2, 2, 3, 3, 4, 1]),
        (1.1, "up", [2, 3, 3, 4, 4, 5, 2]),  # EfficientNet-B1
        (1.1, "nearest", [1, 2, 2, 3, 3, 4, 1]),
        (1.5, "nearest", [2, 3, 3, 5, 5, 6, 2]),
        (1.5, "down", [1, 3, 3, 4, 4, 6, 1]),
        (3.1, "up", [4, 7, 7, 10, 10, 13, 4]),  # EfficientNet-B7
        (0.5, "up", [1, 1, 1, 2, 2, 2, 1]),
        (0.1, "down", [1, 1, 1, 1, 1, 1, 1]),
    ],
)
def test_scale_depth(depth, rounded, layers):
    deep = scale_depth(load_architecture("efficientnet-b0"), depth, rounded)
    assert [stage.layers for stage in deep.stages] == layers


@given(st.integers(1, 60), st.sampled_from([1.1, 1.2, 1.4, 1.8, 2.2, 2.6, 3.1]))
def test_whole_products_of_layers_are_not_rounded_up_further(layers, depth):
    network = load_architecture("resnet-50")
    network = network.with_(stages=(replace(network.stages[0], layers=10 * layers), *network.stages[1:]))
    assert scale_depth(network, depth).stages[0].layers == layers * round(10 * depth)


def test_a_stage_that_is_left_out_stays_out():
    network = load_architecture("mobilenet-v2")
    network = network.with_(stages=(replace(network.stages[0], layers=0), *network.stages[1:]))
    assert [scale_depth(network, 5, way).stages[0].layers for way in ("up", "nearest", "down")] == [0, 0, 0]


@by_name
def test_a_proxy_is_small_and_without_dropout(network):
    proxy = for_proxy(network, 16, 0.25, 2, 10)
    assert (proxy.resolution, proxy.num_classes, proxy.dropout, proxy.drop_path) == (16, 10, 0, 0)
    assert proxy.stages[-1].out_chs == make_divisible(network.stages[-1].out_chs / 4)
    assert proxy.key() != network.key()
