"""The benchmark evaluators: files of both formats, tables, surrogates, the shipped one, and every kind of bad file."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import re
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from controllers.features import Features
from nas.benchmark_file import REHEARSAL, BenchmarkError, check_space, difference, format_of, read
from nas.evaluators.benchmark import BenchmarkEvaluator
from nas.evaluators.optimum import optimum
from nas.evaluators.surrogate import Surrogate
from nas.objective import Objective
from nas.quantities import parse_quantity
from nas.recipe import Recipe
from search_space import SearchSpace, SpaceError, cost, load_architecture, load_space

ACCEL, MACRO = "accel-nasbench", "nas-bench-macro"
MAX_BYTES = 500_000


def report(epoch, accuracy):
    pass


def draw(space, count, seed=0):
    rng = np.random.default_rng(seed)
    return [space.sample_actions(rng) for _ in range(count)]


def accel_row(space, actions, top1, **others):
    """A row of Accel-NASBench's format."""
    architecture = space.decode(actions)
    stages = architecture.stages
    return {
        "e": [stage.exp_ratio for stage in stages],
        "k": [stage.kernel_size for stage in stages],
        "l": [stage.layers for stage in stages],
        "se": [int(stage.se_ratio > 0) for stage in stages],
        "top1": top1,
        "macs": cost.flops(architecture),
        "params": cost.params(architecture),
        **others,
    }


def macro_row(space, actions, acc):
    """A row of NAS-Bench-Macro's format."""
    architecture = space.decode(actions)
    costs = {"params": cost.params(architecture), "flops": cost.flops(architecture)}
    return {"arch": "".join(map(str, actions)), "acc": acc, "mean": round(float(np.mean(acc)), 4), **costs}


def made_up(space, actions):
    """An accuracy in % that a model can learn, and a throughput."""
    layers = sum(stage.layers for stage in space.decode(actions).stages)
    flops = cost.flops(space.decode(actions)) / 1e6
    return 40 + 3 * np.log(flops) + 0.2 * layers, 5e5 / flops


@pytest.fixture
def write(tmp_path):
    """Writes rows or text to a file and gives its name."""

    def make(content, name="bench.jsonl"):
        path = tmp_path / name
        text = content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content)
        with gzip.open(path, "wt") if name.endswith(".gz") else path.open("w") as file:
            file.write(text)
        return str(path)

    return make


@pytest.fixture(scope="module")
def accel():
    return load_space(ACCEL)


@pytest.fixture(scope="module")
def macro():
    return load_space(MACRO)


FOUR = [(0, 0), (0, 1), (1, 0), (1, 1)]


@pytest.fixture(scope="module")
def small():
    """A space of the networks `FOUR`."""
    values = load_space(ACCEL).to_dict()
    first = {"layers": 1, "kernel_size": 3, "exp_ratio": 1, "se_ratio": 0}
    stages = [stage | first for stage in values["stages"]]
    stages[0] |= {"kernel_size": [3, 5], "layers": [1, 2]}
    return SearchSpace(values | {"stages": stages})


@pytest.fixture(scope="module")
def accel_rows(accel):
    """250 made-up rows with a throughput, the last of which wasn't measured."""
    rows = []
    for actions in draw(accel, 250):
        top1, throughput = made_up(accel, actions)
        rows.append(accel_row(accel, actions, top1, throughput_a100=throughput))
    rows[-1]["throughput_a100"] = None
    return rows


@pytest.fixture(scope="module")
def complete(macro):
    """Made-up rows of every network."""
    rng = np.random.default_rng(0)
    every = np.stack(np.meshgrid(*[range(3)] * 8, indexing="ij"), -1).reshape(-1, 8).tolist()
    return [macro_row(macro, row, (60 + 2 * sum(row) + rng.normal(0, 0.2, 3)).tolist()) for row in every]


@pytest.fixture(scope="module")
def table(macro, complete, tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "bench.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in complete))
    return BenchmarkEvaluator.load(str(path), macro)


@pytest.fixture(scope="module")
def evaluator(accel, accel_rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("surrogate") / "bench.jsonl"
    again = accel_rows[4] | {"top1": accel_rows[4]["top1"] + 0.5}  # the only one, which doesn't tell the noise
    path.write_text("".join(json.dumps(row) + "\n" for row in (*accel_rows, again)))
    return BenchmarkEvaluator.load(str(path), accel)


@pytest.fixture(scope="module")
def rehearsal(accel):
    return BenchmarkEvaluator.load(REHEARSAL, accel)


class TestTable:
    def test_a_query_returns_one_of_the_trained_seeds_chosen_by_the_seed(self, table, macro, complete):
        row = complete[4321]
        architecture = macro.decode([int(digit) for digit in row["arch"]])
        seen = [table.evaluate(architecture, seed, report).accuracy for seed in range(30)]
        assert {round(100 * accuracy, 9) for accuracy in seen} == {round(accuracy, 9) for accuracy in row["acc"]}
        assert seen == [table.evaluate(architecture, seed, report).accuracy for seed in range(30)]
        assert table.accuracy(architecture) == pytest.approx(np.mean(row["acc"]) / 100)

    def test_it_knows_its_noise_and_no_tau(self, table):
        rng = np.random.default_rng(0)
        actions = [table.space.sample_actions(rng) for _ in range(5000)]
        assert table.noise == pytest.approx(
            100 * np.std(table.observe(actions, rng) - table.accuracies(actions)), rel=0.05
        )
        assert table.tau is None

    def test_noise_that_is_asked_for_is_gaussian(self, macro, complete, write):
        table = BenchmarkEvaluator.load(write(complete), macro, noise=1.0)
        rng = np.random.default_rng(0)
        observed = 100 * table.observe([(1,) * 8] * 500, rng)
        assert np.std(observed) == pytest.approx(1, rel=0.15)
        assert np.mean(observed) == pytest.approx(100 * table.accuracies([(1,) * 8])[0], abs=0.2)

    def test_the_best_reward_is_the_best_of_all(self, table, macro, complete):
        objective = Objective(target=40e6)
        actions, reward = table.best_reward(objective, cost.flops)
        rewards = [objective(np.mean(row["acc"]) / 100, row["flops"]) for row in complete]
        assert reward == pytest.approx(max(rewards))
        best = macro.decode(actions)
        assert reward == pytest.approx(objective(table.accuracy(best), cost.flops(best)))

    def test_the_local_search_finds_the_best_of_a_table(self, table, macro):
        objective = Objective(target=40e6)

        def reward(actions):
            return objective(table.accuracies(actions), table.costs(cost.flops, actions))

        assert optimum(macro, reward)[1] == pytest.approx(table.best_reward(objective, cost.flops)[1])

    def test_a_part_of_the_rows_is_learned_from(self, macro, complete, write):
        order = np.random.default_rng(0).permutation(len(complete))
        part = BenchmarkEvaluator.load(write([complete[i] for i in order[:300]], "bench.jsonl.gz"), macro)
        others = [complete[i] for i in order[300:600]]
        predicted = part.accuracies([tuple(map(int, row["arch"])) for row in others])
        assert part.tau > 0.7  # a third of the networks tie but for their noise
        assert np.corrcoef(predicted, [np.mean(row["acc"]) for row in others])[0, 1] > 0.98

    def test_a_part_s_own_noise_is_that_of_its_trainings(self, macro, complete, write):
        part = complete[::20]
        evaluator = BenchmarkEvaluator.load(write(part), macro)
        assert evaluator.noise == pytest.approx(
            np.sqrt(np.mean([np.var(row["acc"], ddof=1) for row in part])), abs=1e-3
        )
        observed = evaluator.observe([(1,) * 8] * 400, np.random.default_rng(0))
        assert 100 * np.std(observed) == pytest.approx(evaluator.noise, rel=0.15)
        assert BenchmarkEvaluator.load(write(part), macro, noise=1.0).noise == 1.0

    def test_a_device_metric_is_looked_up_too(self, small, write):
        times = [3.0, 7.5, 1.0, 9.25]
        rows = [accel_row(small, row, 50.0, latency_phone=time) for row, time in zip(FOUR, times, strict=True)]
        metric = BenchmarkEvaluator.load(write(rows), small).cost_function("latency_phone")
        assert [metric(small.decode(row)) for row in FOUR] == pytest.approx(times)

    def test_the_largest_figure_of_a_device_is_reached(self, small, write):
        times = [2.67, 35.32, 3.0, 9.25]  # the logarithm's exponential is less than 35.32
        rows = [accel_row(small, row, 50.0, latency_phone=time) for row, time in zip(FOUR, times, strict=True)]
        table = BenchmarkEvaluator.load(write(rows), small)
        table._check_target("latency_phone", 35.32)
        for beyond in (2.66, 35.33):
            with pytest.raises(BenchmarkError, match=r"reaches: 2\.67 to 35\.32 latency_phone"):
                table._check_target("latency_phone", beyond)

    def test_noise_of_minus_nothing_is_none(self, macro, complete, write):
        table = BenchmarkEvaluator.load(write(complete), macro, noise=-0.0)
        assert table.observe([(1,) * 8], np.random.default_rng(0)) == table.accuracies([(1,) * 8])

    def test_the_real_one(self, shared, rows, macro):
        table = BenchmarkEvaluator.load(str(shared / "data" / "nas_bench_macro.jsonl.gz"), macro)
        assert table.tau is None
        assert table.noise == pytest.approx(0.2, abs=0.03)
        real = rows("nas_bench_macro")
        best = max(row["mean"] for row in real)
        assert table.accuracy(macro.decode([2, 2, 2, 1, 2, 2, 2, 0])) == pytest.approx(best / 100, abs=1e-5)
        _, reward = table.best_reward(Objective(target=40e6), cost.flops)
        assert reward == pytest.approx(
            max(row["mean"] / 100 * (row["flops"] / 40e6) ** -0.07 for row in real), abs=1e-6
        )


class TestSurrogate:
    def test_the_number_of_cores_changes_no_accuracy(self, accel, accel_rows, write):
        path, before, seen = write(accel_rows), torch.get_num_threads(), []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            seen.append(BenchmarkEvaluator.load(path, accel).accuracies(draw(accel, 500, seed=1)).tolist())
        torch.set_num_threads(before)
        assert seen[0] == seen[1]

    def test_it_predicts_unseen_networks(self, evaluator, accel):
        unseen = draw(accel, 200, seed=1)
        truth = [made_up(accel, actions)[0] for actions in unseen]
        assert evaluator.tau > 0.9
        assert kendalltau(evaluator.accuracies(unseen), truth).statistic > 0.9

    def test_one_and_many_queries_agree(self, evaluator, accel):
        actions = draw(accel, 40, seed=2)
        one = [evaluator.accuracy(accel.decode(row)) for row in actions]
        np.testing.assert_allclose(evaluator.accuracies(actions), one, rtol=1e-9)
        np.testing.assert_allclose(evaluator.accuracies(np.array(actions)), one, rtol=1e-9)

    def test_observations_have_the_noise_and_are_the_seed_s(self, evaluator, accel):
        architecture = accel.decode(draw(accel, 1)[0])
        first = [evaluator.evaluate(architecture, seed, report) for seed in range(400)]
        again = [evaluator.evaluate(architecture, seed, report) for seed in range(400)]
        assert first == again
        observed = [100 * measured.accuracy for measured in first]
        assert evaluator.noise == 0.3
        assert np.std(observed) == pytest.approx(0.3, rel=0.2)
        assert np.mean(observed) == pytest.approx(100 * evaluator.accuracy(architecture), abs=0.06)

    def test_an_observation_is_an_accuracy_however_noisy(self, accel, accel_rows, write):
        evaluator = BenchmarkEvaluator.load(write(accel_rows), accel, noise=80)
        rng = np.random.default_rng(0)
        observed = evaluator.observe(draw(accel, 1) * 50, rng)
        assert min(observed) == 0
        assert max(observed) == 1

    def test_choices_that_no_row_has_are_named(self, evaluator, accel, accel_rows, write):
        rows = [row for row in accel_rows if not row["se"][3]]
        more = [accel_row(accel, actions, made_up(accel, actions)[0]) for actions in draw(accel, 200, seed=1)]
        rows = [row | {"throughput_a100": None} for row in (*rows, *more) if not row["se"][3]]
        part = BenchmarkEvaluator.load(write(rows), accel)
        assert str(part).endswith("; no network has stages[3].se_ratio 0.25, whose effect is extrapolated")
        assert "extrapolated" not in str(evaluator)

    def test_of_very_many_rows_it_learns_from_some(self, accel, accel_rows, write, monkeypatch):
        monkeypatch.setattr("nas.evaluators.surrogate._MOST_ROWS", 220)
        assert "fitted to 220 of 250 networks" in str(BenchmarkEvaluator.load(write(accel_rows), accel))

    def test_of_very_many_rows_in_order_the_last_is_learned_from_too(self, macro, monkeypatch):
        monkeypatch.setattr("nas.evaluators.surrogate._MOST_ROWS", 60)
        known = {actions: float(sum(actions)) for actions in sorted(draw(macro, 250))}
        features = Features(macro)
        mean = Surrogate.fitted(features, known, "made up").mean
        ends = features([min(known), max(known)]) * mean.inverse_lengths.numpy()
        assert len(mean.centres) == 60
        np.testing.assert_allclose(mean.centres[[0, -1]].numpy(), ends)

    def test_a_device_metric_is_a_cost(self, evaluator, accel):
        assert evaluator.metrics == ("throughput_a100",)
        metric = evaluator.cost_function("throughput_a100")
        unseen = draw(accel, 100, seed=3)
        truth = [made_up(accel, actions)[1] for actions in unseen]
        np.testing.assert_allclose([metric(accel.decode(actions)) for actions in unseen], truth, rtol=0.1)
        np.testing.assert_allclose(evaluator.costs(metric, unseen), truth, rtol=0.1)
        assert re.search(r"; throughput_a100 is predicted too, Kendall's tau [01]\.\d\d$", str(evaluator))

    def test_exact_costs_go_by_their_names(self, evaluator):
        assert evaluator.cost_function("flops") is cost.flops
        assert evaluator.cost_function("params") is cost.params

    def test_a_metric_that_was_not_measured(self, evaluator):
        with pytest.raises(BenchmarkError, match=r"objective\.cost: latency_phone .* it has throughput_a100"):
            evaluator.cost_function("latency_phone")

    def test_any_cost_of_many_networks(self, evaluator, accel):
        actions = draw(accel, 20)
        flops = evaluator.costs(cost.flops, actions)
        np.testing.assert_array_equal(evaluator.costs(partial(cost.flops), actions), flops)
        params = [cost.params(accel.decode(row)) for row in actions]
        np.testing.assert_array_equal(evaluator.costs(cost.params, actions), params)

    def test_nothing_near_the_best_reward_is_better(self, evaluator, accel):
        objective = Objective(target=400e6)
        actions, reward = evaluator.best_reward(objective, cost.flops)
        assert evaluator.best_reward(objective, cost.flops) == (actions, reward)
        near = accel.one_changed(actions)
        for some in (near, draw(accel, 2000, seed=9)):
            assert (objective(evaluator.accuracies(some), evaluator.costs(cost.flops, some)) <= reward).all()

    def test_the_local_search_comes_near_the_best_below_a_hard_limit(self, accel):
        """Knapsacks whose best is known by dynamic programming; a single round of climbs falls short by 0.12."""
        sizes = [len(decision.choices) for decision in accel.decisions]
        gaps = []
        for seed in range(10):
            rng = np.random.default_rng(seed)
            costs = [rng.integers(10, 60, size) for size in sizes]
            gains = [column / 20 + 0.5 * rng.random(len(column)) for column in costs]
            limit = int(sum(0.6 * column.min() + 0.4 * column.max() for column in costs))
            best = np.where(np.arange(limit + 1) == 0, 0.0, -np.inf)
            for column, gain in zip(costs, gains, strict=True):
                shifted = [np.append(np.full(by, -np.inf), best)[: limit + 1] for by in column]
                best = np.max(np.array(shifted) + gain[:, None], axis=0)

            def score(rows, costs=costs, gains=gains, limit=limit):
                cost = sum(column[rows[:, i]] for i, column in enumerate(costs))
                gain = sum(column[rows[:, i]] for i, column in enumerate(gains))
                return np.where(cost > limit, limit - cost, gain)

            gaps.append(best.max() - optimum(accel, score)[1])
        assert min(gaps) > -1e-9
        assert np.mean(gaps) < 0.06

    def test_a_target_that_no_network_has_on_a_device_is_refused_with_the_range(self, accel, accel_rows, write):
        settings = ["objective.cost=throughput_a100", f"benchmark.source={write(accel_rows)}"]

        def at(target):
            return BenchmarkEvaluator.of(Recipe.load("rehearse-b0", [*settings, f"objective.target={target}"]))

        message = r"objective\.target: 1 is outside what accel-nasbench reaches: (\S+) to (\S+) throughput_a100"
        with pytest.raises(BenchmarkError, match=message) as caught:
            at("1")
        low, high = (parse_quantity(text) for text in re.search(message, str(caught.value)).groups())
        reached = at((low * high) ** 0.5).cost_function("throughput_a100").values(draw(accel, 500))
        assert 0.999 * low <= reached.min() < reached.max() <= 1.001 * high

    def test_it_travels_to_workers(self, evaluator, accel):
        architecture = accel.decode(draw(accel, 1)[0])
        packed = pickle.dumps(evaluator)
        assert len(packed) < 20e6
        there = pickle.loads(packed)
        assert there.evaluate(architecture, 5, report) == evaluator.evaluate(architecture, 5, report)
        metric = there.cost_function("throughput_a100")
        assert metric(architecture) == evaluator.cost_function("throughput_a100")(architecture)

    def test_a_network_outside_the_space(self, evaluator):
        with pytest.raises(SpaceError):
            evaluator.evaluate(load_architecture("resnet-50"), 0, report)

    def test_the_real_file_on_unseen_networks(self, rows, accel, write):
        real = rows("accel_nasbench")
        order = np.random.default_rng(3).permutation(len(real))
        cut = len(real) * 4 // 5
        evaluator = BenchmarkEvaluator.load(write([real[i] for i in order[:cut]]), accel)
        unseen = read(write([real[i] for i in order[cut:]]), accel)
        truth = [np.mean(network.accuracies) for network in unseen.values()]
        assert evaluator.tau >= 0.92
        assert kendalltau(evaluator.accuracies(list(unseen)), truth).statistic >= 0.92


class TestRehearsal:
    def test_it_is_small_and_holds_plain_arrays(self):
        from nas.evaluators import benchmark

        path = benchmark._FILE
        assert path.stat().st_size <= MAX_BYTES
        with np.load(path, allow_pickle=False) as file:
            assert {file[name].dtype.kind for name in file.files} <= set("fuiU")

    def test_it_is_good_on_real_networks(self, rehearsal, rows, shared, accel):
        real = read(str(shared / "data" / "accel_nasbench.jsonl.gz"), accel)
        truth = [np.mean(network.accuracies) for network in real.values()]
        assert rehearsal.tau >= 0.9
        assert kendalltau(rehearsal.accuracies(list(real)), truth).statistic >= 0.92
        for name in rehearsal.metrics:
            measured = {actions: network.metrics[name] for actions, network in real.items() if name in network.metrics}
            predicted = rehearsal.costs(rehearsal.cost_function(name), list(measured))
            assert np.median(np.abs(predicted / np.array(list(measured.values())) - 1)) < 0.05, name

    def test_it_holds_no_row_of_the_benchmark(self, shared, accel):
        from nas.evaluators import benchmark

        real = read(str(shared / "data" / "accel_nasbench.jsonl.gz"), accel)
        with np.load(benchmark._FILE, allow_pickle=False) as file:
            assert not set(map(tuple, file["centres"].tolist())) & set(real)

    def test_the_recipe_s_evaluator(self, accel):
        recipe = Recipe.load("rehearse-b0")
        evaluator = BenchmarkEvaluator.of(recipe)
        b0 = recipe.load_baseline()
        assert evaluator.noise == 0.3
        assert evaluator.accuracy(b0) == pytest.approx(0.656, abs=0.01)
        _, best = evaluator.best_reward(recipe.make_objective(), cost.flops)
        assert best > recipe.make_objective()(evaluator.accuracy(b0), cost.flops(b0)) + 0.01

    def test_devices_without_a_file(self, rehearsal):
        assert "throughput_a100" in rehearsal.metrics
        b0 = load_architecture("efficientnet-b0")
        assert 1000 < rehearsal.cost_function("throughput_a100")(b0) < 20000

    def test_it_travels_to_workers(self, rehearsal, accel):
        architecture = accel.decode(draw(accel, 1)[0])
        there = pickle.loads(pickle.dumps(rehearsal))
        assert there.evaluate(architecture, 5, report) == rehearsal.evaluate(architecture, 5, report)

    @pytest.mark.parametrize(("space", "field"), [("mbconv", "stages"), (MACRO, "resolution")])
    def test_it_knows_one_space(self, space, field):
        with pytest.raises(BenchmarkError, match=f"only the space accel-nasbench, .* {space} differs in `{field}`"):
            BenchmarkEvaluator.load(REHEARSAL, load_space(space))

    def test_what_a_space_has_more_is_a_difference(self):
        assert difference(load_space(MACRO).with_(drop_path=0.1), MACRO) == "drop_path"
        assert difference(load_space(MACRO).with_(drop_path=0.0, name="mine"), MACRO) is None


class TestBadFiles:
    def refused(self, path, space, pattern):
        with pytest.raises(BenchmarkError, match=pattern) as caught:
            BenchmarkEvaluator.load(path, space)
        assert "\n" not in str(caught.value)
        assert path in str(caught.value)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"top1": None}, "line 3: top1: must be a finite number, not None"),
            ({"top1": float("nan")}, "line 3: top1: must be a finite number, not nan"),
            ({"top1": "61.0"}, "line 3: top1: must be a finite number, not '61.0'"),
            ({"top1": True}, "line 3: top1: must be a finite number, not True"),
            ({"top1": 101.0}, "line 3: top1: must be from 0 to 100, not 101.0"),
            ({"top1": -1}, "line 3: top1: must be from 0 to 100, not -1"),
            ({"e": [1, 4, 6]}, "line 3: e: must be a list of 7 numbers"),
            ({"k": 3}, "line 3: k: must be a list of 7 numbers"),
            ({"k": [3, 3, 3, 3, 3, 3, 7]}, r"line 3: k: 7 in stage 7 is not one of \[3, 5\]"),
            ({"se": [0, 0, 0, 2, 0, 0, 0]}, r"line 3: se: 2 in stage 4 is not one of \[0, 1\]"),
            ({"l": [1, 1, 1, 1, 1, 1, [1]]}, r"line 3: l: \[1\] in stage 7"),
            ({"macs": 1}, "line 3: macs: 1, but this network of the space accel-nasbench has "),
            ({"params": 1}, "line 3: params: 1, but this network of the space accel-nasbench has "),
            ({"params": float("inf")}, "line 3: params: must be a finite number, not inf"),
            ({"throughput_a100": 0}, "line 3: throughput_a100: must be positive, not 0"),
            ({"top1": int("9" * 400)}, "line 3: top1: must be a finite number, not 9999"),
            ({"throughput_a100": float("nan")}, "line 3: throughput_a100: must be a finite number"),
        ],
    )
    def test_a_wrong_value(self, accel, accel_rows, write, changes, message):
        rows = [*accel_rows[:2], accel_rows[2] | changes, *accel_rows[3:]]
        self.refused(write(rows), accel, message)

    @pytest.mark.parametrize("field", ["e", "top1", "macs", "params", "throughput_a100"])
    def test_a_missing_field(self, accel, accel_rows, write, field):
        rows = [dict(row) for row in accel_rows]
        del rows[2][field]
        hint = "; write null where it wasn't measured" if field == "throughput_a100" else "$"
        self.refused(write(rows), accel, f"line 3: {field}: missing{hint}")

    def test_a_missing_field_of_the_first_row_is_told_where_only_that_is_read(self, accel, accel_rows, write):
        row = {name: value for name, value in accel_rows[0].items() if name != "e"}
        with pytest.raises(BenchmarkError, match=r"bench\.jsonl, line 1: e: missing$"):
            check_space(write([row]), accel)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"arch": "0123"}, "line 2: arch: must be 8 digits from 0 to 2, not '0123'"),
            ({"arch": "00000003"}, "line 2: arch: must be 8 digits"),
            ({"arch": 11111111}, "line 2: arch: must be 8 digits"),
            ({"acc": [60.0, 61.0]}, "line 2: acc: must be three accuracies"),
            ({"acc": [60.0, 61.0, float("nan")]}, "line 2: acc: must be a finite number, not nan"),
            ({"flops": 5}, "line 2: flops: 5, but"),
            ({"mean": None}, "line 2: mean: must be a finite number"),
        ],
    )
    def test_a_wrong_value_of_the_other_format(self, macro, complete, write, changes, message):
        self.refused(write([complete[0], complete[1] | changes]), macro, message)

    def test_a_row_that_is_there_twice(self, accel, accel_rows, macro, complete, write):
        self.refused(write([*accel_rows, accel_rows[4]]), accel, "line 251: e: the same network as in line 5")
        device = [row | {"latency_x": float(number)} for number, row in enumerate([*accel_rows, accel_rows[4]], 1)]
        assert len(read(write(device), accel)) == len(accel_rows)  # as accurate by chance
        broken = accel_rows[4] | {"top1": 10.0}
        told = f"line 251: accuracy: one network has 10% and {accel_rows[4]['top1']:g}% here and in line 5; leave out"
        self.refused(write([*accel_rows, broken]), accel, told)
        apart = [complete[0] | {"acc": [95.0, 10.0, 94.0]}, *complete[1:]]
        self.refused(write(apart), macro, "line 1: accuracy: one network has 10% and 95%; leave out")
        again = complete[7] | {"acc": [1.0, 2.0, 3.0]}
        self.refused(write([*complete[:10], again]), macro, "line 11: arch: the same network as in line 8")

    def test_another_training_of_a_network_is_no_duplicate(self, accel, accel_rows, write):
        again = accel_rows[4] | {"top1": accel_rows[4]["top1"] + 0.5}
        networks = list(read(write([*accel_rows, again]), accel).values())
        assert len(networks) == len(accel_rows)
        assert len(networks[4].accuracies) == 2

    def test_of_all_that_rows_of_a_network_tell_of_a_metric_the_mean_counts(self, accel, accel_rows, write):
        assert accel_rows[-1]["throughput_a100"] is None
        told = [accel_rows[-1] | {"throughput_a100": measured} for measured in (5000.0, 6000.0)]
        networks = list(read(write([*accel_rows, *told]), accel).values())
        assert networks[-1].metrics == {"throughput_a100": 5500.0}

    def test_the_space_of_another_file(self, accel, accel_rows, macro, complete, write):
        self.refused(write(accel_rows), macro, "line 1: e: outside the space nas-bench-macro: ")
        self.refused(write(complete), accel, "line 1: arch: outside the space accel-nasbench: ")
        self.refused(write(accel_rows), load_space("mbconv"), "line 1: e: outside the space mbconv: ")
        self.refused(write(accel_rows), accel.with_(resolution=160), "line 1: e: outside the space accel-nasbench: ")

    def test_a_space_with_choices_that_no_row_has(self, accel, accel_rows, write):
        values = accel.to_dict()
        wide = [stage | {"kernel_size": [3, 5, 7]} for stage in values["stages"]]
        message = r"no row has stages\[0\]\.kernel_size 7 \(and 6 more choices\), which the space accel-nasbench offers"
        self.refused(write(accel_rows), SearchSpace(values | {"stages": wide}), message)

    def test_too_few_rows(self, accel, accel_rows, write):
        self.refused(write(accel_rows[:49]), accel, "49 networks, too few to learn from; 50 at least")

    def test_accuracies_that_the_networks_do_not_tell(self, accel, accel_rows, write):
        tops = np.random.default_rng(0).permutation([row["top1"] for row in accel_rows])
        rows = [row | {"top1": top} for row, top in zip(accel_rows, tops, strict=True)]
        self.refused(write(rows), accel, "can't be predicted from the networks .* are the rows mixed up")
        rows = [row | {"top1": 70.0} for row in accel_rows]
        self.refused(write(rows), accel, f"all {len(rows)} networks have the same value$")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "holds no row"),
            ("\n\n", "holds no row"),
            ("epoch,accuracy\n1,0.5\n", "line 1: not JSON: 'epoch,accuracy'"),
            ("[1, 2]\n", "line 1: must be a JSON object"),
            ('{"name": "x", "accuracy": 1}\n', "line 1: an unknown format: the fields are neither accel-nasbench's"),
            ("{" * 100_000, "line 1: not JSON"),
        ],
    )
    def test_another_kind_of_file(self, accel, write, content, message):
        self.refused(write(content), accel, message)
        self.refused(write(content, "bench.jsonl.gz"), accel, message)

    def test_a_field_twice_or_a_number_that_is_none(self, accel, accel_rows, write):
        first, second = (json.dumps(row) for row in accel_rows[:2])
        twice = second.replace("{", '{"top1": 61.0, ', 1)
        self.refused(write(f"{first}\n{twice}\n"), accel, "line 2: top1: is there twice$")
        unused = [accel_rows[0], accel_rows[1] | {"train_time": float("nan")}]
        self.refused(write(unused), accel, "line 2: train_time: must be a finite number, not nan$")

    def test_files_that_can_not_be_read(self, accel, accel_rows, write, tmp_path):
        self.refused(str(tmp_path / "nowhere.jsonl"), accel, "can't be read: No such file or directory")
        self.refused(str(tmp_path), accel, "can't be read: Is a directory")
        os.mkfifo(tmp_path / "pipe")
        self.refused(str(tmp_path / "pipe"), accel, "is a pipe; it is read more than once")
        whole = write(accel_rows, "whole.jsonl.gz")
        packed = (tmp_path / "whole.jsonl.gz").read_bytes()
        for name, content, message in (
            ("short.jsonl.gz", packed[: len(packed) // 2], "truncated or damaged gzip"),
            ("damaged.jsonl.gz", packed[:200] + bytes(50) + packed[250:], "damaged gzip|not a text file"),
            ("plain.jsonl.gz", b'{"e": 1}\n', "is not gzip, as its name says"),
            ("binary.jsonl", bytes(range(128, 256)) * 10, "not a text file"),
        ):
            (tmp_path / name).write_bytes(content)
            self.refused(str(tmp_path / name), accel, message)
        assert format_of(whole).space == ACCEL

    def test_what_a_file_holds_tells_whether_it_is_packed_and_a_byte_order_mark_is_no_content(
        self, accel_rows, write, tmp_path
    ):
        packed = write(accel_rows[:1], "packed.jsonl.gz")
        os.rename(packed, tmp_path / "named-otherwise.jsonl")
        assert format_of(str(tmp_path / "named-otherwise.jsonl")).space == ACCEL
        assert format_of(write("\ufeff" + json.dumps(accel_rows[0]) + "\n")).space == ACCEL

    def test_accuracies_as_fractions(self, accel, accel_rows, write):
        rows = [row | {"top1": row["top1"] / 100} for row in accel_rows]
        self.refused(write(rows), accel, "the accuracies must be in %, and most are not above 1")
        self.refused(write([rows[0] | {"top1": 1.01}, *rows[1:]]), accel, "the accuracies must be in %")

    def test_a_metric_that_the_first_row_lacks(self, accel, accel_rows, write):
        rows = [*accel_rows[:2], accel_rows[2] | {"latency_phone": 3.0}]
        self.refused(write(rows), accel, "line 3: latency_phone: not in the rows before; write null where it wasn't")

    def test_an_impossible_noise(self, accel):
        with pytest.raises(BenchmarkError, match=r"benchmark\.noise: must be from 0 to 100 points, not -1"):
            BenchmarkEvaluator.load(REHEARSAL, accel, noise=-1)


@pytest.mark.parametrize(("repeated", "noise"), [(249, 0.707), (125, 0.707), (124, 0.3)])
def test_noise_is_told_by_the_repeated_networks_if_they_are_half_of_all(accel, accel_rows, write, repeated, noise):
    again = [row | {"top1": row["top1"] + 1} for row in accel_rows[:repeated]]
    assert BenchmarkEvaluator.load(write([*accel_rows, *again]), accel).noise == noise


def test_a_complete_file_of_one_training_each_has_the_default_noise(small, write):
    rows = [accel_row(small, actions, 50.0 + number) for number, actions in enumerate(FOUR)]
    table = BenchmarkEvaluator.load(write(rows), small)
    assert table.tau is None
    assert table.noise == 0.3
    np.testing.assert_allclose(table.accuracies(FOUR), [0.50, 0.51, 0.52, 0.53])
    observed = [table.evaluate(small.decode((1, 1)), seed, report).accuracy for seed in range(20)]
    assert len(set(observed)) == 20
