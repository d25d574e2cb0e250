"""What the tests of all packages share."""

from __future__ import annotations

import gzip
import json
import signal
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background ignores it, and all that it starts
settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def goldens() -> Path:
    return ROOT / "tests" / "goldens"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data that lies beside the repository, not in it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: the benchmarks' data lies outside the repository")
    return folder


@pytest.fixture(scope="session")
def rows(shared):
    """Reads a benchmark's .jsonl.gz of `shared/data` by name."""

    def read(name: str) -> list[dict]:
        with gzip.open(shared / "data" / f"{name}.jsonl.gz", "rt") as file:
            return [json.loads(line) for line in file]

    return read


SMALL_SPACE = """\
format: baseline-nas/space/1
name: small
resolution: 64
num_classes: 10
stem: {out_chs: 8}
stages:
  - {op: mbconv, layers: [1, 2, 3], out_chs: 8, kernel_size: [3, 5, 7], exp_ratio: [1, 2, 3]}
  - {op: conv, layers: 1, out_chs: [8, 12, 16], kernel_size: [3, 5], stride: 2}
"""
SMALL_BASELINE = """\
format: baseline-nas/architecture/1
name: small-baseline
resolution: 64
num_classes: 10
stem: {out_chs: 8}
stages: [{op: conv, layers: 1, out_chs: 16, stride: 2}]
"""
SMALL_RECIPE = """\
format: baseline-nas/recipe/1
name: small
children: 6
space: {folder}/space.yaml
baseline: {folder}/baseline.yaml
objective: {{target: 1M}}
data: {{source: digits}}
proxy: {{resolution: 8, epochs: 1, batch_size: 128, final_size: 2, lr: 0.05, flip: false}}
controller: {{name: evolution, options: {{population_size: 4, sample_size: 2}}}}
executor: {{name: serial}}
"""


@pytest.fixture(scope="session")
def write_small():
    """Writes a recipe whose children train for a fraction of a second, its space and its baseline into a folder."""

    def write(folder: Path) -> Path:
        (folder / "space.yaml").write_text(SMALL_SPACE)
        (folder / "baseline.yaml").write_text(SMALL_BASELINE)
        path = folder / "small.yaml"
        path.write_text(SMALL_RECIPE.format(folder=folder))
        return path

    return write


@pytest.fixture
def small_recipe(write_small, tmp_path, monkeypatch):
    """That recipe, in an otherwise empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BASELINE_NAS_CACHE", str(tmp_path / "cache"))
    return write_small(tmp_path)


@pytest.fixture
def nas(monkeypatch, capsys, tmp_path):
    """Runs `nas ...` in an empty folder; gives the exit code and what it printed."""
    from nas import cli

    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["nas", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def refused(nas):
    """Runs a `nas ...` that must end with exit code 2 and one line, and gives that line."""

    def run(*words):
        code, _, err = nas(*words)
        assert (code, err.count("\n")) == (2, 1), err
        return err

    return run
