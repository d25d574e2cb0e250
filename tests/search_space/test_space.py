"""Search spaces: what is inside, what is a neighbour, and which files describe no space."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_space import Architecture, InputError, SearchSpace, SpaceError, cost, load_architecture, load_space
from search_space.library import names

load = cache(load_space)
by_space = pytest.mark.parametrize("name", names("space"))


def space_of(*stages: dict, **fields) -> SearchSpace:
    stem = {"out_chs": 16, "stride": 1}
    return SearchSpace({"resolution": 32, "num_classes": 10, "stem": stem, "stages": list(stages), **fields})


MBCONV = {"op": "mbconv", "layers": 1, "out_chs": 16, "exp_ratio": [3, 6]}
CONV = {"op": "conv", "layers": [1, 2], "out_chs": 16, "kernel_size": [3, 5]}
SMALL = {
    "fields": space_of(MBCONV, CONV),
    "one_of": space_of({"one_of": [CONV, MBCONV, {"op": "identity", "layers": 1, "out_chs": 16}]}, CONV),
    "nothing or something": space_of({**CONV, "layers": [0, 1]}, {**MBCONV, "layers": [0, 1, 2]}, CONV),
    "top, stem and head": space_of(
        MBCONV, resolution=[32, 48], dropout=[0, 0.2], stem={"out_chs": [8, 16]}, head={"out_chs": [None, 64]}
    ),
}


def everything(space: SearchSpace) -> dict[str, tuple[int, ...]]:
    """The first actions of every network, by brute force."""
    found: dict[str, tuple[int, ...]] = {}
    for actions in np.ndindex(*(len(decision.choices) for decision in space.decisions)):
        found.setdefault(space.decode(actions).key(), actions)
    return found


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("accel-nasbench", 3**7 * 2**7 * 3**6 * 4 * 2**7),
        ("nas-bench-macro", 6561),
        ("mbconv", 2**3 * (3 * 2**3) ** 5 * 2**4),
        ("mnasnet", 432**5 * 576**2),
    ],
)
def test_size(name, size):
    assert load(name).size == size


def test_size_counts_only_the_chosen_alternative():
    assert SMALL["fields"].size == 2 * 4
    assert SMALL["one_of"].size == (4 + 2 + 1) * 4
    assert SMALL["top, stem and head"].size == 2 * 2 * 2 * 2 * 2


@pytest.mark.parametrize("name", ["mbconv", "mnasnet", "accel-nasbench"])
def test_efficientnet_b0_is_inside(name):
    b0 = load_architecture("efficientnet-b0")
    space = load(name)
    assert space.contains(b0)
    assert space.decode(space.encode(b0)).key() == b0.key()


def test_no_other_network_of_the_library_is_inside_mbconv():
    for name in names("architecture"):
        assert load("mbconv").contains(load_architecture(name)) == (name == "efficientnet-b0")


@by_space
@settings(max_examples=30)
@given(seed=st.integers(0, 2**32))
def test_a_sample_is_encoded_and_decoded_to_itself(name, seed):
    space = load(name)
    network = space.sample(np.random.default_rng(seed))
    actions = space.encode(network)
    assert space.decode(actions).key() == network.key()
    assert space.encode(space.decode(actions)) == actions
    assert space.contains(network)


@pytest.mark.parametrize("name", SMALL)
def test_encode_gives_the_first_actions_with_zeros_where_they_have_no_effect(name):
    space = SMALL[name]
    for key, actions in everything(space).items():
        encoded = space.encode(space.decode(actions))
        assert space.decode(encoded).key() == key
        assert encoded == actions
        assert not any(action for action, active in zip(encoded, space.active(encoded), strict=True) if not active)


def test_sampling_follows_the_generator_and_reaches_everything():
    space = SMALL["one_of"]
    assert space.sample(np.random.default_rng(3)) == space.sample(np.random.default_rng(3))
    rng = np.random.default_rng(0)
    drawn = {space.sample(rng).key() for _ in range(400)}
    assert drawn == set(everything(space))


def b0_with(stage: int, **fields) -> Architecture:
    b0 = load_architecture("efficientnet-b0")
    return b0.with_(stages=tuple(replace(spec, **fields) if i == stage else spec for i, spec in enumerate(b0.stages)))


@pytest.mark.parametrize("name", ["mbconv", "accel-nasbench", "mnasnet"])
@pytest.mark.parametrize("stage", range(7))
def test_a_foreign_architecture_is_refused_with_its_stage(name, stage):
    with pytest.raises(SpaceError, match=rf"^stages\[{stage}\]: .*space {name}"):
        load(name).encode(b0_with(stage, out_chs=1000))
    assert not load(name).contains(b0_with(stage, kernel_size=7))


def test_foreign_numbers_of_stages():
    b0 = load_architecture("efficientnet-b0")
    assert not load("mbconv").contains(b0.with_(stages=b0.stages[:-1]))
    assert not load("mbconv").contains(b0.with_(stages=(*b0.stages, *b0.stages[-1:] * 2)))


@pytest.mark.parametrize("change", [{"resolution": 192}, {"num_classes": 10}, {"activation": "relu"}, {"dropout": 0.5}])
def test_an_architecture_that_differs_outside_the_stages_is_refused(change):
    with pytest.raises(SpaceError, match="mbconv"):
        load("mbconv").encode(load_architecture("efficientnet-b0").with_(**change))


def test_a_foreign_value_of_an_open_field_is_named():
    space = SMALL["top, stem and head"]
    network = space.decode([0] * len(space.decisions))
    with pytest.raises(SpaceError, match=r"^resolution: 64 is not one of"):
        space.encode(network.with_(resolution=64))
    with pytest.raises(SpaceError, match=r"^stem\.out_chs: 24 is not one of"):
        space.encode(network.with_(stem=replace(network.stem, out_chs=24)))


def one_step(space: SearchSpace, network: Architecture) -> set[str]:
    """Keys of all that one changed decision makes of the network's own encoding."""
    actions = space.encode(network)
    steps = ((i, a) for i, decision in enumerate(space.decisions) for a in range(len(decision.choices)))
    keys = {space.decode((*actions[:i], action, *actions[i + 1 :])).key() for i, action in steps}
    return keys - {network.key()}


@by_space
@pytest.mark.parametrize("seed", range(2))
def test_neighbours(name, seed):
    space = load(name)
    network = space.sample(np.random.default_rng(seed))
    neighbours = space.neighbours(network)
    keys = [neighbour.key() for neighbour in neighbours]
    assert len(keys) > space.num_stages
    assert len(set(keys)) == len(keys)
    assert set(keys) == one_step(space, network)
    assert all(space.contains(neighbour) for neighbour in neighbours)


def test_neighbours_of_an_architecture_outside():
    with pytest.raises(SpaceError):
        load("mbconv").neighbours(load_architecture("resnet-50"))


def test_active_names_the_chosen_alternative():
    space = SMALL["one_of"]
    on = [
        {space.decisions[i].name for i, active in enumerate(space.active((choice, 0, 0, 0, 0, 0))) if active}
        for choice in range(3)
    ]
    later = {"stages[1].layers", "stages[1].kernel_size", "stages[0].one_of"}
    assert on[0] == later | {"stages[0].layers", "stages[0].kernel_size"}
    assert on[1] == later | {"stages[0].exp_ratio"}
    assert on[2] == later


@by_space
def test_inactive_decisions_have_no_effect(name):
    space = load(name)
    rng = np.random.default_rng(0)
    for _ in range(20):
        actions = space.sample_actions(rng)
        others = space.sample_actions(rng)
        mixed = [a if on else b for a, b, on in zip(actions, others, space.active(actions), strict=True)]
        assert space.decode(mixed) == space.decode(actions)


def test_alternatives_share_the_decisions_they_have_in_common():
    space = space_of({"one_of": [CONV, {**CONV, "op": "mbconv"}]})
    assert [decision.name for decision in space.decisions] == [
        "stages[0].one_of",
        "stages[0].layers",
        "stages[0].kernel_size",
    ]


def test_a_list_of_one_is_no_decision():
    space = space_of({**CONV, "layers": [2]})
    assert [decision.name for decision in space.decisions] == ["stages[0].kernel_size"]
    assert space.decode([0]).stages[0].layers == 2


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ((0, 0), "actions: 2 given"),
        ((0, 0, 0, 0), "actions: 4 given"),
        ((0.5, 0, 0), "actions: must be whole numbers, not (0.5, 0, 0)"),
        (("a", 0, 0), "actions: must be whole numbers"),
        ((2, 0, 0), "stages[0].exp_ratio: action 2"),
        ((0, 0, -1), "stages[1].kernel_size: action -1"),
    ],
)
def test_decode_refuses_other_actions(actions, message):
    with pytest.raises(SpaceError) as error:
        SMALL["fields"].decode(actions)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{**CONV, "layers": 1, "kernel_size": 3}], "the space has no choice"),
        ([{**CONV, "layers": []}], "stages[0].layers: the list of choices is empty"),
        ([CONV, {**CONV, "layers": [1, 2, 1]}], "stages[1].layers: a choice is repeated"),
        ([{**MBCONV, "exp_ratio": [1, 1.0]}], "stages[0].exp_ratio: a choice is repeated"),
        ([CONV, {**CONV, "kernel_size": [3, 4]}], "stages[1].kernel_size: must be an odd number"),
        ([{"one_of": [CONV, MBCONV, CONV]}], "stages[0].one_of: a choice is repeated"),
        ([{"one_of": [1, 2]}], "stages[0]: must be a mapping of fields, not 1"),
        ([{"one_of": [CONV, {**MBCONV, "exp_ratio": [3, -1]}]}], "stages[0].exp_ratio: must be a number"),
        ([{"one_of": [CONV, {**MBCONV, "op": "mbcon"}]}], "stages[0].op: 'mbcon' is unknown"),
        ([{"one_of": [CONV, {**MBCONV, "out_chs": 0}]}], "stages[0].out_chs: "),
        ([{**CONV, "layers": [1, 0], "stride": [1, 2]}], "stages[0].layers: 0 would drop the stage's stride"),
        ([{"one_of": []}], "stages[0].one_of: the list of choices is empty"),
        ([{"one_of": {}}], "stages[0].one_of: must be a list"),
        ([{"one_of": [CONV], "op": "conv"}], "stages[0].one_of: must be"),
        ([{"one_of": [CONV, "conv"]}], "stages[0]: must be a mapping"),
        ([{**CONV, "kernel": [3, 5]}], "stages[0].kernel: unknown field"),
        ([{"op": "conv", "layers": [1, 2]}], "stages[0].out_chs: missing"),
        (["conv"], "stages[0]: must be a mapping"),
        ([], "stages: must be a list"),
        ([{**CONV, "layers": [0, 1]}] * 201, "stages: must be a list of 1 to 200"),
        ({}, "stages: must be a list"),
    ],
)
def test_no_space(stages, message, tmp_path):
    values = {"resolution": 32, "num_classes": 10, "stem": {"out_chs": 16}, "stages": stages}
    with pytest.raises(SpaceError) as error:
        SearchSpace(values)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resolution": [32, 4]}, "resolution: must be"),
        ({"stem": {"out_chs": [16, 0]}}, "stem.out_chs: must be"),
        ({"stem": 16}, "stem: must be a mapping"),
        ({"dropuot": [0, 0.1]}, "dropuot: unknown field"),
        ({"activation": []}, "activation: the list of choices is empty"),
    ],
)
def test_no_space_outside_the_stages(fields, message):
    with pytest.raises(SpaceError) as error:
        space_of(CONV, **fields)
    assert str(error.value).startswith(message)


def test_errors_of_a_file_name_the_file(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("format: baseline-nas/space/1\nresolution: 32\nstages: [{op: conv, layers: [1, 2], out_chs: 8}]\n")
    with pytest.raises(SpaceError, match=r"space\.yaml: num_classes: missing|space\.yaml: stem: missing"):
        load_space(path)
    path.write_text("format: baseline-nas/space/2\n")
    wanted = r"space\.yaml: format: must be baseline-nas/space/1, not 'baseline-nas/space/2'"
    with pytest.raises(InputError, match=wanted):
        load_space(path)


def test_with_changes_the_deployed_network_only():
    space = load("mbconv")
    before = copy.deepcopy(space.to_dict())
    other = space.with_(resolution=160, num_classes=10)
    assert (other.decode([0] * 27).resolution, other.decode([0] * 27).num_classes) == (160, 10)
    assert other.decisions == space.decisions
    assert space.to_dict() == before
    assert space.with_() is space
    with pytest.raises(SpaceError, match="resolution"):
        space.with_(resolution=4)


@by_space
def test_to_dict_describes_the_same_space(name):
    space = load(name)
    assert SearchSpace(space.to_dict()).decisions == space.decisions


def test_the_cost_range_is_that_of_all_networks_where_stages_hand_on_different_shapes():
    narrow = {"op": "mbconv", "layers": [0, 2], "out_chs": [8, 24], "kernel_size": [3, 5], "exp_ratio": [1, 4]}
    wide = {"op": "conv", "layers": 1, "out_chs": [12, 32], "stride": [1, 2]}
    last = {"op": "mbconv", "layers": [1, 3], "out_chs": 16, "exp_ratio": 6}
    stages = [{"one_of": [narrow, wide]}, {"op": "conv", "layers": [0, 1], "out_chs": [8, 40]}, last]
    space = SearchSpace({"resolution": [16, 32], "num_classes": 10, "stem": {"out_chs": [4, 8]}, "stages": stages})
    every = product(*(range(len(decision.choices)) for decision in space.decisions))
    networks = [space.decode(actions) for actions in every]
    for measure in (cost.flops, cost.params):
        costs = [measure(network) for network in networks]
        assert space.cost_range(measure) == (min(costs), max(costs))


def test_choices_that_no_network_can_have_together_are_refused():
    stages = [{"op": "conv", "layers": 1, "out_chs": 8, "stride": [1, 2]}] * 5
    with pytest.raises(SpaceError, match=r"stages\[3\]\.stride: 2 would shrink 1 px"):
        SearchSpace({"resolution": 8, "num_classes": 10, "stem": {"out_chs": 8, "stride": 1}, "stages": stages})
