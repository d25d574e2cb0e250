"""Networks that this machine can't hold are refused in one line."""

from __future__ import annotations

import pytest

from nas.limits import check_inference, check_training
from nas.recipe import Recipe
from nas.scaling import CompoundScaler
from search_space import InputError, load_architecture


@pytest.fixture
def giant():
    """EfficientNet-B0 grown until one image takes hundreds of gigabytes."""
    return CompoundScaler().scale(load_architecture("efficientnet-b0"), 25).architecture


def test_a_network_larger_than_memory_is_refused_before_it_is_built(giant, refused, tmp_path):
    giant.save(tmp_path / "giant.yaml")
    assert f"{giant.name}: needs" in refused("profile", tmp_path / "giant.yaml")


def test_training_is_refused_where_inference_would_fit():
    recipe = Recipe.load("images", ["proxy.batch_size=100000000"])
    network = load_architecture("efficientnet-b0")
    check_inference(network)
    with pytest.raises(InputError, match=r"efficientnet-b0: needs .*B of memory for batches of 100000000"):
        check_training([network], recipe)


def test_children_on_gpus_are_not_measured_by_this_machines_memory(giant):
    check_training([giant], Recipe.load("images", ["executor.gpus_per_child=1"]))
