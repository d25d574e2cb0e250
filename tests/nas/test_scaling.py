"""Compound scaling: the published family to the unit, and any network by any multipliers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.model import build, fvcore_flops
from nas.scaling import (
    DIMENSIONS,
    PAPER,
    Coefficients,
    CompoundScaler,
    EfficientNetScaler,
    Multipliers,
    Rounding,
    dropout_at,
    grow,
)
from search_space import Architecture, InputError, cost, load_architecture, load_space
from search_space.library import names

B0 = load_architecture("efficientnet-b0")
FAMILY = [  # pixels, dropout, params, FLOPs of the release
    (224, 0.2, 5_288_548, 385_814_752),
    (240, 0.2, 7_794_184, 686_802_832),
    (260, 0.3, 9_109_994, 993_561_872),
    (300, 0.3, 12_233_232, 1_827_141_392),
    (380, 0.4, 19_341_616, 4_393_771_024),
    (456, 0.4, 30_389_784, 10_266_384_752),
    (528, 0.5, 43_040_704, 19_067_593_536),
    (600, 0.5, 66_347_960, 37_745_884_192),
]


def sampled(each: int) -> list[Architecture]:
    rng = np.random.default_rng(0)
    return [load_space(space).sample(rng) for space in names("space") for _ in range(each)]


LIBRARY = [load_architecture(name) for name in names("architecture")]
networks = st.sampled_from(LIBRARY + sampled(5))
phis = st.floats(0, 6)
multipliers = st.builds(Multipliers, st.floats(1, 4), st.floats(1, 3), st.floats(1, 3))
roundings = st.builds(
    Rounding, st.sampled_from([1, 4, 8, 16]), st.sampled_from([1, 8, 32]), st.sampled_from(["up", "nearest", "down"])
)


@pytest.mark.parametrize("phi", range(8))
def test_the_preset_gives_the_published_family(phi):
    member = EfficientNetScaler().scale(B0, phi)
    network = member.architecture
    assert (network.resolution, network.dropout, cost.params(network), member.flops) == FAMILY[phi]
    assert (network.name, network.drop_path, network.num_classes) == (f"efficientnet-b{phi}", 0.2, 1000)
    assert network == B0 or phi


@pytest.mark.parametrize("phi", range(5))
def test_fvcore_counts_the_same_in_the_built_family(phi):
    assert fvcore_flops(EfficientNetScaler().scale(B0, phi).architecture) == FAMILY[phi][3]


@pytest.mark.parametrize("network", sampled(1), ids=lambda network: network.name)
@pytest.mark.parametrize("scaler", [CompoundScaler(), EfficientNetScaler()], ids=["formula", "preset"])
def test_grown_networks_of_every_space_build_and_count_as_fvcore_does(network, scaler):
    grown = scaler.scale(network, 1).architecture
    assert fvcore_flops(grown) == cost.flops(grown)
    assert sum(parameter.numel() for parameter in build(grown).parameters()) == cost.params(grown)


def test_the_formula_is_the_papers():
    """Depth is alpha's and counts once, width is beta's and resolution gamma's and count twice."""
    member = CompoundScaler().scale(B0, 2)
    assert member.multipliers == Multipliers(1.2**2, 1.1**2, 1.15**2)
    assert member.multipliers.flops == pytest.approx(PAPER.product**2)
    assert member.wished_flops == pytest.approx(cost.flops(B0) * (1.2 * 1.1**2 * 1.15**2) ** 2)
    network = member.architecture
    assert [stage.layers for stage in network.stages] == [math.ceil(1.44 * stage.layers) for stage in B0.stages]
    assert (network.resolution, network.stem.out_chs, network.head.out_chs) == (296, 40, 1552)


def test_one_dimension_leaves_the_others_and_doubles_flops():
    grown = {name: CompoundScaler(shares).scale(B0, 1).architecture for name, shares in DIMENSIONS.items()}
    layers = {name: sum(stage.layers for stage in network.stages) for name, network in grown.items()}
    assert layers["depth"] == 2 * layers["width"] == 2 * layers["resolution"] == 32
    assert [grown[name].resolution for name in ("depth", "width", "resolution")] == [224, 224, 317]
    assert [grown[name].stem.out_chs for name in ("depth", "width", "resolution")] == [32, 48, 32]
    for name in ("depth", "width", "resolution"):
        assert cost.flops(grown[name]) == pytest.approx(2 * cost.flops(B0), rel=0.12)
        assert DIMENSIONS[name].product == pytest.approx(2)
        assert grown[name].name == f"efficientnet-b0-{name}-phi1"


@given(networks, multipliers, roundings)
def test_any_network_grows_by_any_multipliers(network, by, rounding):
    rounding = Rounding(rounding.divisor, min(rounding.resolution, network.resolution), rounding.layers)
    grown = grow(network, by, rounding)
    assert grown.num_classes == network.num_classes
    assert cost.params(grown) >= cost.params(network)
    assert cost.flops(grown) >= cost.flops(network)
    assert grown.resolution % rounding.resolution == 0 or grown.resolution == network.resolution
    assert abs(grown.resolution - network.resolution * by.resolution) <= rounding.resolution
    for before, after in zip(network.stages, grown.stages, strict=True):
        assert abs(after.layers - before.layers * by.depth) < 1
        assert (after.op, after.stride, after.kernel_size) == (before.op, before.stride, before.kernel_size)
    assert grow(network, Multipliers(1, 1, 1), rounding) == network


@given(networks, st.tuples(phis, phis), st.sampled_from(list(DIMENSIONS)), roundings)
def test_a_larger_phi_is_never_smaller(network, pair, dimension, rounding):
    rounding = Rounding(rounding.divisor, min(rounding.resolution, network.resolution), rounding.layers)
    small, large = CompoundScaler(DIMENSIONS[dimension], rounding).family(network, sorted(pair))
    assert cost.params(small.architecture) <= cost.params(large.architecture)
    assert small.flops <= large.flops
    assert small.wished_flops <= large.wished_flops
    assert small.architecture.dropout <= large.architecture.dropout


@pytest.mark.parametrize("network", LIBRARY, ids=lambda network: network.name)
def test_members_read_back_from_their_yaml(network, tmp_path):
    for member in (*CompoundScaler().family(network, [0, 1.5]), EfficientNetScaler().scale(network, 3)):
        member.architecture.save(tmp_path / "member.yaml")
        assert Architecture.load(tmp_path / "member.yaml") == member.architecture


def test_dropout_grows_from_any_base():
    assert [dropout_at(0.2, phi) for phi in range(8)] == [0.2, 0.2, 0.3, 0.3, 0.4, 0.4, 0.5, 0.5]
    assert [dropout_at(base, 7) for base in (0, 0.1, 0.8)] == [0, 0.25, 0.8]


@settings(max_examples=40)
@given(networks, st.floats(1, 40), st.sampled_from(["compound", "width"]))
def test_a_wish_for_flops_is_met_within_two_percent(network, growth, dimension):
    wish = growth * cost.flops(network)
    member = CompoundScaler(DIMENSIONS[dimension]).fit(network, flops=wish)
    assert member.flops == pytest.approx(wish, rel=0.02)
    assert member.wished_flops == wish
    grown = grow(network, member.multipliers, member.rounding)
    assert cost.total(grown) == cost.total(member.architecture)


@settings(max_examples=20)
@given(networks, st.floats(1, 30), st.sampled_from(["depth", "resolution"]))
def test_whole_layers_and_pixels_come_as_near_as_any_phi(network, growth, dimension):
    wish = growth * cost.flops(network)
    scaler = CompoundScaler(DIMENSIONS[dimension])
    member = scaler.fit(network, flops=wish)
    others = scaler.family(network, np.arange(0, 6, 0.02).tolist())
    miss = min(abs(other.flops - wish) for other in others)
    assert abs(member.flops - wish) <= max(miss, 0.02 * wish)


def test_the_users_rounding_is_kept_where_it_meets_the_wish():
    wish = CompoundScaler(rounding=Rounding(16, 32)).scale(B0, 2).flops
    assert CompoundScaler(rounding=Rounding(16, 32)).fit(B0, flops=wish).rounding == Rounding(16, 32)
    assert CompoundScaler().fit(B0, flops=cost.flops(B0)).architecture == B0


@settings(max_examples=10)
@given(st.sampled_from(LIBRARY), st.floats(1.05, 20), st.floats(1.05, 5))
def test_budgets_give_the_largest_member_within_both(network, flops, memory):
    flops, memory = flops * cost.flops(network), memory * cost.inference_memory(network)
    member = CompoundScaler().fit(network, flops, memory)
    assert member.flops <= flops
    assert cost.inference_memory(member.architecture) <= memory
    shares = member.flops / flops, cost.inference_memory(member.architecture) / memory
    assert max(shares) >= 0.98


def test_memory_may_be_that_of_training():
    memory = 4e9
    training = CompoundScaler().fit(B0, memory=memory, memory_of=lambda network: cost.training_memory(network, 32))
    assert 0.98 * memory <= cost.training_memory(training.architecture, 32) <= memory
    assert training.flops < CompoundScaler().fit(B0, memory=memory).flops


@pytest.mark.parametrize("value", [0.99, 0, -1, math.nan, math.inf, 1e200])
@pytest.mark.parametrize("name", ["alpha", "beta", "gamma"])
def test_coefficients_that_cant_be_are_refused_by_name(name, value):
    with pytest.raises(InputError, match=f"^--{name} "):
        Coefficients(**{"alpha": 1.2, "beta": 1.1, "gamma": 1.15, name: value})


def test_a_product_far_from_two_needs_to_be_told():
    swapped = Coefficients(1.1, 1.2, 1.3)
    with pytest.raises(InputError, match=r"is 2\.677, not near 2"):
        CompoundScaler(swapped)
    member = CompoundScaler(swapped, any_product=True).scale(B0, 1)
    assert member.wished_flops == pytest.approx(2.677 * cost.flops(B0), rel=1e-3)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"flops": 1e8}, r"^--flops 100M: nothing fits; .* needs 385\.8M FLOPs$"),
        (
            {"flops": 385.81e6, "memory": 500e6},
            r"--flops 385\.81M and --memory 500M: .* needs 385\.815M FLOPs and 32\.36M bytes",
        ),
        ({"flops": 1e9, "memory": 1e6}, "nothing fits; .* needs 385.8M FLOPs and .*M bytes of memory"),
        ({"flops": 1e30}, "grown 100 times"),
        ({}, "give at least one"),
    ],
)
def test_a_wish_that_nothing_meets(wish, message):
    with pytest.raises(InputError, match=message):
        CompoundScaler().fit(B0, **wish)


def test_slow_growth_reaches_as_far_as_its_phi_does():
    slow = CompoundScaler(Coefficients(1.01, 1.005, 1.005), any_product=True)
    assert cost.flops(slow.fit(B0, flops=10e9).architecture) == pytest.approx(10e9, rel=0.02)
    with pytest.raises(InputError, match=r"^--alpha, --beta, --gamma: all are 1"):
        CompoundScaler(Coefficients(1, 1, 1), any_product=True).fit(B0, flops=1e9)


@pytest.mark.parametrize("phi", [-1, math.nan, math.inf, 60, 1e9])
def test_a_phi_that_cant_be(phi):
    with pytest.raises(InputError, match=r"^--phi "):
        CompoundScaler().scale(B0, phi)


@pytest.mark.parametrize("phi", [-1, 2.5, 8, math.nan])
def test_the_preset_has_eight_sizes(phi):
    with pytest.raises(InputError, match="whole numbers from 0 to 7"):
        EfficientNetScaler().scale(B0, phi)


@pytest.mark.parametrize("make", [lambda: Rounding(0), lambda: Rounding(resolution=0), lambda: Multipliers(1, 0.5, 1)])
def test_steps_and_multipliers_below_one(make):
    with pytest.raises(InputError, match="must be a number from 1 up"):
        make()


@pytest.mark.parametrize(
    ("rounding", "message"), [(Rounding(resolution=225), "images of 224 px"), (Rounding(321), "320 channels")]
)
def test_steps_coarser_than_the_network(rounding, message):
    with pytest.raises(InputError, match=message):
        grow(B0, Multipliers(1.2, 1.2, 1.2), rounding)


def test_a_growth_beyond_all_measure_is_refused_before_anything_is_made():
    with pytest.raises(InputError, match="more than 100 times"):
        grow(B0, Multipliers(1e6, 1, 1))
