"""Let the tests import the scripts and `lesson`, whatever import mode pytest is told to use."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

TESTS = Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS.parent), str(TESTS)]
torch.set_num_threads(1)  # as the script does, so that tests run well beside other work


@pytest.fixture(scope="session")
def trained() -> nn.Module:
    """Return the model of the default run."""
    from lesson import seq2seq

    model = seq2seq.Seq2Seq(seq2seq.Settings())
    list(seq2seq.train(model, seq2seq.Settings()))
    return model
