"""`nas cam` as a user types it, the maps against the scores they explain, and what the picture shows."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nas.cam import Cam, View, activation_maps, cam, grown, spread_over_classes
from nas.cam_plot import CELL, GAP, MARGIN, draw, overlay
from nas.data import load
from nas.model import build
from nas.recipe import Recipe
from nas.training import seeded
from search_space import Architecture, HeadSpec, InputError, StageSpec, StemSpec, cost, load_architecture
from search_space.transform import for_proxy

NAMES = ["baseline", "width", "depth", "resolution", "compound"]
CAM = ("cam", "baseline.yaml", "--recipe", "small.yaml", "--phi", "1", "--images", "3", "-o", "look")


def weights():
    return {path.name: path.read_bytes() for path in Path("look").glob("*.pt")}


def look(watch, **options):
    network, recipe = Architecture.load("baseline.yaml"), Recipe.load("small.yaml")
    return cam(network, recipe, Path("look"), phi=1, watch=watch, **options)


def fresh(architecture):
    """A network in evaluation mode whose norms have seen images."""
    with seeded(3):
        network = build(architecture).train()
        for _ in range(3):
            network(torch.randn(4, 3, architecture.resolution, architecture.resolution))
    return network.eval()


@pytest.mark.parametrize("name", ["efficientnet-b0", "mobilenet-v1", "mobilenet-v2", "mnasnet-a1", "resnet-50"])
def test_the_mean_of_a_map_and_the_bias_are_the_score(name):
    network = fresh(for_proxy(load_architecture(name), 24, 0.25, 4, 7))
    images = torch.randn(5, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([6, 0, 3, 3, 1])
    with torch.inference_mode():
        expected = network(images)
    maps, scores = activation_maps(network, images, labels)
    torch.testing.assert_close(scores, expected)
    bias = list(network.modules())[-1].bias[labels]
    torch.testing.assert_close(maps.mean((1, 2)) + bias, expected[torch.arange(5), labels])
    assert maps.shape == (5, 6, 6)


def test_a_map_changes_where_the_image_changes():
    network = fresh(Architecture(12, 4, StemSpec(8, 1, 1), (StageSpec("conv", 1, 8, 1, 2),), HeadSpec(16)))
    image, labels = torch.ones(1, 3, 12, 12), torch.tensor([1])
    other = image.clone()
    other[:, :, 4, 10] += 1  # the stride keeps every second pixel: 4, 10 becomes 2, 5
    change = activation_maps(network, other, labels)[0] - activation_maps(network, image, labels)[0]
    assert change.nonzero().tolist() == [[0, 2, 5]]


@pytest.mark.parametrize("phi", [1, 2])
@pytest.mark.parametrize("name", ["efficientnet-b0", "mobilenet-v2", "resnet-50"])
def test_four_ways_to_grow_meet_in_flops(name, phi):
    baseline = for_proxy(load_architecture(name), 32, 0.25, 4, 10)
    networks = grown(baseline, phi)
    assert list(networks) == NAMES
    assert networks["baseline"].key() == baseline.key()
    flops = {name: cost.flops(network) for name, network in networks.items()}
    assert all(flops[grown_in] == pytest.approx(flops["compound"], rel=0.06) for grown_in in NAMES[1:])

    def shape(network):
        chs = [network.stem.out_chs, *(stage.out_chs for stage in network.stages)]
        return {"width": chs, "depth": [stage.layers for stage in network.stages], "resolution": network.resolution}

    for grown_in, network in list(networks.items())[1:]:
        changed = {dimension for dimension, value in shape(network).items() if value != shape(baseline)[dimension]}
        assert changed == ({grown_in} if grown_in != "compound" else {"width", "depth", "resolution"})


def test_images_are_one_of_each_class_before_a_second_one():
    labels = np.array([2, 0, 1, 1, 0, 2, 0, 0, 1])
    rows = np.array([3, 4, 5, 6, 7, 8])
    assert spread_over_classes(labels, rows, 6).tolist() == [4, 3, 5, 6, 8, 7]
    assert spread_over_classes(labels, rows, 4).tolist() == [4, 3, 5, 6]
    assert spread_over_classes(labels, rows, 1).tolist() == [4]
    with pytest.raises(InputError, match="--images 7: only 6 images are held out"):
        spread_over_classes(labels, rows, 7)
    many = np.repeat(np.arange(100), 2)
    assert many[spread_over_classes(many, np.arange(200), 5)].tolist() == [0, 20, 40, 60, 80]


def test_the_command_trains_five_networks_and_draws_them(nas, small_recipe):
    code, out, err = nas(*CAM)
    assert (code, err) == (0, "")
    progress, table = re.match(r"((?:\w+: \d+\.\d\d% after epoch \d\n)+)(.*)", out, re.DOTALL).groups()
    assert progress.startswith("baseline: ")
    assert [line.split()[0] for line in table.splitlines()[1:6]] == NAMES
    assert sorted(weights()) == sorted(f"{name}.pt" for name in NAMES)
    with Image.open("look/cam.png") as picture:
        assert picture.width == 2 * MARGIN + 6 * CELL + 5 * GAP
        assert picture.height > 3 * CELL
        first = picture.tobytes()

    files = weights()
    code, again, _ = nas(*CAM)
    assert (code, again) == (0, table)
    with Image.open("look/cam.png") as picture:
        assert picture.tobytes() == first
    assert weights() == files

    Path("look/depth.pt").unlink()
    trained = []
    found = look(lambda name, epoch, accuracy: trained.append(name), images=5)
    assert trained == ["depth"]
    assert {view.name: f"{view.accuracy:.2%}" for view in found.views} == {
        line.split()[0]: line.split()[-1] for line in table.splitlines()[1:6]
    }


def test_the_kept_weights_have_the_accuracy_that_is_shown(small_recipe):
    found = look(lambda *_: None)
    recipe = Recipe.load("small.yaml")
    for view in found.views:
        data = load(recipe.data, view.architecture.resolution, recipe.seed)
        mean, std = data.mean_std
        kept = torch.load(f"look/{view.name}.pt", weights_only=True)
        network = build(Architecture.from_dict(kept["architecture"])).eval()
        network.load_state_dict(kept["weights"])
        images = torch.from_numpy((data.images[data.val] - mean) / std).float().permute(0, 3, 1, 2)
        with torch.inference_mode():
            right = network(images).argmax(1).numpy() == data.labels[data.val]
        assert right.mean() == pytest.approx(view.accuracy)
        assert view.maps.shape[1] >= 4
        np.testing.assert_allclose(view.probabilities.sum(axis=1), 1, rtol=1e-5)
    assert found.labels.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert found.images.shape[1] == max(view.architecture.resolution for view in found.views)


def test_what_was_trained_before_a_stop_is_kept(small_recipe):
    def stop(name, epoch, accuracy):
        if name == "depth":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        look(stop)
    assert sorted(weights()) == ["baseline.pt", "width.pt"]
    trained = []
    look(lambda name, *_: trained.append(name))
    assert trained == ["depth", "resolution", "compound"]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--images", "0"], "--images 0: must be at least 1"),
        (["--images", "9999"], "--images 9999: only 288 images are held out"),
        (["--phi", "-1"], "--phi -1"),
        (["--phi", "0"], "--phi 0: grows nothing"),
        (["--alpha", "0.9"], "--alpha 0.9"),
        (["--alpha", "3"], "--any-product"),
        (["--data", "missing"], "data.source: missing"),
        (["--recipe", "rehearse-b0"], "rehearse-b0: activation maps need a recipe that trains on images"),
        (["--set", "proxy.epoch=3"], "did you mean epochs?"),
        (["-o", "small.yaml"], "-o small.yaml: is not a folder"),
        (["--set", "executor.gpus_per_child=1"], "executor.gpus_per_child: torch sees no GPU here"),
        (["-o", "."], "-o .: exists and holds no activation maps"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(refused, small_recipe, words, part):
    assert part in refused(*CAM, *words)
    assert not Path("look").exists()


def test_other_settings_and_damage_are_refused_before_anything_is_trained(nas, refused, small_recipe):
    nas(*CAM)
    Path("look/compound.pt").unlink()
    files = weights()
    for words, part in (
        (["--set", "proxy.lr=0.01"], "look/baseline.pt: proxy.lr changed"),
        (["--set", "seed=1"], "look/baseline.pt: seed changed"),
        (["--phi", "1.5"], "look/width.pt: the network changed"),
    ):
        assert part in refused(*CAM, *words)
        assert weights() == files
    for damage in (b"", b"weights", files["width.pt"][:500]):
        Path("look/width.pt").write_bytes(damage)
        assert "look/width.pt: damaged" in refused(*CAM)
    Path("look/width.pt").write_bytes(files["width.pt"])
    found = torch.load("look/width.pt", weights_only=True)
    weights_ = found["weights"]
    short = dict(list(weights_.items())[1:])
    for other in ({"accuracy": 7}, {"accuracy": None}, {"weights": short}, {"weights": None}, {"contents": 1}):
        torch.save(found | other, "look/width.pt")
        assert "look/width.pt: damaged" in refused(*CAM)
    middle = len(files["width.pt"]) // 2
    flipped = bytes([files["width.pt"][middle] ^ 255])
    Path("look/width.pt").write_bytes(files["width.pt"][:middle] + flipped + files["width.pt"][middle + 1 :])
    assert "look/width.pt: damaged" in refused(*CAM)


def test_weights_stay_with_their_images_wherever_these_lie(nas, refused, small_recipe):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 255, (60, 8, 8), dtype=np.uint8), np.arange(60) % 3
    np.savez("mine.npz", x_train=images, y_train=labels)
    assert nas(*CAM, "--data", "mine.npz")[0] == 0
    files = weights()
    Path("mine.npz").rename("moved.npz")
    assert nas(*CAM, "--data", "moved.npz")[0] == 0
    for others in (labels[::-1], labels % 2):
        np.savez("moved.npz", x_train=images, y_train=others)
        assert "data.source: its content changed" in refused(*CAM, "--data", "moved.npz")
    assert weights() == files


def test_a_training_that_diverges_names_its_network(refused, small_recipe):
    assert "baseline: the loss is not finite" in refused(*CAM, "--set", "proxy.lr=1e30")
    assert not weights()


def a_cam(classes, labels=(0, 1)):
    rng = np.random.default_rng(0)
    view = View(
        "baseline", load_architecture("efficientnet-b0"), 0.5, rng.normal(size=(2, 7, 7)), np.array([[0.9, 0.1]] * 2)
    )
    return Cam(classes, rng.integers(0, 255, (2, 24, 24, 3), dtype=np.uint8), np.array(labels), (view,))


def test_no_text_leaves_its_cell_whatever_the_classes_are_called():
    picture = np.asarray(draw(a_cam(("an exceedingly long name of a class", "Bär 熊 \N{BEAR FACE}"))))
    for left in (0, MARGIN + CELL, MARGIN + 2 * CELL + GAP):
        assert (picture[:-90, left + 2 : left + GAP - 2] == 255).all()


def test_classes_in_any_script_can_be_told_apart():
    one, other = (np.asarray(draw(a_cam((name, "dog")))) for name in ("数", "猫"))
    assert (one != other).any()


def test_right_and_wrong_look_different():
    right, wrong = (np.asarray(draw(a_cam(("cat", "dog"), labels))) for labels in ((0, 0), (1, 1)))
    second = slice(MARGIN + CELL + GAP, None)
    assert (right[:, second] != wrong[:, second]).any()


def test_heat_lies_where_the_map_is_high():
    heat = np.zeros((4, 4))
    heat[0, 3] = 5
    shown = np.asarray(overlay(Image.new("RGB", (64, 64), "grey"), heat), dtype=float).mean(axis=2)
    assert shown[:12, -12:].min() > shown[32:, :32].max() + 50
    flat = np.asarray(overlay(Image.new("RGB", (64, 64), "grey"), np.full((4, 4), 2.0)))
    assert len(np.unique(flat.reshape(-1, 3), axis=0)) == 1
