"""The two scripts as modules: their names begin with a digit, so they are imported by a call."""

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # where the processes of an experiment look, too
scratch, seq2seq = importlib.import_module("00_scratch"), importlib.import_module("01_pytorch")
torch.set_num_threads(1)  # as the script does, so that tests run well beside other work

SMALL = {
    "alphabet": "abcdef",
    "max_length": 9,
    "hidden_size": 8,
    "embedding_size": 5,
    "steps": 2,
    "batch_size": 4,
}
TINY = [
    word for name, value in SMALL.items() for word in (f"--{name.replace('_', '-')}", str(value))
]


@pytest.fixture(scope="session")
def trained() -> nn.Module:
    """Return the model of the default run."""
    model = seq2seq.build_model(seq2seq.Settings())
    list(seq2seq.train(model, seq2seq.Settings()))
    return model


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Return a function that runs a script as its users do, from a folder that is not the project's."""

    def run(script: str, *args: str, **options: object) -> subprocess.CompletedProcess:
        command = [sys.executable, str(ROOT / script), *args]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, **options)

    return run
