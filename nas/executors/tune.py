"""The Ray Tune executor: children side by side on this machine or a cluster; the only importer of ray."""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

os.environ.update(  # Tune reads these when it is imported
    RAY_AIR_NEW_OUTPUT="0",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
    TUNE_DISABLE_SIGINT_HANDLER="1",
    TUNE_GLOBAL_CHECKPOINT_S="1000000000",
    TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S="0",
)
# Of the local workers (benchmarks/workers.py). Ray's own niceness of 15 leaves children a thirtieth of a core beside
# other programs, and they run out of time. Each child has a thread of its own; with an arena for each, memory piles up.
os.environ.setdefault("RAY_worker_niceness", "0")
os.environ.setdefault("MALLOC_ARENA_MAX", "1")

import ray
from joblib import cpu_count
from ray import tune
from ray.air.execution._internal import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError
from ray.tune.execution import tune_controller
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nas.evaluators.base import Evaluator, Failure, Measurement, check_same, describe
from nas.executors.base import OWN, ResultBuffer, Source, measure
from nas.journal import JournalError, JournalFullError
from nas.ledger import Trial
from nas.recipe import ExecutorSection
from search_space import Architecture, InputError
from search_space.blocks import BlockKind, added_kinds, register

CONNECT_SECONDS = 5

_GREETING, _SETTINGS = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]), b"\x04"
"""What opens a connection of HTTP/2, which Ray's head node speaks, and the type of the frame that it answers with (RFC
9113, section 3.4)."""

_ANSWER_SECONDS = 60
"""How long machines are waited for that may be unable to train; later, their children tell."""

_DIED = "the worker died, of too little memory perhaps, or couldn't load the evaluator, and so did every retry"
"""What is known of a training that reported nothing."""


class _ActorManager(RayActorManager):
    """Takes a worker that Ray ended, such as for want of memory, as one that died; Tune's own ends the whole search.

    Beside other workers its child isn't to blame for the want. It counts as preempted, which uses up no retry.
    """

    def _actor_start_failed(self, tracked_actor: Any, exception: Exception) -> None:
        """See `RayActorManager`."""
        super()._actor_start_failed(tracked_actor, self._as_death(exception))

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        """See `RayActorManager`."""
        super()._actor_task_failed(tracked_actor_task, self._as_death(exception))

    def _as_death(self, exception: Exception) -> Exception:
        """What Tune knows as it is, anything else as the death of a worker."""
        if isinstance(exception, RayActorError | RayTaskError):
            return exception
        crowded = isinstance(exception, OutOfMemoryError) and self.num_live_actors > 1
        return RayActorError(error_msg=str(exception), preempted=crowded)


# Tune takes the class from here and has no parameter for it.
tune_controller.RayActorManager = _ActorManager  # type: ignore[attr-defined]


class TuneExecutor:
    """Trains on Ray Tune: reused actors, fractional CPUs and GPUs, retries, ASHA.

    Attributes:
        section: of the recipe.
        max_epochs: of a child, for early stopping.
        address: of a running Ray cluster; None starts Ray on this machine for the time of the search.
    """

    def __init__(self, section: ExecutorSection, max_epochs: int, address: str | None = None) -> None:
        self.section = section
        self.max_epochs = max_epochs
        self.address = address

    def run(self, source: Source, evaluator: Evaluator) -> None:
        """Train until the source is done (see `Executor.run`).

        Raises:
            InputError: no node has what a child needs, one can't load the evaluator, the data can't be used or aren't
                the same everywhere, or one child after the other fails.
        """
        context = self._start()
        searcher = _SourceSearcher(source, self._room)
        try:
            workers = self._fits()
            if self.address is not None:
                _check_nodes([node for node in _nodes() if self._room_on(node)], evaluator)
                workers = self.section.workers or workers
            with tempfile.TemporaryDirectory(prefix="nas-tune-") as scratch:
                self._tuner(searcher, evaluator, workers, scratch).fit()
            if searcher.error is None:
                searcher.results.flush()
        finally:
            self._stop(context)
            if searcher.error is not None:
                raise searcher.error

    def workers(self) -> int:
        """As many as fit on the cluster, or on this machine, unless the recipe says how many.

        Raises:
            InputError: no cluster answers, or no node has what a child needs.
        """
        context = self._start()
        try:
            return self._fits()
        finally:
            self._stop(context)

    def _start(self) -> Any:
        if ray.is_initialized():
            raise InputError("Ray runs already in this process; call ray.shutdown() first")
        logging.getLogger("ray").setLevel(logging.ERROR)
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a worker that died is told as a failed child
        if self.address is not None:
            _check_address(self.address)
            options: dict[str, Any] = {"address": self.address}
        else:
            options = {"address": "local", "include_dashboard": False, "num_cpus": self._local_cpus()}
        terminate = signal.getsignal(signal.SIGTERM)
        try:
            return ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.AuthenticationError) as error:
            ray.shutdown()  # what a start that failed left behind
            told = " ".join(str(error).split())  # another version of Ray or Python takes several lines
            if self.address is None:
                raise InputError(f"Ray can't start here: {told}") from None
            token = not isinstance(error, RuntimeError) and "RAY_AUTH_MODE" not in os.environ
            hint = "; if the cluster asks for a token, set RAY_AUTH_MODE=token" if token else ""
            raise InputError(f"--ray-address {self.address}: {told}{hint}") from None
        except OSError as error:
            raise InputError(f"Ray can't start in TMPDIR={tempfile.gettempdir()}: {error}; set another") from None
        finally:
            if _in_main_thread():
                signal.signal(signal.SIGTERM, terminate)  # Ray puts its own in place

    def _stop(self, context: Any) -> None:
        """End Ray and remove its files, which Ctrl-C once more would leave half done."""
        with _uninterrupted():
            ray.shutdown()
            if self.address is None:
                shutil.rmtree(context.address_info["session_dir"], ignore_errors=True)

    def _local_cpus(self) -> int:
        """CPU slots of the local Ray: more than this process may use only if the recipe asks for that many workers.

        A container's share of the processor's time counts, too, though it sees all cores.
        """
        cores: int = cpu_count()
        return max(cores, math.ceil((self.section.workers or 0) * self.section.cpus_per_child))

    def _fits(self) -> int:
        """Children at a time, of the Ray that runs.

        Raises:
            InputError: no node has what a child needs.
        """
        section, room = self.section, self._room()
        if room == 0:
            wanted = f"cpus_per_child {section.cpus_per_child:g}, gpus_per_child {section.gpus_per_child:g}"
            raise InputError(f"executor: {wanted}: no machine has as many for a child")
        return min(section.workers or room, room)

    def _room(self) -> int:
        """Children that fit at a time."""
        return sum(map(self._room_on, _nodes()))

    def _room_on(self, node: dict[str, Any]) -> int:
        """Children that fit on a node at a time."""
        section, has = self.section, node["Resources"]
        ways = [_slots(has.get("CPU", 0), section.cpus_per_child)]
        if section.gpus_per_child:
            ways.append(_slots(has.get("GPU", 0), section.gpus_per_child))
        return min(ways)

    def _tuner(self, searcher: Searcher, evaluator: Evaluator, workers: int, scratch: str) -> tune.Tuner:
        section = self.section
        child = tune.with_parameters(_train_child, evaluator=evaluator, kinds=added_kinds())
        scheduler = None
        if section.early_stopping:
            scheduler = _EarlyStopping(
                time_attr="epochs",
                metric="accuracy",
                mode="max",
                max_t=self.max_epochs,
                grace_period=min(section.early_stopping.grace_epochs, self.max_epochs),
                reduction_factor=section.early_stopping.reduction,
            )
        return tune.Tuner(
            tune.with_resources(child, {"cpu": section.cpus_per_child, "gpu": section.gpus_per_child}),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=-1,
                max_concurrent_trials=workers,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=scratch,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=section.retries),
            ),
        )


def _nodes() -> list[dict[str, Any]]:
    """The nodes of the Ray that runs."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"]]


def _check_nodes(nodes: list[dict[str, Any]], evaluator: Evaluator) -> None:
    """Refuse a machine on which every child would fail.

    Args:
        nodes: that have room for a child.
        evaluator: that the children need.

    Raises:
        InputError: a node can't load the evaluator, or the blocks that a user registered; the message says why.
    """
    ready, load = ray.remote(num_cpus=0, max_retries=0)(_ready), ray.put((evaluator, added_kinds()))
    asked = {}
    for node in nodes:
        here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked[ready.options(scheduling_strategy=here).remote(load)] = node["NodeManagerHostname"]
    answered, _ = ray.wait([*asked], num_returns=len(asked), timeout=_ANSWER_SECONDS)
    for answer in answered:
        try:
            ray.get(answer)
        except ray.exceptions.RayTaskError as error:
            why = describe(error.cause).rpartition("System error: ")[2]
            raise InputError(
                f"{asked[answer]} can't train: {why}; every machine needs the same modules, on PYTHONPATH"
            ) from None
        except ray.exceptions.RayError:
            continue  # the node or its worker is gone, and Tune tries others


def _ready(load: Any) -> None:
    """Nothing: that a worker can load its argument is all that is asked."""


class _EarlyStopping(ASHAScheduler):
    """Stops children early, but for those that are to be trained whole."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """See `ASHAScheduler.on_trial_result`."""
        if trial.config["whole"]:
            return str(TrialScheduler.CONTINUE)
        return str(super().on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Forget the trial; ASHA would enter the last accuracy of a whole training at a rung of fewer epochs."""
        self.on_trial_remove(tune_controller, trial)


def _in_main_thread() -> bool:
    """Whether signals can be handled here."""
    return threading.current_thread() is threading.main_thread()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignore Ctrl-C and the like within the block."""
    before = {}
    if _in_main_thread():
        before = {stop: signal.signal(stop, signal.SIG_IGN) for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for stop, handler in before.items():
            signal.signal(stop, handler)


def _slots(has: float, wants: float) -> int:
    """How many of these shares fit, a tenth ten times."""
    return math.floor(has / wants + 1e-9)


def _check_address(address: str) -> None:
    """Knock at `host:port`; Ray itself would wait for minutes.

    Raises:
        InputError: nobody answers, or it is for Ray Client, where Tune would run the search far from its journal.
    """
    if not address.strip():
        raise InputError("--ray-address: is empty; give auto or HOST:6379, or leave it out to use this machine alone")
    if address.startswith("ray://"):
        raise InputError(f"--ray-address {address}: no Ray Client; give auto or HOST:6379 on a node of the cluster")
    host, separator, port = address.rpartition(":")
    if not (separator and port.isdecimal()):
        return
    try:
        with socket.create_connection((host, int(port)), CONNECT_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
                return  # it would take the greeting for an attack
            connection.sendall(_GREETING)
            answer = connection.recv(len(_GREETING))
    except (OSError, ValueError) as error:  # a name that can't be one
        raise InputError(f"--ray-address {address}: no Ray cluster answers: {error}") from None
    if answer[3:4] != _SETTINGS:
        raise InputError(
            f"--ray-address {address}: what answers is not Ray's head node, which takes workers at port 6379 unless it "
            "was started with another (8265 is the dashboard's)"
        )


def _train_child(config: dict[str, Any], evaluator: Evaluator, kinds: dict[str, BlockKind]) -> None:
    """One Tune trial, in a worker; every report has the accuracy, the epochs and the seconds so far.

    What a fresh process may do better is raised, so that Tune starts one.
    """
    for op, kind in kinds.items():
        register(op, replace=True)(kind)
    start = time.monotonic()

    def report(epoch: int, accuracy: float) -> None:
        tune.report({"accuracy": accuracy, "epochs": epoch, "seconds": time.monotonic() - start})

    try:
        architecture = Architecture.from_dict(config["architecture"])
        if config["contents"] is not None:
            check_same(config["contents"], evaluator.contents(architecture))
        tune.report(asdict(measure(evaluator, architecture, config["seed"], report)))
    except InputError as error:  # the data, or this machine's copy of them
        tune.report({"accuracy": 0.0, "epochs": 0, "fatal": str(error)})
        raise
    except Exception as error:
        tune.report({"accuracy": 0.0, "epochs": 0, "failure": describe(error)})
        if not isinstance(error, OWN):
            raise


class _SourceSearcher(Searcher):
    """Connects Tune's callbacks to the source, and ends a search that can't go on.

    Attributes:
        error: what must end the search, kept because Tune wraps what its callbacks raise. What is being trained comes
            to its end first where that can be kept: also on a full disk, for the journal has some room left (see
            `Journal`).
        results: on their way to the source.
    """

    def __init__(self, source: Source, room: Callable[[], int]) -> None:
        super().__init__(metric="accuracy", mode="max")
        self.error: Exception | None = None
        self.results = ResultBuffer(source)
        self._source = source
        self._room = room
        self._trials: dict[str, Trial] = {}
        self._unfinished: dict[str, dict[str, Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune writes a copy of its parts to disk, but after a crash the journal is the truth."""
        return {}

    def suggest(self, trial_id: str) -> Any:
        """The next trial's config; None if there is none now, FINISHED if there are no more."""
        if self.error is not None:
            return Searcher.FINISHED
        if len(self._trials) > self._room():
            return None  # one that waits makes an autoscaler add machines; more would be chosen knowing less
        try:
            trial = self._source.next_trial()
            if trial is None and not self._trials and self.results.flush():
                trial = self._source.next_trial()
        except JournalFullError as problem:
            self.error = problem
            return Searcher.FINISHED
        if trial is None:
            return Searcher.FINISHED if self._source.done else None
        self._trials[trial_id] = trial
        architecture, contents = trial.architecture.to_dict(), self._source.contents
        return {"architecture": architecture, "seed": trial.seed, "whole": trial.whole, "contents": contents}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep why a try failed: Tune tells no more than that the last one did."""
        if "failure" in result or "fatal" in result:
            self._unfinished[trial_id] = result

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Bring a trial's last report to the source; too many errors in a row end the search."""
        trial, unfinished = self._trials.pop(trial_id, None), self._unfinished.pop(trial_id, {"failure": _DIED})
        if trial is None or not (self.error is None or _lets_finish(self.error)):
            return
        try:
            self.results.deliver(trial, _result(unfinished if error or result is None else result), suspect=error)
        except Exception as problem:
            if not _lets_finish(problem):
                self.error = problem
                raise
            self.error = self.error or problem

    def save(self, checkpoint_path: str) -> None:
        """Nothing, as above."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as above."""


def _lets_finish(problem: Exception) -> bool:
    """Whether what is being trained can still be kept."""
    if isinstance(problem, JournalError):
        return isinstance(problem, JournalFullError)
    return isinstance(problem, InputError)


def _result(result: dict[str, Any]) -> Measurement | Failure:
    """The journal's form of a trial's last report.

    Raises:
        InputError: the worker found the user's data unusable.
    """
    if "fatal" in result:
        raise InputError(result["fatal"] + (f" (on {result['hostname']})" if len(_nodes()) > 1 else ""))
    if "failure" in result:
        return Failure(result["failure"])
    return Measurement(result["accuracy"], result["epochs"], result["seconds"])
