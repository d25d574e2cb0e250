"""`nas scale --grid` and `--then-scale`, as a user types them, on the built-in digits."""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from nas import cli, grid_plan
from nas.grid import Grid, Point
from nas.journal import parse
from nas.recipe import Recipe
from nas.scaling import PAPER, Coefficients, Rounding
from nas.statistics import Estimate
from search_space import Architecture, InputError, cost, load_architecture

NAS = [sys.executable, "-m", "nas.cli"]
SMALL = ("--set", "scale={step: 0.2, leaders: 2, seeds: 2, phi: [0, 1, 2]}")
COMPARED = ("scale", "baseline.yaml", "--grid", "--recipe", "small.yaml", *SMALL, "--compare", "-o", "out")


def deepen(folder):
    """Give the baseline a second layer, so that depths that round alike are still several networks."""
    path = folder / "baseline.yaml"
    path.write_text(path.read_text().replace("layers: 1", "layers: 2"))


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


def events(path):
    return [{k: v for k, v in event.items() if k not in ("time", "seconds")} for event in parse(path)[0]]


@pytest.fixture(scope="module")
def whole(write_small, tmp_path_factory):
    """The folder and the output of a grid with its comparison that nothing interrupted."""
    folder = tmp_path_factory.mktemp("grid")
    write_small(folder)
    deepen(folder)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        patch.chdir(folder)
        patch.setenv("BASELINE_NAS_CACHE", str(folder / "cache"))
        patch.setattr(sys, "argv", ["nas", *COMPARED])
        with contextlib.suppress(SystemExit):
            cli.main()
    return folder, out.getvalue()


@pytest.fixture
def again(whole, tmp_path, monkeypatch):
    """A copy of that folder to work in."""
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("BASELINE_NAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "out"


@pytest.fixture
def figures(whole):
    return json.loads((whole[0] / "out" / "grid.json").read_text())


@pytest.mark.parametrize(("step", "tolerance"), [(0.1, 0.1), (0.05, 0.1), (0.25, 0.3), (0.15, 0.02)])
def test_the_grid_is_complete_and_nothing_else(step, tolerance):
    found = {(point.alpha, point.beta, point.gamma) for point in grid_plan.coefficients(step, tolerance)}
    axis = np.round(1 + step * np.arange(round(2 / step) + 1), 6)
    alpha, beta, gamma = np.meshgrid(axis, axis, axis, indexing="ij")
    near = abs(alpha * beta**2 * gamma**2 - 2) <= tolerance + 1e-9
    assert found == set(zip(alpha[near].tolist(), beta[near].tolist(), gamma[near].tolist(), strict=True))


def test_a_grid_without_candidates_names_the_nearest_product():
    with pytest.raises(InputError, match=r"the nearest is 1\.9") as error:
        grid_plan.coefficients(0.3, 0.001)
    products = [a * b**2 * g**2 for a in (1, 1.3, 1.6, 1.9) for b in (1, 1.3) for g in (1, 1.3)]
    assert f"{min(products, key=lambda value: abs(value - 2)):.4g}" in str(error.value)


def test_candidates_are_different_networks_and_the_papers_come_along(small_recipe):
    deepen(small_recipe.parent)
    recipe = Recipe.load(str(small_recipe), ["scale={}"])
    plan = grid_plan.prepare(Architecture.load("baseline.yaml"), recipe, Rounding())
    keys = [candidate.network.key() for candidate in plan.candidates]
    assert len(set(keys)) == len(keys) < len(grid_plan.coefficients(0.1, 0.1))
    shown = [shares for candidate in plan.candidates for shares in candidate.coefficients]
    assert {*shown} == {*grid_plan.coefficients(0.1, 0.1), PAPER}
    assert len(shown) == len({*shown})
    assert [candidate.is_papers for candidate in plan.candidates].count(True) == 1
    assert (plan.base.resolution, plan.recipe.proxy.resolution, plan.recipe.proxy.width) == (8, None, 1)
    deep = next(c.network for c in plan.candidates if Coefficients(2, 1, 1) in c.coefficients)
    assert [stage.layers for stage in deep.stages] == [4]
    for candidate in plan.candidates:
        assert candidate.growth == cost.flops(candidate.network) / cost.flops(plan.base) > 1


def test_each_network_is_trained_once_and_the_leaders_with_fresh_seeds(whole, figures):
    trained = events(whole[0] / "out" / "grid.jsonl")[1:]
    assert {event["event"] for event in trained} == {"completed"}
    assert len({(event["key"], event["seed"]) for event in trained}) == len(trained)
    times = Counter(event["name"] for event in trained)
    assert times["small-baseline"] == 3
    compared = {point["name"] for point in figures["comparison"]}
    for candidate in figures["candidates"]:
        leads = candidate["estimate_at_double"] is not None
        assert len(candidate["accuracies_again"]) == (2 if leads else 0)
        if candidate["name"] not in compared:
            assert times[candidate["name"]] >= (3 if leads else 1)
    leaders = [one for one in figures["candidates"] if one["estimate_at_double"]]
    assert 2 <= len(leaders) <= 3
    papers = {"alpha": 1.2, "beta": 1.1, "gamma": 1.15}
    assert any(papers in one["coefficients"] for one in leaders)


def test_accuracies_are_compared_at_twice_the_base_flops(figures):
    candidates, gain = figures["candidates"], figures["gain_per_doubling"]
    doublings = [math.log2(one["flops"] / figures["base"]["flops"]) for one in candidates]
    accuracies = [one["accuracy"] for one in candidates]
    above = np.mean(accuracies) - figures["base"]["accuracy"]["value"]
    assert gain == pytest.approx(max(0, above / np.mean(doublings)))
    for one, doubling in zip(candidates, doublings, strict=True):
        assert one["accuracy_at_double"] == pytest.approx(one["accuracy"] - gain * (doubling - 1))
    leaders = [one for one in candidates if one["estimate_at_double"]]
    expected = [np.mean(one["accuracies_again"]) - gain * (d - 1) for one, d in zip(leaders, doublings, strict=False)]
    assert [one["estimate_at_double"]["value"] for one in leaders] == pytest.approx(sorted(expected, reverse=True))
    assert figures["winner"] == leaders[0]["coefficients"][0]


def test_growth_in_one_dimension_is_compared_near_equal_flops(figures):
    points = {(point["dimension"], point["wish"]): point for point in figures["comparison"]}
    assert len(points) == 16
    base = figures["base"]
    for (dimension, wish), point in points.items():
        assert point["flops"] == pytest.approx(point["growth"] * base["flops"])
        assert 0.6 < point["growth"] / wish < 1.5
        assert (point["layers"] > base["layers"]) <= (dimension in ("depth", "compound"))
        assert (point["resolution"] > base["resolution"]) <= (dimension in ("resolution", "compound"))
        assert len(point["accuracies"]) == 2
        assert point["accuracy"]["low"] < np.mean(point["accuracies"]) < point["accuracy"]["high"]


def test_the_output_says_what_was_found(whole, figures):
    out, winner = whole[1], figures["winner"]
    assert "grid of step 0.2: 7 triples of alpha, beta, gamma, those with a product within" in out
    assert f"winner: alpha {winner['alpha']:g}, beta {winner['beta']:g}, gamma {winner['gamma']:g}, estimated" in out
    assert "against the runner-up" in out
    assert "the paper's" in out
    assert re.search(r"  width       [+-]\d+\.\d\d points, 95% interval", out)
    assert "written to out: grid.json, grid.html, family/" in out


def test_the_family_is_the_whole_network_grown_by_the_winner(whole, figures):
    folder = whole[0] / "out" / "family"
    deployed = Architecture.load(whole[0] / "baseline.yaml")
    assert {path.stem for path in folder.iterdir()} == {member["name"] for member in figures["family"]}
    assert Architecture.load(folder / "small-baseline.yaml") == deployed
    for member in figures["family"]:
        network = Architecture.load(folder / f"{member['name']}.yaml")
        assert cost.flops(network) == member["flops"]
        assert network.resolution == round(deployed.resolution * figures["winner"]["gamma"] ** member["phi"])


def test_the_same_command_again_trains_nothing_and_says_the_same(whole, again, nas):
    files = {path: path.read_bytes() for path in again.rglob("*") if path.is_file() and path.suffix != ".html"}
    code, out, err = nas(*COMPARED)
    assert (code, err) == (0, "")
    assert out == "\n".join(line for line in whole[1].split("\n") if "done," not in line)
    assert {path: path.read_bytes() for path in again.rglob("*") if path.is_file() and path.suffix != ".html"} == files


def test_more_leaders_keep_what_was_trained_and_the_new_family_takes_the_old_ones_place(again, nas):
    before = events(again / "grid.jsonl")
    more = ("--leaders", "3", "--seeds", "3", "--phi", "1", "-o", "out")
    assert nas("scale", "baseline.yaml", "--grid", "--recipe", "small.yaml", *SMALL, *more)[0] == 0
    after = events(again / "grid.jsonl")
    assert after[: len(before)] == before
    assert len({(event["key"], event["seed"]) for event in after[1:]}) == len(after) - 1
    assert len(list((again / "family").iterdir())) == 1


@pytest.mark.parametrize(("stop", "reach"), [(signal.SIGINT, 3), (signal.SIGKILL, 12)])
def test_after_a_stop_the_same_command_trains_only_the_rest(whole, again, nas, stop, reach):
    shutil.rmtree(again)
    expected, journal = events(whole[0] / "out" / "grid.jsonl"), again / "grid.jsonl"
    driver = subprocess.Popen([*NAS, *COMPARED], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(lambda: journal.exists() and journal.read_bytes().count(b"\n") >= reach)
    driver.send_signal(stop)
    out, _ = driver.communicate(timeout=60)
    assert "Traceback" not in out
    if stop == signal.SIGINT:
        assert driver.returncode == 130
        assert "Go on with the same command" in out
    assert 0 < len(events(journal)) < len(expected)
    grid_only = [word for word in COMPARED if word != "--compare"]
    assert nas(*grid_only)[0] == 0
    found = events(journal)
    assert found == expected[: len(found)]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--set", "proxy.lr=0.01"], "proxy.lr changed since"),
        (["--set", "proxy.width=0.5"], "these trainings grew another network (small-baseline), or in another shape"),
        (["--set", "proxy.resolution=16"], "these trainings grew another network (small-baseline)"),
        (["--set", "seed=1"], "seed changed since"),
        (["--step", "0"], "scale.step: must be greater than or equal to 0.01, not 0"),
        (["--step", "0.3", "--tolerance", "0.001"], "the nearest is 1.9"),
        (["--tolerance", "-1"], "scale.tolerance: must be"),
        (["--seeds", "1"], "scale.seeds: must be greater than or equal to 2"),
        (["--leaders", "0"], "scale.leaders: must be greater than or equal to 1"),
        (["--phi", "40"], "scale.phi.0: must be less than or equal to 20"),
        (["--set", "scale.phi=[0, 0.5]"], "scale.phi: must be 1 or more, or 0 for the network itself"),
        (["--alpha", "1.3"], "--alpha: not with --grid"),
        (["--flops", "2M"], "--flops: not with --grid"),
        (["--workers", "2"], "executor.workers: the serial executor"),
        (["--recipe", "rehearse-b0"], "scale: trains grown networks on images"),
        (["--data", "nowhere"], "nowhere does not exist"),
        (["--recipe", "images"], "give your own with --data PATH"),
        (["-o", "."], "-o .: exists and holds no grid"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_lost(again, refused, words, part):
    files = {path: path.read_bytes() for path in again.rglob("*") if path.is_file()}
    grid = ("scale", "baseline.yaml", "--grid", "--recipe", "small.yaml", *SMALL, "-o", "out")
    assert part in refused(*grid, *words)
    assert {path: path.read_bytes() for path in again.rglob("*") if path.is_file()} == files


def test_trainings_that_all_fail_are_one_line(again, nas):
    shutil.rmtree(again)
    code, out, err = nas(*COMPARED, "--set", "executor.time_limit=1e-6")
    assert (code, err) == (2, "nas: no training of a candidate succeeded; see grid.jsonl\n")
    assert "8 failed" in out
    assert {event["event"] for event in events(again / "grid.jsonl")[1:]} == {"failed"}
    assert not (again / "family").exists()


def test_where_no_network_learns_anything_the_papers_coefficients_are_taken(again, nas):
    np.savez("grey.npz", x_train=np.full((120, 8, 8, 3), 127, np.uint8), y_train=np.arange(120) % 4)
    code, out, _ = nas(*COMPARED[:-3], "--data", "grey.npz", "--set", "proxy.batch_size=16", "-o", "grey")
    assert code == 0
    assert "Growing gained nothing here" in out
    assert "winner: alpha 1.2, beta 1.1, gamma 1.15, estimated 25.00" in out


def test_figures_of_an_earlier_call_do_not_stay_behind(again, nas, refused):
    assert (again / "grid.html").exists()
    assert nas(*(word for word in COMPARED if word != "--compare"))[0] == 0
    assert not (again / "grid.html").exists()
    (again / "grid.json").write_text("{")
    assert "grid.json: damaged; move it away" in refused(*COMPARED)


def test_where_the_family_cannot_be_written_the_earlier_one_stays(again, refused):
    (again / "family" / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in (again / "family").iterdir()}
    assert "out/family: exists and holds something else (notes.txt)" in refused(*COMPARED)
    assert {path.name: path.read_bytes() for path in (again / "family").iterdir()} == before


@pytest.mark.parametrize(("name", "code"), [("../../victim", 0), ("a\0b", 0)])
def test_names_that_a_user_put_into_the_figures_remove_nothing(again, nas, name, code):
    victim = again.parent / "victim.yaml"
    victim.write_text("mine")
    (again / "grid.json").write_text(json.dumps({"family": [{"name": name}]}))
    shutil.rmtree(again / "family")
    assert nas(*COMPARED)[0] == code
    assert victim.read_text() == "mine"


def test_figures_nested_too_deeply_are_damaged(again, refused):
    (again / "grid.json").write_text("[" * 100_000)
    assert "grid.json: damaged; move it away" in refused(*COMPARED)


def test_a_network_that_is_two_points_of_the_comparison_counts_its_luck_once():
    base = load_architecture("efficientnet-b0")
    small, large, wide = (base.with_(resolution=size) for size in (200, 240, 260))

    def point(dimension, wish, network):
        return Point(dimension, wish, wish, network, (0.5,), Estimate(0.5, 0.01, 8))

    def error(*points):
        return Grid(None, None, 0.0, (), (), 0.0, points, ()).advantage("width").error

    ours = (point("compound", 1.5, small), point("compound", 2, large))
    assert error(*ours, point("width", 1.5, base), point("width", 2, wide)) == pytest.approx(0.01)
    assert error(*ours, point("width", 1.5, small), point("width", 2, wide)) == pytest.approx(0.01 / math.sqrt(2))
    assert error(*ours, point("width", 1.5, wide), point("width", 2, wide)) == pytest.approx(0.01 * math.sqrt(6) / 2)


def test_another_network_over_the_same_folder_is_refused(again, refused):
    network = again.parent / "baseline.yaml"
    network.write_text(network.read_text().replace("layers: 2", "layers: 3"))
    assert "grid.jsonl: these trainings grew another network" in refused(*COMPARED)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--grid", "--recipe", "small.yaml"], "-o: --grid needs a folder"),
        (["--step", "0.1"], "--step: only with --grid"),
        (["--compare"], "--compare: only with --grid"),
        (["--recipe", "small.yaml"], "--recipe: only with --grid"),
    ],
)
def test_options_that_belong_together(small_recipe, refused, words, part):
    assert part in refused("scale", "baseline.yaml", *words)


def test_a_search_that_could_not_scale_does_not_begin(small_recipe, refused):
    err = refused("search", small_recipe, "--out", "run", "--set", "scale={step: 0.3, tolerance: 0}")
    assert err.startswith("nas: scale.step 0.3, scale.tolerance 0: no product")
    assert not Path("run").exists()


SCALE = "scale={retrain: 2, step: 0.2, leaders: 1, seeds: 2, phi: [0, 1]}"


def test_one_command_from_images_to_a_family(small_recipe, nas):
    search = ("search", small_recipe, "--out", "run", "--set", "children=4", "--then-scale")
    code, out, err = nas(*search, "--set", SCALE)
    assert (code, err) == (0, "")
    assert out.index("choice: ") < out.index("winner: ")
    run = Path("run")
    best = Architecture.load(run / "best.yaml")
    assert Architecture.load(run / "scale" / "family" / f"{best.name}.yaml") == best
    assert len(list((run / "scale" / "family").iterdir())) == 2
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    shutil.rmtree(run / "scale" / "family")
    code, again, _ = nas("resume", "run")  # the run remembers what follows it
    assert code == 0
    assert re.search("winner: .*", out)[0] in again
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == files


def test_a_finished_search_goes_on_to_a_family_if_told_later(small_recipe, nas):
    assert nas("search", small_recipe, "--out", "run", "--set", "children=4")[0] == 0
    journal = Path("run/journal.jsonl")
    header, *rest = journal.read_text().splitlines(keepends=True)
    old = json.loads(header)
    del old["recipe"]["scale"]  # as the journals of earlier versions
    journal.write_text("".join([json.dumps(old) + "\n", *rest]))
    assert "winner: " not in nas("resume", "run")[1]
    recipe = Path("run/recipe.yaml")
    recipe.write_text(recipe.read_text().replace("scale: null", SCALE.replace("=", ": ")))
    code, out, err = nas("resume", "run", "--then-scale")
    assert (code, err) == (0, "")
    assert "winner: " in out
    assert Recipe.load(str(recipe)).scale.leaders == 1


def test_then_scale_is_remembered(small_recipe, nas):
    assert Recipe.load(str(small_recipe)).scale is None
    assert nas("search", small_recipe, "--out", "run", "--set", "children=4")[0] == 0
    driver = subprocess.Popen([*NAS, "resume", "run", "--then-scale"], stdout=subprocess.PIPE, text=True)
    wait_for(Path("run/retrain.jsonl").exists)
    driver.send_signal(signal.SIGINT)
    out, _ = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert "Go on with nas resume run" in out
    assert Recipe.load("run/recipe.yaml").scale.retrain == 5


def test_a_benchmark_can_not_be_scaled(refused):
    err = refused("search", "rehearse-b0", "--out", "run", "--then-scale")
    assert "rehearse-b0" in err
    assert "a benchmark has none" in err
    assert not Path("run").exists()
