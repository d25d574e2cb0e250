"""What the model-based controller promises beyond the contract of all controllers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

import controllers
from controllers import Outcome, Suggestion
from controllers.accuracy_model import AccuracyModel
from controllers.base import Problem
from controllers.reward_model import RewardModel, _log_expected_improvement
from search_space import InputError, SearchSpace, load_space
from search_space.cost import flops, params

TARGET = 40e6


def reward(accuracy, cost):
    return accuracy * (cost / TARGET) ** -0.07


def truth(actions) -> float:
    """Saturating in the number and kind of layers, with the later ones counting more."""
    strength = sum(action * (1 + i / 4) for i, action in enumerate(actions))
    return 0.9 - 0.5 * np.exp(-strength / 8)


@pytest.fixture(scope="module")
def space():
    return load_space("nas-bench-macro")


@pytest.fixture
def build(space):
    def make(seed=0, **options):
        return controllers.create("model_based", space, objective=reward, cost=flops, seed=seed, options=options)

    return make


def outcome(space, suggestion: Suggestion, rng=None, noise=0.003) -> Outcome:
    accuracy = truth(suggestion.actions) + (0.0 if rng is None else rng.normal(0, noise))
    cost = flops(space.decode(suggestion.actions))
    return Outcome(suggestion, reward(accuracy, cost), accuracy, cost)


def search(space, controller, children: int, in_flight: int = 1, noise: float = 0.003) -> list[Suggestion]:
    rng, waiting, asked = np.random.default_rng(0), [], []
    for _ in range(children):
        waiting += controller.ask(in_flight - len(waiting))
        asked.append(waiting.pop(0))
        controller.tell([outcome(space, asked[-1], rng, noise)])
    return asked


def true_reward(space, network) -> float:
    return reward(truth(space.encode(network)), flops(network))


@pytest.mark.parametrize("in_flight", [1, 8])
def test_finds_far_better_networks_than_random_search(space, build, in_flight):
    controller = build()
    search(space, controller, 50, in_flight)
    rng = np.random.default_rng(1)
    random = [true_reward(space, space.sample(rng)) for _ in range(2000)]
    assert true_reward(space, controller.recommend()) > np.quantile(random, 0.995)


def test_many_under_way_are_all_different_networks(build, space):
    controller = build()
    search(space, controller, 20)
    asked = controller.ask(40)
    assert len({space.decode(suggestion.actions).key() for suggestion in asked}) == 40


def test_without_trust_in_the_model_no_network_is_suggested_twice(build, space):
    asked = search(space, build(gate=1.0), 200)
    assert len({space.decode(suggestion.actions).key() for suggestion in asked}) == 200


def test_of_thousands_of_neighbours_some_are_looked_at():
    stages = [{"op": "mbconv", "layers": 1, "exp_ratio": [*range(1, 101)], "out_chs": [*range(8, 108)]}] * 2
    wide = SearchSpace({"resolution": 32, "num_classes": 10, "stem": {"out_chs": 8}, "stages": stages})
    near = controllers.create("model_based", wide, objective=reward, cost=flops, seed=0)._neighbours((0,) * 4)
    assert len(set(near)) == 128
    assert {sum(map(bool, row)) for row in near} == {1}


@pytest.mark.parametrize("in_flight", [1, 16])
def test_leaders_are_trained_again_with_the_rest_new(build, space, in_flight):
    controller = build()
    asked = search(space, controller, 100, in_flight)
    keys = [space.decode(suggestion.actions).key() for suggestion in asked]
    assert not any(suggestion.again for suggestion in asked[:20])
    assert [suggestion.again for suggestion in asked] == [key in keys[:i] for i, key in enumerate(keys)]
    assert all(len({*keys[i : i + in_flight]}) == len(keys[i : i + in_flight]) for i in range(100))
    again = [true_reward(space, space.decode(suggestion.actions)) for suggestion in asked if suggestion.again]
    everyone = [true_reward(space, space.decode(suggestion.actions)) for suggestion in asked]
    assert 3 <= len(again) <= 40
    assert np.mean(again) > np.quantile(everyone, 0.7)


def test_where_trainings_agree_leaders_are_soon_trained_again_no_more(build, space):
    again = [suggestion.again for suggestion in search(space, build(), 150, noise=0.0)]
    assert 5 <= sum(again) <= 6
    assert not any(again[100:])


def test_where_all_candidates_are_known_a_leader_is_trained_again_and_no_far_worse_network(build, space):
    asked = search(space, build(), 150)
    last = [true_reward(space, space.decode(suggestion.actions)) for suggestion in asked[100:]]
    random = [true_reward(space, space.sample(np.random.default_rng(seed))) for seed in range(500)]
    assert min(last) > np.quantile(random, 0.5)
    assert sum(suggestion.again for suggestion in asked[125:]) > sum(suggestion.again for suggestion in asked[25:50])


def test_outcomes_of_another_search_stand_in_for_the_random_children(build, space):
    told = search(space, build(), 40)
    controller = build()
    controller.tell([outcome(space, suggestion) for suggestion in told])
    asked = controller.ask(6)
    assert not any(suggestion.random for suggestion in asked)
    assert sum(suggestion.again for suggestion in asked) <= 2


def test_the_more_outcomes_a_network_has_the_more_they_count(build, space):
    """One lucky network among its likes: the model alone knows no better than they, its own outcomes do."""
    controller = build()
    search(space, controller, 30)
    special = Suggestion(controller.ask()[0].actions)

    def estimate() -> float:
        observed, accuracies, *_ = controller.reward_model.estimates(controller.reward_model.accuracy_model())
        return float(accuracies[observed.index(special.actions)])

    cost, steps = flops(space.decode(special.actions)), []
    lucky = truth(special.actions) + 0.02
    for _ in range(6):
        controller.tell([Outcome(replace(special, again=True), reward(lucky, cost), lucky, cost)])
        steps.append(abs(estimate() - lucky))
    assert steps[-1] < steps[2] < steps[0]


def test_a_stored_result_that_is_told_again_is_no_other_training(build, space):
    controller = build()
    told = search(space, controller, 30)
    before = controller.reward_model.estimates(controller.reward_model.accuracy_model())
    controller.tell([replace(outcome(space, suggestion), stored=True) for suggestion in told])
    after = controller.reward_model.estimates(controller.reward_model.accuracy_model())
    assert before[0] == after[0]
    assert np.array_equal(before[1], after[1])


def test_every_training_counts_whoever_asked_for_it(build, space):
    """One that was lucky once is not handed over after what its honest trainings tell."""
    controller, rng = build(), np.random.default_rng(3)
    search(space, controller, 40)
    poor = Suggestion((0,) * len(space.decisions))
    cost = flops(space.decode(poor.actions))
    controller.tell([Outcome(poor, reward(0.95, cost), 0.95, cost)])
    assert controller.recommend().key() == space.decode(poor.actions).key()
    controller.tell([outcome(space, poor, rng) for _ in range(20)])
    assert controller.recommend().key() != space.decode(poor.actions).key()


@pytest.mark.parametrize("in_flight", [1, 8])
def test_it_learns_to_avoid_failures(build, space, in_flight):
    """The best networks can't be trained: the last stage with its best choice is out of memory."""
    controller, waiting, failed = build(), [], []
    for _ in range(60):
        waiting += controller.ask(in_flight - len(waiting))
        suggestion = waiting.pop(0)
        failed.append(suggestion.actions[-1] == 2)
        told = Outcome(suggestion, failure="out of memory") if failed[-1] else outcome(space, suggestion)
        controller.tell([told])
    assert sum(failed[-30:]) <= 5


def test_failures_at_random_do_not_keep_it_from_the_best(build, space):
    controller, rng = build(), np.random.default_rng(1)
    for _ in range(60):
        (suggestion,) = controller.ask()
        lost = Outcome(suggestion, failure="the node is gone")
        controller.tell([lost if rng.random() < 0.2 else outcome(space, suggestion, rng)])
    random = [space.decode(space.sample_actions(rng)) for _ in range(1000)]
    assert true_reward(space, controller.recommend()) > max(true_reward(space, network) for network in random)


def test_trainings_that_broke_down_teach_nothing_of_other_networks(space):
    """Six of 120 ended at chance: without them the model is that of the others, and none of them is a leader."""
    with_broken, without = (RewardModel(Problem(space, reward, flops)) for _ in range(2))
    rest, rng = [], np.random.default_rng(0)
    for number in range(120):
        told = outcome(space, Suggestion(space.sample_actions(rng)), rng)
        if number % 20 == 5:
            with_broken.add(replace(told, reward=0.01, accuracy=0.01))
        else:
            rest.append(told.suggestion.actions)
            with_broken.add(told)
            without.add(told)
    model, other = with_broken.accuracy_model(), without.accuracy_model()
    known = with_broken.estimates(model)[0]
    assert set(known) <= set(rest)
    assert len(known) > 105
    rows = with_broken.rows([space.sample_actions(rng) for _ in range(20)])
    assert model.mean(rows) == pytest.approx(other.mean(rows), abs=0.003)
    with_broken.add(replace(outcome(space, Suggestion(rest[0])), reward=0.01, accuracy=0.01))
    with_broken.add(outcome(space, Suggestion(rest[1])))
    after = with_broken.accuracy_model().mean(rows)
    without.add(outcome(space, Suggestion(rest[1])))
    assert after == pytest.approx(without.accuracy_model().mean(rows), abs=0.003)


def test_a_region_where_all_trainings_break_down_is_learned(space):
    """What no other training is like is left out, what many are like is not."""
    model, rng = RewardModel(Problem(space, reward, flops)), np.random.default_rng(0)
    drawn = [space.sample_actions(rng) for _ in range(80)]
    for actions in drawn:
        told = outcome(space, Suggestion(actions), rng)
        model.add(replace(told, reward=0.1, accuracy=0.1) if actions[0] == 0 else told)
    bad = model.rows([row for row in (space.sample_actions(rng) for _ in range(60)) if row[0] == 0])
    assert model.accuracy_model().mean(bad).max() < 0.4


def test_asking_for_the_best_while_it_warms_up_changes_nothing_that_follows(build, space):
    asked, other = build(), build()
    search(space, asked, 9), search(space, other, 9)
    assert asked.recommend() == space.decode(asked.memory.top(1)[0])
    assert search(space, asked, 10) == search(space, other, 10)


def test_the_policy_learns_from_the_model_between_batches(build, space):
    learned, plain = build(), build(model_updates=0)
    for controller in (learned, plain):
        controller.tell([outcome(space, suggestion) for suggestion in controller.ask(10)])
    assert len(learned._rollouts) == learned.options.rollouts
    assert learned._rollouts != plain._rollouts
    pairs = zip(learned.policy.parameters(), plain.policy.parameters(), strict=True)
    assert any(not torch.equal(one, other) for one, other in pairs)


def test_a_mutant_is_a_leader_in_which_the_policy_takes_some_decisions(build, space):
    controller = build()
    leader = (0,) * len(space.decisions)
    controller._rollouts = [tuple(len(decision.choices) - 1 for decision in space.decisions)]
    mutants = controller._mutants([leader])
    changes = [sum(choice > 0 for choice in mutant) for mutant in mutants]
    assert all(c in pair for m in mutants for c, *pair in zip(m, leader, *controller._rollouts, strict=True))
    assert min(changes) == 2
    assert max(changes) == len(leader) // 2


def test_nothing_that_differs_in_one_decision_promises_more_than_what_is_suggested(build, space):
    controller = build()
    search(space, controller, 25)
    model = controller._trusted_model()
    best = controller._best(model, controller.reward_model.leaders(model, 1))
    proposed = controller._propose(model)
    near = [row for row in space.one_changed(proposed) if controller._key(row) not in controller._known]
    promised = controller._acquisition(model, [proposed, *near], best)
    assert promised[0] == promised.max()


def test_the_model_is_surer_of_what_is_under_way(build, space):
    controller = build()
    search(space, controller, 20)
    rows = controller.reward_model.rows([suggestion.actions for suggestion in controller.ask(4)])
    (_, alone), (_, expecting) = (
        model.spread(rows) for model in (controller.reward_model.accuracy_model(), controller._trusted_model())
    )
    assert (expecting < alone).all()


def test_the_next_child_must_improve_on_what_is_under_way_too(build, space):
    controller = build()
    search(space, controller, 20)
    model = controller.reward_model.accuracy_model()
    leaders = controller.reward_model.leaders(model, 1)
    alone = controller._best(model, leaders)
    asked = [suggestion.actions for suggestion in controller.ask(16)]
    expected = controller.reward_model.rewards(model.mean(controller.reward_model.rows(asked)), asked)
    assert expected.max() > alone
    assert controller._best(model, leaders) == pytest.approx(expected.max())


def test_children_without_any_outcome_are_less_alike_than_random_ones(build, space):
    controller = build()
    asked = [suggestion.actions for suggestion in controller.ask(42)]

    def nearest(rows) -> float:
        apart = cdist(controller.reward_model.rows(rows), controller.reward_model.rows(rows))
        return float(np.sort(apart)[:, 1].mean())

    rng = np.random.default_rng(2)
    random = [nearest([space.sample_actions(rng) for _ in range(32)]) for _ in range(20)]
    assert nearest(asked[10:]) > max(random)


def test_exploration_is_wider_the_more_are_under_way(build, space):
    controller = build()
    search(space, controller, 20)
    model, rows = controller.reward_model.accuracy_model(), [space.sample_actions(np.random.default_rng(3))]
    alone = controller._acquisition(model, rows, best=1.0)
    controller.ask(16)
    assert controller._acquisition(model, rows, best=1.0) > alone


def test_no_other_leader_is_trained_again_while_the_most_hopeful_one_is(build, space):
    controller = build()
    search(space, controller, 40)
    asked = controller.ask(40)
    assert sum(suggestion.again for suggestion in asked) <= 1


def test_trainings_that_waited_while_many_were_under_way_are_not_made_up_for(build, space):
    controller = build()
    search(space, controller, 200, in_flight=64)
    assert sum(suggestion.again for suggestion in search(space, controller, 30)) <= 15


def test_a_restored_model_is_that_of_before_to_the_last_bit(build, space):
    controller, restored = build(), build(seed=9)
    search(space, controller, 60, in_flight=4)
    rows = controller.reward_model.rows([space.sample_actions(np.random.default_rng(i)) for i in range(20)])
    before = controller.reward_model.accuracy_model().mean(rows)
    restored.load_state_dict(controller.state_dict())
    assert (restored.reward_model.accuracy_model().mean(rows) == before).all()


def test_a_restored_model_has_learned_the_costs_that_the_last_fit_saw(space):
    """Another training of a network measured its cost again since."""

    def make(seed):
        return controllers.create("model_based", space, objective=reward, cost=lambda network: 1.0, seed=seed)

    controller, restored, rng = make(0), make(9), np.random.default_rng(0)
    told = [Suggestion(space.sample_actions(rng)) for _ in range(30)]
    for suggestion in [*told, told[0]]:
        noisy = replace(outcome(space, suggestion), cost=rng.uniform(1.0, 2.0))
        controller.tell([noisy])
        controller.reward_model.accuracy_model()
    rows = [space.sample_actions(rng) for _ in range(20)]
    restored.load_state_dict(controller.state_dict())
    restored.reward_model.accuracy_model()
    assert (restored.reward_model.costs(rows) == controller.reward_model.costs(rows)).all()


def test_a_network_that_failed_is_not_suggested_again(build, space):
    controller = build()
    search(space, controller, 15)
    (bad,) = controller.ask()
    controller.tell([Outcome(bad, failure="out of memory")])
    key = space.decode(bad.actions).key()
    assert key not in {space.decode(suggestion.actions).key() for suggestion in search(space, controller, 25)}


def test_accuracies_of_pure_noise_earn_no_trust_in_the_end(build, space):
    controller, rng = build(), np.random.default_rng(2)
    trusted = []
    for _ in range(140):
        (suggestion,) = controller.ask()
        accuracy, cost = rng.normal(0.6, 0.02), flops(space.decode(suggestion.actions))
        controller.tell([Outcome(suggestion, reward(accuracy, cost), accuracy, cost)])
        trusted += [figures["model_trusted"] for figures in [controller.pop_diagnostics()] if figures]
    assert len(trusted) > 8
    assert not any(trusted[-4:])


def test_without_trust_in_the_model_the_policy_suggests(build, space):
    never, plain = build(gate=1.0, warm_up=5), build(gate=-1.0, warm_up=5)
    suggestions = search(space, never, 25)
    assert suggestions != search(space, plain, 25)
    assert suggestions[-1].policy_version > 0


def test_an_objective_that_changes_changes_the_recommendation(space):
    weight = {"w": -0.01}
    controller = controllers.create(
        "model_based", space, objective=lambda a, c: a * (c / TARGET) ** weight["w"], cost=flops, seed=0
    )
    search(space, controller, 40)
    large = flops(controller.recommend())
    weight["w"] = -2.0
    assert flops(controller.recommend()) < large


@pytest.mark.parametrize("option", [{"warm_up": 1}, {"gate": 2.0}, {"exploration": -1.0}, {"model_updates": 0.5}])
def test_options_out_of_range_are_refused_by_name(build, option):
    with pytest.raises(InputError, match=next(iter(option))):
        build(**option)


KINDS = np.array([0, 0, 0, 1, 1, 2])


@pytest.fixture
def observations():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 6))
    return x, np.tanh(x[:, 0]) + x[:, 3] + rng.normal(0, 0.05, 60)


def test_the_model_predicts_what_it_has_not_seen(observations):
    x, y = observations
    model = AccuracyModel(KINDS, x[:45], y[:45])
    assert np.corrcoef(model.mean(x[45:]), y[45:])[0, 1] > 0.75
    assert 0.75 < model.rank_correlation()[0] < model.rank_correlation()[1] < 1


def test_adding_observations_equals_conditioning_on_them_at_once(observations):
    x, y = (np.concatenate([values[:30], values[:30]]) for values in observations)
    whole = AccuracyModel(KINDS, x, y)
    part = AccuracyModel(KINDS, x[:30], y[:30], whole.log)
    part.add(x[30:], y[30:])
    assert part.fitted() == pytest.approx(part.mean(x))  # of all 60
    assert part.spread(x)[1] == pytest.approx(whole.spread(x)[1], rel=0.05)


@pytest.mark.parametrize("value", [0.5, 0.7, 0.8333, 0.9])
def test_equal_observations_promise_nothing_whatever_their_rounding(observations, value):
    model = AccuracyModel(KINDS, observations[0], np.full(60, value))
    expected, high = model.spread(observations[0] + 3)
    assert expected == pytest.approx(np.full(60, value), rel=1e-9)
    assert (high - expected < 1e-5 * value).all()


def test_expected_observations_add_certainty_and_change_no_mean(observations):
    x, y = observations
    model = AccuracyModel(KINDS, x[:30], y[:30])
    expecting = model.fantasize(x[30:40])
    assert expecting.mean(x) == pytest.approx(model.mean(x), abs=1e-6)
    assert (expecting.spread(x[30:40])[1] < model.spread(x[30:40])[1]).all()
    assert model.mean(x[:5]) == pytest.approx(AccuracyModel(KINDS, x[:30], y[:30]).mean(x[:5]))


def test_drawn_functions_and_observations_have_the_posterior_s_quantiles(observations):
    x, y = observations
    model, rng = AccuracyModel(KINDS, x[:40], y[:40]), np.random.default_rng(0)
    drawn = model.sample(x[40:45], 4000, rng)
    assert drawn.shape == (4000, 5)
    middle, above = model.spread(x[40:45])
    beyond = np.stack([(drawn > middle).mean(0), (drawn > above).mean(0)])
    assert beyond == pytest.approx(np.array([[0.5] * 5, [0.159] * 5]), abs=0.03)
    shown = np.array([model.observe(middle, rng) for _ in range(2000)])
    assert np.median(shown, axis=0) == pytest.approx(middle, abs=0.1 * y.std())
    assert (shown.std(0) > 0).all()


@pytest.mark.parametrize(("own", "least", "most"), [(0.0, 0.05, 0.15), (0.1, 0.6, 0.95)])
def test_repeated_observations_tell_the_networks_own_share(own, least, most):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 6))
    networks = np.array([*range(60), *range(30), *range(30)])
    special = rng.normal(0, own, 60)
    y = (np.tanh(x[:, 0]) + x[:, 3] + special)[networks] + rng.normal(0, 0.1 if own == 0 else 0.03, len(networks))
    model = AccuracyModel(KINDS, x[networks], y)
    assert least <= model.own_share(networks) <= most
    unrepeated = AccuracyModel(KINDS, x, y[:60])
    assert 0.1 < unrepeated.own_share(np.arange(60)) < 0.4  # what is expected without any evidence


def test_a_cost_that_was_told_is_not_replaced_by_what_a_model_expects(space):
    controller = controllers.create("model_based", space, objective=reward, cost=lambda network: 1.0, seed=0)
    rng, told = np.random.default_rng(0), {}
    for _ in range(30):
        (suggestion,) = controller.ask()
        cost = flops(space.decode(suggestion.actions)) * rng.uniform(0.9, 1.1)
        accuracy = truth(suggestion.actions)
        told[suggestion.actions] = cost
        controller.tell([Outcome(suggestion, reward(accuracy, cost), accuracy, cost)])
    assert controller.reward_model.costs(list(told)).tolist() == list(told.values())


def test_a_cost_that_is_measured_on_a_device_is_learned(space):
    """It is told with every child; asking for it of thousands of candidates would take hours."""
    asked = []

    def latency(network):
        asked.append(network)
        return flops(network) / 1e6

    controller = controllers.create("model_based", space, objective=reward, cost=latency, seed=0)
    for _ in range(40):
        (suggestion,) = controller.ask()
        accuracy, cost = truth(suggestion.actions), flops(space.decode(suggestion.actions)) / 1e6
        controller.tell([Outcome(suggestion, reward(accuracy, cost * 1e6), accuracy, cost)])
    assert not asked
    costs = np.array(
        [latency(space.decode(row)) for row in (space.sample_actions(np.random.default_rng(i)) for i in range(50))]
    )
    rows = [space.sample_actions(np.random.default_rng(i)) for i in range(50)]
    assert np.corrcoef(np.log(controller.reward_model.costs(rows)), np.log(costs))[0, 1] > 0.9


@pytest.mark.parametrize("cost", [flops, params])
def test_a_cost_that_can_be_counted_is_counted(space, cost):
    rows = [space.sample_actions(np.random.default_rng(i)) for i in range(20)]
    costs = RewardModel(Problem(space, reward, cost)).costs(rows)
    assert costs.tolist() == [cost(space.decode(row)) for row in rows]


def test_improvements_too_small_for_a_float_keep_their_order():
    """The density over the square of z is their asymptote (Abramowitz & Stegun 1964, 26.2.12), 3 / z^2 too large."""
    z = np.linspace(-200, -25, 2000)
    improvement = _log_expected_improvement(z)
    assert (np.diff(improvement) > 0).all()
    density = -(z**2) / 2 - np.log(2 * np.pi) / 2
    assert improvement == pytest.approx(density - 2 * np.log(-z), abs=0.006)
    below, above = _log_expected_improvement(np.array([-30 - 1e-9, -30 + 1e-9]))
    assert below == pytest.approx(above, abs=1e-6)


def test_of_very_many_outcomes_the_best_and_some_others_are_fitted(space, monkeypatch):
    monkeypatch.setattr("controllers.reward_model._MOST_ROWS", 40)
    monkeypatch.setattr("controllers.reward_model._BEST_ROWS", 25)
    model, rng = RewardModel(Problem(space, reward, flops)), np.random.default_rng(0)
    for children in (40, 80):
        for _ in range(children):
            model.add(outcome(space, Suggestion(space.sample_actions(rng))))
        model.accuracy_model()
    fitted = model.state_dict()["fitted"]
    rewards = np.array([row[1] for row in model.observed])
    ranks = (-rewards).argsort().argsort()[fitted].tolist()
    assert len(set(fitted)) == 40
    assert set(range(15)) <= set(ranks)
    assert max(ranks) > 100
