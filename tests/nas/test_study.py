"""The study: a search that goes on after any stop as if nothing had happened."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

import controllers
import nas.study
from controllers import Suggestion
from controllers.random import RandomSearch
from controllers.reward_model import RewardModel
from nas.evaluators import Failure, Measurement
from nas.executors import SerialExecutor
from nas.journal import Journal, JournalError, parse
from nas.ledger import BASELINE, Ledger
from nas.recipe import Recipe
from nas.study import Study
from search_space import DataError, InputError, cost, load_architecture, load_space

SPACE = """\
format: baseline-nas/space/1
name: small
resolution: 32
num_classes: 10
stem: {out_chs: 8}
stages:
  - {op: mbconv, layers: [1, 2], out_chs: 8, kernel_size: [3, 5], exp_ratio: [3, 6]}
  - {op: conv, layers: [0, 1, 2], out_chs: 8}
"""  # 24 networks
BASELINE_FILE = """\
format: baseline-nas/architecture/1
resolution: 32
num_classes: 10
stem: {out_chs: 8}
stages: [{op: conv, layers: 1, out_chs: 16}]
"""
TINY = SPACE.replace("[3, 5]", "3").replace("[3, 6]", "3").replace("[0, 1, 2]", "1")  # 2 networks
POLICY = {"batch_size": 4, "hidden_size": 8}
OPTIONS = {"ppo": POLICY, "reinforce": POLICY, "evolution": {"population_size": 4, "sample_size": 2}}


@dataclass
class LookUp:
    """Looks the accuracy up in the key: a real evaluator, deterministic, that can fail.

    Attributes:
        failing: networks whose key is this modulo 5 raise, those of the next have NaN.
        calls: key and seed of every evaluation.
    """

    failing: int | None = None
    calls: list[tuple[str, int]] = field(default_factory=list)

    def evaluate(self, architecture, seed, report):
        key = architecture.key()
        self.calls.append((key, seed))
        draw = int(key, 16)
        report(1, 0.5)
        if self.failing is not None and draw % 5 == self.failing:
            raise RuntimeError(f"no accuracy of {key}\nand a second line")
        if self.failing is not None and draw % 5 == (self.failing + 1) % 5:
            return Measurement(float("nan"), 1, 0.0)
        return Measurement(draw / 2**64, 3, draw % 7)


@pytest.fixture
def files(tmp_path) -> Path:
    (tmp_path / "space.yaml").write_text(SPACE)
    (tmp_path / "baseline.yaml").write_text(BASELINE_FILE)
    return tmp_path


@pytest.fixture
def recipe(files):
    def make(name: str = "random", /, **fields) -> Recipe:
        values = {
            "format": "baseline-nas/recipe/1",
            "name": "test",
            "children": 12,
            "space": str(files / "space.yaml"),
            "baseline": str(files / "baseline.yaml"),
            "objective": {"target": "1M"},
            "controller": {"name": name, "options": OPTIONS.get(name, {})},
            "data": {"source": "digits"},
            "proxy": {"epochs": 1, "resolution": 8},
            "executor": {"name": "serial"},
        }
        return Recipe.parse(values | fields, "test")

    return make


def search(path: Path, recipe: Recipe, evaluator: LookUp | None = None) -> Study:
    """Start or continue a search and bring it to its end."""
    with Journal(path) as journal:
        study = Study(recipe, journal)
        SerialExecutor().run(study, evaluator or LookUp())
        study.conclude()
        return study


def events(path: Path, *kinds: str) -> list[dict]:
    """The journal's events, of some kinds only, without the times."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        {name: value for name, value in event.items() if name not in ("time", "seconds")}
        for event in found
        if not kinds or event["event"] in kinds
    ]


def text(path: Path) -> str:
    return "\n".join(json.dumps(event) for event in events(path))


by_controller = pytest.mark.parametrize("name", controllers.NAMES)


def test_the_baseline_is_trial_0_and_not_ranked(recipe, files):
    study = search(files / "j", recipe())
    baseline = study.ledger.baseline
    assert events(files / "j")[1]["trial"] == BASELINE == baseline.trial.number == 0
    assert baseline.trial.key == load_architecture(files / "baseline.yaml").key()
    assert isinstance(baseline.result, Measurement)
    assert baseline.reward is not None
    assert baseline not in study.ledger.best()
    assert baseline not in study.ledger.finished()


@by_controller
def test_as_many_different_children_as_asked_for_each_evaluated_once(name, recipe, files):
    evaluator = LookUp()
    study = search(files / "j", recipe(name), evaluator)
    keys = [key for key, _ in evaluator.calls]
    assert len(keys) == len(set(keys)) == 1 + 12
    assert [child.trial.number for child in study.ledger.finished()] == list(range(1, 13))
    assert study.done
    assert not study.exhausted
    assert {child.trial.key for child in study.ledger.children.values()} == set(keys)
    space = load_space(files / "space.yaml")
    assert all(space.contains(child.trial.architecture) for child in study.ledger.finished())


def test_best_ranks_by_the_reward(recipe, files):
    study = search(files / "j", recipe(), LookUp(failing=0))
    ranked = study.ledger.best()
    rewards = [child.reward for child in ranked]
    assert rewards == sorted(rewards, reverse=True)
    assert 0 < len(ranked) < len(study.ledger.finished())
    assert study.ledger.best(2) == ranked[:2]
    for child in ranked:
        assert child.reward == recipe().make_objective()(child.result.accuracy, child.cost)
        assert child.result.accuracy == int(child.trial.key, 16) / 2**64


class Recorder(RandomSearch):
    """Random search that remembers what it is told."""

    told: list

    def _learn(self, outcome):
        self.told.append(outcome)


@pytest.fixture
def told(monkeypatch):
    monkeypatch.setattr(Recorder, "told", [], raising=False)
    monkeypatch.setitem(controllers._CONTROLLERS, "random", Recorder)
    return Recorder.told


def test_every_suggestion_gets_its_outcome_repeats_too(told, recipe, files):
    study = search(files / "j", recipe(children=20), LookUp(failing=0))
    suggested = events(files / "j", "suggested", "repeated")
    assert any(event["event"] == "repeated" for event in suggested)
    assert sorted(list(outcome.suggestion.actions) for outcome in told) == sorted(
        event["actions"] for event in suggested
    )
    for outcome in told:
        child = study.ledger.by_key[study.ledger.space.decode(outcome.suggestion.actions).key()]
        assert outcome.reward == child.reward
        assert (outcome.failure is None) == isinstance(child.result, Measurement)


def test_a_repeat_of_a_running_child_is_told_when_it_has_finished(told, recipe, files):
    (files / "space.yaml").write_text(TINY)
    with Journal(files / "j") as journal:
        study = Study(recipe(children=5), journal)
        baseline, first, second = (study.next_trial() for _ in range(3))
        assert study.next_trial() is None
        assert not study.done  # what is running may yet change the controller's mind
        size = (files / "j").stat().st_size
        assert study.next_trial() is None
        assert (files / "j").stat().st_size == size  # asking again and again says nothing new
        assert not told
        study.finish(first, Measurement(0.5, 1, 1.0))
        repeats = len(told)
        assert repeats > 1
        assert len({outcome.reward for outcome in told}) == 1
        study.finish(second, Failure("gone"))
        assert {outcome.failure for outcome in told[repeats:]} == {"gone"}
        assert len(told) == len(events(files / "j", "suggested", "repeated"))
        study.finish(baseline, Measurement(0.5, 1, 1.0))
        assert len(told) == len(events(files / "j", "suggested", "repeated"))


class Doubter(RandomSearch):
    """Random search whose every third child trains the first one's network again."""

    def _suggest(self):
        self._asked = getattr(self, "_asked", 0) + 1
        suggestion = super()._suggest()
        if self._asked == 1:
            self._first = suggestion.actions
        return suggestion if self._asked % 3 else Suggestion(self._first, again=True)


@pytest.fixture
def doubter(monkeypatch):
    monkeypatch.setitem(controllers._CONTROLLERS, "random", Doubter)


@dataclass
class Noisy(LookUp):
    """Accuracies that depend on the training's seed as well."""

    def evaluate(self, architecture, seed, report):
        result = super().evaluate(architecture, seed, report)
        return Measurement(0.9 * result.accuracy + 0.1 * (seed % 100) / 100, result.epochs, result.seconds)


def test_a_network_is_trained_again_only_when_the_controller_says_so(doubter, recipe, files):
    evaluator = Noisy()
    ledger = search(files / "j", recipe(), evaluator).ledger
    first = ledger.children[1]
    assert first.again
    assert len(first.accuracies) == 1 + len(first.again) == sum(key == first.trial.key for key, _ in evaluator.calls)
    assert len({seed for _, seed in evaluator.calls}) == len(evaluator.calls) == 1 + 12  # each counts as a child
    others = [key for key, _ in evaluator.calls if key != first.trial.key]
    assert len(set(others)) == len(others)


def test_a_network_counts_once_with_the_mean_of_its_trainings(doubter, recipe, files):
    ledger = search(files / "j", recipe(), Noisy()).ledger
    first = ledger.children[1]
    assert len(set(first.accuracies)) > 1
    assert first.accuracy == pytest.approx(np.mean(first.accuracies))
    assert first.reward == pytest.approx(float(ledger.objective(first.accuracy, first.cost)))
    keys = [child.trial.key for child in ledger.best()]
    assert len(set(keys)) == len(keys) == len(ledger.measured()) - len(first.again)
    assert sorted((child.reward for child in ledger.best()), reverse=True) == [c.reward for c in ledger.best()]


def test_a_search_with_retrained_networks_cut_anywhere_goes_on(doubter, recipe, files):
    whole = search(files / "whole", recipe(), Noisy())
    lines = (files / "whole").read_bytes().splitlines(keepends=True)
    for kept in range(1, len(lines)):
        (files / "j").write_bytes(b"".join(lines[:kept]))
        study = search(files / "j", recipe(), Noisy())
        assert text(files / "j") == text(files / "whole")
        assert study.ledger.children == whole.ledger.children


def test_every_training_of_a_network_is_adopted(doubter, recipe, files):
    earlier = search(files / "j", recipe(), Noisy()).ledger
    with Journal(files / "new") as journal:
        study = Study(recipe(children=20), journal)
        study.adopt(earlier.children.values())
    key = earlier.children[1].trial.key
    assert study.ledger.by_key[key].accuracies == earlier.children[1].accuracies
    assert len(study.ledger.measured()) == len(earlier.measured())


def test_a_failed_second_training_leaves_the_first_ones_result(doubter, recipe, files):
    with Journal(files / "j") as journal:
        study = Study(recipe(children=3), journal)
        *trials, again = (study.next_trial() for _ in range(4))
        for trial in trials:
            study.finish(trial, Measurement(0.5, 1, 1.0))
        study.finish(again, Failure("gone"))
    first = study.ledger.children[1]
    assert [child.result for child in first.again] == [Failure("gone")]
    assert first.accuracies == [0.5]
    assert study.ledger.failed() == first.again


def test_a_training_that_was_stopped_early_does_not_count_beside_a_whole_one(doubter, recipe, files):
    with Journal(files / "j") as journal:
        study = Study(recipe(children=3), journal)
        *trials, again = (study.next_trial() for _ in range(4))
        for trial in trials:
            study.finish(trial, Measurement(0.9, 5, 1.0))
        study.finish(again, Measurement(0.4, 1, 1.0))
    first = study.ledger.children[1]
    assert first.accuracies == [0.9]
    assert first.accuracy == 0.9
    assert first.again[0].accuracies == [0.4]


def test_a_result_counts_once(told, recipe, files):
    with Journal(files / "j") as journal:
        study = Study(recipe(), journal)
        trial = [study.next_trial() for _ in range(2)][1]
        study.finish(trial, Measurement(0.5, 1, 1.0))
        study.finish(trial, Measurement(0.9, 1, 1.0))
        study.finish(trial, Failure("late"))
    assert study.ledger.children[1].result == Measurement(0.5, 1, 1.0)
    assert len(events(files / "j", "completed", "failed")) == len(told) == 1


def test_a_baseline_of_the_space_is_not_trained_twice(recipe, files):
    space = load_space(files / "space.yaml")
    space.decode([0] * len(space.decisions)).save(files / "baseline.yaml")
    evaluator = LookUp()
    study = search(files / "j", recipe(children=23), evaluator)
    keys = [key for key, _ in evaluator.calls]
    assert len(keys) == len(set(keys)) == 24
    assert len(study.ledger.best()) == 23


def test_a_baseline_that_was_suggested_is_so_where_it_is_adopted(recipe, files):
    space = load_space(files / "space.yaml")
    space.decode([0] * len(space.decisions)).save(files / "baseline.yaml")
    earlier = search(files / "j", recipe(children=23)).ledger
    assert earlier.baseline.suggestions
    with Journal(files / "new") as journal:
        study = Study(recipe(children=23), journal)
        study.adopt(earlier.children.values())
    assert study.ledger.baseline.suggestions
    assert study.ledger.adopted == 23
    assert len(study._controller.memory) == 24
    assert search(files / "new", recipe(children=23)).ledger.children == study.ledger.children


@by_controller
def test_an_exhausted_space_ends_the_search_for_good(name, recipe, files, monkeypatch):
    monkeypatch.setattr(nas.study, "MOST_REPEATS", 25)
    (files / "space.yaml").write_text(TINY)
    evaluator = LookUp()
    study = search(files / "j", recipe(name, children=5), evaluator)
    assert study.exhausted
    assert study.done
    assert len(evaluator.calls) == 1 + 2
    before = (files / "j").read_bytes()
    with Journal(files / "j") as journal:
        assert Study(recipe(name, children=5), journal).done
    assert search(files / "j", recipe(name, children=5)).done
    assert (files / "j").read_bytes() == before


def test_an_exhausted_space_ends_a_search_whose_networks_may_be_trained_again(recipe, files, monkeypatch):
    monkeypatch.setattr(nas.study, "MOST_REPEATS", 50)
    study = search(files / "j", recipe("model_based", children=60), Noisy())
    assert study.exhausted
    trainings = [len(child.accuracies) for child in study.ledger.by_key.values()]
    assert len(trainings) == 1 + 24
    assert max(trainings) <= 3


def test_a_failed_child_is_written_with_its_reason_and_the_search_goes_on(recipe, files):
    study = search(files / "j", recipe(), LookUp(failing=0))
    failed = {event["trial"]: event["reason"] for event in events(files / "j", "failed")}
    completed = {event["trial"] for event in events(files / "j", "completed")}
    assert set(failed) | completed == set(range(13))
    assert set(failed) == {n for n, child in study.ledger.children.items() if int(child.trial.key, 16) % 5 < 2}
    for number, reason in failed.items():
        key = study.ledger.children[number].trial.key
        nan = "ValueError: the accuracy is nan, not in [0, 1]"
        assert reason == (nan if int(key, 16) % 5 else f"RuntimeError: no accuracy of {key}")


@pytest.mark.parametrize("accuracy", [float("nan"), float("inf"), -0.01, 1.01, 93.5])
def test_an_impossible_accuracy_is_a_failure(accuracy, recipe, files):
    with Journal(files / "j") as journal:
        study = Study(recipe(), journal)
        study.finish(study.next_trial(), Measurement(accuracy, 1, 1.0))
    assert study.ledger.baseline.result == Failure(f"the accuracy is {accuracy}, not in [0, 1]")
    assert study.ledger.baseline.reward is None


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (0.7, "the evaluator returned 0.7, not a Measurement"),
        (None, "the evaluator returned None, not a Measurement"),
        (Measurement(0.5, -1, 1.0), "the number of epochs is -1"),
        (Measurement(0.5, None, 1.0), "Measurement(accuracy=0.5, epochs=None, seconds=1.0) isn't in numbers: "),
    ],
)
def test_what_is_no_measurement_is_a_failure(result, reason, recipe, files):
    with Journal(files / "j") as journal:
        study = Study(recipe(), journal)
        study.finish(study.next_trial(), result)
    assert study.ledger.baseline.result.reason.startswith(reason)
    assert Ledger.of(parse(files / "j")[0]).baseline.result == study.ledger.baseline.result


@pytest.mark.parametrize("seconds", [-0.1, float("nan"), float("inf")])
def test_a_clock_that_was_set_back_costs_no_child(seconds, recipe, files):
    with Journal(files / "j") as journal:
        study = Study(recipe(), journal)
        study.finish(study.next_trial(), Measurement(0.5, 1, seconds))
    assert Ledger.of(parse(files / "j")[0]).baseline.result == Measurement(0.5, 1, 0.0)


@pytest.mark.parametrize("cost", [0, -1.0, float("nan"), float("inf")])
def test_a_cost_that_cannot_be_is_refused_before_it_is_written(cost, recipe, files):
    with Journal(files / "j") as journal:
        study = Study(recipe(), journal, cost=lambda architecture: cost)
        with pytest.raises(InputError, match="cost: unnamed costs"):
            study.finish(study.next_trial(), Measurement(0.5, 1, 1.0))
    assert not events(files / "j", "completed")


def test_a_latency_that_cannot_be_measured_is_a_failure_and_of_the_baseline_a_mistake(recipe, files):
    def latency(architecture):
        if architecture.name == too_large:
            raise MemoryError("no room")
        return 1.0

    with Journal(files / "j") as journal:
        study = Study(recipe(), journal, cost=latency)
        baseline, child = study.next_trial(), study.next_trial()
        too_large = baseline.architecture.name
        with pytest.raises(InputError, match=f"the cost of {too_large} can't be measured: MemoryError: no room"):
            study.finish(baseline, Measurement(0.5, 1, 1.0))
        too_large = child.architecture.name
        study.finish(child, Measurement(0.5, 1, 1.0))
    (failed,) = Ledger.of(parse(files / "j")[0]).failed()
    assert failed.result == Failure(f"the cost of {too_large} can't be measured: MemoryError: no room")


def test_numpys_numbers_are_numbers(recipe, files):
    with Journal(files / "j") as journal:
        study = Study(recipe(), journal)
        study.finish(study.next_trial(), Measurement(np.float32(0.5), np.int64(3), np.float32(1.5)))
    with Journal(files / "j") as journal:
        assert Study(recipe(), journal).ledger.baseline.result == Measurement(0.5, 3, 1.5)


def test_unusable_data_ends_the_search(recipe, files):
    class NoData(LookUp):
        def evaluate(self, architecture, seed, report):
            raise DataError("images: no such folder")

    with pytest.raises(DataError, match="images: no such folder"):
        search(files / "j", recipe(), NoData())
    assert [event["event"] for event in events(files / "j")] == ["search"]
    assert len(search(files / "j", recipe()).ledger.finished()) == 12


@by_controller
def test_equal_recipes_give_equal_journals_and_another_seed_does_not(name, recipe, files):
    for journal, seed in (("a", 0), ("b", 0), ("c", 1)):
        search(files / journal, recipe(name, seed=seed), LookUp(failing=0))
    assert text(files / "a") == text(files / "b")
    actions = [[event["actions"] for event in events(files / journal, "suggested")] for journal in ("a", "c")]
    assert actions[0] != actions[1]


CUTS = {"random": 1, "evolution": 1}
"""Cut after every so many lines; the controllers that learn a policy take longer."""


@by_controller
def test_a_search_cut_anywhere_goes_on_as_if_it_had_not_been(name, recipe, files):
    whole = search(files / "whole", recipe(name, children=16), LookUp(failing=0))
    content = (files / "whole").read_bytes()
    wanted = text(files / "whole")
    kinds = {"suggested", "completed", "failed"} | ({"repeated"} if name == "random" else set())
    assert kinds <= {event["event"] for event in events(files / "whole")}
    ends = [0] + [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    for end in ends[:: CUTS.get(name, 3)] + ends[-3:]:
        for cut in (end, end + 25):  # at the line's end, and in the middle of the next
            path = files / f"cut-{cut}"
            path.write_bytes(content[:cut])
            evaluator = LookUp(failing=0)
            study = search(path, recipe(name, children=16), evaluator)
            assert text(path) == wanted
            finished = sum(b'"event": "completed"' in line or b'"event": "failed"' in line
                           for line in content[:end].splitlines())  # fmt: skip
            assert len(evaluator.calls) == 17 - finished
            assert [child.trial for child in study.ledger.best()] == [child.trial for child in whole.ledger.best()]


AUTO = {"name": "auto", "target": 600_000}


def test_an_adaptive_search_cut_anywhere_goes_on_as_if_it_had_not_been(recipe, files, monkeypatch):
    monkeypatch.setattr(nas.study, "ADAPT_EVERY", 3)
    search(files / "whole", recipe("evolution", objective=AUTO))
    lines = (files / "whole").read_bytes().splitlines(keepends=True)
    assert len(events(files / "whole", "adapted")) >= (12 - 1) // 3
    for kept in range(1, len(lines)):
        (files / "j").write_bytes(b"".join(lines[:kept]))
        search(files / "j", recipe("evolution", objective=AUTO))
        assert text(files / "j") == text(files / "whole")


def test_a_resumed_model_is_fitted_when_it_was_before(recipe, files, monkeypatch):
    """`auto` looks at the hand-over, and so fits the model, while children are still drawn at random."""
    monkeypatch.setattr(nas.study, "ADAPT_EVERY", 3)
    fitted = []
    fit = RewardModel._fit
    monkeypatch.setattr(RewardModel, "_fit", lambda self, log: fitted.append(len(self.observed)) or fit(self, log))
    settings = {"objective": AUTO, "controller": {"name": "model_based", "options": {**POLICY, "warm_up": 14}}}
    search(files / "whole", recipe(children=20, **settings))
    whole, lines = fitted[:], (files / "whole").read_bytes().splitlines(keepends=True)
    fitted.clear()
    (files / "cut").write_bytes(b"".join(lines[:-2]))
    search(files / "cut", recipe(children=20, **settings))
    assert whole == fitted
    assert min(whole) < 14
    assert text(files / "cut") == text(files / "whole")


@pytest.mark.parametrize(("name", "record"), [("model_based", "_pending"), ("evolution", "_known")])
def test_what_another_machine_suggested_takes_the_place_of_what_this_one_would(
    name, record, recipe, files, monkeypatch
):
    path, kind = files / "journal.jsonl", controllers._CONTROLLERS[name]
    given = recipe(name, children=20)

    class Elsewhere(kind):
        def __init__(self, problem, options, seed):
            super().__init__(problem, options, seed + 1)

    with monkeypatch.context() as patch, Journal(path) as journal:
        patch.setitem(controllers._CONTROLLERS, name, Elsewhere)
        study = Study(given, journal)
        taken = [study.next_trial() for _ in range(8)]
        for trial in taken[:5]:
            study.finish(trial, LookUp().evaluate(trial.architecture, trial.seed, lambda *_: None))
    with Journal(path) as journal:
        controller = Study(given, journal)._controller
    assert set(getattr(controller, record)) == {trial.key for trial in taken[5 if record == "_pending" else 1 :]}


def test_auto_ends_with_what_meets_the_target(recipe, files):
    """Accuracies are arbitrary here, so nothing but the objective leads to T."""
    costs = [cost.flops(child.trial.architecture) for child in search(files / "all", recipe()).ledger.best()]
    for target in (min(costs) + 1.0, sorted(costs)[6] + 1.0, max(costs) + 1.0):
        path = files / str(target)
        study = search(path, recipe(objective={"name": "auto", "target": target}))
        assert study.ledger.winner.cost == target - 1
        assert study.ledger.winner is study.ledger.best(1)[0]
        again = Ledger.of(parse(path)[0])
        assert again.winner.trial == study.ledger.winner.trial
        assert again.objective == study.ledger.objective  # the last adaptation is journaled too


def test_a_late_result_ends_the_choice_and_the_verdict(recipe, files):
    path = files / "j"
    study = search(path, recipe())
    with Journal(path) as journal:
        journal.append({"event": "recommended", "trial": 1, "by": "retraining"})
    late = next(i for i, event in reversed(list(enumerate(parse(path)[0]))) if event["event"] == "completed")
    found = parse(path)[0]
    ledger = Ledger.of([*found[:late], *found[late + 1 :]])
    assert None not in (ledger.recommended, ledger.retrained, ledger.judged)
    ledger.apply(found[late])
    assert ledger.recommended is ledger.retrained is ledger.judged is None
    assert ledger.winner.trial == study.ledger.best(1)[0].trial


class Chooser(RandomSearch):
    """Random search that hands over the network with the worst reward."""

    def recommend(self):
        return self.space.decode(self.memory.top(len(self.memory))[-1])


def test_the_controllers_choice_is_handed_over_and_recorded_once(recipe, files, monkeypatch):
    monkeypatch.setitem(controllers._CONTROLLERS, "random", Chooser)
    study = search(files / "j", recipe())
    assert study.ledger.winner is study.ledger.best()[-1]
    assert search(files / "j", recipe()).ledger.winner.trial == study.ledger.winner.trial
    assert [event["trial"] for event in events(files / "j", "recommended")] == [study.ledger.winner.trial.number]
    assert [event["children"] for event in events(files / "j", "verdict")] == [12]


def test_adopted_children_count_under_the_new_objective_and_are_not_trained_again(recipe, files):
    earlier = search(files / "j", recipe(), LookUp(failing=0)).ledger
    measured = [child for child in earlier.children.values() if isinstance(child.result, Measurement)]
    known = {child.trial.key: child for child in measured}
    hard = recipe(children=len(measured) + 4, objective={"name": "hard", "target": 500_000})
    with Journal(files / "new") as journal:
        Study(hard, journal).adopt(measured)
    evaluator = LookUp()
    study = search(files / "new", hard, evaluator)
    assert not {key for key, _ in evaluator.calls} & set(known)
    assert len(study.ledger.best()) == len(measured) + 4
    adopted = {key: child.trial.seed for key, child in study.ledger.by_key.items() if key in known}
    assert adopted == {key: child.trial.seed for key, child in known.items()}
    ever = {child.trial.seed for child in earlier.children.values()}
    assert not {child.trial.seed for child in study.ledger.best() if child.trial.key not in known} & ever
    for child in study.ledger.best():
        assert child.reward == hard.make_objective()(child.result.accuracy, child.cost)
        if child.trial.key in known:
            assert child.result.accuracy == known[child.trial.key].result.accuracy


def test_a_controller_goes_on_from_adopted_children_with_draws_of_its_own(recipe, files):
    """The same seed again would only suggest what was adopted."""
    earlier = search(files / "j", recipe("random")).ledger
    with Journal(files / "new") as journal:
        Study(recipe("random", children=len(earlier.measured()) + 4), journal).adopt(earlier.measured())
    study = search(files / "new", recipe("random", children=len(earlier.measured()) + 4))
    assert len(study.ledger.best()) == len(earlier.measured()) + 4
    assert len(events(files / "new", "repeated")) < len(earlier.measured())
    adopted = text(files / "new")
    search(files / "new", recipe("random", children=len(earlier.measured()) + 4))
    assert text(files / "new") == adopted


@pytest.mark.parametrize("name", ["ppo", "reinforce"])
def test_policy_updates_are_written(name, recipe, files):
    search(files / "j", recipe(name))
    updates = events(files / "j", "updated")
    assert len(updates) >= 2
    assert all(np.isfinite(value) for update in updates for value in update.values() if not isinstance(value, str))


def test_a_search_cut_among_repeats_goes_on_counting_them(recipe, files, monkeypatch):
    monkeypatch.setattr(nas.study, "MOST_REPEATS", 25)
    (files / "space.yaml").write_text(TINY)
    search(files / "whole", recipe(children=5))
    lines = (files / "whole").read_bytes().splitlines(keepends=True)
    for kept in range(1, len(lines)):
        (files / "j").write_bytes(b"".join(lines[:kept]))
        search(files / "j", recipe(children=5))
        assert text(files / "j") == text(files / "whole")


def test_seeds_depend_on_the_study_and_the_trials_number_only(recipe, files):
    def seeds(journal: str, evaluator: LookUp, **fields) -> list[int]:
        study = search(files / journal, recipe(**fields), evaluator)
        numbers = {child.trial.key: n for n, child in study.ledger.children.items()}
        return [seed for _, seed in sorted((numbers[key], seed) for key, seed in evaluator.calls)]

    first = seeds("a", LookUp())
    assert len(set(first)) == 13
    assert seeds("b", LookUp(failing=1), controller={"name": "evolution"}) == first
    assert seeds("c", LookUp(), children=14)[:13] == first
    assert not set(seeds("d", LookUp(), seed=1)) & set(first)
    assert all(event["seed"] in first for event in events(files / "a", "suggested"))


CHANGES = [
    ({"seed": 1}, "seed"),
    ({"children": 13}, "children"),
    ({"objective": {"target": "2M"}}, r"objective\.target"),
    ({"controller": {"name": "evolution"}}, r"controller\.name"),
    ({"controller": {"name": "random", "options": {"x": 1}}}, r"controller\.options|options"),
    ({"proxy": {"epochs": 2, "resolution": 8}}, r"proxy\.epochs"),
    ({"deployment": {"resolution": 64}}, r"deployment\.resolution"),
    ({"name": "other"}, "name"),
]


@pytest.mark.parametrize(("change", "named"), CHANGES, ids=[named for _, named in CHANGES])
def test_a_changed_recipe_is_refused_with_the_field(change, named, recipe, files):
    search(files / "j", recipe())
    before = (files / "j").read_bytes()
    with Journal(files / "j") as journal, pytest.raises(InputError, match=named) as error:
        Study(recipe(**change), journal)
    assert "\n" not in str(error.value)
    assert (files / "j").read_bytes() == before


@pytest.mark.parametrize(
    ("file", "before", "after", "named"),
    [("space.yaml", "[3, 5]", "[3, 7]", "space"), ("baseline.yaml", "layers: 1", "layers: 2", "baseline")],
)
def test_a_changed_file_is_refused(file, before, after, named, recipe, files):
    search(files / "j", recipe())
    content = (files / file).read_text()
    assert before in content
    (files / file).write_text(content.replace(before, after))
    wanted = f"the recipe changed since the run began: {named}"
    with Journal(files / "j") as journal, pytest.raises(JournalError, match=wanted):
        Study(recipe(), journal)


def test_it_may_be_executed_otherwise(recipe, files):
    search(files / "j", recipe())
    with Journal(files / "j") as journal:
        study = Study(recipe(executor={"name": "tune", "cpus_per_child": 2, "time_limit": 5}), journal)
    assert len(study.ledger.finished()) == 12


def test_its_files_may_move(recipe, files):
    search(files / "j", recipe())
    moved = {name: str((files / f"{name}.yaml").rename(files / f"moved-{name}.yaml")) for name in ("space", "baseline")}
    before = (files / "j").read_bytes()
    assert search(files / "j", recipe(**moved)).done
    assert (files / "j").read_bytes() == before


def test_a_journal_with_two_results_of_a_child_is_refused(recipe, files):
    search(files / "j", recipe())
    lines = (files / "j").read_text().splitlines(keepends=True)
    twice = next(line for line in lines if '"completed"' in line)
    (files / "j").write_text("".join([*lines, twice]))
    with pytest.raises(JournalError, match="the journal is damaged: trial 0 has two results"):
        search(files / "j", recipe())


def test_a_child_without_its_result_is_trained_again_and_chosen_by_a_controller_that_knows_the_others(recipe, files):
    whole = search(files / "j", recipe("model_based", children=16))
    lost = next(child for child in whole.ledger.finished() if child is not whole.ledger.recommended)
    kept = [
        line for line in parse(files / "j")[0] if (line["event"], line.get("trial")) != ("completed", lost.trial.number)
    ]
    (files / "j").write_text("".join(json.dumps(line) + "\n" for line in kept))
    again = search(files / "j", recipe("model_based", children=16))
    assert again.ledger.recommended.trial == whole.ledger.recommended.trial
    assert len(again.ledger.finished()) == 16


def test_a_journal_of_another_format_is_refused(recipe, files):
    (files / "j").write_text('{"event": "search", "format": "baseline-nas/journal/0"}\n')
    wanted = "format: must be baseline-nas/journal/1, not 'baseline-nas/journal/0'"
    with Journal(files / "j") as journal, pytest.raises(JournalError, match=wanted):
        Study(recipe(), journal)


def test_wrong_controller_options_are_named(recipe, files):
    with Journal(files / "j") as journal, pytest.raises(InputError, match=r"^controller\.options: clip: no option of"):
        Study(recipe(controller={"name": "ppo", "options": {"clip": 1}}), journal)
    assert (files / "j").read_bytes() == b""


def test_the_ledger_of_a_journal_is_the_studys(recipe, files):
    study = search(files / "j", recipe(children=16), LookUp(failing=0))
    (files / "space.yaml").unlink()  # it is all in the journal
    (files / "baseline.yaml").unlink()
    ledger = Ledger.of(parse(files / "j")[0])
    assert ledger.children == study.ledger.children
    assert [child.trial for child in ledger.best()] == [child.trial for child in study.ledger.best()]
    assert len(ledger.failed()) == len(events(files / "j", "failed")) - isinstance(ledger.baseline.result, Failure)


def test_watching_sees_every_step(recipe, files):
    seen = []

    def watch(study: Study) -> None:
        seen.append((len(study.ledger.running()), len(study.ledger.finished())))

    with Journal(files / "j") as journal:
        study = Study(recipe(), journal, watch)
        SerialExecutor().run(study, LookUp())
    assert seen == [(1, 0), (0, 0)] + [step for n in range(12) for step in ((1, n), (0, n + 1))]


def test_costs_are_the_deployed_networks(recipe, files):
    study = search(files / "j", recipe(deployment={"resolution": 64, "num_classes": 7}))
    for event in events(files / "j", "completed"):
        network = study.ledger.children[event["trial"]].trial.architecture
        assert (network.resolution, network.num_classes) == (64, 7)
        assert event["cost"] == event["flops"] == cost.flops(network)
        assert event["params"] == cost.params(network)
