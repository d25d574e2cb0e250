"""Where networks look: class activation maps of one network grown four ways and trained alike.

The picture is figure 7 of EfficientNet (Tan & Le 2019, arXiv 1905.11946, section 6): the same images through the
baseline and through networks of equal FLOPs that grew in width, in depth, in resolution and in all three. The maps are
those of Zhou et al. 2016 (arXiv 1512.04150).
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.data import ImageData, Pixels, Rows, load, rank_in_class
from nas.evaluators import ProxyEvaluator
from nas.evaluators.base import check_unchanged
from nas.limits import check_gpu, check_training
from nas.model import Network, build
from nas.recipe import Proxy, Recipe
from nas.scaling import DIMENSIONS, CompoundScaler, Rounding
from nas.training import Diverged, seeded, train
from nas.trials import DEPENDS, make_folder
from search_space import Architecture, InputError
from search_space.files import write_file

LEAST_MAP = 4  # pixels of the baseline's last feature map
FINE = Rounding(divisor=1)  # equal FLOPs need fine steps
COMPOUND = CompoundScaler(rounding=FINE)

_DAMAGE = (AttributeError, BadZipFile, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""What reading a damaged file of weights may raise."""

Watch = Callable[[str, int, float], None]


@dataclass(frozen=True, eq=False)
class View:
    """What one network makes of the images.

    Attributes:
        name: `baseline`, `width`, `depth`, `resolution` or `compound`: how it grew.
        architecture: that was trained.
        accuracy: on all held-out images, in [0, 1].
        maps: N x K x K, of each image's true class; negative where it speaks against the class.
        probabilities: N x classes.
    """

    name: str
    architecture: Architecture
    accuracy: float
    maps: NDArray[np.float32]
    probabilities: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Cam:
    """The content of the picture.

    Attributes:
        classes: names, by index.
        images: N x R x R x 3, as the network with the largest resolution sees them.
        labels: N true classes.
        views: the baseline's first.
    """

    classes: tuple[str, ...]
    images: Pixels
    labels: Rows
    views: tuple[View, ...]


def cam(
    architecture: Architecture,
    recipe: Recipe,
    folder: Path,
    images: int = 8,
    phi: float = 2,
    scaler: CompoundScaler = COMPOUND,
    watch: Watch = lambda name, epoch, accuracy: None,
) -> Cam:
    """Train the baseline and its four grown forms, and look at held-out images through them.

    Each network's weights and architecture are kept in `folder` once it is trained: the same call again goes on where
    it stopped.

    Args:
        architecture: deployed; its proxy under the recipe is the baseline.
        recipe: with images; every network gets its proxy training, seed and split, at a resolution of its own.
        folder: for the weights.
        images: how many, spread over the classes.
        phi: of the compound-scaled network, whose FLOPs the others meet.
        scaler: of the compound-scaled network.
        watch: called with (name, epoch, accuracy) after every epoch.

    Raises:
        InputError: the options, the data or the folder can't be used, or a training diverged.
    """
    if recipe.data is None or recipe.proxy is None:
        raise InputError(f"{recipe.name}: activation maps need a recipe that trains on images")
    if images < 1:
        raise InputError(f"--images {images}: must be at least 1")
    if phi == 0:
        raise InputError("--phi 0: grows nothing, and there would be nothing to compare")
    check_gpu(recipe.executor)
    first = _images(recipe, recipe.proxy.resolution or architecture.resolution)
    rows = spread_over_classes(first.labels, first.val, images)
    networks = grown(_baseline(architecture, recipe.proxy, first), phi, scaler)
    check_training(networks.values(), recipe)
    data = {name: _images(recipe, network.resolution) for name, network in networks.items()}
    make_folder(folder, "baseline.pt", "activation maps")
    kept = {name: _kept(folder / f"{name}.pt", network, recipe, data[name]) for name, network in networks.items()}
    views = []
    for name, network in networks.items():
        trained = kept[name] or _train(name, network, recipe, data[name], folder / f"{name}.pt", watch)
        views.append(_view(name, network, trained, data[name], rows))
    finest = max(data.values(), key=lambda one: one.resolution)
    return Cam(first.classes, finest.images[rows], first.labels[rows], tuple(views))


def grown(baseline: Architecture, phi: float, scaler: CompoundScaler = COMPOUND) -> dict[str, Architecture]:
    """The baseline, then grown in width, depth, resolution and all three, by name.

    The first three have the FLOPs nearest to the last one's that whole channels, layers and pixels allow.

    Raises:
        InputError: a phi that the scaler can't grow by, or no growth in one dimension meets these FLOPs.
    """
    compound = scaler.scale(baseline, phi)
    networks = {"baseline": baseline}
    for name in ("width", "depth", "resolution"):
        alone = CompoundScaler(DIMENSIONS[name], scaler.rounding)
        networks[name] = alone.fit(baseline, flops=compound.flops).architecture
    networks["compound"] = compound.architecture
    return {name: network.with_(name=name) for name, network in networks.items()}


def spread_over_classes(labels: Rows, rows: Rows, count: int) -> Rows:
    """The first row of every class in order, then the second ones; evenly spaced classes if there are more than needed.

    Args:
        labels: of all images.
        rows: to choose from.
        count: how many.

    Raises:
        InputError: there are fewer rows.
    """
    if count > len(rows):
        raise InputError(f"--images {count}: only {len(rows)} images are held out")
    found = labels[rows]
    in_turn, classes = rows[np.lexsort((found, rank_in_class(found)))], len(np.unique(found))
    return in_turn[np.arange(count) * classes // count] if count < classes else in_turn[:count]


@torch.inference_mode()
def activation_maps(network: Network, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Class activation maps, and the class scores (batch x classes) that they explain.

    The map of class c is the sum over channels k of w[c, k] * f_k(x, y), the last feature maps before the global pool
    weighted as the classifier weights them (Zhou et al. 2016, eq. 2): its mean plus the classifier's bias is the score.

    Args:
        network: in evaluation mode.
        images: batch x 3 x R x R, normalised.
        labels: batch; the class whose map is wanted, for each image.

    Returns:
        The maps (batch x K x K) and the scores.
    """
    *body, end = network.parts
    (head,) = end.children()
    *before, pool, dropout, classifier = head.children()
    assert isinstance(classifier, nn.Linear)
    features = nn.Sequential(*body, *before)(images)
    maps = torch.einsum("nk,nkyx->nyx", classifier.weight[labels], features)
    return maps, classifier(dropout(pool(features)))


def _images(recipe: Recipe, resolution: int) -> ImageData:
    assert recipe.data is not None
    assert recipe.proxy is not None
    return load(recipe.data, resolution, recipe.seed).subset(recipe.proxy.share)


def _baseline(architecture: Architecture, proxy: Proxy, data: ImageData) -> Architecture:
    """The network's proxy, its last feature map no smaller than `LEAST_MAP`: Zhou et al. take strides out likewise."""
    larger = proxy.model_copy(update={"final_size": max(proxy.final_size, LEAST_MAP)})
    return larger.child(architecture, len(data.classes))


def _kept(path: Path, network: Architecture, recipe: Recipe, data: ImageData) -> Mapping[str, Any] | None:
    """What an earlier call trained; None if it didn't come to this network.

    Raises:
        InputError: the file is damaged, or another network, other images or other settings made it; the message names
            the field.
    """
    if not path.exists():
        return None
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        key, settings, accuracy = found["key"], dict(found["settings"]), float(found["accuracy"])
        contents = dict(found.get("contents") or {})
        if key == network.key():
            build(network).load_state_dict(found["weights"])
        with ZipFile(path) as archive:
            sound = archive.testzip() is None and 0 <= accuracy <= 1
    except (*_DAMAGE, pickle.UnpicklingError):
        sound = False
    if not sound:
        raise InputError(f"{path}: damaged; move it away to train this network again") from None
    began = Recipe.parse({**recipe.model_dump(), **settings}, str(path)).with_source_of(recipe)
    check_unchanged(contents, data.contents)  # first: other classes are another network
    changed = began.differs(recipe) or (None if key == network.key() else "the network")
    if changed:
        raise InputError(f"{path}: {changed} changed since it was trained; undo it, or choose another -o")
    return found


def _train(
    name: str, network: Architecture, recipe: Recipe, data: ImageData, path: Path, watch: Watch
) -> Mapping[str, Any]:
    """Train a network and keep it.

    Raises:
        InputError: it diverged, or the disk is full.
    """
    assert recipe.proxy is not None
    evaluator = ProxyEvaluator.of(recipe)
    torch.set_num_threads(evaluator.threads)
    with seeded(recipe.seed):
        module = build(network)
    report = partial(watch, name)
    try:
        result = train(module, data, recipe.proxy, seed=recipe.seed, device=evaluator.device, report=report)
    except Diverged as error:
        raise InputError(f"{name}: {error}; try a smaller proxy.lr and another -o") from None
    settings = {field: value for field, value in recipe.model_dump().items() if field in DEPENDS}
    weights = {key: value.cpu() for key, value in module.state_dict().items()}
    trained = {
        "key": network.key(),
        "architecture": network.to_dict(),
        "settings": settings,
        "contents": data.contents,
        "accuracy": result.accuracy,
        "weights": weights,
    }
    file = BytesIO()
    torch.save(trained, file)
    write_file(path, file.getvalue())
    return trained


def _view(name: str, network: Architecture, trained: Mapping[str, Any], data: ImageData, rows: Rows) -> View:
    """Look at some images through a trained network."""
    module = build(network).eval()
    module.load_state_dict(trained["weights"])
    mean, std = data.mean_std
    images = torch.from_numpy(((data.images[rows] - mean) / std).astype(np.float32)).permute(0, 3, 1, 2)
    maps, scores = activation_maps(module, images, torch.from_numpy(data.labels[rows]))
    return View(name, network, trained["accuracy"], maps.numpy(), scores.softmax(1).numpy())
