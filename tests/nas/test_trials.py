"""A fixed list of trainings: nothing is trained twice, whatever stops it or changes the list."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

from nas.evaluators import Failure, Measurement
from nas.journal import JournalError, parse
from nas.recipe import Recipe
from nas.recipe_errors import RecipeError
from nas.trials import repeated, train, whole_trainings
from search_space import DataError, load_space


@dataclass
class Scripted:
    """Measures by the seed, keeps the seeds, and stops or fails where it is told to."""

    stop_after: int = 1000
    fails: int | None = None
    images: int = 5
    seeds: list[int] = field(default_factory=list)

    def contents(self, architecture):
        return {"images": self.images}

    def evaluate(self, architecture, seed, report):
        if len(self.seeds) == self.stop_after:
            raise KeyboardInterrupt
        self.seeds.append(seed)
        if len(self.seeds) == self.fails:
            raise RuntimeError("out of memory")
        return Measurement(seed / 2**32, 1, 0.5)


@pytest.fixture
def recipe(small_recipe):
    return Recipe.load(str(small_recipe))


@pytest.fixture
def trials(recipe):
    space = load_space(recipe.space)
    networks = [(0, recipe.load_baseline()), *((i, space.decode((i, 0, 0, 0, 0))) for i in (1, 2))]
    return repeated(networks, [1, 2], recipe.seed)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "trials.jsonl"


def test_every_trial_is_trained_once_with_its_own_seed(recipe, trials, path):
    evaluator = Scripted()
    results = train(path, recipe, evaluator, trials)
    assert evaluator.seeds == [trial.seed for trial in trials]
    assert {number: result.accuracy for number, result in results.items()} == {
        trial.number: trial.seed / 2**32 for trial in trials
    }


def test_the_same_call_again_trains_nothing_and_gives_the_same(recipe, trials, path):
    first = train(path, recipe, Scripted(), trials)
    content, again = path.read_bytes(), Scripted()
    assert train(path, recipe, again, trials) == first
    assert again.seeds == []
    assert path.read_bytes() == content


@pytest.mark.parametrize("stop", range(6))
def test_after_a_stop_only_the_rest_is_trained(recipe, trials, path, stop):
    with pytest.raises(KeyboardInterrupt):
        train(path, recipe, Scripted(stop_after=stop), trials)
    rest = Scripted()
    assert len(train(path, recipe, rest, trials)) == len(trials)
    assert rest.seeds == [trial.seed for trial in trials[stop:]]


def test_a_list_that_trained_nothing_binds_to_nothing(recipe, small_recipe, trials, path):
    with pytest.raises(KeyboardInterrupt):
        train(path, recipe, Scripted(stop_after=0), trials)
    other = Recipe.load(str(small_recipe), ["proxy.lr=0.01"])
    assert len(train(path, other, Scripted(), trials)) == len(trials)


def test_a_torn_last_line_is_trained_again(recipe, trials, path):
    whole = train(path, recipe, Scripted(), trials)
    path.write_bytes(path.read_bytes()[:-9])
    rest = Scripted()
    assert train(path, recipe, rest, trials) == whole
    assert rest.seeds == [trials[-1].seed]


def test_another_list_reuses_what_it_shares(recipe, trials, path):
    networks = [(trial.number, trial.architecture) for trial in trials[:3]]
    train(path, recipe, Scripted(), repeated(networks[:2], [1], recipe.seed))
    more = Scripted()
    train(path, recipe, more, trials)
    assert more.seeds == [trial.seed for trial in trials[2:]]
    none = Scripted()
    assert set(train(path, recipe, none, trials[:1])) == {0}
    assert none.seeds == []


def test_the_list_goes_on_after_a_failure_and_what_failed_is_tried_again(recipe, trials, path):
    results = train(path, recipe, Scripted(fails=2), trials)
    assert results[1] == Failure("RuntimeError: out of memory")
    assert len(results) == len(trials)
    again = Scripted()
    found = train(path, recipe, again, trials)
    assert again.seeds == [trials[1].seed]
    assert {**found, 1: results[1]} == results
    assert isinstance(found[1], Measurement)


def test_ray_tune_runs_the_list(recipe, trials, path):
    tune = Recipe.parse({**recipe.model_dump(), "executor": {"name": "tune"}}, "tune")
    with_tune = train(path, tune, Scripted(), trials)
    assert with_tune == train(path.with_name("serial.jsonl"), recipe, Scripted(), trials)


def test_watch_sees_the_beginning_and_every_result(recipe, trials, path):
    seen = []
    train(path, recipe, Scripted(), trials, watch=lambda listed: seen.append(len(listed.results)))
    assert seen == list(range(len(trials) + 1))


@pytest.mark.parametrize(
    ("change", "name"),
    [("proxy.lr=0.01", "proxy.lr"), ("seed=1", "seed"), ("data.holdout=0.5", "data.holdout")],
)
def test_other_settings_are_refused_naming_the_field(recipe, small_recipe, trials, path, change, name):
    train(path, recipe, Scripted(), trials)
    content = path.read_bytes()
    with pytest.raises(JournalError, match=f"{name} changed since") as error:
        train(path, Recipe.load(str(small_recipe), [change]), Scripted(), trials)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == content


def test_other_images_are_refused_wherever_they_lie(recipe, trials, path):
    train(path, recipe, Scripted(), trials[:2])
    content = path.read_bytes()
    with pytest.raises(DataError, match="content changed since the run began, from 5 images to 6 images"):
        train(path, recipe, Scripted(images=6), trials)
    assert path.read_bytes() == content


def test_what_a_training_does_not_depend_on_may_change(recipe, small_recipe, trials, path):
    train(path, recipe, Scripted(), trials)
    other = ["data.source=moved", "children=99", "objective.target=3M", "controller={name: random}"]
    other += ["executor.time_limit=9"]
    again = Scripted()
    train(path, Recipe.load(str(small_recipe), other), again, trials)
    assert again.seeds == []


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ('{"event": "completed", "key": "a", "seed": 1}', "an event lacks 'accuracy'"),
        ('{"key": "a"}', "lacks 'seed'"),
        ('{"key": "a", "seed": 1, "accuracy": 7, "epochs": 1, "seconds": 1}', "a field is of another kind or range"),
        ('{"key": "a", "seed": 1, "accuracy": 0.5, "epochs": null, "seconds": 1}', "of another kind or range"),
        ('{"key": [1], "seed": 1, "accuracy": 0.5, "epochs": 1, "seconds": 1}', "of another kind or range"),
    ],
)
def test_a_damaged_event_is_one_line(recipe, trials, path, line, part):
    train(path, recipe, Scripted(), trials)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(JournalError, match=part):
        train(path, recipe, Scripted(), trials)


@pytest.mark.parametrize(
    ("field", "value"), [("settings", 1), ("contents", [1]), ("grown_from", 1), ("grown_from", {})]
)
def test_a_damaged_header_is_one_line(recipe, trials, path, field, value):
    train(path, recipe, Scripted(), trials)
    header, *others = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps(json.loads(header) | {field: value}), *others]) + "\n")
    with pytest.raises(JournalError, match="damaged"):
        train(path, recipe, Scripted(), trials)


def test_the_journal_of_a_search_is_no_list(recipe, trials, path):
    path.write_text(json.dumps({"event": "search", "format": "baseline-nas/journal/1"}) + "\n")
    with pytest.raises(JournalError, match="format: must be baseline-nas/trials/1"):
        train(path, recipe, Scripted(), trials)
    assert len(parse(path)[0]) == 1


def test_seeds_are_fresh_and_belong_to_the_network(recipe):
    networks = [(number, recipe.load_baseline()) for number in range(5)]
    trials = repeated(networks, [1, 2, 3], seed=7)
    assert len({trial.seed for trial in trials}) == 15
    assert [trial.number for trial in trials] == list(range(15))
    alone = repeated(networks[3:4], [2], seed=7)
    assert alone[0].seed == trials[5 + 3].seed
    assert {trial.seed for trial in repeated(networks, [1], seed=8)}.isdisjoint(trial.seed for trial in trials)


def test_whole_trainings_last_to_the_end(small_recipe):
    stopping = ["executor={name: tune, time_limit: 100, early_stopping: {grace_epochs: 1}}", "proxy.epochs=2"]
    recipe = Recipe.load(str(small_recipe), stopping)
    longer = whole_trainings(recipe, 8, 3)
    assert longer.executor.early_stopping is None
    assert (longer.executor.time_limit, longer.executor.workers, longer.proxy.epochs) == (400, 3, 8)
    assert whole_trainings(recipe, None, None).proxy == recipe.proxy
    with pytest.raises(RecipeError, match="workers"):
        whole_trainings(recipe, None, 0)
