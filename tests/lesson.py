"""The two scripts as modules, imported by a call, since their names begin with a digit; helpers."""

import importlib
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
torch.set_num_threads(1)  # as the script does, so that tests run well beside other work
scratch, seq2seq = importlib.import_module("00_scratch"), importlib.import_module("01_pytorch")

SMALL = {"alphabet": "abcdef", "max_length": 9, "hidden_size": 8, "embedding_size": 5}
SMALL |= {"steps": 2, "batch_size": 4}

OTHER = {"task": "copy", "alphabet": "abcd", "min_length": 8, "max_length": 8}
OTHER |= {"encoder": "forward", "attention": "additive", "hidden_size": 6}
OTHER |= {"embedding_size": 4, "steps": 4, "batch_size": 5, "lr": 0.01}
OTHER |= {"teacher_forcing": 0.5, "noise": 0.9, "seed": 2**32 - 1}  # another value for each setting


def small(**changes: object) -> object:
    """Return small settings, some of them changed."""
    return seq2seq.Settings(**{**SMALL, **changes})


def flags(settings: dict[str, object]) -> list[str]:
    """Return settings as they stand on the command line."""
    pairs = ((f"--{name.replace('_', '-')}", str(value)) for name, value in settings.items())
    return [word for pair in pairs for word in pair]


def losses_of(settings: object) -> list[float]:
    """Train a new model and return its losses."""
    return [loss for _, loss, _ in seq2seq.train(seq2seq.Seq2Seq(settings), settings)]


def decoded(word: str, read: list[str], written: list[str], weights: np.ndarray) -> object:
    """Return what a model that should reverse a word made of it."""
    return seq2seq.Decoded(word, read, written, weights, list(range(len(word)))[::-1])


def looking_at(tokens: Tensor, columns: Tensor, num_columns: int) -> tuple[Tensor, None, Tensor]:
    """Return the output of a decoder that writes `tokens` and looks at `columns`, both (B, T)."""
    return F.one_hot(tokens, 40).float(), None, F.one_hot(columns, num_columns).float()
