"""Gaussian process regression against its definition."""

from __future__ import annotations

import numpy as np
import pytest

from nas.evaluators.gaussian_process import GaussianProcess

GROUPS = np.array([0, 1, 2, 2, 2])


def data(n, seed=0, noise=0.1):
    """A smooth function of two of five columns, in points around 60."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 5))
    truth = 60 + 3 * np.sin(x[:, 0]) + x[:, 1]
    return x, truth, truth + rng.normal(0, noise, n)


def textbook(learned, x, y, new, prior_mean):
    """Means by equation 2.23 of Rasmussen & Williams."""

    def kernel(a, b):
        lengths = np.array(learned.lengths)[GROUPS]
        d = np.sqrt(5) * np.linalg.norm((a[:, None] - b[None]) / lengths, axis=2)
        return learned.signal * (1 + d + d**2 / 3) * np.exp(-d)

    noise = np.eye(len(x)) * learned.noise
    return prior_mean + kernel(new, x) @ np.linalg.solve(kernel(x, x) + noise, y - prior_mean)


def test_posterior_of_the_textbook():
    (x, _, y), (new, _, _) = data(40), data(20, seed=1)
    process = GaussianProcess(GROUPS, x, y)
    np.testing.assert_allclose(process.mean(new), textbook(process.hyperparameters, x, y, new, y.mean()), rtol=1e-6)


def test_left_out_is_the_prediction_from_all_others():
    x, _, y = data(30)
    process = GaussianProcess(GROUPS, x, y)
    for i in (0, 7, 29):
        others = np.arange(30) != i
        mean = textbook(process.hyperparameters, x[others], y[others], x[[i]], y.mean())
        assert process.loo_means()[i] == pytest.approx(float(mean[0]), rel=1e-6)


def test_learned_hyperparameters_find_the_columns_that_matter_and_the_noise():
    x, _, y = data(200, noise=0.3)
    process = GaussianProcess(GROUPS, x, y)
    lengths = process.hyperparameters.lengths
    assert max(lengths[:2]) < lengths[2] / 3
    assert np.sqrt(process.hyperparameters.noise) * y.std() == pytest.approx(0.3, rel=0.3)
    new, truth, _ = data(500, seed=1)
    assert np.corrcoef(process.mean(new), truth)[0, 1] > 0.98


def test_hyperparameters_of_very_many_rows_are_learned_from_some_of_all(monkeypatch):
    """The first rows don't tell that the first column matters more than the second."""
    monkeypatch.setattr("nas.evaluators.gaussian_process._LEARN_ROWS", 100)
    x = np.random.default_rng(0).standard_normal((400, 5))
    x[:100, 0] = 0
    lengths = GaussianProcess(GROUPS, x, 3 * np.sin(x[:, 0]) + x[:, 1]).hyperparameters.lengths
    assert lengths[0] < lengths[1] / 2


def test_equal_fits_are_identical():
    x, _, y = data(80)
    first, second = GaussianProcess(GROUPS, x, y), GaussianProcess(GROUPS, x, y)
    assert first.hyperparameters == second.hyperparameters
    np.testing.assert_array_equal(first.mean(x), second.mean(x))


def test_the_unit_of_the_targets_does_not_matter():
    x, _, y = data(60)
    points, shares = GaussianProcess(GROUPS, x, y), GaussianProcess(GROUPS, x, y / 100)
    np.testing.assert_allclose(points.mean(x), 100 * shares.mean(x), rtol=1e-4)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_few_or_equal_targets(n):
    x, _, y = data(n)
    for targets in (y, np.full(n, 0.5)):
        process = GaussianProcess(GROUPS, x, targets)
        assert np.isfinite(process.mean(x)).all()
        assert np.isfinite(process.loo_means()).all()


def test_many_copies_of_one_row():
    x = np.ones((50, 5))
    y = np.random.default_rng(0).normal(60, 1, 50)
    assert GaussianProcess(GROUPS, x, y).mean(x[:1]) == pytest.approx(y.mean(), abs=0.1)
