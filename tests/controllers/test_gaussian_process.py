"""Gaussian process regression against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from controllers.gaussian_process import GaussianProcess, Hyperparameters, matern
from search_space import InputError

KNOWN = Hyperparameters(lengths=(2.0,), signal=1.5, noise=0.01)


def data(n, seed=0, noise=0.1):
    """A smooth function of two of five columns, in points around 60."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 5))
    truth = 60 + 3 * np.sin(x[:, 0]) + x[:, 1]
    return x, truth, truth + rng.normal(0, noise, n)


def textbook(x, y, new, noise):
    """Means by equation 2.23 of Rasmussen & Williams."""

    def kernel(a, b):
        d = np.sqrt(5) * np.linalg.norm(a[:, None] - b[None], axis=2) / KNOWN.lengths[0]
        return KNOWN.signal * (1 + d + d**2 / 3) * np.exp(-d)

    return y.mean() + kernel(new, x) @ np.linalg.solve(kernel(x, x) + np.eye(len(x)) * noise, y - y.mean())


@pytest.mark.parametrize("noise_variance", [None, 0.5, "rows"])
def test_posterior_of_the_textbook(noise_variance):
    (x, _, y), (new, _, _) = data(40), data(20, seed=1)
    given = np.linspace(0.1, 2, 40) if noise_variance == "rows" else noise_variance
    process = GaussianProcess().fit(x, y, given, KNOWN)
    noise = KNOWN.noise if given is None else given / y.var()
    np.testing.assert_allclose(process.mean(new), textbook(x, y, new, noise), rtol=1e-8)
    assert process.noise_variance == pytest.approx(np.mean(noise) * y.var())


def test_leave_one_out_is_the_fit_to_all_others():
    x, _, y = data(30)
    y = (y - y.mean()) / y.std()
    means, deviations = GaussianProcess().fit(x, y, None, KNOWN).leave_one_out()
    others = np.arange(30) != 7
    again = y[others] - y[others].mean()  # the offset is that of all rows
    fit = GaussianProcess().fit(x[others], again / again.std(), KNOWN.noise / again.var(), KNOWN)
    mean = fit.mean(x[[7]])
    assert means[7] == pytest.approx(float(mean[0] * again.std() + y[others].mean()), abs=0.02)
    assert deviations[7] > np.sqrt(KNOWN.noise)


def test_learned_hyperparameters_find_the_columns_that_matter_and_the_noise():
    x, _, y = data(200, noise=0.3)
    process = GaussianProcess(np.array([0, 1, 2, 2, 2])).fit(x, y)
    lengths = process.hyperparameters.lengths
    assert max(lengths[:2]) < lengths[2] / 3
    assert np.sqrt(process.noise_variance) == pytest.approx(0.3, rel=0.3)
    new, truth, _ = data(500, seed=1)
    assert np.corrcoef(process.mean(new), truth)[0, 1] > 0.98


def test_equal_fits_are_identical_and_hyperparameters_can_be_reused():
    x, _, y = data(80)
    first, second = GaussianProcess().fit(x, y), GaussianProcess().fit(x, y)
    assert first.hyperparameters == second.hyperparameters
    third = GaussianProcess().fit(x, y, hyperparameters=first.hyperparameters)
    np.testing.assert_array_equal(third.mean(x), first.mean(x))


def test_the_unit_of_the_targets_does_not_matter():
    x, _, y = data(60)
    points, shares = GaussianProcess().fit(x, y), GaussianProcess().fit(x, y / 100)
    np.testing.assert_allclose(points.mean(x), 100 * shares.mean(x), rtol=1e-4)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_few_or_equal_targets(n):
    x, _, y = data(n)
    for targets in (y, np.full(n, 0.5)):
        process = GaussianProcess().fit(x, targets)
        assert np.isfinite(process.mean(x)).all()
        assert np.isfinite(process.leave_one_out()).all()


def test_many_copies_of_one_row():
    x = np.ones((50, 3))
    y = np.random.default_rng(0).normal(60, 1, 50)
    assert GaussianProcess().fit(x, y).mean(x[:1]) == pytest.approx(y.mean(), abs=0.1)


@pytest.mark.parametrize(("rows", "bad"), [(1, 1.0), (5, np.nan), (5, np.inf)])
def test_what_can_not_be_fitted_is_refused(rows, bad):
    y = np.ones(rows)
    y[-1] = bad
    with pytest.raises(InputError, match="two rows of finite numbers"):
        GaussianProcess().fit(np.ones((rows, 2)), y)


def test_correlations_are_one_at_no_distance():
    a = torch.randn(4, 3, dtype=torch.float64)
    np.testing.assert_allclose(matern(a, a).diagonal(), 1, atol=1e-8)
