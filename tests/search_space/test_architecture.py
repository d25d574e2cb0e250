"""Architectures: valid or refused with the field's path, the same thing as their YAML, one key per network."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from itertools import pairwise

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from search_space import Architecture, ArchitectureError, HeadSpec, InputError, StageSpec, StemSpec, load_architecture
from search_space.library import load_space, names

STAGE = StageSpec("mbconv", 2, 16, exp_ratio=4)


def small(*stages: StageSpec, **fields) -> Architecture:
    return Architecture(**{"resolution": 32, "num_classes": 10, "stem": StemSpec(16), "stages": stages, **fields})


stage_specs = st.builds(
    StageSpec,
    op=st.sampled_from(["conv", "depthwise_separable", "mbconv", "identity", "bottleneck"]),
    layers=st.integers(1, 3),
    out_chs=st.sampled_from([8, 12, 16]),
    kernel_size=st.sampled_from([1, 3, 5, 7]),
    stride=st.sampled_from([1, 1, 2]),
    exp_ratio=st.sampled_from([0.25, 1, 1.0, 3, 6]),
    se_ratio=st.sampled_from([0, 0.25, 0.5]),
    skip=st.sampled_from(["identity", "pool", "none"]),
)
architectures = st.builds(
    small,
    stages=st.lists(stage_specs, min_size=1, max_size=4).map(tuple),
    resolution=st.sampled_from([32, 48]),
    num_classes=st.integers(1, 1000),
    stem=st.builds(StemSpec, st.sampled_from([8, 16]), pool=st.sampled_from(["none", "max"])),
    head=st.builds(HeadSpec, st.sampled_from([None, 64])),
    activation=st.sampled_from(["relu", "relu6", "silu", "hard_swish"]),
    dropout=st.sampled_from([0, 0.0, 0.2]),
    drop_path=st.sampled_from([0, 0.0, 0.2]),
    name=st.text(st.characters(categories=["L", "N", "S", "P"], exclude_characters="/\\."), min_size=1, max_size=8),
)


def expanded(network: Architecture) -> tuple:
    """What a network is: everything that its module is built from."""
    stem, *stages, head = network.parts()
    blocks = [block for part in stages for block in part.blocks]
    dropped = [block.shortcut is not None and network.drop_path * i / len(blocks) for i, block in enumerate(blocks)]
    return network.resolution, stem.blocks, blocks, dropped, head.blocks


@given(architectures)
def test_yaml_round_trip(tmp_path_factory, network):
    path = tmp_path_factory.mktemp("yaml") / "network.yaml"
    network.save(path)
    read = Architecture.load(path)
    assert read == network
    assert read.key() == network.key()


@given(architectures)
def test_the_yaml_means_the_same_to_any_yaml_reader(network):
    values = yaml.safe_load(network.to_yaml())
    assert values.pop("format") == "baseline-nas/architecture/1"
    assert Architecture.from_dict(values) == network


def test_a_value_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        small(STAGE).resolution = 64  # type: ignore[misc]


INVALID = [
    ("resolution", 7),
    ("resolution", 32.0),
    ("resolution", True),
    ("resolution", "32"),
    ("resolution", None),
    ("resolution", 2**21),
    ("num_classes", 0),
    ("num_classes", -3),
    ("activation", "gelu"),
    ("activation", None),
    ("dropout", 1),
    ("dropout", -0.1),
    ("dropout", float("nan")),
    ("dropout", True),
    ("drop_path", "0.2"),
    ("name", 5),
    ("name", ""),
    ("name", "../evil"),
    ("name", "a\nb"),
    ("name", "a\0b"),
    ("name", "\ud800"),
    ("name", ".hidden"),
    ("name", None),
    ("stages", []),
    ("stages", {}),
    ("stages", None),
    ("stem", 32),
    ("stem.out_chs", 0),
    ("stem.kernel_size", 2),
    ("stem.stride", 0),
    ("stem.stride", 64),
    ("stem.pool", "avg"),
    ("head", None),
    ("head.out_chs", 0),
    ("head.out_chs", 12.5),
    ("stages[2]", "mbconv"),
    ("stages[2].op", "mbconvv"),
    ("stages[2].op", ["conv"]),
    ("stages[2].layers", -1),
    ("stages[2].layers", 1.0),
    ("stages[2].layers", False),
    ("stages[2].layers", [1, 2]),
    ("stages[2].out_chs", 0),
    ("stages[2].out_chs", "16"),
    ("stages[2].kernel_size", -3),
    ("stages[2].kernel_size", 0),
    ("stages[2].kernel_size", 4),
    ("stages[2].kernel_size", 33),
    ("stages[2].kernel_size", 3.0),
    ("stages[2].stride", 0),
    ("stages[2].stride", 17),
    ("stages[2].exp_ratio", 0),
    ("stages[2].exp_ratio", -6),
    ("stages[2].exp_ratio", float("inf")),
    ("stages[2].exp_ratio", None),
    ("stages[2].se_ratio", -0.25),
    ("stages[2].se_ratio", 1.5),
    ("stages[2].se_ratio", True),
    ("stages[2].skip", "Identity"),
    ("stages[2].skip", None),
]


def changed(path: str, value: object) -> dict:
    """The values of a valid network with one of them replaced."""
    values = small(STAGE, STAGE, STAGE).to_dict()
    *where, last = path.replace("[2]", ".2").split(".")
    target = values
    for step in where:
        target = target[int(step) if step.isdigit() else step]
    target[int(last) if last.isdigit() else last] = value
    return values


@pytest.mark.parametrize(("path", "value"), INVALID, ids=[f"{path}={value}" for path, value in INVALID])
def test_an_invalid_value_is_refused_with_its_path(path, value):
    with pytest.raises(ArchitectureError) as error:
        Architecture.from_dict(changed(path, value))
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", ["resolution", "stem.out_chs", "stages[2].op", "stages[2].out_chs"])
def test_a_missing_field_is_named(path):
    values = changed(path, None)
    *where, last = path.replace("[2]", ".2").split(".")
    target = values
    for step in where:
        target = target[int(step) if step.isdigit() else step]
    del target[last]
    with pytest.raises(ArchitectureError) as error:
        Architecture.from_dict(values)
    assert str(error.value) == f"{path}: missing"


@pytest.mark.parametrize("path", ["resolutoin", "stem.kernel", "head.chs", "stages[2].expansion"])
def test_an_unknown_field_is_named_with_those_that_exist(path):
    with pytest.raises(ArchitectureError) as error:
        Architecture.from_dict(changed(path, 1))
    assert str(error.value).startswith(f"{path}: unknown field; use one of ")


def test_an_unknown_op_lists_the_known_ones():
    with pytest.raises(ArchitectureError) as error:
        StageSpec("mbcon", 1, 16)
    for op in ("conv", "depthwise_separable", "mbconv", "identity", "bottleneck"):
        assert op in str(error.value)
    assert str(error.value).endswith(" or register it (search_space.register)")


def test_a_stage_without_layers_cannot_have_a_stride():
    with pytest.raises(ArchitectureError, match=r"^layers: 0 would drop the stage's stride of 2"):
        StageSpec("conv", 0, 16, stride=2)


def test_strides_that_leave_no_pixel_name_the_stage_and_the_way_out():
    down = replace(STAGE, stride=2)
    with pytest.raises(ArchitectureError, match=r"^stages\[4\]\.stride: 2 would shrink 1 px .* fewer strides$"):
        small(*[down] * 5)
    assert small(*[down] * 4).parts()[-2].out_shape.size == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("resolution: 224", "resolution: must be"),
        ("stages:", "stages"),
        ("format: baseline-nas/architecture/1", "format: must be baseline-nas/architecture/1, not 'something'"),
    ],
)
def test_errors_of_a_file_name_the_file(tmp_path, line, message):
    path = tmp_path / "b0.yaml"
    text = load_architecture("efficientnet-b0").to_yaml()
    assert line in text
    path.write_text(text.replace(line, line.split(":")[0] + ": something #" if line[-1] != ":" else "stages: 1\nx:"))
    with pytest.raises(InputError) as error:
        Architecture.load(path)
    assert str(error.value).startswith(f"{path}: {message}")


def test_a_key_given_twice_in_a_file(tmp_path):
    path = tmp_path / "b0.yaml"
    path.write_text(load_architecture("efficientnet-b0").to_yaml() + "dropout: 0.5\n")
    with pytest.raises(InputError, match=r"b0\.yaml:\d+: .*'dropout' is given twice"):
        Architecture.load(path)


def test_yaml_numbers_with_exponents_and_the_word_no(tmp_path):
    path = tmp_path / "a.yaml"
    text = small(STAGE, name="x", dropout=0.2).to_yaml()
    path.write_text(text.replace("name: x", "name: no").replace("dropout: 0.2", "dropout: 1e-5"))
    network = Architecture.load(path)
    assert (network.name, network.dropout) == ("no", 1e-5)
    path.write_text(text.replace("dropout: 0.2", "dropout: no"))
    with pytest.raises(InputError, match=r"dropout: must be a number from 0 to 0\.99, not 'no'"):
        Architecture.load(path)


def pair(left: StageSpec | list, right: StageSpec | list, **fields) -> tuple[Architecture, Architecture]:
    first, second = (side if isinstance(side, list) else [side] for side in (left, right))
    return small(*first, **fields), small(*second, **fields)


CONV = StageSpec("conv", 1, 16)
EQUAL = {
    "an expansion on a conv": pair(CONV, replace(CONV, exp_ratio=6)),
    "a kernel on an identity": pair(
        StageSpec("identity", 1, 8, kernel_size=3), StageSpec("identity", 1, 8, kernel_size=5, se_ratio=0.5)
    ),
    "a skip where nothing can be added": pair(
        StageSpec("mbconv", 1, 24, skip="identity"), StageSpec("mbconv", 1, 24, skip="none")
    ),
    "an identity skip over a stride": pair(replace(CONV, stride=2), replace(CONV, stride=2, skip="none")),
    "an identity that changes nothing": pair([CONV, StageSpec("identity", 3, 16)], CONV),
    "a stage of no layers": pair([CONV, StageSpec("mbconv", 0, 99)], CONV),
    "two layers or two stages of one": pair(replace(STAGE, layers=2), [replace(STAGE, layers=1)] * 2),
    "one times the channels or an expansion that rounds to it": pair(
        replace(STAGE, exp_ratio=1), replace(STAGE, exp_ratio=1.001)
    ),
    "a whole or a real number": pair(replace(STAGE, exp_ratio=4), replace(STAGE, exp_ratio=4.0)),
    "no drop-path as whole or real": (small(STAGE, drop_path=0, dropout=0), small(STAGE, drop_path=0.0, dropout=0.0)),
    "drop-path where nothing is added to drop it from": (
        small(CONV, replace(STAGE, skip="none"), drop_path=0.2),
        small(CONV, replace(STAGE, skip="none"), drop_path=0),
    ),
    "another name": (small(STAGE, name="a"), small(STAGE, name="b")),
}


@pytest.mark.parametrize("case", EQUAL)
def test_equal_networks_have_one_key(case):
    first, second = EQUAL[case]
    assert first != second or "whole" in case
    assert first.key() == second.key()


DIFFERENT = {
    "resolution": 48,
    "num_classes": 11,
    "activation": "silu",
    "dropout": 0.1,
    "drop_path": 0.1,
    "stem": StemSpec(16, pool="max"),
    "head": HeadSpec(64),
    "stages": (replace(STAGE, skip="pool"),),
}


@pytest.mark.parametrize("field", DIFFERENT)
def test_every_field_but_the_name_counts(field):
    network = small(STAGE)
    assert network.with_(**{field: DIFFERENT[field]}).key() != network.key()


@pytest.mark.parametrize(
    "change",
    [
        {"layers": 3}, {"out_chs": 24}, {"kernel_size": 5}, {"stride": 2}, {"exp_ratio": 3}, {"se_ratio": 0.25},
        {"skip": "pool"}, {"skip": "none"}, {"op": "conv"}, {"op": "bottleneck"}, {"op": "identity", "out_chs": 8},
    ],
    ids=str,
)  # fmt: skip
def test_a_stage_with_another_effect_is_another_network(change):
    assert small(replace(STAGE, **change)).key() != small(STAGE).key()


@settings(max_examples=300)
@given(architectures, architectures, stage_specs, st.data())
def test_keys_are_equal_exactly_for_equal_expansions(one, other, stage, data):
    index = data.draw(st.integers(0, len(one.stages) - 1))
    near = one.with_(stages=(*one.stages[:index], stage, *one.stages[index + 1 :]))
    for network in (near, other):
        assert (one.key() == network.key()) == (expanded(one) == expanded(network))


@pytest.mark.parametrize("space", names("space"))
def test_keys_do_not_collide_among_sampled_networks(space):
    rng = np.random.default_rng(0)
    sampled = load_space(space)
    keys: dict[str, tuple] = {}
    for network in (sampled.sample(rng) for _ in range(300)):
        assert len(network.key()) == 16
        assert keys.setdefault(network.key(), expanded(network)) == expanded(network)
    assert len(keys) > 200


def test_parts_follow_each_other_and_end_at_the_classes():
    network = load_architecture("efficientnet-b0")
    parts = network.parts()
    assert [part.name for part in parts] == ["stem", *(f"stages[{i}]" for i in range(7)), "head"]
    assert [len(part.blocks) for part in parts] == [1, 1, 2, 2, 3, 3, 4, 1, 1]
    assert [part.out_shape.size for part in parts] == [112, 112, 56, 28, 14, 14, 7, 7, 1]
    assert [part.out_shape.chs for part in parts] == [32, 16, 24, 40, 80, 112, 192, 320, 1000]
    for before, after in pairwise(parts):
        assert before.out_shape == after.shapes[0]
