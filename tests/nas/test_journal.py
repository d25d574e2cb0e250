"""The journal: nothing that was written is lost, whatever happens to the process or the disk."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.journal import Journal, JournalError, parse
from nas.ledger import Ledger
from nas.recipe import Recipe
from nas.study import Study

EVENTS = [{"event": "a", "n": 1}, {"event": "b", "text": 'ü\n"\u2028', "list": [1, 2.5, None]}, {"event": "c"}]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def without_time(events: list) -> list[dict]:
    return [{name: value for name, value in event.items() if name != "time"} for event in events]


@pytest.fixture
def path(tmp_path):
    """A journal that holds `EVENTS`."""
    with Journal(tmp_path / "journal.jsonl") as journal:
        for event in EVENTS:
            journal.append(event)
    return journal.path


def test_events_come_back_in_order_and_a_later_process_appends(path):
    with Journal(path) as journal:
        assert without_time(journal.replay()) == EVENTS
        assert not journal.torn
        journal.append({"event": "d"})
    assert without_time(parse(path)[0]) == [*EVENTS, {"event": "d"}]


def test_one_line_and_a_time_per_event(path):
    lines = path.read_text().splitlines()
    assert len(lines) == len(EVENTS)
    assert all(abs(json.loads(line)["time"] - time.time()) < 60 for line in lines)


@settings(max_examples=25)
@given(st.lists(st.dictionaries(st.text().filter(lambda name: name != "time"), json_values), max_size=5))
def test_any_event_survives(tmp_path_factory, events):
    path = tmp_path_factory.mktemp("journal") / "j"
    with Journal(path) as journal:
        for event in events:
            journal.append(event)
    with Journal(path) as journal:
        assert without_time(journal.replay()) == events


def test_every_cut_loses_only_the_line_it_tears(path):
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        whole = content[:size].count(b"\n")
        with Journal(path) as journal:
            assert without_time(journal.replay()) == EVENTS[:whole]
            assert journal.torn == (not content[:size].endswith(b"\n") and size > 0)
            journal.append({"event": "next"})
        assert without_time(parse(path)[0]) == [*EVENTS[:whole], {"event": "next"}]


@pytest.mark.parametrize("tail", [b"\0\0\0\0", b"\xff\xfe", b'{"event": "d"}', b"garbage\n", b"[1]\n"])
def test_a_last_line_that_is_no_event_is_dropped(path, tail):
    path.write_bytes(path.read_bytes() + tail)
    with Journal(path) as journal:
        assert journal.torn
        assert without_time(journal.replay()) == EVENTS
    assert without_time(parse(path)[0]) == EVENTS


@pytest.mark.parametrize("damage", [b"{\n", b"\n", b"\0\0\n", b"[1, 2]\n", b"3\n"])
def test_a_damaged_line_in_the_middle_is_refused_and_nothing_changed(path, damage):
    lines = path.read_bytes().splitlines(keepends=True)
    content = lines[0] + damage + lines[2]
    path.write_bytes(content)
    with pytest.raises(JournalError) as error:
        Journal(path)
    assert str(error.value) == f"{path}:2: damaged; nothing was changed"
    assert path.read_bytes() == content
    path.write_bytes(b"".join(lines))
    with Journal(path) as journal:  # the lock is gone, though the error is still at hand
        assert without_time(journal.replay()) == EVENTS


def _open(path, answers) -> None:
    try:
        Journal(path).close()
        answers.put("opened")
    except JournalError as error:
        answers.put(str(error))


def test_another_process_is_refused_until_the_first_has_ended(path):
    context = multiprocessing.get_context("fork")
    answers = context.Queue()

    def other() -> str:
        process = context.Process(target=_open, args=(path, answers))
        process.start()
        answer = answers.get(timeout=30)
        process.join(timeout=30)
        return answer

    with Journal(path):
        assert "another process is at work on it" in other()
    assert other() == "opened"


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(JournalError, match="none/j: can't be opened: No such file"):
        Journal(tmp_path / "none" / "j")


def test_a_journal_may_be_moved_while_it_is_written_and_another_file_in_its_place_stays(path, tmp_path):
    with Journal(path) as journal:
        path.rename(tmp_path / "moved")
        journal.append({"event": "d"})
        assert without_time(parse(tmp_path / "moved")[0]) == [*EVENTS, {"event": "d"}]
        path.write_text("another")
        (tmp_path / "moved").unlink()
        with pytest.raises(JournalError, match=r"was removed or replaced while it was written$"):
            journal.append({"event": "e"})
    assert path.read_text() == "another"


@pytest.mark.parametrize("folder_stays", [True, False])
def test_a_removed_journal_ends_the_search_and_is_put_back_where_its_folder_is(path, folder_stays):
    content = path.read_bytes()
    with Journal(path) as journal:
        path.unlink()
        if not folder_stays:
            shutil.rmtree(path.parent)
        with pytest.raises(JournalError, match="was removed or replaced while it was written"):
            journal.append({"event": "d"})
    assert path.exists() == folder_stays
    assert not folder_stays or path.read_bytes() == content


def test_nan_is_no_event(path):
    with Journal(path) as journal:
        with pytest.raises(ValueError, match="JSON compliant"):
            journal.append({"accuracy": float("nan")})
        journal.append({"event": "d"})
    assert len(parse(path)[0]) == len(EVENTS) + 1


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from nas.journal import Journal, JournalError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
size = path.stat().st_size
with Journal(path) as journal:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 40, resource.RLIM_INFINITY))
    try:
        journal.append({"event": "d"}, {"event": "e", "text": "x" * 1000})
    except JournalError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    journal.append({"event": "room"}, {"event": "again"})
"""


def test_a_full_disk_keeps_what_was_written(path):
    run = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=True)
    assert run.stdout == f"{path}: can't be written: File too large; every child before this one is kept\n"
    assert without_time(parse(path)[0]) == [*EVENTS, {"event": "room"}, {"event": "again"}]


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "completed", "trial": 99, "accuracy": 1, "epochs": 1, "seconds": 1, "cost": 1}',
        '{"event": "completed", "trial": 0}',
        '{"trial": 0}',
        '{"event": "suggested", "actions": 3}',
    ],
)
def test_an_event_that_lacks_a_field_is_named(small_recipe, tmp_path, line):
    recipe = Recipe.load(str(small_recipe))
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        Study(recipe, journal)
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(JournalError, match="never suggested: 99" if "99" in line else "damaged"):
        Ledger.of(parse(path)[0])
    with pytest.raises(JournalError, match="its first line is missing"):
        Ledger.of(parse(path)[0][1:])
    with Journal(path) as journal, pytest.raises(JournalError, match="damaged"):
        Study(recipe, journal)
