"""Block kinds: the primitives of each, and kinds of one's own."""

from __future__ import annotations

import pytest
import torch

from nas.model import build
from search_space import Architecture, Block, StageSpec, StemSpec, blocks, cost, register
from search_space.blocks import expand_stage
from search_space.layers import ACTIVATIONS, Activation, Conv, Norm, Pool, Shape, SqueezeExcite

RELU = Activation("relu")


def one(op: str, in_chs: int = 16, out_chs: int = 16, stride: int = 1, **fields) -> Block:
    (block,) = expand_stage(StageSpec(op, 1, out_chs, stride=stride, **fields), in_chs, "relu")
    return block


def test_conv():
    block = one("conv", 16, 24, 2, kernel_size=5, se_ratio=0.25)
    assert block.main == (Conv(16, 24, 5, 2), Norm(24), RELU, SqueezeExcite(24, 4, "relu"))
    assert block.shortcut is None


def test_depthwise_separable():
    block = one("depthwise_separable", 16, 24, 2, se_ratio=0.5)
    depthwise = (Conv(16, 16, 3, 2, groups=16), Norm(16), RELU, SqueezeExcite(16, 8, "relu"))
    assert block.main == (*depthwise, Conv(16, 24, 1), Norm(24), RELU)


def test_mbconv():
    block = one("mbconv", 16, 24, 2, kernel_size=5, exp_ratio=6, se_ratio=0.25)
    expansion = (Conv(16, 96, 1), Norm(96), RELU)
    depthwise = (Conv(96, 96, 5, 2, groups=96), Norm(96), RELU, SqueezeExcite(96, 4, "relu"))
    assert block.main == (*expansion, *depthwise, Conv(96, 24, 1), Norm(24))


def test_mbconv_without_expansion_has_no_expansion_convolution():
    assert one("mbconv", exp_ratio=1).main[0] == Conv(16, 16, 3, 1, groups=16)


def test_bottleneck():
    block = one("bottleneck", 16, 32, 2, exp_ratio=0.25)
    convs = [layer for layer in block.main if isinstance(layer, Conv)]
    assert convs == [Conv(16, 8, 1), Conv(8, 8, 3, 2), Conv(8, 32, 1)]
    assert block.shortcut == (Conv(16, 32, 1, 2), Norm(32))
    assert block.post == (RELU,)
    assert one("bottleneck").shortcut == ()
    assert one("bottleneck", out_chs=32, skip="none").shortcut is None


def test_identity():
    assert expand_stage(StageSpec("identity", 3, 16), 16, "relu") == ()
    assert one("identity", 16, 32, 2).main == (Conv(16, 32, 1, 2), Norm(32))
    assert one("identity", 16, 32).main == (Conv(16, 32, 1), Norm(32))


@pytest.mark.parametrize("op", ["conv", "depthwise_separable", "mbconv"])
@pytest.mark.parametrize(
    ("skip", "out_chs", "stride", "shortcut"),
    [
        ("identity", 16, 1, ()),
        ("identity", 16, 2, None),
        ("identity", 24, 1, None),
        ("pool", 16, 1, (Pool("avg", 3, 1),)),
        ("pool", 16, 2, (Pool("avg", 3, 2),)),
        ("pool", 24, 1, None),
        ("none", 16, 1, None),
    ],
)
def test_skip(op, skip, out_chs, stride, shortcut):
    assert one(op, 16, out_chs, stride, skip=skip).shortcut == shortcut


@pytest.mark.parametrize(("in_chs", "ratio", "reduced"), [(16, 0.25, 4), (3, 0.25, 1), (18, 0.25, 4), (24, 1, 24)])
def test_se_is_a_share_of_the_input_channels(in_chs, ratio, reduced):
    layers = one("mbconv", in_chs, exp_ratio=6, se_ratio=ratio).main
    assert SqueezeExcite(6 * in_chs, reduced, "relu") in layers


def test_the_stride_belongs_to_the_first_layer():
    first, *others = expand_stage(StageSpec("mbconv", 3, 24, stride=2, exp_ratio=6), 16, "relu")
    assert first.out(Shape(16, 8)) == Shape(24, 4)
    assert [block.out(Shape(24, 4)) for block in others] == [Shape(24, 4)] * 2


@pytest.fixture
def own_kinds(monkeypatch):
    """The registry, put back afterwards."""
    monkeypatch.setattr(blocks, "_KINDS", dict(blocks._KINDS))


def network(op: str, activation: str = "relu", **fields) -> Architecture:
    return Architecture(32, 10, StemSpec(16), (StageSpec(op, 2, 16, **fields),), activation=activation)


@pytest.mark.usefixtures("own_kinds")
def test_a_kind_of_ones_own_is_costed_built_and_written():
    @register("plain")
    def plain(stage, in_chs, stride, activation):
        return Block((Conv(in_chs, stage.out_chs, stage.kernel_size, stride, bias=True), Activation(activation)))

    made = network("plain")
    assert blocks.added_kinds() == {"plain": plain}
    assert cost.per_part(made)[1][1].params == 2 * (16 * 16 * 9 + 16)
    assert sum(p.numel() for p in build(made).parameters()) == cost.params(made)
    assert Architecture.from_dict(made.to_dict()) == made


def test_a_kind_is_gone_when_it_is_not_registered():
    assert "plain" not in blocks.kinds()
    assert blocks.added_kinds() == {}


@pytest.mark.usefixtures("own_kinds")
def test_a_name_is_registered_once_unless_it_is_to_be_replaced():
    before = network("conv")
    key, params = before.key(), cost.params(before)
    with pytest.raises(ValueError, match="'conv' is registered already"):
        register("conv")

    @register("conv", replace=True)
    def pointwise(stage, in_chs, stride, activation):
        return Block((Conv(in_chs, stage.out_chs, 1, stride),))

    assert network("conv").key() != key
    assert cost.params(network("conv")) < params


@pytest.mark.usefixtures("own_kinds")
@pytest.mark.parametrize("activation", ["relu", "silu"])
@pytest.mark.parametrize("shortcut", [(), (RELU,)], ids=["identity", "activated"])
def test_a_block_that_begins_with_an_activation_leaves_its_shortcut_alone(activation, shortcut):
    @register("preactivated")
    def preactivated(stage, in_chs, stride, act):
        return Block((Activation(act), Conv(in_chs, stage.out_chs, 3), Norm(stage.out_chs)), shortcut)

    block = build(network("preactivated", activation)).eval().parts.stages_0[0]
    x = torch.randn(2, 16, 8, 8)
    wanted = block.main[1:](getattr(torch.nn.functional, activation)(x)) + (x.relu() if shortcut else x)
    torch.testing.assert_close(block(x.clone()), wanted)


@pytest.mark.usefixtures("own_kinds")
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_block_that_begins_with_an_activation_trains_without_a_shortcut(activation):
    @register("preactivated")
    def preactivated(stage, in_chs, stride, act):
        return Block((Activation(act), Conv(in_chs, stage.out_chs, 3), Norm(stage.out_chs)))

    module = build(network("preactivated", activation))
    module(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(weight.grad is not None for weight in module.parameters())
