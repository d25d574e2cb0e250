"""Run folders: what a search leaves on disk.

A folder holds `journal.jsonl` (the truth), `recipe.yaml` (every default written out) and `best.yaml` (the winner);
where the winner was retrained or scaled, also `retrain.jsonl` and `scale/`. `journal.spare` is there while a search
runs, and after a crash (see `nas.journal`).
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from nas.journal import Event, parse
from nas.ledger import Ledger
from nas.recipe import Recipe
from search_space import Architecture, InputError, load_architecture
from search_space.library import names

RESULTS = Path("results")
JOURNAL, RECIPE, BEST, SCALE = "journal.jsonl", "recipe.yaml", "best.yaml", "scale"


@dataclass(frozen=True)
class Folder:
    """The folder of one run."""

    path: Path

    @property
    def journal(self) -> Path:
        """The append-only record."""
        return self.path / JOURNAL

    @property
    def part(self) -> Path:
        """The record while it takes over the children of another run."""
        return self.journal.with_suffix(".part")

    @property
    def best(self) -> Path:
        """The winner's YAML."""
        return self.path / BEST

    @classmethod
    def create(cls, recipe: Recipe, out: Path | None) -> Folder:
        """A new folder: `out`, or the next free `results/<name>`, `results/<name>-2`, ...

        Raises:
            InputError: `out` exists and isn't an empty folder.
        """
        path = out or _next_free(recipe.name)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            begun = (path / RECIPE).is_file() and not cls(path).part.exists()
            resumable = f"go on with `nas resume {quote(str(path))}`, or " if begun else ""
            raise InputError(f"--out {path}: exists; {resumable}choose another name")
        path.mkdir(parents=True, exist_ok=True)
        try:  # whoever makes this file has the folder
            with (path / RECIPE).open("x", encoding="utf-8") as file:
                file.write(recipe.to_yaml())
                file.flush()
                os.fsync(file.fileno())  # as the journal is, which can't be resumed without
        except FileExistsError:
            raise InputError(f"--out {path}: another search has just begun there; choose another name") from None
        except OSError as error:
            shutil.rmtree(path, ignore_errors=True)
            raise InputError(f"{path / RECIPE}: can't be written: {error.strerror}") from None
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> Folder:
        """The folder of an earlier run.

        Raises:
            InputError: there is no run in it, or a retarget that was stopped before it was one.
        """
        folder = cls(path)
        if not folder.journal.is_file():
            if not (path / RECIPE).is_file():
                raise InputError(f"{path}: no run there ({JOURNAL} is missing)")
            if folder.part.exists():
                raise InputError(
                    f"{path}: a retarget stopped before it had all children; remove it, and retarget again"
                )
        return folder

    def ledger(self) -> Ledger:
        """The children so far, read without disturbing a search that is running.

        Raises:
            InputError: the journal is damaged, missing or empty.
        """
        events = self.events()
        if not events:
            raise InputError(f"{self.path}: the search has not begun; `nas resume {quote(str(self.path))}` begins it")
        return Ledger.of(events)

    def events(self) -> list[Event]:
        """What the journal holds; nothing where a stop came before it."""
        return parse(self.journal)[0] if self.journal.exists() else []


def _next_free(name: str) -> Path:
    """A new folder in `RESULTS`, also where others look for one at the same time."""
    number = 1
    while True:
        path = RESULTS / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            number += 1


def find_architecture(name_or_path: str) -> Architecture:
    """A network of the library, of a YAML file, or the winner of a run.

    Raises:
        InputError: none of these, or a run without a finished child.
    """
    path = Path(name_or_path)
    if name_or_path in names("architecture") or not path.is_dir():
        return load_architecture(name_or_path)
    ledger = Folder.open(path).ledger()
    if ledger.winner is None:
        raise no_result(path, ledger)
    return ledger.winner.trial.architecture


def no_result(path: Path, ledger: Ledger) -> InputError:
    """That there is no child to go on with, and why."""
    reason = ledger.last_failure()
    why = f"no child has a result; the last failure: {reason}" if reason else "no child has finished yet"
    return InputError(f"{path}: {why}")
