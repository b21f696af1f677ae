"""The two scripts as modules: their names begin with a digit, so they are loaded by path."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
torch.set_num_threads(1)  # as the script does, so that tests run well beside other work


def load(name: str) -> ModuleType:
    """Import a script of the project's root; importing runs nothing."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def scratch() -> ModuleType:
    """Return 00_scratch.py."""
    return load("00_scratch")


@pytest.fixture(scope="session")
def seq2seq() -> ModuleType:
    """Return 01_pytorch.py."""
    return load("01_pytorch")


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Return a function that runs a script as its users do, from a folder that is not the project's."""

    def run(script: str, *args: str, **options: object) -> subprocess.CompletedProcess:
        command = [sys.executable, str(ROOT / script), *args]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, **options)

    return run
