"""The command, as a user types it."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import pty
import re
import subprocess
import sys
import tempfile
import termios
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from threadpoolctl import threadpool_info, threadpool_limits

from controllers import Controller
from nas import cli, run
from nas.evaluators import proxy
from nas.folder import Folder
from nas.journal import Journal, JournalGoneError, parse
from nas.quantities import format_quantity
from nas.recipe import Recipe
from nas.study import Study
from nas.verdict import verdict
from search_space import Architecture, cost, load_architecture, load_space


@pytest.fixture
def finished(nas, small_recipe):
    code, out, err = nas("search", small_recipe, "-o", "run")
    assert (code, err) == (0, "")
    return Path("run"), out


def test_a_search_ends_with_the_ranking_the_baseline_and_the_yaml(finished):
    folder, out = finished
    assert "6/6 done, 0 running, 0 failed" in out
    assert "(small-baseline (outside the space small))" in out
    best = Architecture.load(folder / "best.yaml")
    assert best.to_yaml() in out
    assert best.resolution == 64
    assert {path.name for path in folder.iterdir()} == {"journal.jsonl", "recipe.yaml", "best.yaml"}


def test_the_ranking_is_in_order_of_reward(finished, nas):
    code, out, _ = nas("top", "run", "-k", "3")
    rows = [line.split() for line in out.splitlines() if line[:1] in "123"]
    rewards = [float(row[2]) for row in rows]
    assert code == 0
    assert len(rewards) == 3
    assert rewards == sorted(rewards, reverse=True)


def test_an_exported_network_trains_to_the_journaled_accuracy_in_a_fresh_process(finished, nas):
    folder, _ = finished
    nas("export", folder, "-o", "exported")
    events = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    best = Architecture.load(folder / "best.yaml")
    number = int(best.name.rpartition("-")[2])
    seed = next(e["seed"] for e in events if e["event"] == "suggested" and e["trial"] == number)
    known = next(e for e in events if e["event"] == "completed" and e["trial"] == number)
    script = f"""
from nas.evaluators import ProxyEvaluator
from nas.recipe import Recipe
from nas.folder import Folder
from search_space import cost, load_architecture
network = load_architecture("exported/{best.name}.yaml")
evaluator = ProxyEvaluator.of(Recipe.load("{folder}/recipe.yaml"))
accuracy = evaluator.evaluate(network, {seed}, lambda epoch, accuracy: None).accuracy
print(network.key(), cost.params(network), cost.flops(network), repr(accuracy))
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.split() == [known["key"], str(known["params"]), str(known["flops"]), repr(known["accuracy"])]


def test_a_name_is_found_when_none_is_given(nas, small_recipe):
    for expected in ("results/small", "results/small-2"):
        code, out, _ = nas("search", small_recipe, "--set", "children=1")
        assert code == 0
        assert f"searching in {expected}\n" in out
        assert Path(expected, "best.yaml").exists()


def test_resuming_a_finished_run_trains_nothing_and_shows_the_end(finished, nas, monkeypatch):
    monkeypatch.setattr(Controller, "ask", None)  # what it learned is of no use any more
    before = Path("run/journal.jsonl").read_bytes()
    code, out, _ = nas("resume", "run")
    assert code == 0
    assert "best.yaml" in out
    assert Path("run/journal.jsonl").read_bytes() == before


def test_before_its_end_a_search_is_judged_so_far_and_its_best_is_said_to_be_as_measured(finished, nas):
    journal = Path("run/journal.jsonl")
    lines = journal.read_text().splitlines(keepends=True)
    said = "the best measured so far; the search's end chooses"
    assert said not in nas("top", "run")[1]
    journal.write_text("".join(line for line in lines if '"recommended"' not in line and '"verdict"' not in line))
    code, out, _ = nas("top", "run")
    assert code == 0
    assert said in out
    assert out.startswith(f"So far: {verdict(Folder(Path('run')).ledger())}\n")


def test_retargeting_goes_on_with_the_children_of_the_earlier_run(finished, nas):
    before = (finished[0] / "journal.jsonl").read_bytes()
    code, out, err = nas("retarget", "run", "--flops", "600K", "--children", "2", "-o", "new")
    assert (code, err) == (0, "")
    assert "8/8 done" in out
    assert "objective auto" in out
    assert (finished[0] / "journal.jsonl").read_bytes() == before
    earlier, later = (Folder(Path(name)).ledger() for name in ("run", "new"))
    accuracies = {child.trial.key: child.result.accuracy for child in earlier.best()}
    assert accuracies.items() <= {child.trial.key: child.result.accuracy for child in later.best()}.items()
    assert later.recipe.objective.target == 600_000
    recipe = Recipe.load("new/recipe.yaml")
    assert (recipe.objective.name, recipe.children) == ("auto", 8)


def test_what_failed_is_not_trained_again_for_another_target_unless_children_run_otherwise(finished, nas):
    lines, failed = [], set()
    for line in Path("run/journal.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "completed" and event["trial"] > 4:
            failed.add(event["key"])
            event = {"event": "failed", "trial": event["trial"], "reason": "out of memory"}
        if event["event"] in ("search", "suggested", "completed", "failed"):
            lines.append(json.dumps(event) + "\n")
    Path("run/journal.jsonl").write_text("".join(lines))
    assert nas("retarget", "run", "--flops", "600K", "--children", "2", "-o", "same")[0] == 0
    longer = ["--set", "executor.time_limit=5000"]
    assert nas("retarget", "run", "--flops", "600K", "--children", "0", "-o", "other", *longer)[0] == 0
    same, other = (Folder(Path(name)).ledger() for name in ("same", "other"))
    assert {child.trial.key for child in same.failed()} == failed
    assert len(same.measured()) == 4 + 2
    assert not failed & {child.trial.key for child in same.measured()}
    assert (len(other.failed()), len(other.measured())) == (0, 4)


def test_a_retargeting_that_is_stopped_while_it_takes_children_over_leaves_nothing(finished, nas, monkeypatch):
    finish, calls = Study.finish, []

    def stopped(self, trial, result):
        calls.append(trial)
        if len(calls) == 4:
            raise KeyboardInterrupt
        finish(self, trial, result)

    monkeypatch.setattr(Study, "finish", stopped)
    code, out, _ = nas("retarget", "run", "--flops", "600K", "-o", "new")
    assert code == 130
    assert "resume" not in out
    assert not Path("new").exists()


def test_a_retargeting_that_can_not_train_leaves_nothing(finished, refused):
    refused("retarget", finished[0], "--flops", "600K", "-o", "new", "--ray-address", "auto")
    assert not Path("new").exists()


@pytest.mark.parametrize("journal", [None, b"", b'{"event": "sea'])
def test_a_search_that_was_stopped_before_its_first_event_is_begun_by_resume(
    journal, small_recipe, nas, refused, tmp_path
):
    folder = tmp_path / "r"
    assert nas("search", small_recipe, "-o", folder)[0] == 0
    whole = Folder(folder).ledger()
    for path in folder.iterdir():
        if path.name != "recipe.yaml":
            path.unlink()
    if journal is not None:
        (folder / "journal.jsonl").write_bytes(journal)
    assert refused("top", folder) == f"nas: {folder}: the search has not begun; `nas resume {folder}` begins it\n"
    assert f"go on with `nas resume {folder}`" in refused("search", small_recipe, "-o", folder)
    assert nas("resume", folder)[0] == 0
    assert [child.reward for child in Folder(folder).ledger().best()] == [child.reward for child in whole.best()]


def test_a_retarget_that_was_stopped_is_not_begun_without_its_children(finished, refused):
    folder, _ = finished
    (folder / "journal.jsonl").rename(folder / "journal.part")
    assert "remove it, and retarget again" in refused("resume", folder)
    assert "choose another name" in refused("search", "digits", "-o", folder)
    assert "nas resume" not in refused("search", "digits", "-o", folder)


def test_searches_that_begin_together_have_folders_of_their_own(nas, small_recipe):
    recipe = Recipe.load(str(small_recipe))
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: Folder.create(recipe, None).path, range(8)))
    assert len({*folders}) == 8
    assert all((folder / "recipe.yaml").is_file() for folder in folders)


def test_retargeting_again_trains_as_many_as_the_run_before(finished, nas):
    assert "8/8 done" in nas("retarget", "run", "--flops", "600K", "--children", "2", "-o", "new")[1]
    assert "10/10 done" in nas("retarget", "new", "--flops", "700K", "-o", "newer")[1]


def test_a_folder_hides_no_network_of_the_library(nas, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert nas("export", "efficientnet-b0", "-o", "efficientnet-b0")[0] == 0
    assert nas("show", "efficientnet-b0")[0] == nas("compare", "efficientnet-b0")[0] == 0


def test_a_folder_with_brackets_in_its_name_is_a_folder(nas, small_recipe):
    code, out, _ = nas("search", small_recipe, "--set", "children=1", "-o", "my run[/x]")
    assert code == 0
    assert "searching in my run[/x]\n" in out
    assert "nas show 'my run[/x]'" in out


def test_retargeting_without_more_children_ranks_again(finished, nas):
    code, out, err = nas("retarget", "run", "--flops", "600K", "--children", "0", "--set", "objective.name=hard")
    assert (code, err) == (0, "")
    assert "small-2" in out
    ledger = Folder(Path("results/small")).ledger()
    assert ledger.recipe.objective.name == "hard"
    assert len(ledger.best()) == len(ledger.finished()) == 6


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ("proxy.epochs=2", "proxy.epochs: may not change"),
        ("data.holdout=0.4", "data.holdout: may not change"),
        ("seed=5", "seed: may not change"),
        ("space=mnasnet", "space: may not change"),
        ("deployment.num_classes=3", "deployment.num_classes: may not change"),
        ("objective.target=300M", "--set objective.target=300M: "),
        ("children=5", "--set children=5: "),
    ],
)
def test_retargeting_changes_nothing_that_children_were_measured_by(finished, refused, setting, part):
    words = ("retarget", "run", "--flops", "600K", "--children", "0", "-o", "new")
    assert part in refused(*words, "--set", setting)
    assert not Path("new").exists()


def test_retargeting_over_another_space_of_the_same_name_is_refused(nas, refused, tmp_path):
    """Elsewhere, it may be."""
    space = {"format": "baseline-nas/space/1"} | load_space("accel-nasbench").to_dict()
    (tmp_path / "space.yaml").write_text(json.dumps(space))
    assert nas("search", "rehearse-b0", "--set", "space=space.yaml", "--set", "children=12", "-o", "run")[0] == 0
    (tmp_path / "space.yaml").rename(tmp_path / "moved.yaml")
    recipe = tmp_path / "run" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("space.yaml", "moved.yaml"))
    for words in (
        ["top", "run", "--retrain"],
        ["retarget", "run", "--flops", "300M", "--children", "0", "-o", "ranked"],
    ):
        assert nas(*words)[0] == 0
    space["stages"] = [stage | {"kernel_size": [5, 3]} for stage in space["stages"]]
    (tmp_path / "moved.yaml").write_text(json.dumps(space))
    err = refused("retarget", "run", "--flops", "300M", "--children", "0", "-o", "new")
    assert re.fullmatch(r"nas: space: may not change, the run's children .*\n", err)
    assert not Path("new").exists()


def test_resuming_with_a_changed_recipe_is_refused_naming_the_field(finished, refused):
    recipe = Path("run/recipe.yaml")
    recipe.write_text(recipe.read_text().replace("epochs: 1", "epochs: 2"))
    assert "proxy.epochs" in refused("resume", "run")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["search", "digit"], "did you mean digits?"),
        (["search", "digits", "--set", "proxy.epoch=3"], "proxy.epoch: unknown key; did you mean epochs?"),
        (["search", "digits", "--set", "children=no"], "children"),
        (["search", "digits", "--set", "objective.target=400"], "objective.target"),
        (["search", "digits", "--set", "controller.options.lrr=3"], "lrr"),
        (["search", "digits", "--set", "controller.options.name=ppo"], "controller.options: name: no option of"),
        (["search", "images", "--data", "~nobodyhere/photos"], "data.source: ~nobodyhere/photos does not exist"),
        (["search", "digits", "--set", "space=~nobodyhere/space.yaml"], "~nobodyhere/space.yaml"),
        (["search", "digits", "--set", "space=efficientnet-b0"], "no such space"),
        (["search", "images", "--data", "missing"], "data.source: missing"),
        (
            ["search", "digits", "--set", "objective.target=5G"],
            "5G is outside what mbconv reaches: 149.9M to 605M flops",
        ),
        (["search", "digits", "--set", "children=8"], "children: 8 is fewer than the 11 that model_based needs"),
        (["search", "rehearse-b0", "--data", "missing.jsonl.gz"], "missing.jsonl.gz: "),
        (["search", "rehearse-b0", "--set", "space=mbconv"], "accel-nasbench"),
        (["search", "rehearse-b0", "--set", "objective.cost=throughput_phone"], "throughput_phone"),
        (["search", "digits", "--set", "objective.cost=latency"], "needs --set objective.target=... too"),
        (["search", "rehearse-b0", "--set", "deployment.resolution=96"], "deployment: a benchmark's networks"),
        (["search", "digits", "--set", "deployment.resolution=8"], "mbconv, as `deployment` asks for it: stages["),
        (["search", "rehearse-b0", "--set", "objective.cost=ms"], "objective.cost: must be flops, params, latency, or"),
        (["search", "digits", "--set", "name=a b"], "name: must be letters, digits"),
        (["search", "rehearse-b0", "--set", "baseline=mobilenet-v2"], "baseline: mobilenet-v2 is outside the space"),
        (["search", "rehearse-b0", "--ray-address", "auto"], "--ray-address: this recipe trains in one process"),
        (["search", "rehearse-b0", "--workers", "4"], "executor.workers: a benchmark is looked up in this process"),
        (["search", "digits", "--set", "deployment.num_classes=3"], "3 is fewer than the 10 classes of digits"),
        (["search", "digits", "--workers", "abc"], "'--workers': Input should be a valid integer"),
        (["top", "missing", "-k", "0"], "'-k': Input should be greater than or equal to 1"),
        (["serch", "digits"], "No such command 'serch'. Did you mean 'search'"),
        (["retarget", "missing", "--flops", "200M"], "no run there"),
        (
            ["retarget", "missing", "--flops", "200"],
            "--flops: 200 multiply-adds is less than any network has; write 200M?",
        ),
        (["retarget", "missing", "--flops", "abc"], "--flops: must be a number such as 400M"),
        (["resume", "missing"], "no run there"),
        (["top", "missing"], "no run there"),
        (["show", "b0"], "no such architecture"),
        (["profile", "small.yaml"], "small.yaml: format"),
        (["search", "./space.yaml"], "space.yaml: format: must be"),
        (["export", "efficientnet-b0", "-o", "here", "--format", "pickle"], "--format: 'pickle' is unknown"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(refused, small_recipe, words, part):
    assert part in refused(*words)
    assert not Path("results").exists() or not list(Path("results").iterdir())


def test_a_temporary_folder_that_is_too_long_for_ray_is_named(refused, small_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("x" * 90)))
    (tmp_path / ("x" * 90)).mkdir()
    err = refused("search", small_recipe, "--set", "executor.name=tune", "-o", "run")
    assert err.startswith(f"nas: Ray can't start in TMPDIR={tmp_path}/xxx")
    assert not Path("run").exists()


def test_a_report_needs_no_screen(nas, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)  # as after `>&-`
    assert nas("show", "efficientnet-b0")[0] == 0


def test_a_letter_that_the_screen_lacks_is_replaced(nas, monkeypatch):
    screen = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", screen)
    assert nas("export", "efficientnet-b0", "-o", "сеть")[0] == 0
    screen.flush()
    assert screen.buffer.getvalue() == b"????/efficientnet-b0.yaml\n"
    assert Path("сеть/efficientnet-b0.yaml").exists()


def test_a_file_of_the_users_beside_an_export_stays(nas):
    Path("here").mkdir()
    beside = [Path("here") / name for name in ("efficientnet-b0.part", "efficientnet-b0.yaml.part")]
    for path in beside:
        path.write_text("mine")
    assert nas("export", "efficientnet-b0", "-o", "here")[0] == 0
    assert [path.read_text() for path in beside] == ["mine", "mine"]


def test_the_baseline_counts_at_the_resolution_and_classes_of_the_space(nas, small_recipe):
    text = Path("baseline.yaml").read_text().replace("resolution: 64", "resolution: 128")
    Path("baseline.yaml").write_text(text.replace("num_classes: 10", "num_classes: 1000"))
    code, out, _ = nas("search", small_recipe, "-o", "run")
    assert code == 0
    network = load_architecture("baseline.yaml").with_(resolution=64, num_classes=10)
    assert f"{format_quantity(cost.flops(network))} FLOPs)  (small-baseline" in out
    assert "costs count" not in out


def test_the_controller_leaves_the_cores_to_the_children(small_recipe):
    seen = []

    def watch(folder, study):
        seen.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")

    with threadpool_limits(2):
        run.start(Recipe.load(str(small_recipe)), Path("run"), None, watch)
    assert set(seen) == {1}


def test_a_choice_that_is_the_baseline_is_said_to_be(nas, small_recipe):
    top, _, _ = Path("space.yaml").read_text().partition("stages:")
    Path("space.yaml").write_text(top + "stages: [{op: conv, layers: 1, out_chs: [16, 1], stride: 2}]")
    words = ["--set", "controller.name=random", "--set", "objective.target=500K", "--set", "objective.w=0"]
    code, out, _ = nas("search", small_recipe, *words, "--set", "proxy.epochs=4", "-o", "run")
    assert code == 0
    assert "(small-baseline)\nThe choice is the baseline itself: no other" in out


def test_an_out_that_exists_is_refused_with_both_ways_out(finished, refused, small_recipe):
    err = refused("search", small_recipe, "--out", "run")
    assert "nas resume run" in err
    assert "another name" in err


def test_an_empty_folder_is_as_good_as_none_and_another_file_is_no_run(nas, refused, small_recipe):
    Path("empty").mkdir()
    assert nas("search", small_recipe, "-o", "empty", "--set", "children=1")[0] == 0
    Path("file").write_text("mine")
    assert "nas resume" not in refused("search", small_recipe, "-o", "file")
    assert Path("file").read_text() == "mine"


def test_images_that_have_moved_are_named_anew(nas, refused, small_recipe):
    rng = np.random.default_rng(0)
    arrays = {"x_train": rng.integers(0, 255, (60, 8, 8), dtype=np.uint8), "y_train": np.arange(60) % 3}
    np.savez("here.npz", **arrays)
    small = ("--set", "proxy.batch_size=16")
    assert nas("search", small_recipe, "--data", "here.npz", "-o", "run", *small)[0] == 0
    Path("here.npz").rename("there.npz")
    proxy._images.cache_clear()  # another process has not seen them yet
    before = Path("run/journal.jsonl").read_bytes()
    for words in (["resume", "run"], ["retarget", "run", "--flops", "600K", "--children", "0", "-o", "ranked"]):
        assert nas(*words)[0] == 0  # nothing is to be trained
    assert Path("run/journal.jsonl").read_bytes() == before
    for words in (["top", "run", "--retrain"], ["retarget", "run", "--flops", "600K"]):
        assert "here.npz" in refused(*words)
    assert nas("retarget", "run", "--flops", "600K", "--children", "1", "-o", "new", "--data", "there.npz")[0] == 0
    assert nas("top", "run", "-k", "2", "--retrain", "--epochs", "1", "--data", "there.npz")[0] == 0
    recipe = Path("run/recipe.yaml").read_text()
    assert "there.npz" in recipe
    with Journal(Path("run/journal.jsonl")):
        for words in (["--data", "there.npz"], ["--then-scale"]):
            assert "another process is at work on it" in refused("resume", "run", *words)
    assert Path("run/recipe.yaml").read_text() == recipe
    refused("resume", "run", "--data", "missing.npz")
    assert nas("resume", "run")[0] == 0
    np.savez("more.npz", **{name: np.concatenate([array, array[:3]]) for name, array in arrays.items()})
    for words in (["resume", "run"], ["top", "run", "--retrain"], ["retarget", "run", "--flops", "600K"]):
        err = refused(*words, "--data", "more.npz")
        assert "changed since the run began, from 60 images, 3 classes to 63 images, 3 classes" in err
    assert nas("resume", "run")[0] == 0
    Path("there.npz").rename("again.npz")
    assert nas("top", "run", "-k", "3", "--retrain", "--epochs", "1", "--data", "again.npz")[0] == 0
    Path("run/journal.jsonl").unlink()  # as of a search that was stopped before its first event
    assert nas("resume", "run", "--data", "more.npz")[0] == 0


@pytest.mark.parametrize(
    ("written", "edited", "part"),
    [
        (r'"accuracy": [0-9.]+', '"accuracy": NaN', "a number out of range"),
        (r'"accuracy": [0-9.]+', '"accuracy": 7', "a number out of range"),
        (r'"seconds": [0-9.]+', '"seconds": null', "a number out of range"),
        (r'"epochs": [0-9]+, "cost"', '"epochs": true, "cost"', "a number out of range"),
        (r'"cost": [0-9.]+', f'"cost": {"9" * 400}', "the completed event of trial 0 can't be used"),
        (r'"cost": [0-9.]+', '"cost": "abc"', "the completed event of trial 0 can't be used: could not convert"),
        (r'"actions": \[.+?\]', '"actions": [0.5]', "the suggested event of trial 1 can't be used: actions: "),
        (r'"completed"', '"compleeted"', "an event 'compleeted' is unknown"),
        (r'"space": \{', '"space": [], "other": {', "its first line lacks space"),
        (r'"recipe":', '"receipt":', "its first line lacks recipe"),
        (r'"contents": \{', '"contents": [], "other": {', "contents in its first line can't be used"),
        (r'"log_prob": [-.0-9]+', '"log_prob": null', "the suggested event of trial 1 can't be used"),
        (r'"basis":', '"base":', "the verdict event lacks 'basis'"),
    ],
)
def test_what_a_journal_cannot_hold_is_named(finished, refused, written, edited, part):
    journal = finished[0] / "journal.jsonl"
    text = journal.read_text()
    journal.write_text(re.sub(written, edited, text, count=1))
    assert journal.read_text() != text
    assert f"the journal is damaged: {part}" in refused("top", "run")
    refused("resume", "run")


def test_another_benchmark_file_is_not_that_of_the_run(nas, refused, shared):
    with gzip.open(shared / "data" / "nas_bench_macro.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    better = [row | {"acc": [min(100.0, value + 5) for value in row["acc"]]} for row in rows]
    for name, content in (("own.jsonl", rows), ("other.jsonl", better)):
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in content))
    assert nas("search", "rehearse-b0", "--data", "own.jsonl", "--set", "children=12", "-o", "run")[0] == 0
    Path("own.jsonl").rename("moved.jsonl")
    for words in (["resume", "run"], ["top", "run", "--retrain"], ["retarget", "run", "--flops", "30M"]):
        err = refused(*words, "--data", "other.jsonl")
        assert "changed since the run began, from 6,561 networks to 6,561 networks" in err
    assert nas("retarget", "run", "--flops", "30M", "--children", "2", "-o", "new", "--data", "moved.jsonl")[0] == 0
    assert nas("show", "nas-bench-macro-e3k3")[0] == 0


def test_children_that_learn_nothing_tell_nothing(nas, small_recipe):
    np.savez("grey.npz", x_train=np.full((120, 8, 8, 3), 127, np.uint8), y_train=np.arange(120) % 4)
    grey = ["--data", "grey.npz", "--set", "proxy.batch_size=16"]
    _, out, _ = nas("search", small_recipe, *grey, "-o", "run")
    assert "FLOPs and params are those of a network with 10 classes, and the images have 4" in out
    assert "can't be told: 6 of 6 children are no better than naming the commonest class (25.00%); train longer" in out
    _, out, _ = nas("top", "run", "-k", "2", "--retrain", "--epochs", "1", "--seeds", "2")
    assert re.match(r"0/\d+ trainings of 1 epoch each done, 0 failed\n", out)  # before the first ends
    assert "repeated trainings were identical, so seed noise is unknown" in out
    assert "clear" not in out
    _, out, _ = nas("resume", "run")
    assert "Before retraining: " in out
    assert "believe" not in out
    _, out, _ = nas("audit", small_recipe, *grey, "--networks", "10", "--epochs", "2", "-o", "audit")
    assert "advice: don't search with it yet: all networks are equally accurate under it" in out
    assert "seed noise" not in out


def test_naming_the_commonest_of_unequal_classes_is_not_learning(nas, small_recipe):
    np.savez("grey.npz", x_train=np.full((120, 8, 8, 3), 127, np.uint8), y_train=(np.arange(120) % 10 == 0) + 0)
    _, out, _ = nas("search", small_recipe, "--data", "grey.npz", "--set", "proxy.batch_size=16", "-o", "run")
    assert "children are no better than naming the commonest class (91.67%); train longer" in out
    luck = ["--set", "proxy.batch_size=16", "--set", "controller.name=random", "--set", "controller.options={}"]
    _, out, _ = nas("search", small_recipe, "--data", "grey.npz", *luck, "-o", "luck")
    assert "children are no better than naming the commonest class (91.67%); train longer" in out


def test_a_deployment_that_leaves_out_choices_is_refused(nas, refused, small_recipe):
    space = Path("space.yaml")
    space.write_text(space.read_text().replace("resolution: 64", "resolution: [32, 64]"))
    for command in (["search"], ["audit", "--networks", "10"]):
        err = refused(*command, small_recipe, "--set", "deployment.resolution=32", "-o", "run")
        assert "nas: deployment.resolution: 32 leaves out the choices [32, 64] of " in err
        assert err.endswith("; null searches them\n")
    assert nas("search", small_recipe, "--set", "deployment.resolution=null", "-o", "run")[0] == 0


def test_a_search_and_an_audit_say_which_choices_train_alike(nas, small_recipe):
    wide = Path("space.yaml").read_text().replace("stem: {out_chs: 8}", "stem: {out_chs: [8, 12]}\ndropout: [0, 0.5]")
    Path("space.yaml").write_text(wide)
    said = "whatever is chosen for these, so only cost and luck decide: dropout; fix them"
    assert said in nas("search", small_recipe, "-o", "run")[1]
    assert said in nas("audit", small_recipe, "--networks", "10", "--epochs", "2", "-o", "audit")[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused_before_any_child_fails(nas, refused, small_recipe):
    err = refused("search", small_recipe, "--set", "executor.gpus_per_child=1", "-o", "run")
    assert err == "nas: executor.gpus_per_child: torch sees no GPU here; set it to 0\n"
    assert not Path("run").exists()
    looked_up = ["--set", "executor.gpus_per_child=1", "--set", "children=12", "-o", "run"]
    assert nas("search", "rehearse-b0", *looked_up)[0] == 0


def test_a_line_that_is_lost_from_a_journal_is_named(finished, refused):
    journal = finished[0] / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(line for line in lines if not ('"suggested"' in line and '"trial": 4' in line)))
    err = refused("top", "run")
    assert re.search(r"the \w+ event of trial 4 is of a trial that was never suggested: 4\n", err)


@pytest.mark.parametrize("kind", ["moved", "removed", "replaced"])
def test_a_run_whose_journal_is_taken_away_is_not_removed(small_recipe, kind):
    out = Path("run")

    def take_away(folder, study):
        if len(study.ledger.finished()) < 3 or (out / "elsewhere").exists():
            return
        folder.journal.rename(out / "elsewhere")
        if kind == "moved":
            raise KeyboardInterrupt
        (out / "elsewhere").unlink()
        if kind == "replaced":
            folder.journal.write_text("another")

    with pytest.raises((KeyboardInterrupt, JournalGoneError)):
        run.start(Recipe.load(str(small_recipe)), out, None, take_away)
    if kind == "replaced":
        assert (out / "journal.jsonl").read_text() == "another"
        return
    events, _ = parse(out / ("elsewhere" if kind == "moved" else "journal.jsonl"))
    assert sum(event["event"] == "completed" for event in events) >= 3 + 1


def test_a_benchmarks_device_figures_and_the_order_of_its_rows_are_those_of_the_run(nas, refused, shared):
    with gzip.open(shared / "data" / "accel_nasbench.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line, _ in zip(file, range(400), strict=False)]
    faster = [row | {"throughput_a100": 2 * row["throughput_a100"]} for row in rows]
    for name, content in (("own.jsonl", rows), ("faster.jsonl", faster), ("turned.jsonl", rows[::-1])):
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in content))
    device = ["--set", "objective.cost=throughput_a100", "--set", "objective.target=9000"]
    small = ["--set", "children=12", "--set", "controller.name=evolution"]
    _, out, _ = nas("search", "rehearse-b0", "--data", "own.jsonl", *device, *small, "-o", "run")
    assert re.search(
        r"benchmark a surrogate fitted to \d+ networks, Kendall's tau 0\.\d\d on unseen ones; noise 0\.3", out
    )
    assert nas("search", "rehearse-b0", *small, "-o", "shipped")[0] == 0
    for words, count in (
        (["run", "--data", "faster.jsonl"], r"\d+"),
        (["run", "--data", "turned.jsonl"], r"\d+"),
        (["shipped", "--data", "own.jsonl"], r"1,500"),
    ):
        err = refused("resume", *words)
        assert re.search(rf"changed since the run began, from {count} networks to \d+ networks", err)


@pytest.mark.parametrize("content", [b"mine", b"\xff"])
def test_an_export_never_overwrites_another_file(refused, tmp_path, content):
    (tmp_path / "efficientnet-b0.yaml").write_bytes(content)
    assert "efficientnet-b0.yaml" in refused("export", "efficientnet-b0", "-o", tmp_path)
    assert (tmp_path / "efficientnet-b0.yaml").read_bytes() == content


def test_profile_counts_b0_exactly(nas):
    code, out, _ = nas("profile", "efficientnet-b0", "--json")
    figures = json.loads(out)
    assert code == 0
    assert figures["params"] == 5_288_548
    assert figures["flops"] == figures["fvcore_flops"] == 385_814_752
    assert sum(part["flops"] for part in figures["parts"]) == figures["flops"]
    assert figures["inference_memory_bytes"] == figures["weight_bytes"] + figures["activation_memory_bytes"]


def test_a_narrow_terminal_cuts_no_figure_off(nas):
    whole = nas("show", "mnasnet-a1")[1]
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 40))
    with subprocess.Popen([sys.executable, "-m", "nas.cli", "show", "mnasnet-a1"], stdout=theirs) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # EIO: the terminal has no writer any more
            while part := os.read(ours, 4096):
                shown += part
    os.close(ours)
    assert process.returncode == 0
    assert re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).split() == whole.split()


def test_show_puts_b0_beside(nas):
    code, out, _ = nas("show", "mnasnet-a1")
    assert code == 0
    assert "mbconv3 k5 s2 se0.25" in out
    assert "efficientnet-b0" in out


def test_show_gives_b0_the_classes_and_the_images_of_the_network(finished, nas):
    _, out, _ = nas("show", "run")
    classes = Folder(Path("run")).ledger().baseline.trial.architecture.num_classes
    b0 = load_architecture("efficientnet-b0").with_(num_classes=classes)
    assert classes < 1000
    assert out.rstrip().endswith(format_quantity(cost.params(b0)))
    for size in (64, 9):
        stages = "stem: {out_chs: 16}\nstages: [{op: conv, layers: 1, out_chs: 16}]\n"
        head = f"format: baseline-nas/architecture/1\nresolution: {size}\nnum_classes: {classes}\n"
        Path("own.yaml").write_text(head + stages)
        code, out, _ = nas("show", "own.yaml")
        assert code == 0
        assert (format_quantity(cost.flops(b0.with_(resolution=64))) in out) == (size == 64)
        assert ("below 1 px" in out) == (size == 9)


def test_a_folder_of_pictures_of_all_kinds_is_searched(nas, small_recipe, tmp_path):
    for name, level in (("dark", 40), ("light", 200)):
        (tmp_path / "pictures" / "train" / name).mkdir(parents=True)
        for i, mode in enumerate(["RGB", "L", "CMYK", "RGBA", "P"] * 4):
            shade = Image.new("L", (20 + i, 24), level + i)
            picture = shade.convert("RGB").convert(mode)
            suffix = "jpg" if mode == "CMYK" else "png"
            picture.save(tmp_path / "pictures" / "train" / name / f"{i}.{suffix}")
    code, out, _ = nas(
        "search", small_recipe, "--data", "pictures", "--set", "children=2", "--set", "proxy.batch_size=8"
    )
    assert code == 0
    assert "2/2 done" in out
    (tmp_path / "pictures" / "train" / "dark" / "torn.jpg").write_bytes(b"\xff\xd8 no picture")
    words = [sys.executable, "-m", "nas.cli", "search", small_recipe, "--data", "pictures"]
    torn = subprocess.run(words, capture_output=True, text=True, check=False)
    assert torn.returncode == 2
    assert "torn.jpg" in torn.stderr
    assert torn.stderr.count("\n") == 1


def test_a_search_whose_children_all_fail_says_why(nas, small_recipe):
    code, out, _ = nas("search", small_recipe, "--set", "executor.time_limit=1e-6", "--set", "children=2")
    assert code == 1
    assert "No child has a result" in out
    assert "TimeLimitExceeded" in out
    code, out, _ = nas("top", "results/small")
    assert code == 0
    assert "TimeLimitExceeded" in out
    assert "rank" not in out


def test_help_is_quick_to_import():
    script = "import sys, nas.cli; print([name for name in ('torch', 'ray') if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_profile_does_not_import_ray():
    script = (
        "import sys; sys.argv = ['nas', 'profile', 'efficientnet-b0']\n"
        "from nas.cli import app; app(standalone_mode=False); print('ray' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "False"


@pytest.mark.parametrize("command", [command.callback.__name__ for command in cli.app.registered_commands])
def test_every_command_has_help_with_an_example(nas, command):
    code, out, _ = nas(command, "--help")
    assert code == 0
    assert f"Example: nas {command}" in out
