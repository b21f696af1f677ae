"""The two scripts as modules: their names begin with a digit, so they are imported by a call."""

import importlib
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

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


def small(**changes: object) -> object:
    """Return small settings, some of them changed."""
    return seq2seq.Settings(**{**SMALL, **changes})


def flags(settings: dict[str, object]) -> list[str]:
    """Return settings as they stand on the command line."""
    pairs = ((f"--{name.replace('_', '-')}", str(value)) for name, value in settings.items())
    return [word for pair in pairs for word in pair]


@pytest.fixture(autouse=True)
def nothing_decodes_for_ever() -> Iterator[None]:
    """Fail a test in which a decoder is called without end, rather than wait for it."""
    calls = itertools.count()

    def count(module: nn.Module, _: object) -> None:
        assert not isinstance(module, seq2seq.AttnDecoderRNN) or next(calls) < 5000

    hook = register_module_forward_pre_hook(count)
    yield
    hook.remove()


@pytest.fixture(scope="session")
def trained() -> nn.Module:
    """Return the model of the default run."""
    model = seq2seq.build_model(seq2seq.Settings())
    list(seq2seq.train(model, seq2seq.Settings()))
    return model


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Return a function that runs a script as users do, from a folder that is not its own."""

    def run(script: Path, *args: str, **options: object) -> subprocess.CompletedProcess:
        command = [sys.executable, str(script), *args]
        options = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 120, **options}
        return subprocess.run(command, **options)

    return run
