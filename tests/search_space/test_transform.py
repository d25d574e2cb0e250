"""Architectures made from architectures."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_space import load_architecture
from search_space.library import names
from search_space.transform import for_proxy, for_small_images, make_divisible, scale_width

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
def test_a_proxy_is_small_and_without_dropout(network):
    proxy = for_proxy(network, 16, 0.25, 2, 10)
    assert (proxy.resolution, proxy.num_classes, proxy.dropout, proxy.drop_path) == (16, 10, 0, 0)
    assert proxy.stages[-1].out_chs == make_divisible(network.stages[-1].out_chs / 4)
    assert proxy.key() != network.key()
