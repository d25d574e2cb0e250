"""The evaluator that trains, on the built-in digits."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import pytest

from nas.evaluators import ProxyEvaluator
from nas.recipe import Recipe
from nas.training import Diverged, TimeLimitExceeded
from search_space import Architecture, DataError, load_architecture

SMALL = """\
format: baseline-nas/architecture/1
resolution: 224
num_classes: 1000
stem: {out_chs: 16}
stages: [{op: mbconv, layers: 2, out_chs: 16, stride: 2, exp_ratio: 3}]
"""


@pytest.fixture
def evaluator(tmp_path, monkeypatch):
    monkeypatch.setenv("BASELINE_NAS_CACHE", str(tmp_path))

    def make(*settings):
        basis = ["proxy.epochs=3", "proxy.width=1", "proxy.batch_size=32", "proxy.resolution=8", "proxy.lr=0.02"]
        return ProxyEvaluator.of(Recipe.load("digits", [*basis, *settings]))

    return make


@pytest.fixture
def small(tmp_path):
    (tmp_path / "small.yaml").write_text(SMALL)
    return Architecture.load(tmp_path / "small.yaml")


def ignore(epoch, accuracy):
    pass


def test_a_child_learns_and_reports_every_epoch(evaluator, small):
    reports = []
    measured = evaluator().evaluate(small, 0, lambda epoch, accuracy: reports.append((epoch, accuracy)))
    assert [epoch for epoch, _ in reports] == [1, 2, 3]
    assert measured.accuracy == reports[-1][1] > 0.5
    assert measured.epochs == 3


def test_without_a_resolution_every_network_trains_at_its_own(evaluator, small):
    own, eight = evaluator("proxy.resolution=null", "proxy.epochs=1"), evaluator("proxy.epochs=1")
    found = {size: own.evaluate(small.with_(resolution=size), 7, ignore).accuracy for size in (8, 16, 12)}
    assert found[8] == eight.evaluate(small, 7, ignore).accuracy
    assert len(set(found.values())) > 1
    assert [own.images(small.with_(resolution=size)).resolution for size in (8, 16, 12)] == [8, 16, 12]


def test_another_seed_trains_another_network(evaluator, small):
    seen = {evaluator().evaluate(small, seed, ignore).accuracy for seed in range(4)}
    assert len(seen) > 1


def test_a_child_out_of_time_is_given_up(evaluator):
    with pytest.raises(TimeLimitExceeded):
        evaluator("executor.time_limit=0.01").evaluate(load_architecture("efficientnet-b0"), 0, ignore)


def test_a_diverging_child_is_given_up(evaluator, small):
    with pytest.raises(Diverged):
        evaluator("proxy.optimizer=sgd", "proxy.lr=1e30", "proxy.warmup_epochs=0").evaluate(small, 0, ignore)


def test_missing_data_is_an_input_error(evaluator, small, tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        evaluator(f"data.source={tmp_path}/nowhere").evaluate(small, 0, ignore)


def test_a_process_whose_training_hangs_is_ended_and_another_goes_on():
    block = "with _ended_after(0.5): time.sleep({})\ntime.sleep(1)"
    code = f"import time; from nas.evaluators.proxy import _ended_after\n{block}"
    run = partial(subprocess.run, check=False, capture_output=True, text=True, timeout=50)
    hung = run([sys.executable, "-c", code.format(60)])
    assert hung.returncode == 1
    assert "Timeout" in hung.stderr
    assert run([sys.executable, "-c", code.format(0)]).returncode == 0


def test_only_a_worker_ends_where_a_training_hangs():
    assert ProxyEvaluator.of(Recipe.load("digits")).expendable
    assert not ProxyEvaluator.of(Recipe.load("digits", ["executor.name=serial"])).expendable
