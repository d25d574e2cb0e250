"""Regularised evolution: warm-up, mutation of decisions that count, aging, failures."""

from __future__ import annotations

import numpy as np
import pytest

import controllers
from controllers import Outcome, Suggestion
from search_space import InputError, SearchSpace, load_space


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return load_space("accel-nasbench")


def build(space: SearchSpace, kind: str = "evolution", seed: int = 0, **options):
    return controllers.create(
        kind, space, objective=lambda accuracy, cost: accuracy, cost=lambda network: 1.0, seed=seed, options=options
    )


def tell(controller, suggestions, reward: float | None = 0.5) -> None:
    failure = "diverged" if reward is None else None
    controller.tell([Outcome(suggestion, reward=reward, failure=failure) for suggestion in suggestions])


def test_children_differ_from_their_parent_in_one_decision(space):
    controller = build(space, population_size=4, sample_size=4)
    parents = controller.ask(4)
    tell(controller, parents[:3], 0.1)
    tell(controller, parents[3:], 0.9)
    for child in controller.ask(20):
        assert sum(one != other for one, other in zip(child.actions, parents[3].actions, strict=True)) == 1


def test_children_of_a_conditional_space_are_other_networks():
    space = load_space("mnasnet")
    controller = build(space, population_size=2, sample_size=2)
    tell(controller, controller.ask(2))
    parents = {space.decode(actions).key() for actions, _ in controller.state_dict()["population"]}
    for child in controller.ask(50):
        assert space.decode(child.actions).key() not in parents


def test_parents_are_chosen_by_the_objective_of_today(space):
    weight = [1.0]

    def objective(accuracy, cost):
        return accuracy - weight[0] * cost

    options = {"population_size": 2, "sample_size": 2}
    controller = controllers.create(
        "evolution", space, objective=objective, cost=lambda network: 1.0, seed=0, options=options
    )
    accurate, cheap = controller.ask(2)
    controller.tell(
        [Outcome(accurate, reward=-0.1, accuracy=0.9, cost=1), Outcome(cheap, reward=0.1, accuracy=0.1, cost=0)]
    )
    for weight[0], parent in ((1.0, cheap), (0.1, accurate)):
        (child,) = controller.ask()
        assert sum(one != other for one, other in zip(child.actions, parent.actions, strict=True)) == 1


def test_nothing_known_or_under_way_is_suggested_again(space):
    controller = build(space)
    keys = []
    for _ in range(20):
        suggestions = controller.ask(10)
        keys += [space.decode(suggestion.actions).key() for suggestion in suggestions]
        tell(controller, suggestions[:5])
    assert len(set(keys)) == len(keys)


def test_what_others_trained_is_not_suggested_again(space):
    """The best network and half of its mutants are known, the other half isn't."""
    controller, best = build(space, population_size=2, sample_size=2), (1,) * len(space.decisions)
    foreign = [Suggestion(actions) for actions in space.one_changed(best)[::2]]
    tell(controller, foreign, 0.1)
    tell(controller, [Suggestion(best)], 0.9)
    asked = {suggestion.actions for suggestion in controller.ask(12)}
    assert asked <= set(space.one_changed(best))
    assert asked.isdisjoint(suggestion.actions for suggestion in foreign)


def test_an_exhausted_space_is_suggested_again():
    stage = {"op": "conv", "layers": 1, "kernel_size": [3, 5], "stride": 1, "out_chs": [8, 16], "skip": "none"}
    head, stem = {"out_chs": 64}, {"out_chs": 16, "kernel_size": 3, "stride": 1}
    top = {"name": "tiny", "resolution": 32, "num_classes": 10, "activation": "relu"}
    small = SearchSpace(top | {"stem": stem, "stages": [stage], "head": head})
    controller = build(small, population_size=2, sample_size=1)
    for _ in range(10):
        tell(controller, controller.ask(2))
    assert small.size == 4
    assert len(controller.ask(20)) == 20


def test_the_oldest_dies_however_good_it_was(space):
    controller = build(space, population_size=3, sample_size=3)
    old, *young = controller.ask(4)
    tell(controller, [old], 0.9)
    tell(controller, young, 0.1)
    alive = [tuple(actions) for actions, _ in controller.state_dict()["population"]]
    assert alive == [suggestion.actions for suggestion in young]
    assert controller.recommend() == space.decode(old.actions)


def test_a_failure_is_no_parent_while_there_is_a_success(space):
    controller = build(space, population_size=4, sample_size=4)
    first = controller.ask(4)
    tell(controller, first[:3], None)
    tell(controller, first[3:], -7.0)
    for child in controller.ask(10):
        assert sum(one != other for one, other in zip(child.actions, first[3].actions, strict=True)) == 1


def test_it_beats_random_search(space):
    def best(kind: str, seed: int) -> float:
        controller, rewards = build(space, kind, seed), []
        for _ in range(150):
            (suggestion,) = controller.ask()
            rewards.append(sum(suggestion.actions) / 36)
            tell(controller, [suggestion], rewards[-1])
        return max(rewards)

    evolved, uniform = (np.array([best(kind, seed) for seed in range(5)]) for kind in ("evolution", "random"))
    sigma = float(np.sqrt((evolved.var(ddof=1) + uniform.var(ddof=1)) / 5))
    assert evolved.mean() - uniform.mean() > 4 * sigma


@pytest.mark.parametrize(("option", "value"), [("population_size", 1), ("sample_size", 0), ("sample_size", 2.5)])
def test_option_values_are_checked(option, value, space):
    with pytest.raises(InputError, match=option):
        build(space, **{option: value})
