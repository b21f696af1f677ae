"""Statements about what the command line sets in motion: every flag arrives, every number shown is the one measured."""

import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

SMALL = ["--steps", "3", "--batch-size", "5", "--hidden-size", "6", "--embedding-size", "4"]
SMALL += ["--alphabet", "abcd", "--min-length", "2", "--max-length", "4"]


class Spy:
    """The models that were built, and what their training was told, in the order of the calls."""

    def __init__(self, script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        """Watch `build_model`, and put a training in place of `train` that draws its batches and learns nothing."""
        self.built: list[tuple] = []
        self.models: list[nn.ModuleList] = []
        self.weights: list[Tensor] = []
        self.told: list[tuple] = []
        self.batches: list[list[tuple[Tensor, Tensor]]] = []
        build_model = script.build_model

        def build(*args: object) -> nn.ModuleList:
            self.built.append(args)
            self.models.append(build_model(*args))
            self.weights.append(self.models[-1][0].embedding.weight.detach().clone())
            return self.models[-1]

        def train(
            model: nn.ModuleList, sample: Callable[[], tuple[Tensor, Tensor]], steps: int, lr: float, ratio: float
        ) -> Iterator[float]:
            assert model is self.models[-1]
            self.told.append((steps, lr, ratio))
            self.batches.append([])
            for step in range(steps):
                self.batches[-1].append(sample())
                yield 1.0 / (step + 1)

        monkeypatch.setattr(script, "build_model", build)
        monkeypatch.setattr(script, "train", train)


@pytest.fixture
def spy(seq2seq: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Spy:
    """Return a spy on 01_pytorch.py."""
    return Spy(seq2seq, monkeypatch)


def same(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> bool:
    """Return whether two batches hold the same strings."""
    return one[0].shape == other[0].shape and torch.equal(one[0], other[0])


def test_every_flag_reaches_what_it_sets(seq2seq: ModuleType, spy: Spy, tmp_path: Path) -> None:
    flags = ["--lr", "0.25", "--teacher-forcing", "0.75", "--attention", "additive", "--assets", str(tmp_path)]
    assert seq2seq.main([*SMALL, *flags]) == 0
    assert spy.built == [(4, 4, 6, "additive")]
    assert spy.told == [(3, 0.25, 0.75)]
    for source, lengths in spy.batches[0]:
        assert len(source) == 5 and lengths.min() >= 2 and lengths.max() <= 4
        assert source.max() < seq2seq.SPECIALS + 4
    assert not same(spy.batches[0][0], spy.batches[0][1]), "new strings for every step"


def test_the_seed_draws_the_weights_and_the_strings_but_not_those_of_the_evaluation(
    seq2seq: ModuleType, spy: Spy
) -> None:
    evaluations = []
    for seed in ("0", "0", "1"):
        args = seq2seq.parse_arguments([*SMALL, "--seed", seed])
        seq2seq.fit(args, "dot", 1.0)
        evaluations.append(seq2seq.fresh_strings(args))
    assert torch.equal(spy.weights[0], spy.weights[1]) and not torch.equal(spy.weights[0], spy.weights[2])
    assert same(spy.batches[0][0], spy.batches[1][0]) and not same(spy.batches[0][0], spy.batches[2][0])
    assert same(evaluations[0], evaluations[1]) and same(evaluations[0], evaluations[2])
    source, lengths = evaluations[0]
    assert len(source) == 2000 and lengths.unique().tolist() == [2, 3, 4]
    assert source.unique().tolist() == [seq2seq.PAD, *range(seq2seq.SPECIALS, seq2seq.SPECIALS + 4)]


def test_the_evaluation_draws_strings_that_training_does_not(seq2seq: ModuleType, spy: Spy) -> None:
    length = ["--steps", "50", "--min-length", "16", "--max-length", "16"]
    for seed in ("0", "1", str(2**32), str(2**63 - 1)):
        args = seq2seq.parse_arguments([*length, "--seed", seed])
        seq2seq.fit(args, "dot", 1.0)
        trained = {tuple(row) for source, _ in spy.batches[-1] for row in source.tolist()}
        fresh = {tuple(row) for row in seq2seq.fresh_strings(args)[0].tolist()}
        assert len(trained) == 50 * 64 and not trained & fresh


def test_the_comparison_trains_the_history_on_the_same_strings_and_reports_what_it_measured(
    seq2seq: ModuleType, spy: Spy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate, results = seq2seq.evaluate, []
    looks = iter([90.0, 90.5] * 4)  # percent at steps 1 and 2 of each model: once 90 is passed, nobody looks any more

    def evaluate_or_look(model: nn.ModuleList, source: Tensor, lengths: Tensor) -> object:
        evaluation = evaluate(model, source, lengths)
        looking = len(source) == 200 and len(lengths.unique()) > 1
        return SimpleNamespace(exact_match=lambda: next(looks)) if looking else evaluation

    monkeypatch.setattr(seq2seq, "evaluate", evaluate_or_look)
    monkeypatch.setattr(seq2seq, "comparison_table", lambda found, longest: results.extend(found) or str(longest))
    assert seq2seq.main([*SMALL, "--compare", "--assets", str(tmp_path)]) == 0
    assert [args[3] for args in spy.built] == ["none", "additive", "dot", "dot"]
    assert [told[2] for told in spy.told] == [1, 1, 1, 0]
    for batches in spy.batches[1:]:
        assert all(same(one, other) for one, other in zip(batches, spy.batches[0], strict=True))

    source, lengths = seq2seq.fresh_strings(seq2seq.parse_arguments(SMALL))
    for result, model in zip(results, spy.models, strict=True):
        assert result.parameters == sum(math.prod(weight.shape) for weight in model.parameters())
        assert result.losses == [1, 1 / 2, 1 / 3] and result.passed == 2
        measured = evaluate(model, source, lengths)
        assert torch.equal(result.evaluation.exact, measured.exact)
        assert result.evaluation.alignment() == measured.alignment()
        assert result.milliseconds > 0
        assert list(result.by_length) == [2, 3, 4, 5, 6], "half as long again as the longest in training"


def test_exact_match_by_length_is_measured_on_strings_of_that_length(
    seq2seq: ModuleType, spy: Spy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def longer_than_3(model: nn.ModuleList, source: Tensor, lengths: Tensor) -> object:
        return seq2seq.Evaluation(lengths, lengths > 3, None, None)

    results = []
    monkeypatch.setattr(seq2seq, "evaluate", longer_than_3)
    monkeypatch.setattr(seq2seq, "comparison_table", lambda found, longest: results.extend(found) or "")
    seq2seq.main([*SMALL, "--compare", "--assets", str(tmp_path)])
    for result in results:
        assert result.by_length == {2: 0, 3: 0, 4: 100, 5: 100, 6: 100}


def test_accuracy_by_length_counts_every_string_once(seq2seq: ModuleType) -> None:
    for longest, lines in ((3, 3), (16, 16), (40, 14)):
        lengths = torch.arange(1, longest + 1).repeat_interleave(2)
        exact = torch.arange(len(lengths)) % 2 == 0
        printed = list(seq2seq.lines_by_length(seq2seq.Evaluation(lengths, exact, None, None)))
        assert len(printed) == lines
        counts = [line.split("(")[1].strip(")").split(" of ") for line in printed]
        assert sum(int(right) for right, _ in counts) == longest
        assert sum(int(total) for _, total in counts) == 2 * longest
        assert all(" 50.00%" in line for line in printed)


def test_the_matrix_shows_the_string_that_was_asked_for(
    seq2seq: ModuleType, spy: Spy, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    draw_attention = seq2seq.draw_attention
    monkeypatch.setattr(seq2seq, "draw_attention", lambda *args: drawn.append(args) or draw_attention(*args))
    seq2seq.main([*SMALL, "--sequence", "abdabb", "--assets", str(tmp_path)])
    (source, output, weights) = drawn[0]
    one = torch.tensor([[seq2seq.SPECIALS + "abcd".index(symbol) for symbol in "abdabb"]])
    tokens, expected = seq2seq.greedy_decode(spy.models[0], one, torch.tensor([6]), max_steps=13)
    names = {seq2seq.EOS: "EOS"} | {seq2seq.SPECIALS + i: symbol for i, symbol in enumerate("abcd")}
    assert source == "abdabb" and output == [names[token] for token in tokens[0].tolist()]
    np.testing.assert_allclose(weights, expected[0], atol=1e-6)
    for line in capsys.readouterr().out.splitlines():
        if " -> " in line:
            word, _, *written, verdict = line.split()
            assert verdict == ("right" if written == [word[::-1]] else "wrong")


def test_a_folder_that_cannot_be_written_is_refused_before_training(
    scratch: ModuleType, seq2seq: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(dir: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    for script in (scratch, seq2seq):
        with pytest.raises(SystemExit) as stopped:
            script.main(["--assets", str(tmp_path)])
        assert stopped.value.code == 2


def test_an_interrupt_of_the_numpy_script_is_one_line(
    scratch: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scratch, "draw_context", interrupt)
    assert scratch.main(["--assets", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "00_scratch.py: error: interrupted\n"
