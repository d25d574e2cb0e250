"""The training loop: of children, references and retrainings."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.cuda_graph import Replayed
from nas.data import ImageData, Rows

if TYPE_CHECKING:
    from nas.recipe import Training

RESIDENT_BYTES = 1 << 30  # image sets up to this size stay on the GPU
CHANNELS_LAST_FROM = 96
"""Pixels from which images lie channels last on a GPU. Smaller ones don't get faster by it, and cuDNN takes
seconds longer to get ready for the shapes of a new child (`benchmarks/gpu.py`)."""


class Diverged(RuntimeError):  # noqa: N818 - an outcome of a search, named as one
    """The training loss, or what a trained network puts out, stopped being finite numbers."""


class TimeLimitExceeded(RuntimeError):  # noqa: N818 - an outcome of a search, named as one
    """The deadline passed before the last epoch ended."""


@dataclass(frozen=True)
class TrainResult:
    """What a training run measured.

    Attributes:
        accuracies: Top-1 accuracy on the held-out images after every epoch, in [0, 1].
        losses: Mean training loss of every epoch.
    """

    accuracies: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        """Accuracy after the last epoch, in [0, 1]."""
        return self.accuracies[-1]


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Draw torch's random numbers from `seed` within the block and leave the global generators as they were."""
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def train(
    model: nn.Module,
    data: ImageData,
    training: Training,
    *,
    seed: int,
    device: torch.device | str,
    report: Callable[[int, float], None],
    deadline: float | None = None,
) -> TrainResult:
    """Train a network in place and measure it on the held-out images after every epoch.

    The weights it starts from are the caller's; build them under `seeded` to make the whole run repeatable.

    Args:
        model: Network from batch x 3 x resolution x resolution to batch x classes; left on `device`.
        data: Images and their split.
        training: Optimizer, schedule, regularisation and augmentation.
        seed: Draws batches, augmentation and dropout.
        device: Where to train; mixed precision is used on CUDA only.
        report: Called with (epoch, accuracy), epochs counted from 1; what it raises ends the training.
        deadline: `time.monotonic()` value after which the training is given up.

    Raises:
        Diverged: A loss or an output was not finite.
        TimeLimitExceeded: The deadline passed.
    """
    accuracies, losses = list[float](), list[float]()
    with seeded(seed, device):
        feed = _Feed(data, torch.device(device), seed)
        run = _Run(model, training, feed, math.inf if deadline is None else deadline)
        for epoch in range(1, training.epochs + 1):
            losses.append(run.train_epoch(epoch))
            accuracies.append(run.accuracy(epoch))
            report(epoch, accuracies[-1])
    return TrainResult(tuple(accuracies), tuple(losses))


def learning_rate(training: Training, epoch: float) -> float:
    """Learning rate after a fractional number of epochs: linear warm-up, then cosine or the MnasNet staircase.

    The staircase is x0.97 every 2.4 epochs, counted from the start (MnasNet and EfficientNet, section 5).
    """
    if epoch < training.warmup_epochs:
        return training.lr * epoch / training.warmup_epochs
    if training.schedule == "mnasnet":
        return float(training.lr * 0.97 ** (epoch // 2.4))
    done = (epoch - training.warmup_epochs) / (training.epochs - training.warmup_epochs)
    return training.lr * (1 + math.cos(math.pi * done)) / 2


class _Run:
    """The state of one training run."""

    def __init__(self, model: nn.Module, training: Training, feed: _Feed, deadline: float) -> None:
        device = feed.device
        self.model = model.to(device, memory_format=feed.layout)  # type: ignore[call-overload]
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = 1 - training.bn_momentum
        self.training = training
        self.optimizer = make_optimizer(model, training)
        self.feed = feed
        self.deadline = deadline
        gpu = device.type == "cuda"
        half = gpu and not torch.cuda.is_bf16_supported(including_emulation=False)
        precision = torch.float16 if half else torch.bfloat16
        autocast = torch.autocast(device.type, precision, enabled=gpu, cache_enabled=False)  # recordings can't share it
        scaler = torch.amp.GradScaler(device.type, enabled=half)
        learn = _learner(model, self.optimizer, training.label_smoothing, autocast, scaler)
        count_correct = _counter(model, autocast)
        self.learn = Replayed(learn) if gpu and not half else learn  # the scaler of halves looks at values on the CPU
        self.count_correct = Replayed(count_correct) if gpu else count_correct

    def train_epoch(self, epoch: int) -> float:
        """Show every training image once; returns the mean loss.

        Losses are looked at every few steps only, because each look makes the CPU wait for a GPU.
        """
        self.model.train()
        batches = split_batches(self.feed.shuffled(), self.training.batch_size)
        losses = list[Tensor]()
        for step, rows in enumerate(batches):
            self._check_deadline(epoch)
            self._set_learning_rate(learning_rate(self.training, epoch - 1 + (step + 0.5) / len(batches)))
            losses.append(self.learn(*self.feed.batch(rows, crop=self.training.crop, flip=self.training.flip)))
            if step % 16 == 0 or step + 1 == len(batches):
                finite = torch.stack(losses).isfinite()
                if not finite.all():
                    raise Diverged(f"the loss is not finite at epoch {epoch}, step {int(finite.int().argmin()) + 1}")
        return float(torch.stack(losses).mean())

    def _set_learning_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    @torch.inference_mode()
    def accuracy(self, epoch: int) -> float:
        """Top-1 accuracy on the held-out images after an epoch, in [0, 1].

        Raises:
            Diverged: The outputs were not finite, for the loss is looked at before a step, not after the last one.
        """
        self.model.eval()
        rows = self.feed.data.val
        correct = list[Tensor]()
        for batch in np.array_split(rows, math.ceil(len(rows) / self.training.batch_size)):
            self._check_deadline(epoch)
            correct.append(self.count_correct(*self.feed.batch(batch)))
        total = float(torch.stack(correct).double().sum())
        if math.isnan(total):
            raise Diverged(f"the outputs are not finite after epoch {epoch}")
        return total / len(rows)

    def _check_deadline(self, epoch: int) -> None:
        if time.monotonic() > self.deadline:
            raise TimeLimitExceeded(f"out of time (executor.time_limit) in epoch {epoch} of {self.training.epochs}")


_OnBatch = Callable[[Tensor, Tensor], Tensor]


def _learner(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    label_smoothing: float,
    autocast: torch.autocast,
    scaler: torch.amp.GradScaler,
) -> _OnBatch:
    """One step of the optimizer on images (batch x 3 x R x R) and labels (batch): the mean loss () before it."""

    def learn(images: Tensor, labels: Tensor) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            logits = model(images)
        loss = functional.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    return learn


def _counter(model: nn.Module, autocast: torch.autocast) -> _OnBatch:
    """How many () of the images (batch x 3 x R x R) are given their labels (batch); NaN where outputs aren't finite."""

    def count_correct(images: Tensor, labels: Tensor) -> Tensor:
        with autocast:
            logits: Tensor = model(images)
        return (logits.argmax(1) == labels).sum() + 0 * logits.float().sum()  # 0 times what isn't finite is NaN

    return count_correct


class _Feed:
    """Brings batches to the device as bytes, and normalises and augments them there."""

    def __init__(self, data: ImageData, device: torch.device, seed: int) -> None:
        self.data = data
        self.device = device
        small = device.type == "cuda" and data.images.shape[1] < CHANNELS_LAST_FROM
        self.layout = torch.contiguous_format if small else torch.channels_last
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator(device).manual_seed(seed)
        mean, std = (torch.as_tensor(value, dtype=torch.float32, device=device) for value in data.mean_std)
        self.mean, self.std = mean[:, None, None], std[:, None, None]
        resident = device.type == "cuda" and data.images.nbytes <= RESIDENT_BYTES
        self.resident = torch.tensor(data.images, device=device) if resident else None

    def shuffled(self) -> Rows:
        """The training rows in the order of a new epoch."""
        return self.rng.permutation(self.data.train)

    def batch(self, rows: Rows, *, crop: bool = False, flip: bool = False) -> tuple[Tensor, Tensor]:
        """Images (batch x 3 x R x R, normalised) and labels (batch) of the given rows."""
        rows = np.sort(rows)  # neighbours in the file are read together
        labels = self._move(torch.from_numpy(self.data.labels[rows]))
        if self.resident is None:
            images = self._move(torch.from_numpy(self.data.images[rows]))
        else:
            images = self.resident[self._move(torch.from_numpy(rows))]
        if crop or flip:
            images = augment(images, self.generator, crop=crop, flip=flip)
        images = images.permute(0, 3, 1, 2).float().sub_(self.mean).div_(self.std)
        return images.contiguous(memory_format=self.layout), labels

    def _move(self, host: Tensor) -> Tensor:
        if self.device.type == "cuda":
            host = host.pin_memory()
        return host.to(self.device, non_blocking=True)


def augment(images: Tensor, generator: torch.Generator, *, crop: bool, flip: bool) -> Tensor:
    """Shift each image by up to an eighth of its side, its edges repeated, and mirror it with probability one half.

    One gather does both: it reads pixel `ys[image, y], xs[image, x]` for the pixel at `y, x`.

    Args:
        images: batch x R x R x 3.
        generator: On the images' device.
        crop: Shift; the same as padding by R // 8 and cropping at random.
        flip: Mirror left to right.
    """
    count, size, device = images.shape[0], images.shape[1], images.device
    ys = xs = torch.arange(size, device=device).expand(count, size)
    if crop:
        pad = size // 8
        shift = torch.randint(-pad, pad + 1, (2, count, 1), generator=generator, device=device)
        ys, xs = (ys + shift[0]).clamp(0, size - 1), (xs + shift[1]).clamp(0, size - 1)
    if flip:
        mirrored = torch.rand((count, 1), generator=generator, device=device) < 0.5
        xs = torch.where(mirrored, xs.flip(1), xs)
    return images[torch.arange(count, device=device)[:, None, None], ys[:, :, None], xs[:, None, :]]


def split_batches(rows: Rows, batch_size: int) -> list[Rows]:
    """Cut rows into batches of nearly equal size, none of a single row, which batch norm can't train on."""
    return np.array_split(rows, max(1, min(math.ceil(len(rows) / batch_size), len(rows) // 2)))


def make_optimizer(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    """Nesterov SGD, or RMSProp with decay 0.9 and an epsilon of 1e-3 under the root as in the EfficientNet release.

    PyTorch adds its epsilon to the root instead: the root of 1e-3 gives the same steps for small and for large
    gradients. In the release the mean square begins at 1, not at 0, so that first steps are smaller, and a step keeps
    the learning rate at which it entered the momentum.

    Weights decay; norms and biases, the parameters of at most one dimension, do not (in the release biases do). On a
    GPU the learning rate is a tensor there and a step can be recorded (`nas.cuda_graph`).
    """
    device = next(model.parameters()).device
    gpu = device.type == "cuda"
    lr = torch.tensor(training.lr, device=device) if gpu else training.lr
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if training.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=training.momentum, nesterov=training.momentum > 0, fused=gpu)
    return torch.optim.RMSprop(groups, lr=lr, alpha=0.9, eps=1e-3**0.5, momentum=training.momentum, capturable=gpu)
