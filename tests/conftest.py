"""Shared by all tests: where the data and the reference tensors lie, and tiny random backbones."""

import os
from pathlib import Path

import pytest
import torch

# tiny tensors gain nothing from threads, and tests that run side by side lose by them
torch.set_num_threads(1)

ROOT = Path(__file__).parent.parent


def _shared(variable: str, folder: str) -> Path:
    path = Path(os.environ.get(variable) or ROOT.parent / "shared" / folder)
    if not path.is_dir():
        pytest.skip(f"no folder {path}: set {variable}")
    return path


@pytest.fixture(scope="session")
def data_dir() -> Path:
    return _shared("PEFTBENCH_DATA", "data")


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    return _shared("PEFTBENCH_GOLDEN", "golden")
