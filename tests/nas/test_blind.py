"""Which choices of a space a proxy can't see."""

from __future__ import annotations

import pytest
import yaml

from nas.blind import unseen
from nas.recipe import Recipe
from search_space import SearchSpace

SPACE = """
resolution: [64, 96]
num_classes: [10, 20]
stem: {out_chs: 16}
stages:
  - {op: conv, layers: 1, out_chs: [16, 24, 32], stride: 2}
  - {one_of: [{op: mbconv, layers: [1, 2], out_chs: [64, 96], exp_ratio: 3}, {op: conv, layers: 1, out_chs: 64}]}
dropout: [0, 0.5]
"""


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ([], ["resolution", "num_classes", "dropout", "stages[0].out_chs"]),
        (["proxy.resolution=null"], ["num_classes", "dropout", "stages[0].out_chs"]),
        (["proxy.width=1"], ["resolution", "num_classes", "dropout"]),
    ],
)
def test_the_choices_that_train_alike_are_named(settings, names):
    recipe = Recipe.load("digits", ["proxy.resolution=12", "proxy.width=0.25", *settings])
    assert set(unseen(SearchSpace(yaml.safe_load(SPACE)), recipe.proxy)) == set(names)


@pytest.mark.parametrize(
    ("name", "names"),
    [("digits", []), ("images", ["stages[6].kernel_size"]), ("b0-imagenet", [])],
)
def test_the_shipped_recipes_see_all_but_kernels_on_their_smallest_maps(name, names):
    recipe = Recipe.load(name, ["data.source=digits"])
    assert unseen(recipe.load_space(), recipe.proxy) == names


@pytest.mark.parametrize(("pixels", "same"), [(2, True), (3, False)])
def test_a_kernel_is_unseen_where_its_outer_ring_meets_padding_alone(pixels, same):
    last = {"op": "depthwise_separable", "layers": 2, "out_chs": 16, "kernel_size": [3, 5]}
    stages = [{"op": "conv", "layers": 1, "out_chs": 16, "stride": 4}, last]
    space = SearchSpace({"resolution": 64, "num_classes": 2, "stem": {"out_chs": 8}, "stages": stages})
    proxy = Recipe.load("digits", [f"proxy.resolution={8 * pixels}", "proxy.width=1"]).proxy
    assert unseen(space, proxy) == ["stages[1].kernel_size"] * same
