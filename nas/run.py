"""Run folders: what a search leaves on disk, and the life of a search from start to end.

A folder holds `journal.jsonl` (the truth), `recipe.yaml` (every default written out) and `best.yaml` (the winner).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nas.evaluators import ProxyEvaluator
from nas.executors import make_executor
from nas.journal import Journal, parse
from nas.ledger import Ledger
from nas.recipe import Recipe
from nas.study import Study
from search_space import Architecture, InputError, load_architecture

RESULTS = Path("results")
JOURNAL, RECIPE, BEST = "journal.jsonl", "recipe.yaml", "best.yaml"


@dataclass(frozen=True)
class Folder:
    """The folder of one run."""

    path: Path

    @property
    def journal(self) -> Path:
        """The append-only record."""
        return self.path / JOURNAL

    @property
    def best(self) -> Path:
        """The winner's YAML."""
        return self.path / BEST

    @classmethod
    def create(cls, recipe: Recipe, out: Path | None) -> Folder:
        """A new folder: `out`, or the next free `results/<name>`, `results/<name>-2`, ...

        Raises:
            InputError: `out` exists.
        """
        path, number = out or RESULTS / recipe.name, 1
        while out is None and path.exists():
            number += 1
            path = RESULTS / f"{recipe.name}-{number}"
        if path.exists():
            raise InputError(f"--out {path}: exists; go on with `nas resume {path}`, or choose another name")
        path.mkdir(parents=True)
        (path / RECIPE).write_text(recipe.to_yaml(), encoding="utf-8")
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> Folder:
        """The folder of an earlier run.

        Raises:
            InputError: there is no run in it.
        """
        if not (path / JOURNAL).is_file():
            raise InputError(f"{path}: no run there ({JOURNAL} is missing)")
        return cls(path)

    def ledger(self) -> Ledger:
        """The children so far, read without disturbing a search that is running.

        Raises:
            InputError: the journal is damaged or empty.
        """
        events, _ = parse(self.journal)
        if not events:
            raise InputError(f"{self.journal}: holds no event yet")
        return Ledger.of(events)


def start(
    recipe: Recipe, out: Path | None, ray_address: str | None, watch: Callable[[Folder, Study], None]
) -> tuple[Folder, Study]:
    """Run a new search to its end.

    Raises:
        InputError: the recipe, the data or `out` can't be used; nothing is left behind.
        KeyboardInterrupt: the user stopped it; `resume` goes on.
    """
    evaluator = ProxyEvaluator.of(recipe)
    evaluator.images()
    folder = Folder.create(recipe, out)
    try:
        return folder, _run(folder, recipe, evaluator, ray_address, watch)
    except InputError:
        if not any(event["event"] in ("completed", "failed") for event in parse(folder.journal)[0]):
            shutil.rmtree(folder.path)
        raise


def resume(
    path: Path, settings: list[str], ray_address: str | None, watch: Callable[[Folder, Study], None]
) -> tuple[Folder, Study]:
    """Go on with a search after any stop; how it is executed may change, nothing else.

    Raises:
        InputError: no run there, a changed recipe, or data that can't be used; the journal stays as it is.
        KeyboardInterrupt: the user stopped it; `resume` goes on.
    """
    folder = Folder.open(path)
    recipe = Recipe.load(str(path / RECIPE), settings)
    evaluator = ProxyEvaluator.of(recipe)
    evaluator.images()
    return folder, _run(folder, recipe, evaluator, ray_address, watch)


def find_architecture(name_or_path: str) -> Architecture:
    """A network of the library, of a YAML file, or the best of a run.

    Raises:
        InputError: none of these, or a run without a finished child.
    """
    path = Path(name_or_path)
    if not path.is_dir():
        return load_architecture(name_or_path)
    best = Folder.open(path).ledger().best(1)
    if not best:
        raise InputError(f"{path}: no child has finished yet")
    return best[0].trial.architecture


def _run(
    folder: Folder,
    recipe: Recipe,
    evaluator: ProxyEvaluator,
    ray_address: str | None,
    watch: Callable[[Folder, Study], None],
) -> Study:
    with Journal(folder.journal) as journal:
        study = Study(recipe, journal, lambda study: watch(folder, study))
        if not study.done:
            make_executor(recipe, ray_address).run(study, evaluator)
    for child in study.ledger.best(1):
        child.trial.architecture.save(folder.best)
    return study
