"""Nothing is lost: `kill -9` at random moments, Ctrl-C, a full disk."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

NAS = [sys.executable, "-m", "nas.cli"]
CHILDREN = 12


def journal(folder):
    """Events without their times."""
    events = [json.loads(line) for line in (Path(folder) / "journal.jsonl").read_text().splitlines()]
    return [{key: value for key, value in event.items() if key not in ("time", "seconds")} for event in events]


@pytest.fixture(scope="module")
def uninterrupted(write_small, tmp_path_factory):
    """A recipe, and the folder of its search that nothing interrupted."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    recipe = write_small(folder)
    words = ["search", str(recipe), "--out", "run", "--set", f"children={CHILDREN}"]
    cache = {"BASELINE_NAS_CACHE": str(folder / "cache")}
    subprocess.run([*NAS, *words], check=True, capture_output=True, cwd=folder, env=os.environ | cache)
    return recipe, folder / "run"


@pytest.fixture
def small_recipe(uninterrupted, tmp_path, monkeypatch):
    """That recipe, in an empty working directory."""
    recipe, _ = uninterrupted
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BASELINE_NAS_CACHE", str(recipe.parent / "cache"))
    return recipe


@pytest.fixture
def whole(uninterrupted):
    """The journal of the uninterrupted search."""
    return journal(uninterrupted[1])


def begin(*words, **options):
    return subprocess.Popen([*NAS, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def lines(folder):
    path = Path(folder) / "journal.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


def test_ten_kills_change_nothing(small_recipe, whole):
    """Each kill comes at a random moment after the next few events of the journal."""
    rng = random.Random(0)
    driver = begin("search", str(small_recipe), "--out", "run", "--set", f"children={CHILDREN}")
    for kill in range(10):
        reach = min(lines("run") + rng.randint(1, 3), len(whole) - 1)
        wait_for(lambda reach=reach, driver=driver: lines("run") >= reach or driver.poll() is not None)
        time.sleep(rng.uniform(0, 0.15))
        driver.kill()
        driver.wait()
        assert journal("run")[: lines("run")] == whole[: lines("run")], kill
        driver = begin("resume", "run")
    assert driver.wait(timeout=120) == 0
    assert journal("run") == whole


@pytest.mark.parametrize("last", ["completed", "recommended"])
def test_a_torn_last_line_is_dropped_and_what_it_told_done_again(small_recipe, uninterrupted, whole, last):
    path = Path(shutil.copytree(uninterrupted[1], "run")) / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    while json.loads(lines[-1])["event"] != last:
        lines.pop()
    path.write_bytes(b"".join(lines)[:-20])
    out = subprocess.run([*NAS, "resume", "run"], check=True, capture_output=True, text=True).stdout
    assert "last line" in out
    assert journal("run") == whole


@pytest.mark.parametrize(
    ("stop", "ctrl_c"),
    [
        (signal.SIGINT, signal.SIG_DFL),
        (signal.SIGTERM, signal.SIG_IGN),
        (signal.SIGHUP, signal.SIG_DFL),
    ],
    ids=["ctrl-c", "terminate in the background of a script, where Ctrl-C is ignored", "hang up"],
)
def test_a_stop_ends_cleanly_and_says_how_to_go_on(small_recipe, whole, stop, ctrl_c):
    settings = ["--set", f"children={CHILDREN}"]

    def background():
        signal.signal(signal.SIGINT, ctrl_c)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whether or not `nohup` runs the tests

    driver = begin("search", str(small_recipe), "--out", "run", *settings, preexec_fn=background)
    wait_for(lambda: lines("run") >= 5)
    driver.send_signal(stop)
    out, _ = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert "nas resume run" in out
    assert "Traceback" not in out
    subprocess.run([*NAS, "resume", "run"], check=True, capture_output=True)
    assert journal("run") == whole


def test_ctrl_c_under_ray_ends_cleanly_and_resumes(small_recipe):
    settings = ["--set", "executor.name=tune", "--set", "children=12"]
    driver = begin("search", str(small_recipe), "--out", "run", *settings, start_new_session=True)
    wait_for(lambda: lines("run") >= 4, 120)
    os.killpg(driver.pid, signal.SIGINT)
    out, _ = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert "nas resume run" in out
    assert "Traceback" not in out
    done = [event for event in journal("run") if event["event"] == "completed"]
    words = ["resume", "run", "--workers", "2"]
    out = subprocess.run([*NAS, *words], check=True, capture_output=True, text=True, timeout=300).stdout
    assert "12/12 done" in out
    completed = [event for event in journal("run") if event["event"] == "completed"]
    assert completed[: len(done)] == done
    assert len({event["trial"] for event in completed}) == len(completed) == 13


ON_A_SMALL_DISK = """
mkdir disk begun && mount -t tmpfs -o size=100k tmpfs disk || exit 77
"$@"
cp disk/journal.jsonl .
"""

SEARCH_THERE = """
import time
from contextlib import suppress
from pathlib import Path
from nas.evaluators import Measurement
from nas.executors import make_executor
from nas.journal import Journal, JournalError
from nas.recipe import Recipe
from nas.study import Study

class Filler:
    here = Path.cwd()

    def evaluate(self, architecture, seed, report):
        (self.here / "begun" / architecture.name).touch()
        time.sleep((1 + seed % 4) / 8)
        with open(self.here / "disk" / "other", "ab", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass
        return Measurement(0.5, 1, 0.0)

recipe = Recipe.load("digits", ["children=500", "controller.name=random", "executor.workers=4"])
with Journal(Path("disk/journal.jsonl")) as journal:
    try:
        make_executor(recipe).run(Study(recipe, journal), Filler())
    except JournalError as error:
        print(error)
"""


def test_what_trains_when_the_disk_gets_full_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mount = ["unshare", "--map-root-user", "--mount", "sh", "-c", ON_A_SMALL_DISK, "sh"]
    run = subprocess.run([*mount, sys.executable, "-c", SEARCH_THERE], capture_output=True, text=True, check=False)
    if run.returncode == 77 or "unshare failed" in run.stderr:
        pytest.skip("a small disk takes root, or the right to make user namespaces")
    assert run.stdout == "disk/journal.jsonl: can't be written: No space left on device; every finished child is kept\n"
    began = len(list(Path("begun").iterdir()))
    assert began > 5
    assert sum(event["event"] == "completed" for event in journal(".")) == began


def test_a_full_disk_is_one_line_and_every_finished_child_is_kept(small_recipe, whole):
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    driver = begin("search", str(small_recipe), "--out", "full", "--set", f"children={CHILDREN}", preexec_fn=limit)
    out, _ = driver.communicate(timeout=60)
    assert driver.returncode == 2
    assert "journal.jsonl: can't be written" in out
    assert "Traceback" not in out
    kept = journal("full")
    assert kept == whole[: len(kept)]
    subprocess.run([*NAS, "resume", "full"], check=True, capture_output=True)
    assert journal("full") == whole


def test_a_full_disk_leaves_the_recipe_as_it_was(small_recipe):
    subprocess.run([*NAS, "search", str(small_recipe), "--out", "run"], check=True, capture_output=True)
    before = Path("run/recipe.yaml").read_bytes()

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    out, _ = begin("resume", "run", "--then-scale", preexec_fn=limit).communicate(timeout=60)
    assert "Traceback" not in out
    assert Path("run/recipe.yaml").read_bytes() == before


def test_a_full_disk_leaves_no_half_export(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    words = ("export", "efficientnet-b0", "-o", "out")
    out, _ = begin(*words, preexec_fn=limit).communicate(timeout=60)
    assert out == "nas: out/efficientnet-b0.yaml: can't be written: File too large\n"
    subprocess.run([*NAS, *words], check=True)


def test_two_drivers_of_one_run_are_refused(small_recipe):
    driver = begin("search", str(small_recipe), "--out", "run", "--set", "children=60")
    wait_for(lambda: lines("run") >= 3)
    second = subprocess.run([*NAS, "resume", "run"], capture_output=True, text=True, check=False)
    driver.kill()
    driver.wait()
    assert second.returncode == 2
    assert "another process" in second.stderr
