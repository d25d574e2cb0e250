"""Small-sample statistics of trainings: rank agreement, seed noise, estimates that are shrunk, and their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

LEVEL = 0.95  # of every interval
RESAMPLES = 4000
FEWEST = 4  # networks whose spread says enough to shrink by
_FAR, _MAD = 4.0, 1.4826  # standard deviations that are far off, and those of a median absolute deviation

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its standard error.

    Attributes:
        value: the figure.
        error: its standard error, in the same unit.
        df: degrees of freedom of the error, for Student's t.
    """

    value: float
    error: float
    df: int

    @property
    def margin(self) -> float:
        """Half the width of the 95% interval."""
        return float(stdtrit(self.df, (1 + LEVEL) / 2)) * self.error

    @property
    def low(self) -> float:
        """Lower end of the 95% interval."""
        return self.value - self.margin

    @property
    def high(self) -> float:
        """Upper end of the 95% interval."""
        return self.value + self.margin

    def __sub__(self, other: Estimate) -> Estimate:
        """The difference of two independent estimates whose errors come from the same pooled variance."""
        return Estimate(self.value - other.value, math.hypot(self.error, other.error), self.df)


@dataclass(frozen=True, slots=True)
class Noise:
    """The variance between repeats of the same training, pooled over networks.

    Attributes:
        variance: of a single repeat, in the unit of the observations squared.
        df: degrees of freedom: repeats less networks.
    """

    variance: float
    df: int

    @classmethod
    def pooled(cls, observations: Sequence[Sequence[float]]) -> Noise:
        """Estimate it from the repeats of each network.

        Raises:
            ValueError: no network has two repeats.
        """
        df = sum(len(repeats) - 1 for repeats in observations)
        if df < 1:
            raise ValueError("the noise can't be estimated: no network was trained twice")
        # The first is taken off because the mean of equal floats need not be equal to them.
        squares = sum(len(repeats) * float(np.var(np.asarray(repeats) - repeats[0])) for repeats in observations)
        return cls(squares / df, df)

    def mean(self, repeats: Sequence[float]) -> Estimate:
        """The mean of one network's repeats."""
        return Estimate(float(np.mean(repeats)), math.sqrt(self.variance / len(repeats)), self.df)


def shrink(observations: Sequence[Sequence[float]], noise: Noise) -> list[Estimate]:
    """Estimate each network's mean, shrunk towards the mean of all by as much as their spread looks like noise.

    Parametric empirical Bayes (Morris, JASA 1983): networks are normal around a common mean, repeats normal around
    their network. The total squared error is smaller than that of the plain means, and the highest estimate is
    inflated much less by having been picked; the errors include that mean and spread are estimated themselves. With
    fewer than four networks, which say too little about their spread, these are the plain means. So are those of
    networks far off the rest (Hampel identifier: Davies & Gather, JASA 1993): one that collapsed would make the
    differences between all others look real.

    Args:
        observations: the repeats of each network; their numbers may differ.
        noise: of a repeat.
    """
    estimates = [noise.mean(repeats) for repeats in observations]
    if len(estimates) < FEWEST or noise.variance == 0:
        return estimates
    means = np.array([estimate.value for estimate in estimates])
    variances = np.array([estimate.error**2 for estimate in estimates])
    off = np.abs(means - np.median(means))
    alike = np.flatnonzero(off <= _FAR * max(_MAD * float(np.median(off)), math.sqrt(variances.mean())))
    if len(alike) < FEWEST:
        return estimates
    shrunk = _shrunk(means[alike], variances[alike], noise.df)
    for i, value, error in zip(alike, *shrunk, strict=True):
        estimates[i] = Estimate(float(value), float(error), noise.df)
    return estimates


def _shrunk(means: Floats, variances: Floats, df: int) -> tuple[Floats, Floats]:
    """Empirical Bayes estimates and their errors of plain means, whose variances were estimated with `df`."""
    count = len(means)
    spread = max(0.0, float(means.var(ddof=1) - variances.mean()))
    weights = 1 / (variances + spread)
    centre = float(weights @ means / weights.sum())
    small_sample = (count - 3) / (count - 1) * df / (df + 2)  # both variances are estimates
    share = small_sample * variances * weights
    known = variances * (1 - (1 - weights / weights.sum()) * share)
    errors = np.sqrt(known + 2 / (count - 3) * share**2 * (means - centre) ** 2)
    return means + share * (centre - means), errors


def kendall_tau(x: ArrayLike, y: ArrayLike) -> float:
    """Kendall's tau-b (1945): agreement of two orders, from -1 to 1; 0 if one of them is no order at all.

    Args:
        x: n figures, or m x n for the mean tau of m observations with y.
        y: n figures.
    """
    return float(_taus(x, y, np.ones((1, np.shape(y)[0])), half_ties=False)[0])


def tau_interval(x: ArrayLike, y: ArrayLike, rng: np.random.Generator) -> tuple[float, float]:
    """The 95% interval of `kendall_tau`, the n items being drawn anew (percentile bootstrap, Efron 1979).

    A perfect order, of which all resamples are perfect, has the interval of as many successes among independent pairs
    (Clopper & Pearson 1934).

    Args:
        x: n figures, or m x n.
        y: n figures.
        rng: draws the resamples.
    """
    return _interval(x, y, rng, half_ties=False)


def share_in_order(x: ArrayLike, y: ArrayLike, rng: np.random.Generator) -> tuple[float, float, float]:
    """Share of the pairs that differ in y which x puts in y's order, ties in x counting half, and its 95% interval.

    Harrell's C (JAMA 247, 1982), which is (1 + Somers' D) / 2.

    Args:
        x: n figures, or m x n for the mean share of m observations.
        y: n figures.
        rng: draws the resamples (see `tau_interval`).
    """
    value = float(_taus(x, y, np.ones((1, np.shape(y)[0])), half_ties=True)[0])
    low, high = _interval(x, y, rng, half_ties=True)
    return (1 + value) / 2, (1 + low) / 2, (1 + high) / 2


def _interval(x: ArrayLike, y: ArrayLike, rng: np.random.Generator, half_ties: bool) -> tuple[float, float]:
    n = np.shape(y)[0]
    counts = rng.multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(np.float64)
    low, high = np.quantile(_taus(x, y, counts, half_ties), [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).round(9).tolist()
    perfect = 2 * ((1 - LEVEL) / 2) ** (2 / (n * (n - 1))) - 1
    return (perfect if low == 1 else low), (-perfect if high == -1 else high)


def _taus(x: ArrayLike, y: ArrayLike, counts: Floats, half_ties: bool) -> Floats:
    """Mean agreement of the rows of x with y, each item counted as often as each row of counts (resamples x n) says.

    That is tau-b, or Somers' D, in which ties in x are half right.
    """
    order = _signs(np.asarray(y, dtype=np.float64))
    taus = [_tau(_signs(row), order, counts, half_ties) for row in np.atleast_2d(np.asarray(x, dtype=np.float64))]
    return np.asarray(np.mean(taus, axis=0))


def _signs(values: Floats) -> Floats:
    return np.asarray(np.sign(values[:, None] - values[None, :]))


def _tau(x: Floats, y: Floats, counts: Floats, half_ties: bool) -> Floats:
    def pairs(matrix: Floats) -> Floats:
        return np.asarray(((counts @ matrix) * counts).sum(axis=1))

    ordered = pairs(y * y) if half_ties else np.sqrt(pairs(x * x) * pairs(y * y))
    return np.divide(pairs(x * y), ordered, out=np.zeros_like(ordered), where=ordered > 0)
