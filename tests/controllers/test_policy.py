"""The LSTM policy is a distribution over the space's networks, and ranks make returns."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from controllers.policy import LSTMPolicy, explained_variance, rank_returns
from controllers.threads import single_threaded
from search_space import SearchSpace, load_space

MBCONV = {"op": "mbconv", "layers": 1, "kernel_size": 3, "stride": 1, "exp_ratio": 3, "out_chs": 16, "skip": "identity"}
CONDITIONAL = {
    "name": "conditional",
    "resolution": 32,
    "num_classes": 10,
    "activation": "relu",
    "stem": {"out_chs": 16, "kernel_size": 3, "stride": 1},
    "stages": [
        {"one_of": [MBCONV | {"kernel_size": [3, 5]}, MBCONV | {"exp_ratio": [1, 3, 6]}]},
        MBCONV | {"out_chs": [16, 24]},
    ],
    "head": {"out_chs": 64},
}


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return SearchSpace(CONDITIONAL)


@pytest.fixture(autouse=True)
def _one_thread():
    with single_threaded():
        yield


def policy_of(space: SearchSpace, hidden_size: int = 16) -> LSTMPolicy:
    return LSTMPolicy(space, hidden_size, torch.Generator().manual_seed(0))


def test_weights_start_in_their_range(space):
    for parameter in policy_of(space).parameters():
        values = parameter.detach().flatten().tolist()
        assert -0.1 <= min(values) < max(values) <= 0.1


def test_sampling_and_evaluating_agree_on_the_log_probability(space):
    policy, rng = policy_of(space), np.random.default_rng(0)
    actions, totals = policy.sample(rng, 64)
    log_prob = policy.evaluate(torch.tensor(actions)).log_prob.sum(1)
    assert log_prob.tolist() == pytest.approx(totals, abs=1e-5)


def distinct_in_effect(space: SearchSpace) -> list[tuple[int, ...]]:
    every = itertools.product(*(range(len(decision.choices)) for decision in space.decisions))
    return [row for row in every if all(on or not action for on, action in zip(space.active(row), row, strict=True))]


def test_probabilities_of_a_conditional_space_sum_to_one(space):
    rows = distinct_in_effect(space)
    assert len(rows) == space.size
    log_prob = policy_of(space).evaluate(torch.tensor(rows)).log_prob.sum(1)
    assert float(log_prob.detach().exp().sum()) == pytest.approx(1.0, abs=1e-5)


def test_frequencies_follow_the_probabilities(space):
    policy, rng = policy_of(space), np.random.default_rng(1)
    rows, draws = distinct_in_effect(space), 2000
    probabilities = policy.evaluate(torch.tensor(rows)).log_prob.sum(1).exp().tolist()
    drawn, _ = policy.sample(rng, draws)
    for row, probability in zip(rows, probabilities, strict=True):
        sigma = (probability * (1 - probability) / draws) ** 0.5
        assert drawn.count(row) / draws == pytest.approx(probability, abs=4 * sigma)


def test_decisions_without_effect_count_neither_in_log_probability_nor_entropy(space):
    policy = policy_of(space)
    rows = torch.tensor([[0, 1, 0, 1], [0, 1, 1, 1], [0, 1, 2, 1]])
    inactive = next(i for i, on in enumerate(space.active(rows[0].tolist())) if not on)
    assert space.decisions[inactive].choices == (1, 3, 6)
    result = policy.evaluate(rows)
    assert not result.log_prob[:, inactive].any()
    for figure in (result.log_prob.sum(1), result.entropy, result.value[:, -1]):
        assert len(set(figure.tolist())) == 1


def test_the_entropy_of_an_untrained_policy_is_nearly_uniform():
    space = load_space("nas-bench-macro")
    entropy = policy_of(space).evaluate(torch.zeros(1, 8, dtype=torch.long)).entropy
    assert float(entropy.detach()) == pytest.approx(8 * np.log(3), rel=0.02)


def test_the_value_before_a_decision_depends_on_the_earlier_ones_alone():
    values = policy_of(load_space("nas-bench-macro")).evaluate(torch.tensor([[0] * 8, [0] * 4 + [1] * 4])).value
    same = (values[0] == values[1]).tolist()
    assert same == [True] * 5 + [False] * 3


def test_explained_variance_counts_active_decisions_alone():
    returns, active = torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([[True, False]] * 3)
    for share, explained in ((1.0, 1.0), (0.5, 0.75), (0.0, 0.0), (-1.0, -3.0)):
        value = torch.stack([share * returns + 7, torch.full((3,), torch.nan)], 1)
        assert explained_variance(value, returns, active) == pytest.approx(explained)
    assert explained_variance(torch.rand(3, 2), torch.zeros(3), active) == 0.0


def test_rank_returns_ignore_scale_and_outliers_and_put_failures_last():
    rewards = [0.1, 0.5, 0.4, 0.2]
    returns = rank_returns(rewards)
    assert float(returns.sum()) == pytest.approx(0.0, abs=1e-6)
    assert torch.equal(rank_returns([reward * 1e6 - 3 for reward in rewards]), returns)
    assert torch.equal(rank_returns([-np.inf, 0.5, 0.4, 0.2]), returns)


def test_equal_rewards_teach_nothing():
    assert not rank_returns([0.3] * 5).any()
    assert not rank_returns([-np.inf] * 5).any()
