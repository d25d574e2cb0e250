"""`nas top --retrain`, as a user types it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nas.evaluators import make_evaluator
from nas.folder import Folder
from nas.journal import Journal, parse
from nas.recipe import Recipe
from nas.retrain import retrain
from nas.verdict import recorded_verdict
from search_space import Architecture

RETRAIN = ("top", "run", "-k", "4", "--retrain", "--seeds", "2", "--epochs", "1")


@pytest.fixture
def run(nas, small_recipe):
    """A finished search of 6 children."""
    code, _, err = nas("search", small_recipe, "--out", "run")
    assert (code, err) == (0, "")
    return Folder.open(Path("run"))


def rewards(ledger, path):
    """By child's name, all rewards of a list of trainings."""
    cost = {child.trial.key: child.cost for child in ledger.children.values()}
    found = {}
    for event in parse(path)[0][1:]:
        found.setdefault(event["name"], []).append(float(ledger.objective(event["accuracy"], cost[event["key"]])))
    return found


def test_the_best_estimate_is_handed_over(run, nas):
    before = run.ledger()
    code, out, err = nas(*RETRAIN)
    assert (code, err) == (0, "")
    again = rewards(before, run.path / "retrain.jsonl")
    leaders = [child.trial.architecture.name for child in before.best(4)]
    assert {*again} == {*leaders, before.winner.trial.architecture.name, "small-baseline"}
    assert all(len(values) == 2 for values in again.values())
    del again["small-baseline"]
    best = max(again, key=lambda name: np.mean(again[name]))  # shrinking equal numbers of repeats keeps the order
    after = run.ledger()
    assert after.winner.trial.architecture.name == best
    assert Architecture.load(run.best).name == best
    shown = [row[1] for row in map(str.split, out.splitlines()) if len(row) > 6 and row[1] in again]
    assert shown == sorted(again, key=lambda name: -np.mean(again[name]))
    assert f"choice: {best}" in out
    assert "against the runner-up" in out
    assert "against the baseline small-baseline" in out
    searched = before.winner.trial.architecture.name
    assert f"choice: {best}, the search's choice too" in out or f"against the search's choice {searched}" in out
    assert "winner's curse" in out  # trained as long as in the search, the levels compare


def test_reports_open_with_the_verdict_of_the_search(run, nas):
    told = str(recorded_verdict(run.ledger()))
    assert "random sampling" in told
    assert nas("top", "run")[1].splitlines()[0] == told
    for words in (RETRAIN, ("top", "run"), ("resume", "run")):
        assert f"Before retraining: {told}" in nas(*words)[1].splitlines()
    assert sum(event["event"] == "verdict" for event in parse(run.journal)[0]) == 1


def test_show_and_export_take_the_choice(run, nas):
    nas(*RETRAIN)
    best = Architecture.load(run.best)
    assert best.name in nas("show", "run")[1]
    code, out, _ = nas("export", "run", "-o", "exported")
    assert code == 0
    assert Architecture.load(out.strip()).key() == best.key()


def test_the_same_command_again_trains_nothing_and_says_the_same(run, nas):
    first = nas(*RETRAIN)[1]
    files = {path: path.read_bytes() for path in run.path.iterdir()}
    second = nas(*RETRAIN)[1]
    table = first.index("rank")
    assert first[table:] in second
    assert {path: path.read_bytes() for path in run.path.iterdir()} == files


def test_more_leaders_and_seeds_keep_what_was_trained(run, nas):
    nas("top", "run", "-k", "2", "--retrain", "--seeds", "2", "--epochs", "1")
    first = parse(run.path / "retrain.jsonl")[0]
    nas("top", "run", "-k", "3", "--retrain", "--seeds", "3", "--epochs", "1")
    events = parse(run.path / "retrain.jsonl")[0]
    assert events[: len(first)] == first
    assert len({(event["key"], event["seed"]) for event in events[1:]}) == len(events) - 1
    assert {event["name"] for event in first[1:]} <= {event["name"] for event in events[1:]}


def test_fresh_seeds_and_four_times_the_epochs_by_default(run, nas):
    code, out, _ = nas("top", "run", "-k", "1", "--retrain")
    assert code == 0
    assert "for 4 epochs (search: 1)" in out
    assert "There is no runner-up to compare it with." in out  # the best alone was handed over and is retrained
    events = parse(run.path / "retrain.jsonl")[0][1:]
    assert {event["epochs"] for event in events} == {4}
    searched = {child.trial.seed for child in run.ledger().children.values()}
    assert searched.isdisjoint(event["seed"] for event in events)


def test_a_baseline_that_is_handed_over_is_a_leader(nas, small_recipe):
    """A space of four networks, the baseline among them."""
    stage = "op: mbconv, out_chs: 8, kernel_size: 3, exp_ratio: 3"
    head = "resolution: 32\nnum_classes: 10\nstem: {out_chs: 8}\n"
    Path("space.yaml").write_text(
        f"format: baseline-nas/space/1\n{head}stages: [{{{stage}, layers: [1, 2]}}, {{{stage}, layers: [1, 2]}}]\n"
    )
    Path("baseline.yaml").write_text(
        f"format: baseline-nas/architecture/1\n{head}stages: [{{{stage}, layers: 1}}, {{{stage}, layers: 1}}]\n"
    )
    words = ["space=space.yaml", "children=3", "objective.target=500K"]
    assert nas("search", small_recipe, "-o", "run", *(part for word in words for part in ("--set", word)))[0] == 0
    run = Folder.open(Path("run"))
    with Journal(run.journal) as journal:
        journal.append({"event": "recommended", "trial": 0})
    before = run.ledger()
    code, out, _ = nas("top", "run", "-k", "1", "--retrain", "--seeds", "2", "--epochs", "1")
    assert code == 0
    name = before.baseline.trial.architecture.name
    rank = 1 + sum(child.reward > before.baseline.reward for child in before.best())
    assert re.search(rf"^\d +{name} +{rank} ", out, re.MULTILINE)
    assert "There is no baseline to compare it with" in out


def test_a_running_search_is_refused(run, refused):
    with Journal(run.journal):
        assert "another process is at work on it" in refused(*RETRAIN)
    assert not (run.path / "retrain.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--retrain", "--seeds", "1"], "--seeds 1: must be at least 2"),
        (["--retrain", "--epochs", "0"], "--epochs 0: must be at least the 1 of the search"),
        (["--retrain", "--workers", "2"], "executor.workers: the serial executor"),
        (["--seeds", "3"], "--seeds: only with --retrain"),
        (["--workers", "3"], "--workers: only with --retrain"),
    ],
)
def test_a_mistake_is_one_line(run, refused, words, part):
    before = run.journal.read_bytes()
    assert part in refused("top", "run", *words)
    assert run.journal.read_bytes() == before
    assert not (run.path / "retrain.jsonl").exists()


def test_other_epochs_than_before_are_refused(run, nas, refused):
    nas(*RETRAIN)
    err = refused("top", "run", "-k", "4", "--retrain", "--seeds", "2", "--epochs", "2")
    assert "retrain.jsonl: proxy.epochs changed since" in err


def test_a_run_without_a_measured_child_is_refused(nas, refused, small_recipe):
    nas("search", small_recipe, "--out", "run", "--set", "executor.time_limit=1e-6", "--set", "children=2")
    for words in (RETRAIN, ("retarget", "run", "--flops", "300M"), ("export", "run", "-o", "exported")):
        assert refused(*words).startswith("nas: run: no child has a result; the last failure: TimeLimitExceeded")


def test_retrainings_that_all_fail_are_refused_and_the_choice_stays(run, refused):
    recipe = run.path / "recipe.yaml"
    limited = re.sub(r"time_limit: [0-9.]+", "time_limit: 0.000001", recipe.read_text())
    recipe.write_text(limited)  # how it is executed may change after the search
    best = run.best.read_bytes()
    assert "too few retrainings succeeded" in refused(*RETRAIN)
    assert run.best.read_bytes() == best


def test_a_choice_that_came_before_the_verdict_outlasts_it_and_any_stop(run, nas):
    judged, third = recorded_verdict(run.ledger()), run.ledger().best(3)[2]
    lines = run.journal.read_text().splitlines(keepends=True)
    run.journal.write_text("".join(line for line in lines if '"verdict"' not in line and '"recommended"' not in line))
    with Journal(run.journal) as journal:
        figures = {"estimate": 0.5, "low": 0.4, "high": 0.6, "epochs": 1, "gain": None}
        journal.append({"event": "recommended", "trial": third.trial.number, "by": "retraining", **figures})
    begun = len(run.journal.read_text().splitlines())
    assert nas("resume", "run")[0] == 0
    lines = run.journal.read_text().splitlines(keepends=True)
    assert len(lines) > begun + 1
    for end in range(begun, len(lines) + 1):
        run.journal.write_text("".join(lines[:end]))
        assert nas("resume", "run")[0] == 0
        ledger = run.ledger()
        assert ledger.winner.trial == third.trial
        assert ledger.retrained["estimate"] == 0.5
        assert recorded_verdict(ledger) == judged  # on the search's own choice
        assert Architecture.load(run.best).key() == third.trial.key


def test_a_benchmark_is_looked_up_again(nas, refused, small_recipe):
    search = ("search", "rehearse-b0", "--out", "run", "--set", "children=12", "--set", "controller={name: random}")
    assert nas(*search)[0] == 0
    _, found = retrain(Path("run"), 10, seeds=5)
    assert found.epochs is None
    assert len(found.leaders) in (10, 11)
    assert all(len(set(leader.rewards)) == 5 for leader in found.leaders)
    assert found.baseline.estimate == found.baseline.mean  # no leader, so it isn't shrunk towards them
    for one in (*found.leaders, found.baseline):
        assert one.mean.value == pytest.approx(np.mean(one.rewards))
    gain = Folder.open(Path("run")).ledger().retrained["gain"][0]
    assert gain == pytest.approx(found.choice.estimate.value - np.mean(found.baseline.rewards))
    assert "--epochs: this run looked its children up" in refused("top", "run", "--retrain", "--epochs", "4")


def test_those_that_the_controller_estimates_best_are_trained_again_not_the_luckiest(nas, small_recipe):
    assert nas("search", "rehearse-b0", "--out", "run", "--set", "children=150")[0] == 0
    ledger, evaluator = Folder.open(Path("run")).ledger(), make_evaluator(Recipe.load("rehearse-b0"))

    def true_rewards(children):
        return [ledger.objective(evaluator.accuracy(child.trial.architecture), child.cost) for child in children]

    estimated, measured = ledger.leaders(10), ledger.best(10)
    assert estimated[0] is ledger.recommended
    assert len({child.trial.number for child in estimated}) == 10
    assert np.mean(true_rewards(estimated)) > np.mean(true_rewards(measured))
    assert {*map(id, ledger.leaders(1000))} == {*map(id, ledger.best())}
    assert nas("top", "run", "-k", "10", "--retrain")[0] == 0
    again = {event["name"] for event in parse(Path("run/retrain.jsonl"))[0][1:]}
    assert again == {"efficientnet-b0", *(child.trial.architecture.name for child in estimated)}


def test_a_stop_ends_cleanly_and_the_same_command_goes_on(run):
    words = [sys.executable, "-m", "nas.cli", "top", "run", "-k", "1", "--retrain"]
    driver = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ)
    trained = run.path / "retrain.jsonl"
    end = time.monotonic() + 120
    while not trained.exists() or trained.read_bytes().count(b"\n") < 3:
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)
    driver.send_signal(signal.SIGINT)
    out, _ = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert "Go on with the same command" in out
    assert "Traceback" not in out
    kept = parse(trained)[0]
    subprocess.run(words, check=True, capture_output=True)
    assert parse(trained)[0][: len(kept)] == kept


def test_under_auto_the_choice_meets_the_target(nas, small_recipe):
    nas("search", small_recipe, "--out", "run", "--set", "objective={name: auto, target: 2M}", "--set", "children=8")
    code, out, err = nas("top", "run", "-k", "8", "--retrain", "--seeds", "2", "--epochs", "1")
    assert (code, err) == (0, "")
    ledger = Folder.open(Path("run")).ledger()
    meeting = [child for child in ledger.best() if ledger.objective.meets_target(child.cost)]
    assert meeting
    assert ledger.winner in meeting
    assert f"target: {8 - len(meeting)} of 8 leaders miss T" in out
