"""The statistics keep what they promise, checked by simulation and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from nas.statistics import Estimate, Noise, kendall_tau, share_in_order, shrink, tau_interval


def test_kendall_tau_is_scipys_ties_included():
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, y = rng.integers(0, 6, (2, 12))
        assert kendall_tau(x, y) == pytest.approx(stats.kendalltau(x, y).statistic)


def test_the_share_in_order_counts_ties_half():
    rng = np.random.default_rng(2)
    for levels in (2, 3, 20):
        x, y = rng.integers(0, levels, 15), rng.integers(0, 5, 15)
        pairs = [(x[i] - x[j]) * np.sign(y[i] - y[j]) for i in range(15) for j in range(i) if y[i] != y[j]]
        right = np.mean([1.0 if pair > 0 else 0.5 if pair == 0 else 0.0 for pair in pairs])
        value, low, high = share_in_order(x, y, rng)
        assert value == pytest.approx(right)
        assert value == pytest.approx((1 + stats.somersd(y, x).statistic) / 2)
        assert low < value < high


def test_kendall_tau_of_several_observations_is_their_mean():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(3, 15)), rng.normal(size=15)
    assert kendall_tau(x, y) == pytest.approx(np.mean([kendall_tau(row, y) for row in x]))


def test_no_order_at_all_is_zero():
    assert kendall_tau([1, 1, 1], [1, 2, 3]) == 0
    assert tau_interval([1, 1, 1], [1, 2, 3], np.random.default_rng(0)) == (0, 0)


def test_a_perfect_order_of_few_is_not_certain():
    rng = np.random.default_rng(0)
    for sign in (1, -1):
        low, high = sorted(sign * end for end in tau_interval(np.arange(8), sign * np.arange(8), rng))
        assert (low, high) == (pytest.approx(2 * 0.025 ** (1 / 28) - 1), 1)
    assert share_in_order(np.arange(8), np.arange(8), rng)[1] == pytest.approx(0.025 ** (1 / 28))


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_the_tau_interval_covers_the_truth(correlation):
    rng = np.random.default_rng(2)
    truth = 2 / np.pi * np.arcsin(correlation)  # of a bivariate normal
    covered = 0
    for _ in range(100):
        x, other = rng.normal(size=(2, 16))
        low, high = tau_interval(x, correlation * x + np.sqrt(1 - correlation**2) * other, rng)
        covered += low <= truth <= high
    assert covered >= 90


def test_the_tau_interval_holds_95_percent_of_the_resamples():
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(2, 20))
    taus = [kendall_tau(x[drawn], y[drawn]) for drawn in rng.integers(0, 20, (4000, 20))]
    assert tau_interval(x, y, rng) == pytest.approx(tuple(np.quantile(taus, [0.025, 0.975])), abs=0.02)


def test_the_tau_interval_is_repeatable():
    x, y = np.random.default_rng(3).normal(size=(2, 12))
    first, second = (tau_interval(x, y, np.random.default_rng(4)) for _ in range(2))
    assert first == second


def simulate(networks, repeats, spread, rng):
    """True means, and noisy repeats of standard deviation 1."""
    truth = rng.normal(0, spread, networks)
    return truth, truth[:, None] + rng.normal(size=(networks, repeats))


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("networks", [4, 10])
def test_shrunk_estimates_are_nearer_to_the_truth_and_their_intervals_cover_it(networks, spread):
    rng = np.random.default_rng(5)
    squares, covered, luck = [], [], []
    for _ in range(300):
        truth, seen = simulate(networks, 3, spread, rng)
        estimates = shrink(seen, Noise.pooled(seen))
        values, plain = np.array([estimate.value for estimate in estimates]), seen.mean(axis=1)
        squares.append([np.sum((values - truth) ** 2), np.sum((plain - truth) ** 2)])
        covered += [estimate.low <= t <= estimate.high for estimate, t in zip(estimates, truth, strict=True)]
        luck.append([values.max() - truth[values.argmax()], plain.max() - truth[plain.argmax()]])
    (shrunk, raw), (bias, raw_bias) = np.mean(squares, axis=0), np.mean(luck, axis=0)
    assert shrunk < raw
    assert abs(bias) < raw_bias
    assert np.mean(covered) >= 0.93


def test_the_difference_of_winner_and_runner_up_is_covered():
    rng = np.random.default_rng(6)
    covered = []
    for _ in range(300):
        truth, seen = simulate(8, 3, 1.0, rng)
        estimates = shrink(seen, Noise.pooled(seen))
        first, second = np.argsort([-estimate.value for estimate in estimates])[:2]
        gain = estimates[first] - estimates[second]
        covered.append(gain.low <= truth[first] - truth[second] <= gain.high)
    assert np.mean(covered) >= 0.93


def test_a_wide_spread_is_hardly_shrunk_and_no_spread_almost_wholly():
    noise = Noise(1.0, 20)
    wide = shrink([[0.0], [100.0], [200.0], [300.0], [400.0]], noise)
    assert [estimate.value for estimate in wide] == pytest.approx([0, 100, 200, 300, 400], abs=0.5)
    rng = np.random.default_rng(7)
    _, seen = simulate(30, 3, 0.0, rng)
    values = [estimate.value for estimate in shrink(seen, Noise.pooled(seen))]
    assert np.ptp(values) < 0.5 * np.ptp(seen.mean(axis=1))


def test_a_noise_known_from_few_repeats_shrinks_less():
    """Of means with variance 5.3, noise included, 1 / 5.3 is noise; (k - 3) / (k - 1) = 1/2 of it and 4 / 6 count."""
    values = [estimate.value for estimate in shrink([[0.0], [1.0], [2.0], [3.0], [6.0]], Noise(1.0, 4))]
    share = 1 / 2 * 4 / 6 / 5.3
    assert values == pytest.approx([y + share * (2.4 - y) for y in (0, 1, 2, 3, 6)], rel=1e-9)


def test_errors_are_those_of_morris():
    """For equal variances V: V (1 - (k - 1) / k B) + 2 / (k - 3) B^2 (y - mean)^2, with B the share drawn in."""
    y, k = np.array([0.0, 1.0, 2.0, 3.0, 6.0]), 5
    share = (k - 3) / (k - 1) / y.var(ddof=1)
    squares = 1 - (k - 1) / k * share + 2 / (k - 3) * share**2 * (y - y.mean()) ** 2
    errors = [estimate.error for estimate in shrink(y[:, None], Noise(1.0, 10**9))]
    assert errors == pytest.approx(np.sqrt(squares), rel=1e-6)


def test_fewer_repeats_are_shrunk_more():
    noise = Noise(1.0, 10)
    few, many = shrink([[1.0], [1.0] * 5, [0.0] * 3, [-1.0] * 3, [-1.0] * 3], noise)[:2]
    assert few.value < many.value < 1.0
    assert few.error > many.error


@pytest.mark.parametrize("far", [-30.0, -5.0, 5.0])
def test_a_network_far_off_keeps_its_mean_and_the_rest_are_shrunk_as_if_alone(far):
    noise, rest = Noise(1.0, 20), [[0.3], [-0.5], [0.8], [0.0], [-1.0]]
    *estimates, last = shrink([*rest, [far]], noise)
    assert estimates == shrink(rest, noise)
    assert last == noise.mean([far])


def test_fewer_than_four_networks_keep_their_means():
    seen = [[1.0, 2.0], [3.0, 5.0], [0.0, 1.0]]
    assert [estimate.value for estimate in shrink(seen, Noise.pooled(seen))] == [1.5, 4.0, 0.5]


def test_repeats_without_noise_are_the_truth():
    seen = [[0.1, 0.1], [0.2, 0.2], [0.3, 0.3], [0.5, 0.5]]
    estimates = shrink(seen, Noise.pooled(seen))
    assert [(estimate.value, estimate.error) for estimate in estimates] == [(0.1, 0), (0.2, 0), (0.3, 0), (0.5, 0)]
    assert Noise.pooled([[0.9367] * 3, [0.1] * 3, [0.7] * 5]).variance == 0  # though their means are rounded


def test_noise_is_pooled_over_networks_with_unequal_repeats():
    noise = Noise.pooled([[1.0, 3.0], [5.0], [0.0, 3.0, 6.0]])
    assert noise == Noise(pytest.approx((2 + 18) / 3), 3)
    with pytest.raises(ValueError, match="no network was trained twice"):
        Noise.pooled([[1.0], [2.0]])


def test_an_estimate_has_students_interval():
    estimate = Estimate(1.0, 0.1, 4)
    assert estimate.margin == pytest.approx(0.27764, abs=1e-4)
    assert (estimate.low, estimate.high) == pytest.approx((0.72236, 1.27764), abs=1e-4)
    assert (estimate - Estimate(0.5, 0.1, 4)).error == pytest.approx(0.1 * 2**0.5)
