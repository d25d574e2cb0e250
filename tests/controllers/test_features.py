"""Features of architectures: what they say of every kind of space, and that the costs are exact."""

from __future__ import annotations

import numpy as np
import pytest

from controllers.features import Features
from search_space import SearchSpace, SpaceError, library, load_space
from search_space.cost import total

OPEN = {
    "resolution": [32, 64],
    "num_classes": 10,
    "stem": {"out_chs": [8, 16]},
    "head": {"out_chs": [None, 32]},
    "stages": [
        {"op": "mbconv", "layers": [0, 1, 2], "out_chs": 8, "kernel_size": [3, 5], "exp_ratio": [1, 2.5]},
        {"op": "conv", "layers": 1, "out_chs": 16, "stride": 2},
        {"one_of": [{"op": "identity", "layers": 1, "out_chs": 16}, {"op": "conv", "layers": [1, 2], "out_chs": 16}]},
    ],
}


@pytest.fixture(params=[*library.names("space"), "open"])
def space(request):
    return SearchSpace(OPEN) if request.param == "open" else load_space(request.param)


def draw(space, count, seed=1):
    rng = np.random.default_rng(seed)
    return [space.sample_actions(rng) for _ in range(count)]


@pytest.mark.parametrize("one_hot", [True, False])
def test_rows_are_finite_standardised_and_the_same_in_any_order(space, one_hot):
    features, actions = Features(space, one_hot), draw(space, 300)
    x = features(actions)
    assert x.shape == (300, len(features.kinds))
    assert x.dtype == np.float64
    assert np.isfinite(x).all()
    assert np.abs(x.mean(0)).max() < 0.5
    np.testing.assert_array_equal(features(actions[::-1])[::-1], x)
    np.testing.assert_array_equal(Features(space, one_hot)(np.array(actions)), x)


def test_costs_are_exact(space):
    actions = draw(space, 50)
    costs = [total(space.decode(row)) for row in actions]
    np.testing.assert_array_equal(Features(space).costs(actions), [(cost.flops, cost.params) for cost in costs])
    np.testing.assert_array_equal(Features(space).with_costs(actions)[1], Features(space).costs(actions))
    np.testing.assert_array_equal(Features(space).with_costs(actions)[0], Features(space)(actions))


def test_a_changed_choice_changes_the_row(space):
    features = Features(space)
    for actions in draw(space, 5):
        active = space.active(actions)
        others = [
            (*actions[:i], j, *actions[i + 1 :])
            for i, decision in enumerate(space.decisions)
            for j in range(len(decision.choices))
            if j != actions[i] and active[i]
        ]
        key = space.decode(actions).key()
        different = [other for other in others if space.decode(other).key() != key]
        assert (np.abs(features(different) - features([actions])).max(1) > 1e-6).all()


@pytest.mark.parametrize("one_hot", [True, False])
def test_choices_without_effect_leave_the_row(space, one_hot):
    features = Features(space, one_hot)
    for actions in draw(space, 20):
        active = space.active(actions)
        rng = np.random.default_rng(0)
        other = [
            action if used else int(rng.integers(len(decision.choices)))
            for action, used, decision in zip(actions, active, space.decisions, strict=True)
        ]
        np.testing.assert_array_equal(features([other]), features([actions]))


def test_a_stage_without_layers_has_one_row_whatever_its_choices():
    space = SearchSpace(OPEN)
    layers = next(i for i, decision in enumerate(space.decisions) if decision.name == "stages[0].layers")
    rows = {tuple(actions) for actions in draw(space, 400)}
    without = [actions for actions in rows if actions[layers] == 0]
    x = Features(space)(without)
    assert len(np.unique(x, axis=0)) == len({space.decode(actions).key() for actions in without}) < len(without)


def test_columns_of_a_kind_are_alike_at_every_stage():
    space = load_space("accel-nasbench")
    features = Features(space)
    first = draw(space, 1)[0]
    changed = (*first[:-1], 1 - first[-1])  # the SE of the last stage, whose output stays

    def touched(a, b) -> set[int]:
        return set(features.kinds[np.flatnonzero((features([a]) != features([b]))[0])])

    earlier = (*first[:3], 1 - first[3], *first[4:])  # the SE of the first
    assert touched(first, changed) == touched(first, earlier)
    assert sorted(set(features.kinds)) == list(range(features.kinds.max() + 1))


def test_the_whole_networks_columns_tell_where_its_layers_are():
    space = load_space("accel-nasbench")
    features = Features(space, one_hot=False)
    se = [i for i, decision in enumerate(space.decisions) if decision.name.endswith("se_ratio")]

    def with_se(*stages):
        row = [0] * len(space.decisions)
        for stage in stages:
            row[se[stage]] = 1
        return features([row])[0]

    alone = [i for i in range(len(features.kinds)) if (features.kinds == features.kinds[i]).sum() == 1]
    early, outer, inner, none = (row[alone] for row in (with_se(0, 1), with_se(0, 6), with_se(1, 5), with_se()))
    share, moment = (np.flatnonzero(np.abs(a - b) > 1e-9) for a, b in ((none, outer), (outer, early)))
    assert len(set(share) - set(moment)) > 0  # the mean SE of the layers is that of both, their place is not
    same_place = np.flatnonzero(np.abs(outer - inner) > 1e-9)
    assert set(same_place) < set(share)  # FLOPs and params differ; mean and moment of the SE don't


@pytest.mark.parametrize(
    "change", [lambda a: a[:-1], lambda a: (*a, 0), lambda a: (*a[:-1], 9), lambda a: (-1, *a[1:])]
)
def test_actions_outside_the_space_are_refused(change):
    space = load_space("mbconv")
    features, actions = Features(space), draw(space, 1)[0]
    features([actions])
    with pytest.raises(SpaceError):
        features([change(actions)])


def test_no_rows():
    features = Features(load_space("nas-bench-macro"))
    assert features([]).shape == (0, len(features.kinds))
