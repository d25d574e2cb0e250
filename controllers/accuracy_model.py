"""A regression model of accuracy that takes one child after the other and knows what it doesn't know."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from scipy.linalg import cho_solve, cholesky
from scipy.optimize import minimize

_LENGTH, _VARIANCE, _NOISE = (1.0, 1.0), (0.0, 1.0), (-4.0, 1.5)
"""Normal priors (mean, standard deviation) on the logarithms of each length scale, whose mean is log(scales) / 2 more,
of the function's variance and of the noise variance; rows and observations are standardised."""

_STEPS = 25
"""Most iterations of the quasi-Newton maximisation."""

_LEARN_ROWS = 600
"""Hyperparameters are learned from this many rows at most, for a step costs their third power."""

_HEADROOM, _LEAST_DISTANCE = 3.0, 0.1
"""The ceiling above the best observation, and the least distance to it that counts, in standard deviations."""

_LEAST_UNIT = 1e-6
"""Standard deviation, as a share of the largest observation, below which observations differ by rounding alone."""

_JITTER = 1e-6

_BROKEN, _LEAST_DEVIATION, _LEAST_ROWS = 8.0, 0.1, 40
"""How many robust standard deviations below its prediction a training has broken down, the least such deviation, of
standardised observations, and the fewest observations that can tell."""

_NORMAL = 1.4826
"""Standard deviation of a normal distribution in medians of its absolute value."""

_PERFECT, _ONE_SIDED = 1 - 1e-9, 1.645
"""The rank correlation that counts as perfect, and the 95% quantile of a normal distribution."""

_OWN, _OWN_DEGREES, _LEAST_OWN = 0.2, 8, 0.05
"""Prior on the share of the unexplained variance that is the network's own and not its seed's: its expectation, its
weight in degrees of freedom, and the least value of the estimate."""

_AGREEING = 5
"""Repeated observations that, where each equals its network's first, show that seeds make no difference."""


class AccuracyModel:
    """Gaussian process regression (Rasmussen & Williams 2006) of warped accuracies.

    Accuracies saturate: what a choice brings shrinks as the rest of the network gets better. On the logarithm of the
    distance to a ceiling above them (a warped process, Snelson et al. 2003) effects add up. The kernel is a Matern-5/2
    with one length scale per kind of column, which all stages share. Hyperparameters maximise the marginal
    likelihood (section 5.4.1) times normal priors on their logarithms.

    Attributes:
        log: the log hyperparameters: length scales, variance, noise.
    """

    def __init__(self, kinds: np.ndarray, x: np.ndarray, y: np.ndarray, log: Sequence[float] | None = None) -> None:
        """Condition on observations.

        Args:
            kinds: (columns,) of each column, numbered from 0; see `Features.kinds`.
            x: (n, columns) networks, repeatedly where there are several observations of one.
            y: (n,) observations, in any unit.
            log: hyperparameters of an earlier model; None to learn them.
        """
        self._kinds, self._x = kinds, x
        self._unit = max(float(y.std()), _LEAST_UNIT * float(np.abs(y).max())) or 1.0
        self._ceiling = float(y.max()) + _HEADROOM * self._unit
        warped = self._warp(y)
        self._mean, self._scale = float(warped.mean()), max(float(warped.std()), _LEAST_UNIT)
        self._y = (warped - self._mean) / self._scale
        self.log = self._learned() if log is None else np.array(log)
        self._columns = np.exp(-self.log[kinds]) / np.sqrt(np.bincount(kinds)[kinds])
        self._scaled = x * self._columns
        self._inverse = _inverse(self._noisy(self._scaled))
        self._weights = self._inverse @ self._y
        deviation = max(_LEAST_DEVIATION, _NORMAL * float(np.median(np.abs(self.loo_residuals()))))
        self._least = -_BROKEN * deviation if len(y) >= _LEAST_ROWS else -np.inf

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """Condition on k more observations, under the same hyperparameters, by bordering the inverse covariance.

        Its time grows with k n^2 (block inversion, appendix A.3).
        """
        rows = x * self._columns
        across = self._kernel(rows, self._scaled)
        solved = across @ self._inverse
        left = _inverse(self._noisy(rows) - solved @ across.T)
        gain = left @ solved
        self._inverse = np.block([[self._inverse + solved.T @ gain, -gain.T], [-gain, left]])
        self._scaled = np.vstack([self._scaled, rows])
        self._y = np.append(self._y, self._standardised(y))
        self._weights = self._inverse @ self._y

    def fantasize(self, x: np.ndarray) -> AccuracyModel:
        """A copy conditioned on its own mean at the rows of `x` (k, columns), as if that had been observed.

        The Kriging believer (Ginsbourger et al., Kriging is well-suited to parallelize optimization, 2010).
        """
        believer = copy.copy(self)
        believer.add(x, self.mean(x))
        return believer

    def mean(self, x: np.ndarray) -> np.ndarray:
        """Expected observations (m,): posterior medians."""
        return self._unwarp(self._expected(x))

    def fitted(self) -> np.ndarray:
        """Expected observations (n,) at the observed rows, in order, without computing their covariances again."""
        return self._unwarp(self._y - (np.exp(self.log[-1]) + _JITTER) * self._weights)

    def spread(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Expected observations (m,), and those one posterior standard deviation above them, without noise."""
        across = self._kernel(x * self._columns, self._scaled)
        mean = across @ self._weights
        variance = np.exp(self.log[-2]) - np.einsum("ij,ij->i", across @ self._inverse, across)
        return self._unwarp(mean), self._unwarp(mean + np.sqrt(variance.clip(_JITTER)))

    def sample(self, x: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """Functions drawn from the posterior, without noise: values (count, m) at the rows of `x` (m, columns)."""
        rows = x * self._columns
        across = self._kernel(rows, self._scaled)
        jitter = np.diag(np.full(len(rows), _JITTER * np.exp(self.log[-2])))
        factor = cholesky(self._kernel(rows, rows) - across @ self._inverse @ across.T + jitter, lower=True)
        return self._unwarp(across @ self._weights + (factor @ rng.standard_normal((len(rows), count))).T)

    def observe(self, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """What observations (m,) might show where the function has these values (m,)."""
        noise = np.exp(self.log[-1] / 2) * rng.standard_normal(len(values))
        return self._unwarp(self._standardised(values) + noise)

    def loo_residuals(self) -> np.ndarray:
        """How far each observation (n,) lies above its prediction from all others (section 5.4.2), standardised."""
        residuals: np.ndarray = self._weights / self._inverse.diagonal()
        return residuals

    def broken(self) -> np.ndarray:
        """Which observations (n,) lie so far below their prediction from all others that their trainings broke down.

        The scale is the median absolute deviation of all (Hampel, JASA 69, 1974). Where a region is bad, its
        observations predict each other.
        """
        far: np.ndarray = self.loo_residuals() < self._least
        return far

    def breaks(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Which of other observations (k,) at the rows of `x` (k, columns) lie so far below their prediction."""
        far: np.ndarray = self._standardised(y) - self._expected(x) < self._least
        return far

    def rank_correlation(self) -> tuple[float, float]:
        """Spearman's, between each observation and its prediction from all others, and what it may be.

        The latter is the upper end of a one-sided 95% interval by Fisher's z (Fieller, Hartley & Pearson, Biometrika
        44, 1957), of four observations or more. The hyperparameters have seen all of them, which flatters a model of
        few: of pure noise the correlation is near 0.4 with 20 of them, and 0 with 100. Where all are equal, both are 1.
        """
        from scipy.stats import spearmanr  # half a second, which no command without a model should take

        left_out = self._y - self.loo_residuals()
        if np.ptp(self._y) == 0:
            return 1.0, 1.0
        correlation = 0.0 if np.ptp(left_out) == 0 else float(spearmanr(left_out, self._y).statistic)
        error = 1.03 / np.sqrt(len(self._y) - 3)
        z = np.arctanh(np.clip(correlation, -_PERFECT, _PERFECT))
        return correlation, float(np.tanh(z + _ONE_SIDED * error))

    def own_share(self, networks: np.ndarray) -> float:
        """The share of the variance left unexplained by the model that is due to the networks, not to their seeds.

        It is the intraclass correlation of the residuals. Repeated observations of one network differ by their seeds
        alone (one-way random effects: Searle, Casella & McCulloch, Variance Components, 1992, chapter 3), on the warped
        scale.

        Args:
            networks: (k,) number, from 0, of the network of each of the first k observations.

        Returns:
            The share, at least `_LEAST_OWN`; `_OWN` where nothing is repeated, 1 where `_AGREEING` repeats all agree.
        """
        counts = np.bincount(networks)
        y, noise, again = self._y[: len(networks)], np.exp(self.log[-1]), len(networks) - len(counts)
        within = np.square(y - (np.bincount(networks, y) / counts)[networks]).sum()
        if again >= _AGREEING and within < _JITTER**2:
            return 1.0
        expected = _OWN_DEGREES * (1 - _OWN) * noise
        seeds = (expected + within) / (_OWN_DEGREES + again)
        return max(_LEAST_OWN, float(1 - seeds / noise))

    def _expected(self, x: np.ndarray) -> np.ndarray:
        """Posterior means (m,) on the standardised scale."""
        expected: np.ndarray = self._kernel(x * self._columns, self._scaled) @ self._weights
        return expected

    def _standardised(self, y: np.ndarray) -> np.ndarray:
        """Observations on the warped scale, of mean 0 and variance 1 at those conditioned on first."""
        standardised: np.ndarray = (self._warp(y) - self._mean) / self._scale
        return standardised

    def _warp(self, y: np.ndarray) -> np.ndarray:
        """Observations on the scale on which the process is Gaussian."""
        warped: np.ndarray = -np.log(((self._ceiling - y) / self._unit).clip(_LEAST_DISTANCE))
        return warped

    def _unwarp(self, standardised: np.ndarray) -> np.ndarray:
        """The way back from the warped and standardised scale."""
        y: np.ndarray = self._ceiling - self._unit * np.exp(-(standardised * self._scale + self._mean))
        return y

    def _kernel(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Covariances (m, n) of the function between rows divided by the length scales."""
        covariance: np.ndarray = np.exp(self.log[-2]) * _matern(_distances(a, b))[0]
        return covariance

    def _noisy(self, rows: np.ndarray) -> np.ndarray:
        """Covariances (n, n) of observations at rows divided by the length scales."""
        return self._kernel(rows, rows) + np.diag(np.full(len(rows), np.exp(self.log[-1]) + _JITTER))

    def _learned(self) -> np.ndarray:
        """Learn the hyperparameters from one observation of each network, so that noise includes what is its own."""
        first = np.sort(np.unique(self._x, axis=0, return_index=True)[1])
        rows = first[np.linspace(0, len(first) - 1, min(len(first), _LEARN_ROWS)).astype(int)]
        x, y = self._x[rows], self._y[rows]
        groups = int(self._kinds.max()) + 1
        apart = np.stack([_distances(x[:, self._kinds == i], x[:, self._kinds == i]) for i in range(groups)])
        apart /= np.bincount(self._kinds)[:, None, None]
        length = _LENGTH[0] + np.log(groups) / 2
        centre = np.array([length] * groups + [_VARIANCE[0], _NOISE[0]])
        spread = np.array([_LENGTH[1]] * groups + [_VARIANCE[1], _NOISE[1]])
        bounds = list(zip(centre - 3 * spread, centre + 3 * spread, strict=True))
        options = {"maxiter": _STEPS}
        result = minimize(
            _loss, centre, (apart, y, centre, spread), "L-BFGS-B", jac=True, bounds=bounds, options=options
        )
        best: np.ndarray = result.x
        return best


def _inverse(covariance: np.ndarray) -> np.ndarray:
    """The inverse of a positive definite matrix."""
    inverse: np.ndarray = cho_solve((cholesky(covariance, lower=True), True), np.eye(len(covariance)))
    return inverse


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances (len(a), len(b)) of rows."""
    squared: np.ndarray = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * a @ b.T
    return squared.clip(0, out=squared)


def _matern(squared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Matern-5/2 correlations at squared distances (equation 4.17), and minus twice their slope."""
    distance = np.sqrt(5 * squared)
    decay = np.exp(-distance)
    return (1 + distance + distance**2 / 3) * decay, (1 + distance) * decay * (5 / 3)


def _loss(
    log: np.ndarray, apart: np.ndarray, y: np.ndarray, centre: np.ndarray, spread: np.ndarray
) -> tuple[float, np.ndarray]:
    """Negative log posterior of the log hyperparameters, up to a constant, and its gradient (equation 5.9)."""
    closeness = np.exp(-2 * log[:-2])
    kernel, steepness = (np.exp(log[-2]) * part for part in _matern(np.tensordot(closeness, apart, 1)))
    noise = np.exp(log[-1])
    factor = cholesky(kernel + np.diag(np.full(len(y), noise + _JITTER)), lower=True)
    inverse = cho_solve((factor, True), np.eye(len(y)))
    weights = inverse @ y
    slope = (inverse - np.outer(weights, weights)) / 2
    lengths = np.tensordot(apart, slope * steepness, 2) * closeness
    gradient = [*lengths, (slope * kernel).sum(), noise * np.trace(slope)]
    off = (log - centre) / spread
    loss = y @ weights / 2 + np.log(factor.diagonal()).sum() + off @ off / 2
    return float(loss), np.array(gradient) + off / spread
