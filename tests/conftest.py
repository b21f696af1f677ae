"""The two scripts as modules: their names begin with a digit, so they are imported by a call."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

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


def decoded(word: str, written: str, weights: np.ndarray, read: str | None = None) -> object:
    """Return what a model that reverses made of a word; each of `written` is one symbol."""
    positions = list(range(len(word)))[::-1]
    read = None if read is None else ["SOS", *read]
    return seq2seq.Decoded(word, list(written), read, weights, positions)


def looking_at(columns: Tensor, num_columns: int, tokens: Tensor) -> object:
    """Return the output of a decoder that writes `tokens` and looks at `columns`, both (B, T)."""
    logits = F.one_hot(tokens, 40).float()
    return seq2seq.DecoderOutput(logits, None, F.one_hot(columns, num_columns).float())


@pytest.fixture(scope="session")
def trained() -> nn.Module:
    """Return the model of the default run."""
    model = seq2seq.Seq2Seq(seq2seq.Settings())
    list(seq2seq.train(model, seq2seq.Settings()))
    return model
