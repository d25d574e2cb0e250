"""Controllers side by side: the protocol, its figures, and what `nas bench` writes."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import runpy
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml

from controllers import Controller
from nas import bench as benches
from nas.bench import Bench, Setup, run, search, summary
from nas.bench_plot import write_plot
from nas.bench_table import bench_table
from nas.objective import BAND, make_objective
from nas.peers import PEERS
from nas.quantities import parse_quantity
from nas.study import ADAPT_EVERY
from search_space import InputError, cost, load_space

NAMES = ("evolution", "random")


@pytest.fixture(scope="module")
def macro(shared):
    return str(shared / "data" / "nas_bench_macro.jsonl.gz")


@pytest.fixture(scope="module")
def bench(macro):
    return Bench(Setup(source=macro, controllers=NAMES, budgets=(10, 25), seeds=2, target=40e6))


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    """Makes setups on a made-up benchmark of 243 networks, 43M to 106M FLOPs, whose last three layers are given."""
    folder, whole, rng = tmp_path_factory.mktemp("part"), load_space("nas-bench-macro"), np.random.default_rng(0)
    values = whole.to_dict()
    stages = [*values["stages"][:5], *(stage["one_of"][2] for stage in values["stages"][5:])]
    space = {"format": "baseline-nas/space/1", **values, "name": "part", "stages": stages}
    (folder / "part.yaml").write_text(yaml.safe_dump(space))
    rows, accuracies = [], {}
    for layers in product(range(3), repeat=5):
        network = whole.decode((*layers, 2, 2, 2))
        costs = {"params": cost.params(network), "flops": cost.flops(network)}
        drawn = 60 + 2 * np.log(costs["flops"] / 1e6) + rng.normal(0, 0.5) + rng.normal(0, 0.3, 3)
        acc = accuracies.setdefault(network.key(), drawn.tolist())  # other layers may lead to the same network
        rows.append({"arch": "".join(map(str, (*layers, 2, 2, 2))), "acc": acc, "mean": float(np.mean(acc)), **costs})
    (folder / "part.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return partial(Setup, source=str(folder / "part.jsonl"), space=str(folder / "part.yaml"))


@pytest.fixture
def suggested(monkeypatch):
    """What controllers suggest from now on."""
    made, ask = [], Controller.ask

    def asked(controller, n=1):
        made.extend(suggestions := ask(controller, n))
        return suggestions

    monkeypatch.setattr(Controller, "ask", asked)
    return made


@pytest.fixture
def told(monkeypatch):
    """The outcomes that controllers are told from now on."""
    outcomes, tell = [], Controller.tell

    def telling(controller, some):
        outcomes.extend(some)
        tell(controller, some)

    monkeypatch.setattr(Controller, "tell", telling)
    return outcomes


def scores(searches):
    return sorted((found.controller, found.seed, found.regrets, found.accuracies, found.flops) for found in searches)


@pytest.fixture(scope="module")
def searches(bench):
    return list(run(bench, 2))


def test_stopping_early_ends_the_searches_under_way(macro):
    going = run(Bench(Setup(source=macro, controllers=("random",), budgets=(1, 10**7), seeds=3, target=40e6)), 1)
    stop = threading.Timer(1, signal.raise_signal, [signal.SIGINT])
    stop.start()
    with closing(going), pytest.raises(KeyboardInterrupt):
        next(going)
    assert not multiprocessing.active_children()


def begin(folder, *words):
    """`nas bench` in a process, and a session, of its own."""
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "nas.cli", "bench", "--controllers", "random", *words, "-o", "bench"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("started", [1, 2])
def test_a_stop_while_the_workers_start_says_so_and_leaves_nothing(macro, tmp_path, started):
    """The first process is one of multiprocessing's own."""
    process = begin(tmp_path, "--data", macro, "--budgets", "10000000")
    while process.poll() is None and len(psutil.Process(process.pid).children()) < started:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in out
    assert not (tmp_path / "bench").exists()


def test_the_searches_before_a_worker_died_are_kept(macro, tmp_path):
    process = begin(tmp_path, "--data", macro, "--budgets", "10000", "--workers", "1")
    while "1/20" not in process.stdout.readline():
        assert process.poll() is None
    (worker,) = (child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline()))
    worker.kill()
    out, _ = process.communicate()
    assert process.returncode == 1
    assert "a worker died after" in out
    assert "Traceback" not in out
    assert json.loads((tmp_path / "bench" / "bench.json").read_text())["controllers"]["random"]["seeds"] >= 1


def test_the_target_is_the_benchmarks_own_by_default(macro):
    assert Bench(Setup(source=macro, controllers=("random",))).setup.target == 40e6


def test_every_controller_searches_with_every_seed(searches):
    assert [found[:2] for found in scores(searches)] == [(name, seed) for name in NAMES for seed in (0, 1)]
    for found in searches:
        assert len(found.regrets) == len(found.flops) == 2
        assert min(found.regrets) >= 0


def test_the_figures_do_not_depend_on_the_workers(bench, searches):
    alone = [search(bench, name, seed) for seed in (0, 1) for name in NAMES]
    assert scores(alone) == scores(searches)


def test_seeds_differ(searches):
    assert len({found.regrets for found in searches if found.controller == "random"}) == 2


def test_regret_is_that_of_the_recommendation_without_noise(bench, searches):
    for found in searches:
        for regret, accuracy, flops in zip(found.regrets, found.accuracies, found.flops, strict=True):
            assert regret == pytest.approx(100 * (bench.best_reward - accuracy * (flops / 40e6) ** -0.07))


def test_the_summary_has_medians_and_quartiles_and_everything_that_was_set(bench, searches):
    found = json.loads(json.dumps(summary(bench, searches)))
    assert found["setup"]["controllers"] == list(NAMES)
    assert found["setup"]["space"] == "nas-bench-macro"
    assert found["setup"]["budgets"] == [10, 25]
    assert found["best_reward"] == bench.best_reward
    assert len(found["searches"]) == 4
    for name in NAMES:
        regrets = [one["regrets"] for one in found["searches"] if one["controller"] == name]
        assert found["controllers"][name]["regret_median"] == pytest.approx(np.median(regrets, axis=0))
        assert found["controllers"][name]["regret_q25"] == pytest.approx(np.quantile(regrets, 0.25, axis=0))
        assert found["controllers"][name]["regret_q75"] == pytest.approx(np.quantile(regrets, 0.75, axis=0))
        for figures, median in (("accuracies", "accuracy_median"), ("flops", "flops_median")):
            of_all = [one[figures] for one in found["searches"] if one["controller"] == name]
            assert found["controllers"][name][median] == pytest.approx(np.median(of_all, axis=0))
        assert found["controllers"][name]["seeds"] == 2


def test_a_summary_of_an_unfinished_comparison_counts_what_there_is(bench, searches, tmp_path):
    found = summary(bench, searches[:1])
    assert sorted(figures["seeds"] for figures in found["controllers"].values()) == [0, 1]
    write_plot(found, tmp_path / "bench.html")
    assert "medians and quartiles of 1 search," in (tmp_path / "bench.html").read_text()


def test_children_in_flight_are_asked_before_the_first_is_told(macro, bench):
    several = Bench(Setup(source=macro, controllers=NAMES, budgets=(10, 25), seeds=1, target=40e6, in_flight=25))
    assert search(several, "random", 0).regrets == search(bench, "random", 0).regrets  # it doesn't learn
    assert search(several, "evolution", 0).regrets != search(bench, "evolution", 0).regrets


def test_the_auto_objective_lands_on_its_target(macro):
    found = search(
        Bench(Setup(source=macro, controllers=("evolution",), budgets=(50, 100), objective="auto", target=50e6)),
        "evolution",
        0,
    )
    assert BAND[0] <= found.flops[-1] / 50e6 <= BAND[1]


def test_a_look_at_a_budget_does_not_change_how_auto_goes_on(part):
    setup = partial(part, controllers=("evolution",), objective="auto", target=70e6)
    often, once = (Bench(setup(budgets=budgets)) for budgets in ((15, 30, 45, 60), (60,)))
    for seed in range(3):
        assert search(often, "evolution", seed).regrets[-1] == search(once, "evolution", seed).regrets[-1]


def test_auto_adapts_during_a_search(part, told):
    search(Bench(part(controllers=("evolution",), budgets=(30,), objective="auto", target=70e6)), "evolution", 0)
    first = make_objective("auto", 70e6)
    as_first = [outcome.reward == first(outcome.accuracy, outcome.cost) for outcome in told]
    assert all(as_first[:ADAPT_EVERY])
    assert not all(as_first[ADAPT_EVERY:])


def test_auto_hands_over_the_most_accurate_that_meets_the_target(part, told):
    auto = Bench(part(controllers=("random",), budgets=(60,), objective="auto", target=70e6, noise=0.0))
    found = search(auto, "random", 0)
    assert found.accuracies[-1] == max(o.accuracy for o in told if BAND[0] <= o.cost / 70e6 <= BAND[1])


def test_no_child_is_asked_that_no_budget_counts(part, suggested):
    search(Bench(part(controllers=("random",), budgets=(5, 10), target=70e6, in_flight=4)), "random", 0)
    assert len(suggested) == 10


def test_the_noise_that_is_asked_for_is_observed(part):
    assert Bench(part(controllers=("random",), target=70e6, noise=2.0)).evaluator.noise == 2


@pytest.mark.parametrize("name", PEERS)
def test_peers_search_alike_with_equal_seeds(macro, name):
    pytest.importorskip(name.partition("-")[0])
    peer = Bench(Setup(source=macro, controllers=(name,), budgets=(12, 20), target=40e6, in_flight=4))
    first = search(peer, name, 3)
    assert scores([first]) == scores([search(peer, name, 3)])
    assert scores([first])[0][2:] != scores([search(peer, name, 4)])[0][2:]


def test_a_peer_that_is_not_installed_says_how_to_get_it(macro, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"optuna is not installed: pip install -c constraints\.txt -e '\.\[peers\]'"):
        Bench(Setup(source=macro, controllers=("optuna-tpe",), target=40e6))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"controllers": ("evolutoin",)}, "--controllers: 'evolutoin' is unknown; did you mean evolution?"),
        ({"controllers": ("ppo", "ppo")}, "--controllers: each once"),
        ({"budgets": (50, 50)}, "--budgets: must be positive and increasing, not 50,50"),
        ({"budgets": (0, 5)}, "--budgets: must be positive"),
        ({"seeds": 0}, "--seeds: must be at least 1"),
        ({"in_flight": 0}, "--in-flight: must be at least 1"),
        ({"noise": float("nan")}, "--noise: must be from 0 to 100 points, not nan"),
        ({"objective": "hrad"}, "did you mean hard?"),
        ({"options": {"evolution": {}}}, "--set: 'evolution' is unknown"),
    ],
)
def test_a_setup_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Setup(**fields)


def test_a_part_of_a_benchmark_needs_not_hold_its_baseline(rows, tmp_path):
    values = load_space("nas-bench-macro").to_dict()
    first, second, *others = (stage["one_of"] for stage in values["stages"])
    stages = [{"one_of": [first[0], first[2]]}, {"one_of": second}, *(stage[2] for stage in others)]
    part = {"format": "baseline-nas/space/1", **values, "name": "part", "stages": stages}
    (tmp_path / "part.yaml").write_text(yaml.safe_dump(part))
    kept = [row for row in rows("nas_bench_macro") if row["arch"][0] in "02" and row["arch"][2:] == "222222"]
    (tmp_path / "part.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    setup = Setup(
        source=str(tmp_path / "part.jsonl"), space=str(tmp_path / "part.yaml"), controllers=("random",), target=90e6
    )
    best = max(np.mean(row["acc"]) / 100 * (row["flops"] / 90e6) ** -0.07 for row in kept)
    assert Bench(setup).best_reward == pytest.approx(best)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target": 5e6}, "have 7.713M to 105.7M FLOPs"),
        ({"options": {"ppo": {"lrr": 1}}}, "--set ppo: lrr: no option of ppo"),
        ({"options": {"ppo": {"seed": 1}}}, "--set ppo: seed: no option of ppo"),
        ({"noise": -1.0}, "noise"),
        (
            {"controllers": ("model_based",), "budgets": (5, 10)},
            "--budgets: 10 is fewer than the 11 children that model_based needs",
        ),
        ({"space": "mbconv", "target": 400e6}, "space: mbconv is not the benchmark's: .* networks of nas-bench-macro"),
    ],
)
def test_what_the_benchmark_cannot_do_is_one_line(macro, fields, message):
    with pytest.raises(InputError, match=message) as caught:
        Bench(Setup(source=macro, **{"target": 40e6, **fields}))
    assert "\n" not in str(caught.value)


def test_settings_are_options_of_controllers(macro):
    options = benches.parse_options(["evolution.population_size=3", "evolution.sample_size=2"])
    assert options == {"evolution": {"population_size": 3, "sample_size": 2}}
    with pytest.raises(InputError, match=r"ppo\.lr=0\.01"):
        benches.parse_options(["lr=3"])


def test_every_ablation_searches(bench):
    ablations = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "ablations.py"))
    searched = [
        ablations["regrets"](variant, bench.evaluator, bench.objective, bench.best_reward, (25,), 0)
        for variant in ablations["VARIANTS"].values()
    ]
    assert all(0 <= regret < 10 for (regret,) in searched)
    assert len(set(map(tuple, searched))) > 1


def test_the_command_shows_a_table_and_writes_json_and_an_offline_plot(nas, macro, tmp_path):
    words = ["--data", macro, "--target", "40M", "--controllers", "evolution,random", "--budgets", "5,10", "--seeds", 2]
    code, out, err = nas("bench", *words, "--workers", 1, "-o", "there/bench")
    assert (code, err) == (0, "")
    assert "4/4 searches done" in out
    assert re.search(r"evolution +2 +\d+\.\d\d \(\d+\.\d\d-\d+\.\d\d\)", out)
    written = json.loads((tmp_path / "there/bench/bench.json").read_text())
    assert written["controllers"]["random"]["seeds"] == 2
    assert "benchmark the accuracies of all 6,561 networks of the space" in out
    html = (tmp_path / "there/bench/bench.html").read_text()
    assert not re.search(r"<(script|link)[^>]+(src|href)\s*=\s*[\"']?(https?:)?//", html)
    assert "measured children" in html
    assert nas("bench", *words, "-o", "there/bench")[0] == 2


@pytest.mark.parametrize("objective", ["hard", "auto"])
def test_the_table_says_what_autos_regret_is_measured_against(objective):
    title = bench_table({"setup": {"budgets": [5], "objective": objective}, "controllers": {}}).title
    assert ("the best reward under hard" in title) is (objective == "auto")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--budgets", "5,x"], "--budgets"),
        (["--target", "much"], "--target"),
        (["--target", "9G"], "--target 9G: the networks of the space accel-nasbench have"),
        (
            ["--space", "nas-bench-macro"],
            "space: nas-bench-macro is not the benchmark's: rehearsal has networks of accel",
        ),
        (["--seeds", "9" * 400], "--seeds: must be at least 1 and at most 1,000,000, not 9999"),
        (["--set", "x"], "--set x"),
        (["--data", "missing.jsonl"], "missing.jsonl"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(refused, tmp_path, words, part):
    assert part in refused("bench", *words, "-o", "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("end", "beyond"), [(min, -1), (max, 1)])
def test_a_target_out_of_reach_names_the_exact_range(part, end, beyond):
    space = load_space("nas-bench-macro")
    reached = end(cost.flops(space.decode((*layers, 2, 2, 2))) for layers in product(range(3), repeat=5))
    setup = partial(part, controllers=("random",))
    Bench(setup(target=reached))
    told = r"--target (\S+): the networks of the space part have (\S+) to (\S+) FLOPs, and T is \1"
    with pytest.raises(InputError, match=told) as caught:
        Bench(setup(target=reached + beyond))
    ends = re.search(told, str(caught.value)).groups()[1:]
    assert end(map(parse_quantity, ends)) == pytest.approx(reached, rel=1e-9)
