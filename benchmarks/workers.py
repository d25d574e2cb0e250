"""What the environment of the local Ray workers brings: less memory, and their share of a busy machine's processor.

usage: python benchmarks/workers.py      (about ten minutes, most of them Ray's own way on a busy machine)

Searches the digits with one epoch a child, once in the environment that `nas.executors.tune` gives to Ray's workers,
once in that of Ray and the C library. Prints the most memory that a worker had to itself over 24 children, in MiB, and
the seconds that 4 children take while one other program for each core runs, and their ratios.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import psutil

SEARCH = ["search", "digits", "--set", "controller.name=random", "--set", "proxy.epochs=1"]
ENVIRONMENTS = {"ours": {}, "Ray's own": {"RAY_worker_niceness": "15", "MALLOC_ARENA_MAX": "0"}}


def search(children: int, environment: dict[str, str]) -> tuple[float, float]:
    """Seconds of a search, and the most bytes that one of its workers had to itself."""
    with tempfile.TemporaryDirectory() as folder:
        command = [Path(sys.executable).with_name("nas"), *SEARCH, "--set", f"children={children}"]
        command += ["-o", Path(folder) / "run"]
        start, most = time.monotonic(), 0.0
        running = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL)
        while running.poll() is None:
            time.sleep(1)
            most = max([most, *map(own_memory, psutil.Process().children(recursive=True))])
        return time.monotonic() - start, most


def own_memory(process: psutil.Process) -> float:
    """Bytes that no other process shares, of a worker at its training; 0 of any other process."""
    try:
        return float(process.memory_full_info().uss) if "ray::ImplicitFunc" in process.name() else 0.0
    except psutil.Error:  # it ended
        return 0.0


def main() -> None:
    """Measure memory alone, time beside other programs."""
    memory = {name: search(24, environment)[1] / 2**20 for name, environment in ENVIRONMENTS.items()}
    with ExitStack() as programs:
        for _ in range(psutil.cpu_count()):
            program = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            programs.callback(program.kill)
        seconds = {name: search(4, environment)[0] for name, environment in ENVIRONMENTS.items()}
    print(f"{'environment':>11} {'MiB of a worker':>16} {'seconds on a busy machine':>26}")
    for name in ENVIRONMENTS:
        print(f"{name:>11} {memory[name]:>16.0f} {seconds[name]:>26.0f}")
    ours, plain = ENVIRONMENTS
    print(f"{'ratio':>11} {memory[ours] / memory[plain]:>16.2f} {seconds[ours] / seconds[plain]:>26.2f}")


if __name__ == "__main__":
    main()
