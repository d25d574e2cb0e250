"""Progress of long jobs: redrawn in a terminal, a line at a time in a log file."""

from __future__ import annotations

import time
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nas.console import duration, ranking, status_line
from nas.evaluators.base import Failure
from nas.ledger import Ledger
from nas.quantities import plural
from nas.trials import Trials

LINE_EVERY = 2.0  # seconds between two lines in a log file


class _Screen:
    """What redraws itself in a terminal; in a log file a line at a time, and not too many of them."""

    def __init__(self, console: Console) -> None:
        live = Live(Text("starting"), console=console, refresh_per_second=4, transient=True)
        self._live = live if console.is_terminal else None
        self._console = console
        self._printed_at = 0.0

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    @property
    def _due(self) -> bool:
        """Whether the last line was printed long enough ago."""
        return time.monotonic() - self._printed_at >= LINE_EVERY

    def _print(self, line: str) -> None:
        self._printed_at = time.monotonic()
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _show(self, line: str, always: bool = False) -> None:
        """Show a line: in a log file if one is due, or `always`."""
        if self._live:
            self._live.update(Text(line))
        elif always or self._due:
            self._print(line)


class SearchProgress(_Screen):
    """Live progress of a search: a panel that redraws itself in a terminal, one line per change in a log file."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._before: int | None = None
        self._began = 0.0
        self._most_running = 1
        self._shown = 0

    def update(self, ledger: Ledger) -> None:
        """Show the state of the search."""
        done = len(ledger.finished()) + (ledger.baseline.result is not None)
        if self._before is None:
            self._before, self._began = done, time.monotonic()  # not the time that a replay took
        if self._live:
            self._live.update(self._panel(ledger, done))
            return
        handed_out = len(ledger.finished()) + len(ledger.running()) >= ledger.recipe.children
        self._most_running = max(self._most_running, len(ledger.running()))
        settled = handed_out or len(ledger.running()) == self._most_running  # the next child has been handed out
        if done > self._shown and settled and (handed_out or self._due):
            self._print(self._status(ledger, done))
            self._shown = done

    def _status(self, ledger: Ledger, done: int) -> str:
        return status_line(ledger, done - (self._before or 0), time.monotonic() - self._began)

    def _panel(self, ledger: Ledger, done: int) -> Table:
        panel = Table.grid()
        panel.add_row(ProgressBar(total=ledger.recipe.children, completed=len(ledger.finished()), width=60))
        panel.add_row(Text(self._status(ledger, done)))
        if ledger.best(1):
            leaders = ranking(ledger, 5)
            del leaders.columns[-3:]  # trainings, epochs and seconds, which a narrow terminal has no room for
            panel.add_row(leaders)
        return panel


class TrialsProgress(_Screen):
    """Live progress of a fixed list of trainings: one line that changes in a terminal, a line at a time in a log."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._trials: Trials | None = None
        self._before, self._began = 0, 0.0

    def update(self, trials: Trials) -> None:
        """Show how many are trained and how long the rest will take."""
        done, total, now = len(trials.results), len(trials.trials), time.monotonic()
        new = trials is not self._trials
        if new:
            self._trials, self._before, self._began = trials, done, now
        failed = sum(isinstance(result, Failure) for result in trials.results.values())
        proxy = trials.recipe.proxy
        what = f"trainings of {plural(proxy.epochs, 'epoch')} each" if proxy else "look-ups"
        line = f"{done}/{total} {what} done, {failed} failed"
        if done > self._before:
            line += f" | {duration((total - done) * (now - self._began) / (done - self._before))} left"
        if self._live or (done < total if new else done > self._before):
            self._show(line, always=new or done == total)


class TurnsProgress(_Screen):
    """Live progress of trainings in turn: one line that changes in a terminal, a line at a time in a log."""

    def update(self, name: str, epoch: int, accuracy: float) -> None:
        """Show how far the training of a network is."""
        self._show(f"{name}: {accuracy:.2%} after epoch {epoch}")


class BenchProgress(_Screen):
    """Live progress of searches side by side: one line that changes in a terminal, a line at a time in a log."""

    def __init__(self, console: Console, total: int) -> None:
        super().__init__(console)
        self._done, self._total, self._began = 0, total, time.monotonic()

    def advance(self) -> None:
        """Count a finished search."""
        self._done += 1
        left = (self._total - self._done) * (time.monotonic() - self._began) / self._done
        self._show(f"{self._done}/{self._total} searches done | {duration(left)} left", self._done == self._total)
