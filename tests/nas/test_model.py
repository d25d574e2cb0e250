"""The torch module is the network whose costs and shapes the search space states."""

from __future__ import annotations

import math
from functools import cache
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn

from nas.model import DropPath, SqueezeExcite, build, fvcore_flops
from search_space import Architecture, HeadSpec, StageSpec, StemSpec, cost, load_architecture, load_space
from search_space.library import names
from search_space.transform import for_small_images, scale_width

load = cache(load_space)
by_name = pytest.mark.parametrize("name", names("architecture"))
PER_SPACE, CHUNK = 40, 20


def small(*stages: StageSpec, **fields) -> Architecture:
    return Architecture(**{"resolution": 16, "num_classes": 10, "stem": StemSpec(16), "stages": stages, **fields})


def image(network: Architecture, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, network.resolution, network.resolution, generator=torch.Generator().manual_seed(0))


def trainable(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


@by_name
def test_library_networks_cost_what_fvcore_counts(name):
    network = load_architecture(name)
    assert fvcore_flops(network) == cost.flops(network)
    assert trainable(build(network)) == cost.params(network)


def counted(network: Architecture) -> tuple[int, int]:
    """FLOPs as in `fvcore_flops`, and params, of one module: building it takes a good part of the time."""
    module = build(network).eval()
    flops = FlopCountAnalysis(module, image(network)).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    by_operator = flops.by_operator()
    return int(by_operator["conv"] + by_operator["linear"]), trainable(module)


@pytest.mark.parametrize("chunk", range(PER_SPACE // CHUNK))
@pytest.mark.parametrize("space", names("space"))
def test_sampled_networks_cost_what_fvcore_counts(space, chunk):
    rng = np.random.default_rng([names("space").index(space), chunk])
    for _ in range(CHUNK):
        network = load(space).sample(rng)
        network = network.with_(resolution=min(network.resolution, int(rng.integers(32, 49))))
        assert counted(network) == (cost.flops(network), cost.params(network)), network.to_yaml()


def outputs(network: Architecture) -> list[tuple[int, ...]]:
    """Shapes of what the module's parts really put out."""
    module = build(network).eval()
    seen: list[tuple[int, ...]] = []
    for part in module.parts:
        part.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    with torch.inference_mode():
        assert module(image(network, 2)).shape == (2, network.num_classes)
    return seen


def stated(network: Architecture) -> list[tuple[int, ...]]:
    *body, head = [part.out_shape for part in network.parts()]
    return [(2, shape.chs, shape.size, shape.size) for shape in body] + [(2, head.chs)]


@by_name
@pytest.mark.parametrize("resolution", [64, 97])
def test_parts_put_out_the_stated_shapes(name, resolution):
    network = load_architecture(name).with_(resolution=resolution)
    assert outputs(network) == stated(network)


@pytest.mark.parametrize("op", ["conv", "depthwise_separable", "mbconv", "identity", "bottleneck"])
@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_kernels_strides_and_odd_sizes(op, kernel_size, stride):
    stages = [
        StageSpec(op, 2, 16, kernel_size, stride, exp_ratio=2, se_ratio=0.25, skip=skip)
        for skip in ("identity", "pool", "none")
    ]
    network = small(*stages, resolution=29, stem=StemSpec(16, kernel_size, 1), head=HeadSpec(24))
    assert outputs(network) == stated(network)
    assert fvcore_flops(network) == cost.flops(network)


@by_name
@pytest.mark.parametrize("resolution", [8, 13])
def test_the_smallest_images(name, resolution):
    network = for_small_images(scale_width(load_architecture(name), 0.25), resolution, 2).with_(num_classes=10)
    assert outputs(network) == stated(network)
    scores = build(network).train()(image(network, 4))
    scores.sum().backward()
    assert torch.isfinite(scores).all()


def test_stages_compute_what_the_blocks_say():
    """One MBConv with SE and the identity skip, written out by hand."""
    network = small(StageSpec("mbconv", 1, 16, 5, exp_ratio=6, se_ratio=0.25), activation="silu")
    stage = build(network).eval().parts.stages_0
    expand, expand_norm, project, project_norm = (stage[0].main[i] for i in (0, 1, 7, 8))
    depthwise, depthwise_norm, se = (stage[0].main[i] for i in (3, 4, 6))
    assert isinstance(se, SqueezeExcite)
    x = torch.randn(2, 16, 8, 8)
    with torch.inference_mode():
        y = nn.functional.silu(expand_norm(expand(x)))
        y = nn.functional.silu(depthwise_norm(depthwise(y)))
        y = y * torch.sigmoid(se.expand(nn.functional.silu(se.reduce(y.mean((2, 3), keepdim=True)))))
        wanted = x + project_norm(project(y))
        torch.testing.assert_close(stage(x.clone()), wanted)


def test_the_pool_skip_averages_what_is_inside_the_image():
    network = small(StageSpec("conv", 1, 16, skip="pool"))
    block = build(network).eval().parts.stages_0[0]
    torch.testing.assert_close(block.shortcut(torch.ones(1, 16, 8, 8)), torch.ones(1, 16, 8, 8))


def rates(network: Architecture) -> list[float]:
    return [module.rate for module in build(network).modules() if isinstance(module, DropPath)]


def test_drop_path_rises_linearly_over_the_blocks():
    block = StageSpec("mbconv", 2, 16, skip="identity")
    assert rates(small(block, block, drop_path=0.2)) == pytest.approx([0.0, 0.05, 0.1, 0.15])


def test_drop_path_counts_blocks_without_a_shortcut():
    network = small(StageSpec("conv", 2, 24), StageSpec("conv", 2, 24), drop_path=0.4)
    assert rates(network) == pytest.approx([0.1, 0.2, 0.3])  # the first one changes the channels


def test_efficientnet_b0_drops_paths_as_the_release_does():
    b0 = load_architecture("efficientnet-b0")
    assert rates(b0) == pytest.approx([0.2 * i / 16 for i in (2, 4, 6, 7, 9, 10, 12, 13, 14)])


def test_drop_path_drops_whole_images_in_training_only():
    torch.manual_seed(0)
    layer = DropPath(0.25)
    x = torch.ones(20_000, 2, 2, 2)
    out = layer(x).flatten(1)
    assert ((out == out[:, :1]).all(1)).all()
    torch.testing.assert_close(out.unique(), torch.tensor([0, 1 / 0.75]))
    sigma = math.sqrt(0.25 * 0.75 / len(x)) / 0.75
    assert out.mean().item() == pytest.approx(1, abs=5 * sigma)
    assert layer.eval()(x) is x


def test_drop_path_and_dropout_change_nothing_in_evaluation():
    stage = StageSpec("mbconv", 3, 16)
    network = small(stage, drop_path=0.9, dropout=0.9)
    torch.manual_seed(0)
    dropping = build(network).eval()
    plain = build(network.with_(drop_path=0, dropout=0)).eval()
    plain.load_state_dict(dropping.state_dict())
    assert torch.equal(dropping(image(network)), plain(image(network)))
    assert not torch.equal(dropping.train()(image(network, 8)), plain.train()(image(network, 8)))


def test_initial_weights():
    """He's normal over the fan-out for convolutions, +-1/sqrt(classes) for the classifier, zero biases."""
    torch.manual_seed(0)
    network = build(load_architecture("efficientnet-b0"))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            weights = module.weight.detach()
            std = math.sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels / module.groups))
            count = weights.numel()
            assert weights.std().item() == pytest.approx(std, rel=6 / math.sqrt(2 * count))  # 6 sigmas
            assert weights.mean().item() == pytest.approx(0, abs=6 * std / math.sqrt(count))
        elif isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(1000)
            assert bound * 0.999 < module.weight.abs().max().item() <= bound
            assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.01)
        elif isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.weight, torch.ones_like(module.weight))
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            assert not module.bias.any()


def test_weights_follow_the_seed():
    network = small(StageSpec("mbconv", 1, 16))

    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return nn.utils.parameters_to_vector(build(network).parameters())

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


PEERS = {
    "efficientnet-b0": "efficientnet_b0",
    "mnasnet-a1": "semnasnet_100",
    "mobilenet-v1": "mobilenetv1_100",
    "mobilenet-v2": "mobilenetv2_100",
    "resnet-50": "resnet50",
}


@pytest.fixture(scope="module")
def timm(shared):
    if find_spec("timm") is None:
        pytest.skip("timm, the independent peer, is not installed; shared/tools/timm_cpu.py says how")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(shared / "tools")
        import_module("timm_cpu")
        return import_module("timm")


@by_name
def test_timms_network_with_the_same_weights_puts_out_the_same(name, timm):
    network = load_architecture(name)
    torch.manual_seed(0)
    ours, theirs = build(network), timm.create_model(PEERS[name])
    for module in theirs.modules():  # fresh statistics would hide a wrong epsilon
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.001, 2)
            module.weight.data.uniform_(0.5, 1.5)
    state = dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True))
    ours.load_state_dict(state)
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(image(network, 2)), theirs.eval()(image(network, 2)))
