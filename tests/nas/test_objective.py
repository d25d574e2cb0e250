"""The reward's formula, and the costs that it weighs."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.costs import cost_function
from nas.objective import BAND, AbsoluteObjective, AutoObjective, Objective, final_objective, make_objective
from nas.quantities import format_quantity, parse_quantity, told_apart
from nas.recipe import Recipe
from search_space import Architecture, InputError, StageSpec, StemSpec

T = 400e6
measured = st.lists(st.tuples(st.floats(0.01, 1), st.floats(1e5, 1e11)), min_size=2, max_size=20)


@pytest.mark.parametrize(
    ("accuracy", "flops", "fields", "reward"),
    [
        (0.77, T, {}, 0.77),
        (0.77, T, {"w_above": -1}, 0.77),
        (0.5, 2 * T, {}, 0.5 * 2**-0.07),
        (0.5, T / 2, {}, 0.5 * 2**0.07),
        (0.5, T / 100, {"w": 0, "w_above": -1}, 0.5),
        (0.5, 2 * T, {"w": 0, "w_above": -1}, 0.25),
        (0.5, 4 * T, {"w": -0.07, "w_above": -0.5}, 0.25),
        (0.5, T / 4, {"w": -0.5, "w_above": -1}, 1.0),
        (0, T / 4, {}, 0),
    ],
)
def test_known_points(accuracy, flops, fields, reward):
    assert Objective(T, **fields)(accuracy, flops) == pytest.approx(reward, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "target", "field"), [("soft", T, "name"), ("hard", 0, "target"), ("auto", -T, "target")]
)
def test_an_objective_that_there_is_not(name, target, field):
    with pytest.raises(InputError, match=rf"^objective\.{field}: "):
        make_objective(name, target)


@pytest.mark.parametrize(("field", "exponent"), [("w", 0.07), ("w", float("nan")), ("w_above", 0.1)])
def test_an_exponent_that_rewards_cost_is_refused(field, exponent):
    with pytest.raises(InputError, match=rf"^objective\.{field}: must be negative or 0"):
        make_objective("mnasnet", T, **{field: exponent})


@pytest.mark.parametrize(("flops", "reward"), [(T, 0.7), (2 * T, 0.6), (T / 2, 0.65)])
def test_tunas_absolute_reward(flops, reward):
    assert AbsoluteObjective(T, w=-0.1)(0.7, flops) == pytest.approx(reward, rel=1e-12)


def test_a_throughputs_share_counts_upside_down():
    objective = Objective(1000.0, more_is_better=True)
    assert objective(0.7, 2000.0) == pytest.approx(0.7 * 0.5**-0.07)
    assert objective(0.7, 500.0) < 0.7 < objective(0.7, 2000.0)


def test_a_recipe_of_a_throughput_rewards_more_of_it():
    recipe = Recipe.load("rehearse-b0", ("objective={cost: throughput_a100, target: 5000}",))
    objective = recipe.make_objective()
    assert objective(0.7, 2500.0) < objective(0.7, 5000.0) < objective(0.7, 10000.0)


@pytest.mark.parametrize("objective", [Objective(T, 0, -1), AbsoluteObjective(T), AutoObjective(T, 0.1, -2)])
def test_arrays_are_rewarded_element_by_element(objective):
    accuracy, flops = np.array([0.6, 0.7, 0.5]), np.array([1e8, 4e8, 9e8])
    each = [objective(*child) for child in zip(accuracy, flops, strict=True)]
    assert objective(accuracy, flops) == pytest.approx(each)


FRONT = [(0.60 + 0.03 * np.log(share), share * T) for share in np.geomspace(0.2, 2.0, 60)]
"""Accuracies that grow with the logarithm of the FLOPs, over a tenfold range of them."""


def handed_over(children: list[tuple[float, float]], objective: Objective) -> float:
    return max(children, key=lambda child: objective(*child))[1]


@pytest.mark.parametrize(("accuracy", "growth"), [(0.62, 0.5), (0.62, 0.9), (0.8, 1.3)])
def test_auto_meets_the_target_where_a_lucky_child_elsewhere_tempts(accuracy, growth):
    """The hard form hands over the one network that is far from T and more accurate than its like, `auto` doesn't."""
    handed, hard = partial(handed_over, [*FRONT, (accuracy, growth * T)]), AutoObjective(T, 0.0, -1.0)
    assert handed(hard) == growth * T
    assert BAND[0] <= handed(final_objective(hard, handed)) / T <= BAND[1]


def test_auto_chooses_the_most_accurate_that_meets_the_target_which_no_exponent_may_lead_to():
    children = [(0.9, 0.5 * T), (0.59, 0.96 * T), (0.585, 0.99 * T), (0.65, 1.3 * T)]
    final = final_objective(AutoObjective(T, 0.0, -1.0), partial(handed_over, children))
    assert handed_over(children, final) == 0.99 * T
    assert handed_over(children, final.at_target()) == 0.96 * T
    missing = [child for child in children if not final.meets_target(child[1])]
    assert handed_over(missing, final.at_target()) == handed_over(missing, final)


@pytest.mark.parametrize(("share", "meets"), [(0.949, False), (0.951, True), (1.009, True), (1.011, False)])
def test_auto_is_content_from_5_percent_below_t_to_1_percent_above(share, meets):
    assert AutoObjective(T).meets_target(share * T) == meets
    assert AutoObjective(T, more_is_better=True).meets_target(T / share) == meets


def test_the_choice_at_the_end_knows_that_more_of_a_throughput_is_better():
    final = AutoObjective(1000.0, 0.0, -1.0, more_is_better=True).at_target()
    assert handed_over([(0.6, 1040.0), (0.65, 900.0), (0.7, 960.0)], final) == 1040.0


def test_auto_stays_as_it_was_where_nothing_meets_the_target():
    objective = AutoObjective(T, 0.1, -1.0)
    assert final_objective(objective, lambda _: 0.5 * T) == objective
    assert final_objective(objective, lambda _: None) == objective


def test_auto_steers_from_both_sides_and_returns_when_t_is_met():
    low = AutoObjective(T, 0.0, -1.0).adapted(0.8 * T)
    high = AutoObjective(T, 0.0, -1.0).adapted(1.1 * T)
    assert (low.w > 0, low.w_above) == (True, -1)
    assert (high.w, high.w_above < -1) == (0, True)
    met = low.adapted(0.99 * T)
    assert low.w > met.w >= 0
    assert AutoObjective(T, 0.0, -1.0).adapted(0.99 * T) == AutoObjective(T, 0.0, -1.0)


@pytest.mark.parametrize("cost", [0.5 * T, 8 * T])
def test_auto_keeps_every_reward_apart_however_long_t_is_missed(cost):
    objective = AutoObjective(T, 0.0, -1.0)
    for _ in range(1000):
        objective = objective.adapted(cost)
    assert 0 < objective(0.9, 10 * T) < objective(0.9, 5 * T) < objective(0.9, 1.2 * T) < objective(0.9, T)


def test_only_auto_adapts():
    for objective in (Objective(T), Objective(T, 0, -1), AbsoluteObjective(T)):
        assert objective.adapted(2 * T) is objective
        assert final_objective(objective, lambda _: 2 * T) is objective
        assert not objective.adapts
    assert AutoObjective(T).adapts


def test_doubling_the_flops_costs_4_7_percent():
    objective = Objective(T)
    assert objective(0.7, 6e8) / objective(0.7, 3e8) == pytest.approx(1 - 0.047, abs=5e-4)


def ranking(objective: Objective, children: list[tuple[float, float]]) -> list[float]:
    rewards = [objective(*child) for child in children]
    return [reward / rewards[0] for reward in rewards]


@given(measured, st.floats(1e6, 1e10))
def test_the_target_cancels_with_one_exponent(children, target):
    assert ranking(Objective(target), children) == pytest.approx(ranking(Objective(T), children), rel=1e-9)


def test_the_target_counts_with_two_exponents():
    small, large = (0.70, 2e8), (0.75, 5e8)
    for target, better in ((2e8, small), (5e8, large)):
        objective = Objective(target, w=0, w_above=-1)
        assert max(small, large, key=lambda child, objective=objective: objective(*child)) == better


@given(st.floats(0.01, 1), st.floats(0.01, 1), st.floats(1e5, 1e11), st.floats(1e5, 1e11))
def test_more_accuracy_or_less_cost_is_never_worse(a, b, c, d):
    for objective in (Objective(T), Objective(T, 0, -1)):
        assert objective(max(a, b), min(c, d)) >= objective(min(a, b), max(c, d))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("400M", 4e8), ("400m", 4e8), ("400 M", 4e8), (" 1.8G ", 1.8e9), ("2B", 2e9), ("5K", 5e3), ("4e8", 4e8),
        ("400000000", 4e8), ("0.5", 0.5),
    ],
)  # fmt: skip
def test_parse_quantity(text, value):
    assert parse_quantity(text) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize("text", ["", "M", "400 M flops", "4OOM", "400MB", "four"])
def test_parse_quantity_refuses_the_rest(text):
    with pytest.raises(ValueError, match="must be a number such as 400M"):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [(385814752, "385.8M"), (5288548, "5.289M"), (1.8e9, "1.8G"), (12345, "12.35K"), (999, "999"), (0, "0")],
)
def test_format_quantity(value, text):
    assert format_quantity(value) == text


@pytest.mark.parametrize(
    ("value", "end", "texts"),
    [(51.59e6, 51594768, ["51.59M", "51.595M"]), (4e8, 51594768, ["400M", "51.59M"]), (7, 7, ["7", "7"])],
)
def test_a_quantity_is_told_apart_from_another(value, end, texts):
    assert told_apart(value, end) == texts


@given(st.floats(1, 9e14))
def test_formatted_quantities_are_read_back(value):
    assert parse_quantity(format_quantity(value)) == pytest.approx(value, rel=1e-3)


def test_latency_is_measured_once_per_network():
    tiny = Architecture(32, 10, StemSpec(8), (StageSpec("conv", 1, 8),))
    large = Architecture(96, 10, StemSpec(64, stride=1), (StageSpec("conv", 4, 64),))
    latency = cost_function("latency")
    assert 0 < latency(tiny) < latency(large) < 60_000
    assert latency(tiny) == latency(tiny.with_(name="child-2"))
