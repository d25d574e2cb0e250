"""The append-only record of a run, one JSON line per event; the truth after a crash."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from search_space.errors import InputError

FORMAT = "baseline-nas/journal/1"

Event = Mapping[str, Any]

_SPARE, _BLOCK = 2**16, 2**12
"""Bytes held in a file beside the journal, so that on a full disk what has just finished can be written still, and how
many of them are given up at a time."""


class JournalError(InputError):
    """A journal that can't be written, read or shared."""


class JournalGoneError(JournalError):
    """The file was removed or replaced while it was open."""


class JournalFullError(JournalError):
    """The disk is full; these events went into the spare room, and a few more may fit."""


class Journal:
    """Events of one run, each flushed and synced to disk before `append` returns.

    Attributes:
        path: of the file.
        torn: whether the last line was cut off by a crash; it is dropped when the journal is opened.

    Raises:
        JournalError: the file can't be opened, is damaged before its last line, or another process writes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._spare = path.with_suffix(".spare")
        try:
            self._file = open(path, "ab+", buffering=0)  # noqa: SIM115 (open as long as the journal)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalError(f"{path}: another process is at work on it") from None
        except OSError as error:
            raise JournalError(f"{path}: can't be opened: {error.strerror}") from None
        try:
            self._events, intact = parse(path)
        except JournalError:
            self._file.close()  # lets go of the lock
            raise
        self._size = intact
        self.torn = os.fstat(self._file.fileno()).st_size > intact
        self._file.truncate(intact)
        with suppress(OSError), open(self._spare, "wb") as spare:
            os.posix_fallocate(spare.fileno(), 0, _SPARE)

    def replay(self) -> list[Event]:
        """The events that were there when the journal was opened, in their order."""
        return self._events

    @property
    def empty(self) -> bool:
        """Whether no event was written yet."""
        return self._size == 0

    def append(self, *events: Event) -> None:
        """Write events, all or none; each gets the `time` (seconds since 1970).

        Raises:
            JournalFullError: the disk is full; what was written before and these events are kept.
            JournalGoneError: the file was removed; it is put back if its folder is there and no other is in its place.
            JournalError: the disk is full or gone; what was written before is kept.
        """
        if os.fstat(self._file.fileno()).st_nlink == 0:
            raise JournalGoneError(f"{self.path}: was removed or replaced while it was written{self._put_back()}")
        now = round(time.time(), 3)
        lines = "".join(json.dumps({**event, "time": now}, allow_nan=False) + "\n" for event in events).encode()
        try:
            self._write(lines)
        except OSError as error:
            problem = f"{self.path}: can't be written: {error.strerror}; every"
            if self._write_with_spare(lines):
                raise JournalFullError(f"{problem} finished child is kept") from None
            raise JournalError(f"{problem} child before this one is kept") from None

    def _write(self, lines: bytes) -> None:
        """Write whole lines, or, where that fails, nothing of them."""
        rest = memoryview(lines)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError:
            with suppress(OSError):
                self._file.truncate(self._size)
            raise
        self._size += len(lines)

    def _put_back(self) -> str:
        """Write the removed file again, from what this process holds of it; says so."""
        with suppress(OSError):
            self._file.seek(0)
            with open(self.path, "xb") as again:
                again.write(self._file.read())
                again.flush()
                os.fsync(again.fileno())
            return "; every child before this one is there again"
        return ""

    def _write_with_spare(self, lines: bytes) -> bool:
        """Whether they could be written, giving up as much of the spare file as that takes."""
        with suppress(OSError):
            while size := self._spare.stat().st_size:
                os.truncate(self._spare, max(0, size - _BLOCK))
                with suppress(OSError):
                    self._write(lines)
                    return True
        return False

    def close(self) -> None:
        """Let another process open the journal."""
        with suppress(OSError):
            self._spare.unlink()
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def parse(path: Path) -> tuple[list[Event], int]:
    """The events of a journal and the bytes they take; a torn last line is left out.

    Raises:
        JournalError: the file can't be read, or a line before the last is damaged.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise JournalError(f"{path}: can't be read: {error.strerror}") from None
    events: list[Event] = []
    intact = 0
    for number, line in enumerate(lines, 1):
        try:
            event = json.loads(line) if line.endswith(b"\n") else None
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict):
            if number < len(lines):
                raise JournalError(f"{path}:{number}: damaged; nothing was changed")
            break
        events.append(event)
        intact += len(line)
    return events, intact
