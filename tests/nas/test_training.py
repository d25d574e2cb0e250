"""The training loop, on small networks that really learn."""

from __future__ import annotations

import math
import time
from contextlib import suppress

import numpy as np
import pytest
import torch
from torch import nn

from nas.data import ImageData, load
from nas.recipe import Data, Training
from nas.training import (
    Diverged,
    TimeLimitExceeded,
    augment,
    learning_rate,
    make_optimizer,
    seeded,
    split_batches,
    train,
)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BASELINE_NAS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield load(Data(source="digits"), 8, 0)


def settings(**changes):
    values = {
        "epochs": 4,
        "batch_size": 64,
        "optimizer": "sgd",
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "schedule": "cosine",
        "warmup_epochs": 0.5,
        "label_smoothing": 0.1,
        "bn_momentum": 0.9,
        "crop": True,
        "flip": False,
    }
    return Training(**values | changes)


def network(seed=0, classes=10) -> nn.Module:
    with seeded(seed):
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.SiLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.1),
            nn.Linear(128, classes),
        )


def run(data, model=None, seed=0, report=lambda epoch, accuracy: None, deadline=None, **changes):
    model = network() if model is None else model
    return train(model, data, settings(**changes), seed=seed, device="cpu", report=report, deadline=deadline)


def random_images(count: int, classes: int = 2) -> ImageData:
    images = np.random.default_rng(0).integers(0, 256, (count + 2, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(count + 2) % classes
    rows = np.arange(count + 2)
    return ImageData(images, labels, rows[:count], rows[count:], tuple(map(str, range(classes))), "")


# --- learning


@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "rmsprop", "lr": 0.01}, {"schedule": "mnasnet"}, {"momentum": 0.0, "lr": 0.3, "epochs": 6}],
)
def test_a_small_network_learns_digits(digits, changes):
    reports = []
    result = run(digits, report=lambda *call: reports.append(call), **changes)
    assert result.accuracy > 0.9
    assert reports == list(enumerate(result.accuracies, 1))
    assert len(result.losses) == len(reports)
    assert result.losses[-1] < result.losses[0] / 2


def test_accuracy_is_that_of_the_held_out_images_in_eval_mode(digits):
    model = network()
    result = run(digits, model, epochs=1)
    model.eval()
    mean, std = digits.mean_std
    images = torch.tensor((digits.images[digits.val] - mean) / std, dtype=torch.float32).permute(0, 3, 1, 2)
    with torch.no_grad():
        right = model(images).argmax(1).numpy() == digits.labels[digits.val]
    assert result.accuracy == pytest.approx(right.mean())


def test_no_held_out_image_is_trained_on(digits):
    images = digits.images.copy()
    images[digits.val] = 0
    blank = ImageData(images, digits.labels, digits.train, digits.val, digits.classes, "")
    assert run(blank, epochs=2).losses == run(digits, epochs=2).losses


def test_a_subset_trains_on_fewer_images_and_is_measured_on_all(digits):
    few = digits.subset(0.1)
    assert len(few.train) == 115
    assert (few.val == digits.val).all()
    assert run(few, epochs=1, batch_size=16).losses != run(digits, epochs=1, batch_size=16).losses


# --- seeds


def test_one_seed_gives_one_result_and_another_seed_another(digits):
    first, again, other = (run(digits, seed=seed, epochs=2) for seed in (1, 1, 2))
    assert (first.accuracies, first.losses) == (again.accuracies, again.losses)
    assert first.losses != other.losses


def test_the_global_generator_is_left_as_found(digits):
    state = torch.get_rng_state()
    one, two = network(seed=3), network(seed=3)
    run(digits, one, epochs=1)
    with pytest.raises(TimeLimitExceeded):
        run(digits, epochs=1, deadline=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(two[0].weight, network(seed=3)[0].weight)
    assert not torch.equal(two[0].weight, network(seed=4)[0].weight)


# --- endings


def test_a_diverging_network_is_said_with_epoch_and_step(digits):
    with pytest.raises(Diverged, match=r"not finite at epoch 1, step \d+"):
        run(digits, lr=1e20, warmup_epochs=0)


def test_a_network_that_the_last_step_ruined_is_no_measurement(digits):
    with pytest.raises(Diverged, match=r"outputs are not finite after epoch 1$"):
        run(digits, lr=1e30, warmup_epochs=0, epochs=1, batch_size=10_000)


def test_the_first_step_that_is_not_finite_is_named(digits):
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.calls = network(), 0

        def forward(self, images):
            self.calls += self.training
            return self.inner(images) * (math.nan if self.calls == 5 else 1)

    with pytest.raises(Diverged, match=r"epoch 1, step 5$"):
        run(digits, Fails())


def test_the_deadline_ends_an_epoch_early(digits):
    with pytest.raises(TimeLimitExceeded, match="epoch 1 of 1000"):
        run(digits, epochs=1000, deadline=time.monotonic())
    assert run(digits, epochs=1, deadline=time.monotonic() + 60).accuracy > 0


def test_what_report_raises_ends_the_training(digits):
    def stop(epoch, accuracy):
        if epoch == 2:
            raise InterruptedError

    model = network()
    with pytest.raises(InterruptedError):
        run(digits, model, report=stop)


# --- batches


@pytest.mark.parametrize("count", [2, 3, 5, 63, 64, 65, 129, 1150])
@pytest.mark.parametrize("size", [1, 2, 64])
def test_batches_hold_every_row_once_and_never_one_alone(count, size):
    batches = split_batches(np.arange(count), size)
    assert np.array_equal(np.concatenate(batches), np.arange(count))
    assert min(map(len, batches)) >= 2
    assert max(map(len, batches)) <= max(size, 2) + 1


@pytest.mark.parametrize("count", [2, 5, 9])
def test_batch_norm_never_meets_a_batch_of_one(count):
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(3), nn.Linear(3, 2))
    assert math.isfinite(run(random_images(count), model, batch_size=4, epochs=2).losses[-1])


def test_batch_norm_momentum_is_given_in_the_papers_convention(digits):
    model = network()
    run(digits, model, epochs=1, bn_momentum=0.99)
    assert model[1].momentum == pytest.approx(0.01)


# --- schedule and optimizer


def test_cosine_warms_up_linearly_and_ends_at_zero():
    training = settings(epochs=10, warmup_epochs=2, lr=0.4)
    rates = [learning_rate(training, epoch) for epoch in (0, 1, 2, 6, 10)]
    assert rates == pytest.approx([0, 0.2, 0.4, 0.2, 0])


def test_mnasnet_decays_every_2_4_epochs():
    training = settings(schedule="mnasnet", epochs=350, warmup_epochs=1, lr=0.256)
    rates = [learning_rate(training, epoch) for epoch in (0.5, 1, 2.39, 2.41, 4.9, 240.1)]
    assert rates == pytest.approx(0.256 * np.array([0.5, 1, 1, 0.97, 0.97**2, 0.97**100]))


def test_norms_and_biases_do_not_decay():
    model = network()
    decayed, kept = make_optimizer(model, settings(weight_decay=0.5)).param_groups
    assert {id(p) for p in decayed["params"]} == {id(model[i].weight) for i in (0, 3, 9)}
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.5, 0.0)
    assert len(kept["params"]) == 5


def test_optimizers_are_those_of_the_papers():
    sgd = make_optimizer(network(), settings())
    assert isinstance(sgd, torch.optim.SGD)
    assert sgd.defaults["nesterov"]
    rmsprop = make_optimizer(network(), settings(optimizer="rmsprop"))
    assert isinstance(rmsprop, torch.optim.RMSprop)
    assert (rmsprop.defaults["alpha"], rmsprop.defaults["eps"], rmsprop.defaults["momentum"]) == (0.9, 1e-3**0.5, 0.9)


# --- augmentation


def test_each_image_is_shifted_and_mirrored_by_itself():
    image = torch.arange(16 * 16 * 3, dtype=torch.int32).reshape(1, 16, 16, 3)
    views = {}
    for name, kinds in {"crop": (True, False), "flip": (False, True), "both": (True, True)}.items():
        generator = torch.Generator().manual_seed(0)
        out = augment(image.expand(2000, -1, -1, -1), generator, crop=kinds[0], flip=kinds[1])
        views[name] = out.flatten(1).unique(dim=0)
    padded = torch.nn.functional.pad(image.permute(0, 3, 1, 2).float(), (2, 2, 2, 2), mode="replicate")
    crops = [padded[0, :, y : y + 16, x : x + 16].permute(1, 2, 0) for y in range(5) for x in range(5)]
    mirrored = [crop.flip(1) for crop in crops]
    assert {tuple(view.tolist()) for view in views["crop"]} == {tuple(c.flatten().tolist()) for c in crops}
    assert {tuple(view.tolist()) for view in views["both"]} == {tuple(c.flatten().tolist()) for c in crops + mirrored}
    assert len(views["flip"]) == 2


def test_half_of_the_images_are_mirrored():
    image = torch.arange(8, dtype=torch.uint8).reshape(1, 1, 8, 1).expand(4000, 8, 8, 3)
    out = augment(image, torch.Generator().manual_seed(0), crop=False, flip=True)
    share = (out[:, 0, 0, 0] == 7).float().mean().item()
    assert share == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(4000))  # four sigmas


# --- on a GPU

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def train_on_gpu(digits, report=lambda epoch, accuracy: None, **changes):
    model = network()
    model[-2].p = 0.0  # its draws differ between a launched and a replayed step
    return train(model, digits, settings(**changes), seed=0, device="cuda", report=report)


@needs_gpu
@pytest.mark.parametrize(("resident", "channels_last_from"), [(0, 0), (1 << 30, 0), (0, 96), (1 << 30, 96)])
def test_a_gpu_learns_digits_with_mixed_precision(digits, monkeypatch, resident, channels_last_from):
    monkeypatch.setattr("nas.training.RESIDENT_BYTES", resident)
    monkeypatch.setattr("nas.training.CHANNELS_LAST_FROM", channels_last_from)
    assert train_on_gpu(digits).accuracy > 0.9


@needs_gpu
@pytest.mark.parametrize("changes", [{"optimizer": "sgd"}, {"optimizer": "rmsprop", "lr": 0.002}])
def test_replayed_steps_learn_what_launched_ones_do(digits, monkeypatch, changes):
    replayed = train_on_gpu(digits, **changes)
    monkeypatch.setattr("nas.training.Replayed", lambda function: function)
    launched = train_on_gpu(digits, **changes)
    assert replayed.losses == pytest.approx(launched.losses, rel=0.02)
    assert replayed.accuracies == pytest.approx(launched.accuracies, abs=0.03)


@needs_gpu
def test_a_training_that_is_stopped_leaves_no_memory_taken_on_a_gpu(digits):
    def stop(epoch, accuracy):
        if epoch == 2:
            raise Diverged("enough")

    taken = []
    for _ in range(3):
        with suppress(Diverged):
            train_on_gpu(digits, stop)
        torch.cuda.empty_cache()
        taken.append(torch.cuda.memory_reserved())
    assert taken[1:] == taken[:1] * 2
