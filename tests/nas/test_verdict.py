"""The verdict: whether a search beat random sampling of as many children."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

from controllers import Suggestion
from controllers.features import Features
from nas import console, run
from nas.evaluators import Failure, Measurement, make_evaluator
from nas.evaluators.benchmark import BenchmarkEvaluator
from nas.journal import JournalError
from nas.ledger import BASELINE, Ledger
from nas.objective import BAND
from nas.recipe import Recipe
from nas.verdict import LEAST_RANDOM, Verdict, _accuracies, _sound_model, _thinned, verdict
from search_space import cost, load_architecture, load_space

SPACE = load_space("accel-nasbench")
FEATURES = Features(SPACE)
NOISE = 0.003
POOL = [SPACE.sample_actions(np.random.default_rng(i)) for i in range(3000)]


def accuracies(actions):
    """Networks of more FLOPs, in their later stages most of all, are better, but ever less so: a skewed truth."""
    columns = FEATURES(actions)
    direction = np.random.default_rng(0).standard_normal(columns.shape[1]) + 1
    return 0.7 - 0.04 * np.exp(-columns @ direction / np.linalg.norm(direction) / 3)


def rewards(actions, shown, column=0, target=400e6):
    return shown * (FEATURES.costs(actions)[:, column] / target) ** -0.07


def improved(actions, generations=20, size=40):
    """What a search finds: the best of ever more mutants."""
    rng = np.random.default_rng(0)
    for _ in range(generations):
        mutants = np.repeat(actions, 10, axis=0)
        for mutant in mutants:
            place = rng.integers(len(SPACE.decisions))
            mutant[place] = rng.integers(len(SPACE.decisions[place].choices))
        actions = np.unique([*map(tuple, actions), *map(tuple, mutants)], axis=0)
        actions = actions[np.argsort(-rewards(actions, accuracies(actions)))[:size]]
    return [tuple(row) for row in actions.tolist()]


POOL += improved(POOL[:60])
TRUE = accuracies(POOL)
FOUND = range(3000, len(POOL))  # by the search
TRUE_REWARDS = rewards(POOL, TRUE)
BY_REWARD = np.argsort(TRUE_REWARDS[:3000])


def observed(index, rng, broken, noise=NOISE):
    """Accuracies that trainings show; so large a share breaks down, a third of it to chance at 10 classes."""
    shape = np.shape(index)
    shown = TRUE[index] + noise * rng.standard_normal(shape)
    lost = np.where(rng.random(shape) < 1 / 3, 1.0, rng.exponential(0.08, shape))
    return np.where(rng.random(shape) < broken, shown - lost, shown).clip(0.1)


def real_gain(ledger, noise=NOISE, **priced):
    """Reward of what a search hands over less that of what as many random children do: the median of 100 samplings."""
    rng, gains, factor = np.random.default_rng(5), [], rewards(POOL, np.ones(len(POOL)), **priced)
    ours = POOL.index(ledger.winner.suggestions[0].actions)
    for _ in range(100):
        drawn = rng.integers(3000, size=len(ledger.measured()))
        theirs = drawn[np.argmax(factor[drawn] * observed(drawn, rng, 0, noise))]
        gains.append(factor[ours] * TRUE[ours] - factor[theirs] * TRUE[theirs])
    return np.median(gains)


@pytest.fixture
def searched(small_recipe):
    """Makes the ledger of a search whose children are these of the pool, the first of them random.

    Those at the places `failed` have no result, those `lost` learned nothing at all. Any cost but FLOPs is the params.
    """

    def make(chosen, random, *settings, seed=0, broken=0.0, noise=NOISE, failed=(), lost=()):
        laid_over = ["space=accel-nasbench", "objective.target=400M", "baseline=efficientnet-b0", *settings]
        recipe = Recipe.load(str(small_recipe), laid_over)
        ledger = Ledger(recipe, SPACE, load_architecture("efficientnet-b0"), {"classes": 10})
        price = cost.flops if recipe.objective.cost == "flops" else cost.params
        ledger.settle(BASELINE, Measurement(0.66, 1, 0.0), price(ledger.baseline.trial.architecture))
        rng = np.random.default_rng(seed)
        for place, index in enumerate(chosen):
            architecture = SPACE.decode(POOL[index])
            child = ledger.add(architecture, Suggestion(POOL[index], random=place < random), place)
            shown = 0.1 if place in lost else float(observed(index, rng, broken, noise))
            if place in failed:
                ledger.settle(child.trial.number, Failure("out of memory"), None)
            else:
                ledger.settle(child.trial.number, Measurement(shown, 1, 0.0), price(architecture))
        return ledger

    return make


def test_a_search_that_found_the_best_beat_random_sampling(searched):
    ledger = searched([*range(40), *FOUND], random=40)
    found = verdict(ledger)
    assert found.beats is True
    assert found.basis == "warm-up"
    assert found.children == 80
    assert 0 < found.low < real_gain(ledger) < found.high
    assert str(found).startswith("Beat random sampling: reward +")


def test_a_search_that_found_only_the_worst_did_not(searched):
    found = verdict(searched([*BY_REWARD[1000:1006].tolist(), *BY_REWARD[:150].tolist()], random=6))
    assert found.beats is False
    assert found.high < 0
    assert str(found).startswith("Did not beat random sampling")


def test_a_search_as_good_as_random_cannot_be_told_from_it(searched):
    found = verdict(searched(range(60), random=12))
    assert found.beats is None
    assert found.low < 0 < found.high
    assert str(found).startswith("Can't tell whether this beat random sampling")


def test_ordinary_trainings_are_sound_where_most_accuracies_are_equal():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((40, 6))
    y = np.where(np.arange(40) < 24, 1.0, rng.uniform(0.98, 0.995, 40))
    assert _sound_model(np.arange(6), rows, y, np.ones(40, bool))[1].all()


def test_a_second_look_is_the_same(searched):
    ledger = searched(range(30), random=10)
    assert verdict(ledger) == verdict(ledger)


def test_random_children_that_failed_do_not_count(searched):
    assert verdict(searched(range(20), random=LEAST_RANDOM)).gain is not None
    found = verdict(searched(range(20), random=LEAST_RANDOM, failed=[0]))
    assert (found.gain, found.beats) == (None, None)
    assert "5 random children, and there are 4" in str(found)


def test_random_search_is_random_sampling_itself(searched):
    ledger = searched(range(20), 20, "controller={name: random}")
    assert "is random sampling itself" in str(verdict(ledger))


def test_a_search_that_ended_before_it_learned_anything_says_so(searched):
    ledger = searched(range(20), 20, "controller={name: evolution}")
    assert "drawn at random, before evolution had learned anything" in str(verdict(ledger))
    assert verdict(searched(range(20), 10, "controller={name: random}")).gain is not None  # taken over from another


def test_a_search_without_a_result_says_so(searched):
    assert "no child has a result" in str(verdict(searched([], 0)))


def test_a_reward_of_a_latency_is_compared_without_knowing_that_of_other_networks(searched):
    ledger = searched(range(60), 12, "objective={cost: latency, target: 5000000}")
    found = verdict(ledger)
    assert found.low < real_gain(ledger, column=1, target=5e6) < found.high


def test_params_are_what_random_networks_cost_where_they_count(searched):
    ledger = searched(range(60), 40, "objective={cost: params, target: 5000000}")
    found = verdict(ledger)
    assert found.low < real_gain(ledger, column=1, target=5e6) < found.high


def test_random_sampling_is_misled_by_noise_too(searched):
    ledger = searched([*range(40), *FOUND], 40, noise=0.05)
    found = verdict(ledger)
    assert found.low < real_gain(ledger, noise=0.05) < found.high


def test_random_sampling_loses_as_large_a_share_of_its_children(searched):
    """The same children; in one of the searches most of the random ones broke down, in the other none of them."""
    lost = verdict(searched(range(60), 20, lost=range(16)))
    kept = verdict(searched([*range(16, 36), *range(16), *range(36, 60)], 20, lost=range(20, 36)))
    assert lost.gain > kept.gain + 0.005


def test_a_guess_is_told_by_one_training_though_the_mean_of_several_is_none(searched):
    found = verdict(searched([0, 1, 2, 0], random=4, lost=range(3)))
    assert "3 of 4 children are no better than naming the commonest class" in str(found)


def test_a_choice_at_chance_beats_nothing(searched):
    ledger = searched(range(12), random=10, lost=range(6))
    ledger.recommended = ledger.children[1]
    told = "the choice is no better than naming the commonest class (10.00%); train longer"
    assert told in str(verdict(ledger))
    ledger.recommended = ledger.children[12]
    assert verdict(ledger).gain is not None
    ledger.recommended = ledger.children[1]
    ledger.recommended.accuracy = 0.67  # of other trainings of it
    assert verdict(ledger).gain is not None


def test_why_children_failed_is_counted(searched):
    ledger = searched(range(8), random=8, failed=[1, 2, 5])
    assert console.failures_words(ledger) == "failed    3 x out of memory"
    for number, reason in enumerate(["a", "b in step 3", "b in step 4.5", "c", "d"], 1):
        ledger.settle(number, Failure(reason), None)
    ledger.settle(6, Failure("a"), None)
    assert console.failures_words(ledger) == "failed    2 x a; 2 x b in step N; 1 x c; and 1 other reason"
    assert console.failures_words(searched(range(3), random=3)) == ""


def test_a_training_that_was_stopped_early_counts_as_what_it_showed(searched):
    ledger = searched([0, 1, 0], random=3)
    first, _, again = ledger.measured()
    again.result = replace(again.result, accuracy=0.7, epochs=9)
    assert _accuracies([first, again]).tolist() == [first.result.accuracy, 0.7]


def test_children_that_were_stopped_early_tell_nothing_of_random_sampling(searched):
    ledger = searched([*range(40), *FOUND], random=40)
    child = ledger.measured()[5]
    child.result = replace(child.result, epochs=9)
    assert str(verdict(ledger)) == (
        "Whether this beat random sampling can't be told: children were stopped after 1 to 9 epochs: what they reached "
        "can't be compared."
    )


def test_under_auto_random_runs_choose_among_those_that_meet_the_target(searched, monkeypatch):
    ledger = searched([*range(40), *FOUND], 40, "objective.name=auto")
    evaluator = make_evaluator(Recipe.load("rehearse-b0"))
    chosen, truth = [], evaluator.accuracies

    def accuracies(rows):
        chosen.extend(rows if len(rows) == 1 else [])
        return truth(rows)

    monkeypatch.setattr(evaluator, "accuracies", accuracies)
    assert verdict(ledger, evaluator).basis == "random runs"
    ratios = np.array([cost.flops(SPACE.decode(row)) / 400e6 for row in chosen[1:]])
    assert len(ratios) == 40
    assert ((ratios >= BAND[0]) & (ratios <= BAND[1])).mean() > 0.9


def test_of_very_many_children_the_random_ones_and_some_from_best_to_worst_are_fitted_to(searched, monkeypatch):
    monkeypatch.setattr("nas.verdict._ROWS", 30)
    children = searched(range(60), random=12).measured()
    kept = _thinned(children)
    assert kept[:12] == children[:12]
    ranks = [sorted(child.reward for child in children[12:]).index(child.reward) for child in kept[12:]]
    assert len(kept) == 30
    assert (max(ranks), min(ranks)) == (47, 0)
    assert set(-np.diff(ranks)) <= {2, 3}


def test_the_estimate_of_a_real_search_agrees_with_real_random_runs(tmp_path):
    """Of 4 searches; one in 20 can't tell, for its 10 random children spread too much."""
    told = []
    for seed in range(4):
        recipe = Recipe.load("rehearse-b0", ["children=60", f"seed={seed}", "executor.name=serial"])
        study = run.start(recipe, tmp_path / str(seed), None, lambda *_: None).study
        found, real = verdict(study.ledger), verdict(study.ledger, make_evaluator(recipe))
        assert real.beats is True
        assert found.low < real.gain < found.high
        told.append(found.beats)
    assert False not in told
    assert told.count(True) >= 3


@pytest.mark.parametrize("broken", [0, 0.2])
def test_the_interval_holds_what_random_sampling_really_finds(searched, broken):
    """Of 10 searches, each against 20 random ones."""
    rng = np.random.default_rng(1)
    outside = []
    for seed in range(10):
        chosen = [*rng.integers(3000, size=12).tolist(), *rng.choice(BY_REWARD[1500:], size=48).tolist()]
        ledger = searched(dict.fromkeys(chosen), random=12, seed=seed, broken=broken)
        found = verdict(ledger)
        ours = TRUE_REWARDS[POOL.index(ledger.winner.suggestions[0].actions)]
        for _ in range(20):
            drawn = rng.integers(3000, size=found.children)
            shown = observed(drawn, rng, broken)
            theirs = TRUE_REWARDS[drawn[np.argmax(rewards([POOL[i] for i in drawn], shown))]]
            outside.append(not found.low <= ours - theirs <= found.high)
    assert np.mean(outside) <= 0.1


def test_where_trainings_break_down_a_search_that_found_the_best_still_beat_random_sampling(searched):
    assert verdict(searched([*range(40), *FOUND], random=40, broken=0.2)).beats is True


@pytest.fixture(scope="module")
def table(shared):
    return BenchmarkEvaluator.load(str(shared / "data" / "nas_bench_macro.jsonl.gz"), load_space("nas-bench-macro"))


def test_a_latency_that_a_benchmark_does_not_know_is_not_measured_for_each_random_network(searched):
    ledger = searched(range(30), 10, "objective={cost: latency, target: 400000000}")
    evaluator = BenchmarkEvaluator.load("rehearsal", SPACE)
    assert verdict(ledger, evaluator) == verdict(ledger)


@pytest.mark.parametrize("beats", [True, False])
def test_on_a_benchmark_the_winner_meets_real_random_runs(table, small_recipe, beats):
    settings = ["space=nas-bench-macro", "objective.target=40M", "baseline=efficientnet-b0"]
    ledger = Ledger(Recipe.load(str(small_recipe), settings), table.space, load_architecture("efficientnet-b0"))
    best, _ = table.best_reward(ledger.objective, cost.flops)
    luck = -0.2 if beats else 0.2  # of all trainings; without noise neither counts
    for actions in (best if beats else (0,) * 8, *((0, 0, 0, 0, 0, 0, 0, i) for i in (1, 2))):
        architecture = table.space.decode(actions)
        child = ledger.add(architecture, Suggestion(actions), 0)
        shown = table.accuracy(architecture) + luck
        ledger.settle(child.trial.number, Measurement(shown, 0, 0.0), cost.flops(architecture))
    ledger.recommended = ledger.children[1]
    found = verdict(ledger, table)
    assert (found.basis, found.children) == ("random runs", 3)
    assert found.low >= 0 if beats else found.high < 0
    assert "40 real random runs of 3 children" in str(found)


def test_real_random_runs_choose_by_what_trainings_show(searched):
    ledger = searched(range(30), 10)
    exact, noisy = (verdict(ledger, BenchmarkEvaluator.load("rehearsal", SPACE, noise)) for noise in (0, 5))
    assert noisy.gain > exact.gain + 0.005


def test_random_sampling_itself_is_not_told_to_differ_from_it_more_often_than_its_interval_says(table, small_recipe):
    settings = ["space=nas-bench-macro", "objective.target=40M", "baseline=efficientnet-b0"]
    recipe = Recipe.load(str(small_recipe), settings)
    rng, told, baseline = np.random.default_rng(0), [], load_architecture("efficientnet-b0")
    for seed in range(400):
        ledger = Ledger(recipe.model_copy(update={"seed": seed}), table.space, baseline)
        for _ in range(10):
            actions = table.space.sample_actions(rng)
            child = ledger.add(table.space.decode(actions), Suggestion(actions), 0)
            accuracy = float(table.observe([actions], rng)[0])
            ledger.settle(child.trial.number, Measurement(accuracy, 0, 0.0), cost.flops(child.trial.architecture))
        ledger.recommended = ledger.best(1)[0]
        told.append(verdict(ledger, table).beats)
    assert told.count(True) <= 0.045 * len(told)
    assert told.count(False) <= 0.045 * len(told)


def judge(ledger, found):
    ledger.apply({"event": "verdict", **asdict(found)})


def test_the_end_of_a_search_opens_with_the_verdict_and_tells_the_baselines_place(searched):
    ledger = searched([*range(12), *FOUND], random=12)
    judge(ledger, Verdict(72, "warm-up", 0.01, 0.005, 0.02))
    lines = console.verdict(ledger).splitlines()
    assert lines[0].startswith("Beat random sampling: reward +0.0100 (95% interval +0.0050 to +0.0200)")
    assert lines[1].startswith("best ")
    assert lines[2].startswith("baseline ")
    better = sum(child.reward > ledger.baseline.reward for child in ledger.best())
    assert f"would rank {better + 1}" in lines[3]
    assert f"of {len(ledger.best())} networks" in lines[3]
    fewer = [c.result.accuracy for c in ledger.best() if c.cost <= ledger.baseline.cost]
    assert f"the best accuracy seen is {max(fewer):.2%}" in lines[3]


def test_a_winner_that_was_trained_again_is_said_to_be(searched):
    ledger = searched([*range(12), *[FOUND[0]] * 3], random=12)
    shown = [child.result.accuracy for child in ledger.measured()[-3:]]
    found = verdict(ledger)
    assert found.children == 15
    judge(ledger, found)
    last = console.verdict(ledger).splitlines()[-1]
    assert f"of {len(ledger.best())} networks" in last
    assert "It was trained 3 times" in last
    assert ledger.winner.accuracy == pytest.approx(np.mean(shown))
    table = console.ranking(ledger, 1)
    cells = {str(column.header): next(iter(column.cells)) for column in table.columns}
    assert (cells["trainings"], cells["accuracy"]) == ("3", f"{np.mean(shown):.2%}")


def test_a_winner_of_many_trainings_is_not_called_lucky(searched):
    ledger = searched([*range(12), *[FOUND[0]] * 6], random=12)
    judge(ledger, verdict(ledger))
    assert console.verdict(ledger).endswith(
        "It was trained 6 times; their mean counts, in which little is luck; the baseline's is one alone."
    )
    ledger.baseline.again.append(ledger.baseline)
    assert console.verdict(ledger).endswith("the baseline's is the mean of 2.")


def test_the_ranking_shows_what_is_handed_over_wherever_it_ranks(searched):
    ledger = searched([*range(12), *FOUND], random=12)
    ledger.recommended = ledger.best()[6]
    ranks, names = (list(column.cells)[:3] for column in console.ranking(ledger, 2).columns[:2])
    assert ranks == ["1", "2", "7"]
    assert names[2] == ledger.recommended.trial.architecture.name


def test_a_winner_that_retraining_chose_is_said_to_be(searched):
    ledger = searched([*range(12), *FOUND], random=12)
    trial = ledger.best()[2].trial.number
    retrained = {"by": "retraining", "estimate": 0.7, "epochs": 8, "gain": [0.01, -0.002, 0.022]}
    for by, how, trust in (
        ({}, "best as estimated", "It was trained once"),
        (
            retrained,
            "chosen by retraining",
            "for 8 epochs, the gain is estimated at +0.0100 (95% interval -0.0020 to +0.0220)",
        ),
    ):
        ledger.apply({"event": "recommended", "trial": trial, **by})
        judge(ledger, Verdict(72, "warm-up", 0.01, 0.005, 0.02))
        words = console.verdict(ledger)
        assert words.startswith("Before retraining: Beat" if by else "Beat")
        assert f"3rd as measured, {how}" in words
        assert trust in words.splitlines()[-1]


@pytest.mark.parametrize("damage", [{"basis": "faith"}, {"gain": "much"}, {"low": [1]}, {"children": "72"}])
def test_a_damaged_verdict_is_one_line(searched, damage):
    ledger = searched(range(12), random=12)
    ledger.apply({"event": "verdict", **asdict(Verdict(72, "warm-up", 0.01, 0.005, 0.02)), **damage})
    with pytest.raises(JournalError, match="the journal is damaged: the verdict event"):
        console.verdict(ledger)


def test_a_choice_for_the_target_tells_what_is_better_off_it(searched):
    ledger = searched(range(40), 40, "objective.name=auto", "objective.target=400M")
    below = max((c for c in ledger.best() if c.cost < 380e6), key=lambda child: child.accuracy)
    at_target = [c for c in ledger.best() if 380e6 <= c.cost <= 404e6]
    ledger.recommended = min(at_target, key=lambda child: child.accuracy)
    assert ledger.recommended.accuracy < below.accuracy
    assert f"{below.trial.architecture.name} off the target was measured" in console.target_words(ledger)
    ledger.recommended.accuracy = 0.99
    assert "off the target" not in console.target_words(ledger)


def test_only_a_choice_that_meets_the_target_is_called_the_best_at_it(searched):
    ledger = searched(range(40), 40, "objective.name=auto", "objective.target=400M")
    judge(ledger, Verdict(40, "warm-up", 0.01, 0.005, 0.02))
    told = set()
    for child in ledger.best()[1:]:
        ledger.recommended = child
        told.add(meets := 380e6 <= child.cost <= 404e6)
        assert ("the best at the target" in console.verdict(ledger)) == meets
    assert told == {True, False}


@pytest.mark.parametrize(
    ("objective", "dearest", "told"), [("absolute", 0, 1), ("absolute", 1, 1), ("hard", 0, 0), ("hard", 1, 1)]
)
def test_where_another_objective_misses_the_target_auto_is_named(searched, objective, dearest, told):
    ledger = searched(range(40), 40, f"objective.name={objective}", "objective.target=400M")
    ledger.recommended = sorted(ledger.best(), key=lambda child: child.cost)[-dearest]
    assert ("--set objective.name=auto hits it" in console.target_words(ledger)) == told


def test_it_is_judged_by_the_digits_that_are_shown():
    assert Verdict(14, "warm-up", 0.0003, 0.00004, 0.0023).beats is None
    assert Verdict(14, "warm-up", 0.0003, 0.00006, 0.0023).beats is True
    assert Verdict(14, "warm-up", -0.0003, -0.0023, -0.00006).beats is False


def test_a_latency_that_other_children_lengthen_is_said_to_be(searched):
    ledger = searched([], 0, "objective={cost: latency, target: 20}", "executor={name: tune, workers: 2}")
    assert "executor.name=serial avoids that" in console.latency_words(ledger)
    ledger = searched([], 0, "objective={cost: latency, target: 20}", "executor={name: serial}")
    assert not console.latency_words(ledger)


def test_progress_tells_the_exponents_that_rewards_are_of(searched):
    ledger = searched(range(12), 12, "objective.name=auto")
    ledger.objective = replace(ledger.objective, w=0.05, w_above=-1.5)
    assert "exponents 0.05 up to T, -1.5 above" in console.status_line(ledger, 0, 0)
    assert "exponents" not in console.status_line(searched(range(12), 12), 0, 0)


def test_the_baselines_place_is_told_at_the_cost_that_counts(searched):
    ledger = searched(range(60), 60, "objective.cost=params", "objective.target=5M")
    fewer = [child.accuracy for child in ledger.best() if child.cost <= ledger.baseline.cost]
    judge(ledger, Verdict(60, "warm-up", 0.01, 0.005, 0.02))
    words = console.verdict(ledger)
    assert f"At its params or fewer the best accuracy seen is {max(fewer):.2%}" in words


def test_children_that_another_process_trains_are_not_finished(searched):
    ledger = searched(range(12), random=12)
    assert "12/" in console.status_line(ledger, 0, 0)
    for _ in range(2):
        child = ledger.add(ledger.children[1].trial.architecture, ledger.children[1].suggestions[0], 0)
    assert "2 not finished, 0 failed" in console.status_line(ledger, 0, 0)
    child.running = True
    assert "1 running, 0 failed" in console.status_line(ledger, 0, 0)
