"""Let the tests import the scripts and `lesson`, whatever import mode pytest is told to use."""

import sys
from pathlib import Path

import torch

TESTS = Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS.parent), str(TESTS)]
torch.set_num_threads(1)  # as the script does, so that tests run well beside other work
