"""What the tests of all packages share."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
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
