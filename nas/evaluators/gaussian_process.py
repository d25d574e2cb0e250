"""Gaussian process regression (Rasmussen & Williams 2006): exact, for some thousands of rows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

_LEARN_ROWS = 600
"""The hyperparameters are learned from this many rows at most, for each step costs their third power."""
_STEPS = 40
"""Most iterations of the quasi-Newton maximisation."""
_LOG_NOISE, _LOG_SIGNAL = (-4.0, 1.0), (1.0, 1.0)
"""Normal priors (mean, standard deviation) on the logarithms of the variances of noise and function, for targets of
variance 1."""
_LENGTH_SPREAD = math.sqrt(3.0)
"""Standard deviation of the logarithm of a length scale (Hvarfner, Hellsten & Nardi, ICML 2024, section 4)."""
_LEAST_NOISE = 1e-6
"""Keeps the kernel matrix positive definite."""
_BLOCK = 16
"""Rows to predict at a time: their kernels with thousands of centres stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """Hyperparameters of a Gaussian process on targets of mean 0 and variance 1.

    Attributes:
        lengths: length scale of each group of columns.
        signal: variance of the function.
        noise: variance of an observation around it.
    """

    lengths: tuple[float, ...]
    signal: float
    noise: float


@dataclass(frozen=True, slots=True)
class MeanFunction:
    """A weighted sum of kernels at given rows: a posterior mean without what fitting it needs.

    Attributes:
        centres: (n, columns), divided by the length scales.
        inverse_lengths: (columns,).
        weights: (n,), in the unit of the targets.
        offset: the targets' mean.
        norms: (n,) squares of the centres' lengths.
    """

    centres: Tensor
    inverse_lengths: Tensor
    weights: Tensor
    offset: float
    norms: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "norms", self.centres.square().sum(1))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Means (m,) at the rows of `x` (m, columns)."""
        scaled = torch.from_numpy(x) * self.inverse_lengths
        starts = range(0, max(1, len(x)), _BLOCK)
        parts = [matern(scaled[i : i + _BLOCK], self.centres, self.norms) @ self.weights for i in starts]
        means: np.ndarray = torch.cat(parts).numpy() + self.offset
        return means


class GaussianProcess:
    """Regression by a Matern-5/2 kernel with a length scale per group of columns.

    The hyperparameters maximise the marginal likelihood (section 5.4.1) times log-normal priors, of which the one on
    the length scales grows with the root of the number of columns (Hvarfner et al. 2024, arXiv 2402.02229), so that
    few rows don't overfit.

    Attributes:
        hyperparameters: that were learned.
        mean: the posterior mean, a function of rows (m, columns).
    """

    def __init__(self, groups: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
        """Condition on observations.

        Args:
            groups: (columns,) numbers from 0; columns of one number share a length scale.
            x: (n, columns), standardised; two rows at least.
            y: (n,), in any unit.
        """
        self._groups = torch.from_numpy(groups)
        offset, self._scale = float(np.mean(y)), float(np.std(y)) or 1.0
        rows = torch.from_numpy(np.asarray(x, dtype=np.float64))
        self._target = torch.from_numpy((np.asarray(y, dtype=np.float64) - offset) / self._scale)
        self.hyperparameters = self._learned(rows)
        inverse_lengths = torch.tensor(self.hyperparameters.lengths, dtype=torch.float64)[self._groups].reciprocal()
        scaled = rows * inverse_lengths
        noise = torch.full((len(x),), self.hyperparameters.noise, dtype=torch.float64)
        self._cholesky = _cholesky(self.hyperparameters.signal * matern(scaled, scaled), noise)
        self._weights = torch.cholesky_solve(self._target[:, None], self._cholesky)[:, 0]
        weights = self._weights * (self.hyperparameters.signal * self._scale)
        self.mean = MeanFunction(scaled, inverse_lengths, weights, offset)

    def loo_means(self) -> np.ndarray:
        """Means (n,) of each observation given all others (equation 5.12)."""
        precision = torch.cholesky_inverse(self._cholesky).diagonal()
        means: np.ndarray = (self._target - self._weights / precision).numpy() * self._scale + self.mean.offset
        return means

    def _learned(self, x: Tensor) -> Hyperparameters:
        """The maximum of the posterior of the logarithms of lengths, signal and noise."""
        chosen = torch.from_numpy(np.random.default_rng(0).permutation(len(x))[:_LEARN_ROWS])
        x, target = x[chosen], self._target[chosen]
        log_length = math.sqrt(2) + math.log(x.shape[1]) / 2
        lengths = int(self._groups.max()) + 1
        centre = torch.tensor([log_length] * lengths + [_LOG_SIGNAL[0], _LOG_NOISE[0]], dtype=torch.float64)
        spread = torch.tensor([_LENGTH_SPREAD] * lengths + [_LOG_SIGNAL[1], _LOG_NOISE[1]], dtype=torch.float64)
        logs = centre.clone().requires_grad_()
        optimiser = torch.optim.LBFGS([logs], max_iter=_STEPS, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimiser.zero_grad()
            values = logs.clamp(centre - 4 * spread, centre + 4 * spread).exp()
            scaled = x / values[:-2][self._groups]
            variance = values[-1].clamp_min(_LEAST_NOISE).expand(len(target))
            cholesky = _cholesky(values[-2] * matern(scaled, scaled), variance)
            white = torch.linalg.solve_triangular(cholesky, target[:, None], upper=False)
            evidence = -white.square().sum() / 2 - cholesky.diagonal().log().sum()
            negative: Tensor = ((logs - centre) / spread).square().sum() / 2 - evidence
            negative.backward()  # type: ignore[no-untyped-call]
            return negative

        optimiser.step(loss)  # type: ignore[no-untyped-call]
        values = logs.detach().clamp(centre - 4 * spread, centre + 4 * spread).exp().tolist()
        return Hyperparameters(tuple(values[:-2]), values[-2], max(values[-1], _LEAST_NOISE))


def matern(a: Tensor, b: Tensor, norms: Tensor | None = None) -> Tensor:
    """Matern-5/2 correlations (len(a), len(b)) of rows that are divided by their length scales (equation 4.17).

    `norms` are the squared lengths of the rows of `b`, where they are known.
    """
    norms = b.square().sum(1) if norms is None else norms
    squared = torch.addmm(a.square().sum(1)[:, None] + norms, a, b.T, alpha=-2)
    distance = (5 * squared.clamp_min(1e-12)).sqrt()
    correlation: Tensor = (1 + distance * (1 + distance / 3)) * torch.exp(-distance)
    return correlation


def _cholesky(covariance: Tensor, noise: Tensor) -> Tensor:
    factor: Tensor = torch.linalg.cholesky(covariance + torch.diag(noise))
    return factor
