"""What every executor must do, on the real ones: the serial one and Ray Tune on this machine."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from ray._common.utils import get_system_memory
from ray._private.utils import get_used_memory
from ray.cluster_utils import Cluster

import controllers
from controllers.random import RandomSearch
from nas.evaluators import Failure, Measurement
from nas.executors import base, make_executor, tune
from nas.journal import Journal, JournalFullError
from nas.ledger import Trial
from nas.recipe import Recipe
from nas.study import Study
from nas.training import Diverged
from search_space import DataError, InputError, StageSpec, blocks, load_architecture, load_space
from search_space.blocks import Block, conv_norm, register
from search_space.layers import Activation

CHILDREN = 6


@dataclass(frozen=True)
class Scripted:
    """Measures by the seed; some networks fail in the ways that children do."""

    problem: str = ""
    folder: str = ""

    def evaluate(self, architecture, seed, report):
        child = architecture.name.rpartition("-")[2] == "2"
        if self.problem == "raises" and child:
            raise ValueError("too wide\nfor this world")
        if self.problem == "raises" and architecture.name.endswith("-4"):
            return 0.5
        if self.problem == "data":
            raise DataError("data.source: gone")
        if self.problem == "dies" and child:
            with open(Path(self.folder) / "deaths", "a") as file:
                file.write("x")
            os._exit(1)
        first = Path(self.folder) / architecture.name
        if self.problem == "once" and architecture.name[-2:] in ("-2", "-4") and not first.exists():
            first.touch()
            if child:
                os._exit(1)
            raise DataError("data.source: not on this machine")
        for epoch in range(1, 4):
            report(epoch, epoch * seed / 2**34)
        return Measurement(3 * seed / 2**34, 3, 0.0)


@pytest.fixture(params=["serial", "tune"])
def executor(request):
    return request.param


@pytest.fixture
def run(tmp_path):
    def search(executor, evaluator, *settings, children=CHILDREN, watch=lambda study: None):
        name = [f"children={children}", f"executor.name={executor}", "controller.name=random"]
        recipe = Recipe.load("digits", [*name, *settings])
        with Journal(tmp_path / "journal.jsonl") as journal:
            study = Study(recipe, journal, watch)
            make_executor(recipe).run(study, evaluator)
        return study.ledger

    return search


def test_every_child_is_measured_with_its_own_seed(run, executor):
    ledger = run(executor, Scripted())
    assert len(ledger.finished()) == CHILDREN
    for number, child in ledger.children.items():
        assert child.result.accuracy == pytest.approx(3 * ledger.seed(number) / 2**34)
        assert child.result.epochs == 3


@dataclass(frozen=True)
class Environment:
    """Writes down what its process was started with."""

    file: Path

    def evaluate(self, architecture, seed, report):
        self.file.write_text(f"{os.nice(0)} {os.environ['MALLOC_ARENA_MAX']}")
        return Measurement(0.5, 1, 0.0)


def test_workers_have_the_priority_of_their_search_and_one_heap_for_all_their_children(run, tmp_path):
    run("tune", Environment(tmp_path / "worker"), children=1)
    assert (tmp_path / "worker").read_text() == f"{os.nice(0)} 1"


def test_a_failing_child_is_recorded_and_the_search_goes_on(run, executor):
    ledger = run(executor, Scripted("raises"), "executor.retries=0")
    assert ledger.children[2].result == Failure("ValueError: too wide")
    assert ledger.children[4].result == Failure("ValueError: the evaluator returned 0.5, not a Measurement")
    assert [child.trial.number for child in ledger.failed()] == [2, 4]
    assert len(ledger.finished()) == CHILDREN


def test_unusable_data_ends_the_search(run):
    with pytest.raises(InputError, match=r"data\.source: gone"):
        run("serial", Scripted("data"))


def test_a_dead_worker_and_one_whose_machine_lacks_the_data_are_tried_again(run, tmp_path):
    ledger = run("tune", Scripted("once", str(tmp_path)), "executor.retries=1")
    assert not ledger.failed()
    assert len(ledger.finished()) == CHILDREN


@dataclass(frozen=True)
class Hungry:
    """Takes 6 GiB for itself at the first try."""

    folder: Path

    def evaluate(self, architecture, seed, report):
        if not (self.folder / "begun").exists():
            (self.folder / "begun").touch()
            hoard = np.ones(6 * 2**27)
            time.sleep(30)
            (self.folder / "ended").write_text(f"{hoard[-1]}")
        return Measurement(0.5, 1, 0.0)


def test_a_child_whose_worker_ray_ends_for_want_of_memory_is_tried_again(run, tmp_path, monkeypatch):
    used, there = get_used_memory(), get_system_memory()
    if there - used < 2**33:
        pytest.skip("needs 8 GiB of free memory")
    monkeypatch.setenv("RAY_memory_usage_threshold", str((used + 2**32) / there))
    ledger = run("tune", Hungry(tmp_path), "executor.workers=1", "executor.retries=5", children=2)
    assert (tmp_path / "begun").exists()
    assert not (tmp_path / "ended").exists()
    assert [child.result.accuracy for child in (ledger.baseline, *ledger.finished())] == [0.5] * 3


def test_a_child_whose_workers_all_die_is_a_failure(run, tmp_path):
    ledger = run("tune", Scripted("dies", str(tmp_path)), "executor.retries=1")
    assert [child.trial.number for child in ledger.failed()] == [2]
    assert (tmp_path / "deaths").read_text() == "xx"
    assert len(ledger.best()) == CHILDREN - 1


@dataclass(frozen=True)
class Poisoned:
    """The first process that measures fails at all networks, as one does whose GPU's context is damaged or filled."""

    folder: str
    error: Exception

    def evaluate(self, architecture, seed, report):
        first = Path(self.folder) / "first"
        if not first.exists():
            first.write_text(str(os.getpid()))
        if first.read_text() == str(os.getpid()):
            raise self.error
        return Measurement(0.5, 1, 0.0)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
)
def test_a_process_that_fails_is_not_used_again(run, tmp_path, error):
    ledger = run("tune", Poisoned(str(tmp_path), error), "executor.workers=1")
    assert not ledger.failed()
    assert ledger.baseline.result == Measurement(0.5, 1, 0.0)


@dataclass(frozen=True)
class Broken:
    """Fails at every network."""

    def evaluate(self, architecture, seed, report):
        raise Diverged("nowhere") if architecture.name.endswith("-1") else RuntimeError("no kernel image")


def test_a_search_stops_where_one_child_after_the_other_fails_and_resume_goes_on(run, executor, monkeypatch):
    monkeypatch.setattr(base, "_MOST_IN_A_ROW", 2)
    with pytest.raises(InputError, match="2 trainings failed one after the other, the last by RuntimeError: no kernel"):
        run(executor, Broken(), "executor.retries=0", "executor.workers=1")
    ledger = run("serial", Scripted(), "executor.retries=0", "executor.workers=1")
    assert [child.trial.number for child in ledger.failed()] == [1]
    assert len(ledger.measured()) == 5


class OneByOne:
    """Hands out a trial once it knows what became of the one before."""

    contents = None

    def __init__(self):
        network = load_architecture("efficientnet-b0")
        self.waiting = [Trial(number, network, network.key(), seed=number) for number in range(3)]
        self.results = []
        self.under_way = False

    @property
    def done(self):
        return not self.waiting

    def next_trial(self):
        if self.under_way or self.done:
            return None
        self.under_way = True
        return self.waiting.pop(0)

    def finish(self, trial, result):
        self.under_way = False
        self.results.append((trial.number, result))


def test_failures_are_told_where_nothing_else_is_under_way_and_at_the_end():
    source = OneByOne()
    make_executor(Recipe.load("digits", ["executor.name=serial"])).run(source, Broken())
    assert source.results == [(number, Failure("RuntimeError: no kernel image")) for number in range(3)]
    source = OneByOne()
    searcher = tune._SourceSearcher(source, room=lambda: 1)
    for number in range(3):
        assert searcher.suggest(f"trial {number}")["seed"] == number
        searcher.on_trial_complete(f"trial {number}", error=True)
    assert searcher.suggest("another") == searcher.FINISHED
    assert [number for number, _ in source.results] == [0, 1, 2]


class Full(OneByOne):
    """What it is brought goes into the journal's last room."""

    def finish(self, trial, result):
        super().finish(trial, result)
        raise JournalFullError("full")


def test_where_the_disk_is_full_a_measurement_is_kept_beside_the_failures_that_waited_for_it():
    source = Full()
    first, second, measured = source.waiting
    results = base.ResultBuffer(source)
    for failed in (first, second):
        results.deliver(failed, Failure("out of memory"), suspect=True)
    with pytest.raises(JournalFullError):
        results.deliver(measured, Measurement(0.5, 1, 0.0), suspect=False)
    assert source.results == [(0, Failure("out of memory")), (2, Measurement(0.5, 1, 0.0))]
    with pytest.raises(JournalFullError):
        results.flush()
    assert source.results[2:] == [(1, Failure("out of memory"))]


@dataclass(frozen=True)
class Slow:
    """Good networks and bad ones by their seed, the baseline the worst, an epoch at a time."""

    def evaluate(self, architecture, seed, report):
        accuracy = 0.0 if architecture.name == "efficientnet-b0" else (seed % 100) / 100
        for epoch in range(1, 5):
            time.sleep(0.02)
            report(epoch, accuracy)
        return Measurement(accuracy, 4, 0.0)


def test_early_stopping_ends_bad_children_early_and_keeps_their_accuracy_but_never_the_baseline(run):
    stopping = "executor.early_stopping={grace_epochs: 1, reduction: 2}"
    ledger = run("tune", Slow(), stopping, "proxy.epochs=4", children=12)
    epochs = {child.trial.number: child.result.epochs for child in ledger.finished()}
    assert min(epochs.values()) < 4
    assert ledger.baseline.result.epochs == 4
    assert max(ledger.finished(), key=lambda child: child.result.accuracy).result.epochs == 4
    assert all(child.result.accuracy == (child.trial.seed % 100) / 100 for child in ledger.finished())


class Doubter(RandomSearch):
    """Random search whose every other child trains the first one's network again."""

    def _suggest(self):
        self._asked = [*getattr(self, "_asked", []), super()._suggest()]
        return self._asked[-1] if len(self._asked) % 2 else replace(self._asked[0], again=True)


def test_early_stopping_never_ends_another_training_of_a_known_network(run, monkeypatch):
    monkeypatch.setitem(controllers._CONTROLLERS, "random", Doubter)
    stopping = "executor.early_stopping={grace_epochs: 1, reduction: 2}"
    ledger = run("tune", Slow(), stopping, "proxy.epochs=4", children=16)
    again = ledger.children[1].again
    assert len(again) == 8
    assert {child.result.epochs for child in again} == {4}
    assert min(child.result.epochs for child in ledger.finished()) < 4


@dataclass(frozen=True)
class Steady:
    """Gains a tenth an epoch; children are ahead of the baseline from the first."""

    def evaluate(self, architecture, seed, report):
        ahead = 0.0 if architecture.name == "efficientnet-b0" else 0.05
        for epoch in range(1, 6):
            report(epoch, epoch / 10 + ahead)
        return Measurement(0.5 + ahead, 5, 0.0)


def test_a_child_is_compared_with_a_whole_training_at_the_same_epoch(run):
    stopping = "executor.early_stopping={grace_epochs: 1, reduction: 3}"
    ledger = run("tune", Steady(), stopping, "proxy.epochs=5", "executor.workers=1", children=3)
    assert [child.result.epochs for child in (ledger.baseline, *ledger.finished())] == [5, 5, 5, 5]


def test_tune_leaves_no_files(run, tmp_path, monkeypatch):
    sessions = Path(tempfile.gettempdir(), "ray")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # other tests make files at the same time

    def litter():
        return {*tmp_path.glob("nas-tune-*"), *sessions.glob(f"session_2*_{os.getpid()}")}

    before, during = litter(), []
    run("tune", Scripted(), watch=lambda study: during.append(litter()))
    assert any(len(files - before) == 2 for files in during)
    assert litter() <= before
    assert not (Path.home() / "ray_results").exists()


def test_workers_know_the_block_kinds_that_a_user_registered(run, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "_KINDS", dict(blocks._KINDS))  # put back afterwards

    @register("test_shuffle", replace=True)
    def shuffle(stage: StageSpec, in_chs: int, stride: int, activation: str) -> Block:
        return Block((*conv_norm(in_chs, stage.out_chs, 1, stride), Activation(activation)))

    space = tmp_path / "space.yaml"
    lines = "format: baseline-nas/space/1\nresolution: 32\nnum_classes: 10\nstem: {out_chs: 8}\n"
    space.write_text(lines + "stages: [{op: test_shuffle, layers: [1, 2, 3], out_chs: [8, 16]}]\n")
    assert load_space(space).size == 6
    ledger = run("tune", Scripted(), f"space={space}", children=3)
    assert len(ledger.best()) == 3


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1:1", "no Ray cluster answers"),
        ("a..b:6379", "no Ray cluster answers"),
        ("ray://127.0.0.1:10001", "no Ray Client"),
        ("", "--ray-address: is empty"),
    ],
)
def test_an_address_where_no_cluster_answers_is_refused(tmp_path, address, why):
    recipe = Recipe.load("digits")
    with Journal(tmp_path / "journal.jsonl") as journal, pytest.raises(InputError, match=why):
        make_executor(recipe, address).run(Study(recipe, journal), Scripted())


def test_an_address_where_something_else_answers_is_refused():
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}"
        with pytest.raises(InputError, match=rf"--ray-address {address}: what answers is not Ray's head node"):
            make_executor(Recipe.load("digits"), address).workers()
        server.shutdown()


@pytest.fixture(scope="module")
def cluster():
    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "include_dashboard": False})
    yield running
    running.shutdown()


def test_a_running_cluster_trains_and_is_left_running_and_one_child_waits_for_its_next_machine(tmp_path, cluster):
    recipe = Recipe.load("digits", [f"children={CHILDREN}", "controller.name=random"])
    executor = make_executor(recipe, cluster.address)
    waiting = make_executor(Recipe.load("digits", ["executor.workers=5"]), cluster.address)
    assert (executor.workers(), waiting.workers()) == (3, 3)
    handed_out = []
    with Journal(tmp_path / "journal.jsonl") as journal:
        study = Study(recipe, journal, lambda study: handed_out.append(len(study.ledger.running())))
        waiting.run(study, Scripted())
    assert len(study.ledger.best()) == CHILDREN
    assert max(handed_out) == 4
    assert executor.workers() == 3


def test_a_machine_that_lacks_a_module_is_named_before_any_child_is_lost(tmp_path, cluster, monkeypatch):
    (tmp_path / "my_evaluator.py").write_text("class Mine:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    from my_evaluator import Mine

    recipe = Recipe.load("digits")
    with Journal(tmp_path / "journal.jsonl") as journal:
        study = Study(recipe, journal)
        with pytest.raises(InputError, match="can't train: No module named 'my_evaluator'; every machine"):
            make_executor(recipe, cluster.address).run(study, Mine())
        with pytest.raises(InputError, match="executor: cpus_per_child 4, gpus_per_child 0: no machine has as many"):
            make_executor(Recipe.load("digits", ["executor.cpus_per_child=4"]), cluster.address).run(study, Mine())
    assert not study.ledger.finished()
    assert study.ledger.baseline.result is None


def test_a_ray_that_cannot_start_here_is_told_in_one_line(monkeypatch):
    def init(**options):
        raise RuntimeError("Failed to start GCS.\n\nPlease check gcs_server.out")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(InputError, match=r"^Ray can't start here: Failed to start GCS\. Please check gcs_server\.out$"):
        make_executor(Recipe.load("digits")).workers()
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    with pytest.raises(InputError, match="Ray runs already in this process"):
        make_executor(Recipe.load("digits")).workers()


def test_another_version_of_ray_is_told_in_one_line(tmp_path, cluster, monkeypatch):
    monkeypatch.setattr(ray, "__version__", "1.0.0")
    with pytest.raises(InputError, match=r"Version mismatch: .*Ray: 1\.0\.0") as error:
        make_executor(Recipe.load("digits"), cluster.address).workers()
    assert "\n" not in str(error.value)


@dataclass(frozen=True)
class Copied:
    """Has fewer images where the second child trains, which is found out while the third trains on."""

    folder: str

    def contents(self, architecture):
        if not architecture.name.endswith("-2"):
            return {"images": 600, "classes": 10, "guess": 0.2}
        while not Path(self.folder, "third").exists():
            time.sleep(0.01)
        return {"images": 200, "classes": 10, "guess": 0.1}

    def evaluate(self, architecture, seed, report):
        if architecture.name.endswith("-3"):
            Path(self.folder, "third").touch()
            time.sleep(1)
        return Measurement(0.5, 1, 0.0)


def test_a_worker_with_other_data_than_the_search_ends_it_but_what_is_being_trained_is_kept(tmp_path, cluster):
    settings = ["controller.name=random", "executor.workers=2", "executor.retries=0"]
    recipe, evaluator = Recipe.load("digits", settings), Copied(str(tmp_path))
    with Journal(tmp_path / "journal.jsonl") as journal:
        study = Study(recipe, journal, contents=evaluator.contents(recipe.load_baseline()))
        there = "a worker has 200 images, 10 classes, where the search runs there are 600 images, 10 classes"
        with pytest.raises(InputError, match=f"data.source: {there}"):
            make_executor(recipe, cluster.address).run(study, evaluator)
    assert [child.trial.number for child in study.ledger.running()] == [2]
    assert study.ledger.children[3] in study.ledger.measured()


def test_as_many_workers_as_are_asked_for_or_fit(monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")  # as in a container that may use one of the cores it sees
    assert make_executor(Recipe.load("digits")).workers() == 1
    assert make_executor(Recipe.load("digits", ["executor.name=serial"])).workers() == 1
    assert make_executor(Recipe.load("digits", ["executor.workers=3"])).workers() == 3
