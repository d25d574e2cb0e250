"""The contract that every controller keeps; a new one is covered by being named in `controllers.NAMES`."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

import controllers
from controllers import Outcome, Suggestion
from search_space import Architecture, InputError, SearchSpace, SpaceError, load_space

ROUNDS = 30


def reward_of(suggestion: Suggestion) -> float:
    """Highest, 0.9, where every action is its decision's last choice."""
    return 0.3 + 0.6 * sum(suggestion.actions) / 16


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return load_space("nas-bench-macro")


@pytest.fixture(params=controllers.NAMES)
def make(request, space):
    def build(seed: int = 0, of: SearchSpace = space, **options):
        return controllers.create(
            request.param,
            of,
            objective=lambda accuracy, cost: accuracy,
            cost=lambda network: 1.0,
            seed=seed,
            options=options,
        )

    return build


def drive(controller, rounds: int = ROUNDS, reward_of=reward_of) -> list[Suggestion]:
    asked = []
    for _ in range(rounds):
        (suggestion,) = controller.ask()
        asked.append(suggestion)
        reward = reward_of(suggestion)
        controller.tell([Outcome(suggestion, reward=reward, accuracy=reward, cost=1.0)])
    return asked


def test_suggestions_are_architectures_of_the_space(make, space):
    for suggestion in drive(make()):
        assert isinstance(space.decode(suggestion.actions), Architecture)
        assert np.isfinite(suggestion.log_prob)
        assert suggestion.log_prob <= 0.0


def test_equal_seeds_agree_and_different_seeds_do_not(make):
    assert drive(make(seed=3)) == drive(make(seed=3))
    assert drive(make(seed=3)) != drive(make(seed=4))


def test_the_global_random_streams_are_left_alone(make):
    torch.manual_seed(5)
    before, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - that it stays is the test
    drive(make())
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], legacy)  # noqa: NPY002


def test_random_children_come_first_and_whatever_they_earn(make):
    asked, other = drive(make()), drive(make(), reward_of=lambda suggestion: 1 - reward_of(suggestion))
    count = sum(suggestion.random for suggestion in asked)
    assert count > 0
    for suggestions in (asked, other):
        assert [suggestion.random for suggestion in suggestions] == [True] * count + [False] * (ROUNDS - count)
    actions, others = ([suggestion.actions for suggestion in suggestions] for suggestions in (asked, other))
    assert actions[:count] == others[:count]
    assert count == ROUNDS or actions[count:] != others[count:]


@pytest.mark.parametrize(
    ("make", "warm_up"),
    [
        ("evolution", "population_size"),
        ("model_based", "warm_up"),
        ("ppo", "batch_size"),
        ("random", None),
        ("reinforce", "batch_size"),
    ],
    indirect=["make"],
)
def test_exactly_the_warm_up_is_random(make, warm_up):
    asked = drive(make(**({} if warm_up is None else {warm_up: 7})))
    count = ROUNDS if warm_up is None else 7
    assert [suggestion.random for suggestion in asked] == [True] * count + [False] * (ROUNDS - count)


def test_asking_for_two_is_asking_twice(make):
    one, other = make(), make()
    drive(one), drive(other)
    assert one.ask(2) == other.ask(1) + other.ask(1)


def test_asking_never_waits_for_outcomes(make):
    assert len(make().ask(50)) == 50


def test_late_outcomes_in_any_order_and_number(make):
    controller = make()
    rng = np.random.default_rng(0)
    waiting: list[Suggestion] = []
    for _ in range(15):
        waiting += controller.ask(int(rng.integers(1, 6)))
        rng.shuffle(waiting)
        back, waiting = waiting[: len(waiting) // 2], waiting[len(waiting) // 2 :]
        controller.tell([Outcome(suggestion, reward=reward_of(suggestion)) for suggestion in back])
    controller.tell([])
    assert controller.recommend() is not None


def test_outcomes_of_suggestions_it_never_made(make, space):
    controller = make()
    rng = np.random.default_rng(1)
    foreign = [Suggestion(space.sample_actions(rng), log_prob=-500.0 * (i % 2)) for i in range(ROUNDS)]
    controller.tell([Outcome(suggestion, reward=reward_of(suggestion)) for suggestion in foreign])
    drive(controller)
    best = max(foreign, key=reward_of)
    network = controller.recommend()
    assert network is not None
    assert reward_of(Suggestion(space.encode(network))) >= reward_of(best)


def test_a_saved_state_goes_on_bit_identically(make):
    controller = make()
    drive(controller, 27)
    controller.tell([Outcome(controller.ask()[0], failure="out of memory")])
    file = io.BytesIO()
    torch.save(controller.state_dict(), file)
    file.seek(0)
    restored = make(seed=99)
    drive(restored, 3)
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert drive(restored) == drive(controller)
    assert restored.recommend() == controller.recommend()
    assert restored.pop_diagnostics() == controller.pop_diagnostics()


def test_a_state_is_a_snapshot(make):
    controller = make()
    drive(controller)
    state = controller.state_dict()
    twin = make()
    twin.load_state_dict(state)
    expected = drive(twin)
    drive(controller)
    again = make()
    again.load_state_dict(state)
    assert drive(again) == expected


def test_replaying_a_journal_restores_the_controller(make):
    controller, replayed = make(), make()
    journal = [Outcome(suggestion, reward=reward_of(suggestion)) for suggestion in drive(controller)]
    for outcome in journal:
        assert replayed.ask() == [outcome.suggestion]
        replayed.tell([outcome])
    assert drive(replayed) == drive(controller)


@pytest.mark.parametrize("actions", [(0,) * 7, (0,) * 9, (0,) * 7 + (3,), (-1,) + (0,) * 7])
@pytest.mark.parametrize("result", [{"reward": 0.5}, {"failure": "killed"}])
def test_malformed_actions_are_refused_at_once_and_nothing_is_learned(make, actions, result):
    controller, untouched = make(), make()
    good, bad = Outcome(Suggestion((2,) * 8), reward=0.9), Outcome(Suggestion(actions), **result)
    with pytest.raises(SpaceError, match="action"):
        controller.tell([good, bad])
    assert controller.recommend() is None
    assert drive(controller) == drive(untouched)


def test_nothing_is_recommended_before_a_success(make):
    controller = make()
    assert controller.recommend() is None
    controller.tell([Outcome(suggestion, failure="diverged") for suggestion in controller.ask(ROUNDS)])
    assert controller.recommend() is None
    assert drive(controller)
    assert controller.recommend() is not None


def test_the_best_mean_is_recommended_and_not_the_luckiest_child(make, space):
    controller = make()
    steady, lucky = Suggestion((1,) * 8), Suggestion((2,) * 8)
    rewards = [(steady, 0.7), (steady, 0.7), (lucky, 0.9), (lucky, 0.3)]
    controller.tell([Outcome(suggestion, reward=reward) for suggestion, reward in rewards])
    network = controller.recommend()
    assert network is not None
    assert network.key() == space.decode(steady.actions).key()


def test_leaders_are_the_best_that_were_observed(make, space):
    controller = make()
    assert controller.leaders(3) == []
    drive(controller, 40)
    leaders = controller.leaders(5)
    keys = [network.key() for network in leaders]
    assert len(set(keys)) == 5
    assert controller.recommend().key() == keys[0]
    assert [network.key() for network in controller.leaders(2)] == keys[:2]
    observed = sorted((reward_of(Suggestion(actions)) for actions in controller.memory.top(40)), reverse=True)
    assert np.mean([reward_of(Suggestion(space.encode(network))) for network in leaders]) >= np.mean(observed[:10])


def test_the_scale_of_the_rewards_does_not_matter(make):
    def scaled(factor: float) -> list[Suggestion]:
        controller, asked = make(), []
        for _ in range(40):
            asked += controller.ask()
            controller.tell([Outcome(asked[-1], reward=factor * reward_of(asked[-1]))])
        return [suggestion.actions for suggestion in asked]

    assert scaled(1.0) == scaled(1024.0)


def test_conditional_spaces(make):
    space = load_space("mnasnet")
    controller = make(of=space)
    drive(controller, 25)
    assert space.contains(controller.recommend())


@pytest.mark.parametrize("name", ["reward", "accuracy", "cost"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_figures_that_are_not_finite_are_refused(name, value):
    with pytest.raises(InputError, match=name):
        Outcome(Suggestion((0,)), **({"reward": 0.5} | {name: value}))


@pytest.mark.parametrize("given", [{}, {"reward": 0.5, "failure": "killed"}])
def test_an_outcome_is_either_a_reward_or_a_failure(given):
    with pytest.raises(InputError, match="failure"):
        Outcome(Suggestion((0,)), **given)


def test_unknown_options_are_refused_by_name(make):
    with pytest.raises(InputError, match="temperatur"):
        make(temperatur=1.0)


@pytest.mark.parametrize("value", [1, 10**400, float("inf"), float("nan"), True, "8"])
def test_an_option_that_cant_be_is_refused_by_name(space, value):
    with pytest.raises(InputError, match=r"^batch_size: ") as error:
        controllers.make_options("ppo", {"batch_size": value})
    assert len(str(error.value)) < 100


def test_unknown_controllers_are_refused_with_the_list(space):
    with pytest.raises(InputError, match=r"genetic.*evolution, model_based, ppo, random, reinforce"):
        controllers.create("genetic", space, objective=max, cost=len, seed=0)


@pytest.mark.parametrize("seed", [-1, 0.5, True, None])
def test_seeds_are_checked(make, seed):
    with pytest.raises(InputError, match="seed"):
        make(seed=seed)
