"""Statements about the experiments: what they measure, how they run, what they report."""

import csv
import dataclasses
import math
import re
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from lesson import looking_at, seq2seq, small
from torch import Tensor


def counts(source: Tensor, tokens: Tensor) -> Tensor:
    """Look at the column that the number of the decoder step gives, whatever is read."""
    t = torch.arange(tokens.size(1)).expand_as(tokens)
    return (source.size(1) - 1 - t).clamp(min=0)


def listens(source: Tensor, tokens: Tensor, beside: int = 0) -> Tensor:
    """Look at the symbol just read, or beside it."""
    is_there = source[:, None] == tokens[:, :, None]
    return (is_there.float().argmax(dim=-1) + beside).clamp(0, source.size(1) - 1)


def mixes(source: Tensor, tokens: Tensor) -> Tensor:
    """Count in half of the strings, and listen in the others."""
    is_even = source[:, :1] % 2 == 0
    return torch.where(is_even, counts(source, tokens), listens(source, tokens))


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        (counts, (100, 0)),
        (lambda source, tokens: (counts(source, tokens) + 1).clamp(max=15), (100, 0)),
        (listens, (0, 100)),
        (lambda source, tokens: listens(source, tokens, beside=-1), (0, 100)),
        (mixes, (50, 50)),
    ],
    ids=["counts", "counts, one off", "listens", "listens, one off", "mixes"],
)
def test_one_letter_too_many_tells_counting_from_listening_whatever_the_picture(
    looks: Callable, expected: tuple[float, float]
) -> None:
    seen = []

    def model(source: Tensor, tokens: Tensor) -> tuple:
        seen.append((source.tolist(), tokens.tolist()))
        return looking_at(tokens, looks(source, tokens), source.size(1))

    found = seq2seq.one_letter_too_many(model, seq2seq.Settings())
    found = found["counts"], found["listens"]
    assert found == pytest.approx(expected, abs=6 if looks is mixes else 0.1)
    # The letter too many stands once in each place, and nowhere else in the string.
    assert len(seen) == 15
    for place, (source, tokens) in enumerate(seen[1:], start=1):
        for string, reading in zip(source, tokens, strict=True):
            extra = reading.pop(place)
            assert reading == [seq2seq.SOS, *string[::-1]] and len({*string, extra}) == 17


def test_a_run_holds_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = seq2seq.Settings(max_length=4, hidden_size=48, steps=80, lr=0.05)
    shapes, evaluate = [], seq2seq.evaluate
    monkeypatch.setattr(
        seq2seq, "evaluate", lambda *given: shapes.append(given[1].shape) or evaluate(*given)
    )
    monkeypatch.setattr(
        seq2seq, "right_if_eos_is_held_back", lambda model, source, settings: source.sum().item()
    )
    found = seq2seq.measure(seq2seq.Seq2Seq(settings), settings)
    num_checks = int(found["steps to 90%"]) // 10
    assert [count for count, _ in shapes] == [200] * num_checks + [2000] + [500] * (5 + 1)
    assert shapes[-1] == (500, 20)
    # The same, once more and by hand.
    model, source = seq2seq.Seq2Seq(settings), seq2seq.evaluation_strings(settings)
    steps_to_90 = []
    for step, loss, seconds in seq2seq.train(model, settings):
        if step == 20:
            assert found["loss at step 20"] == pytest.approx(loss, abs=1e-4)
        if step % 10 == 0:
            exact_match = evaluate(model, source[:200], settings)["exact match"]
            steps_to_90 += [step] if exact_match >= 90 else []
    assert found["steps to 90%"] == steps_to_90[0] < 80
    assert found["ms per step"] == pytest.approx(1000 * seconds / 80, rel=0.9)
    assert found["seconds to 90%"] < found["ms per step"] * 0.08
    expected = evaluate(model, source, settings) | seq2seq.one_letter_too_many(model, settings)
    right = []
    for length in range(1, 6):
        fixed = dataclasses.replace(settings, min_length=length, max_length=length)
        source = seq2seq.evaluation_strings(fixed, 500)
        right.append(evaluate(model, source, settings)["exact match"])
        expected[f"right at {length} random letters"] = right[-1]
    expected["90% right up to length"] = [*(x >= 90 for x in right), False].index(False)
    longer = dataclasses.replace(settings, max_length=20)
    for name, percentage in seq2seq.one_letter_too_many(model, longer).items():
        expected[f"{name} at 20 letters"] = percentage
    source = seq2seq.different_symbols(settings, 500, 20)
    assert all(len(set(string)) == 20 for string in source.tolist()) and source.min() >= 3
    expected["right at 20 different letters"] = evaluate(model, source, settings)["exact match"]
    expected["right if EOS is held back"] = source.sum().item()  # of these strings
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-4)


def test_with_eos_held_back_a_model_is_right_where_it_would_be_if_it_did_not_stop() -> None:
    settings = seq2seq.Settings(max_length=4, hidden_size=48, steps=60, lr=0.05)
    model = seq2seq.Seq2Seq(settings)
    for _ in seq2seq.train(model, settings):
        pass
    source = seq2seq.different_symbols(settings, 500, 4)
    eos = model.decoder.W_s.bias.data[seq2seq.EOS : seq2seq.EOS + 1]
    eos.fill_(100)  # a model that always stops
    found = seq2seq.right_if_eos_is_held_back(model, source, settings)
    eos.fill_(-100)  # one that never does, and is otherwise the same
    tokens, _ = seq2seq.greedy_decode(model, source, max_steps=4)
    assert 20 < found < 90
    assert found == pytest.approx(seq2seq.percent((tokens == source.flip(1)).all(dim=1)))


@pytest.mark.parametrize("changes", [{"steps": 20}, {"max_length": 2}, {"attention": "uniform"}])
def test_what_cannot_be_measured_is_nan(changes: dict) -> None:
    settings = small(**changes)
    found = seq2seq.measure(seq2seq.Seq2Seq(settings), settings)
    assert math.isnan(found["counts"]) == math.isnan(found["listens"]) == ("steps" not in changes)
    assert math.isnan(found["alignment"]) == ("attention" in changes)


RUNS = [("20 steps", "7"), ("30 steps", "7"), ("20 steps", "8"), ("30 steps", "8")]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Replace an experiment by one with two small models; return its command line."""
    models = {f"{n} steps": {"max_length": 4, "hidden_size": 8, "steps": n} for n in (20, 30)}
    experiment = seq2seq.Experiment(models, ("exact match", "alignment"), {})
    monkeypatch.setitem(seq2seq.EXPERIMENTS, "speed", experiment)
    return ["--experiment", "speed", "--seed", "7", "--runs", "2", "--assets", str(tmp_path)]


def read_csv(folder: Path) -> list[dict[str, str]]:
    assert [path.name for path in folder.iterdir()] == ["pytorch_speed.csv"]
    with (folder / "pytorch_speed.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_an_experiment_prints_the_medians_of_the_raw_results_that_it_writes(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    seq2seq.main(command)
    runs = read_csv(tmp_path)
    assert [(run["model"], run["seed"]) for run in runs] == RUNS, "seeds in the outer loop"
    # What was measured after other models is what is measured alone.
    settings = seq2seq.Settings(max_length=4, hidden_size=8, steps=20, seed=8)
    model = seq2seq.Seq2Seq(settings)
    expected = {**dataclasses.asdict(settings), **seq2seq.measure(model, settings)}
    expected["writes"] = seq2seq.decode_word(model, "abcdefghijklmnopqrst", settings).output
    assert set(runs[2]) == {"model", *expected}
    for name in set(expected) - {"ms per step", "seconds to 90%"}:
        assert runs[2][name] == str(expected[name]), name
    lines = capsys.readouterr().out.splitlines()
    progress = [re.match(r"(\d) of 4: (\d0 steps), seed ([78]), ", x) for x in lines]
    progress = [line.groups() for line in progress if line]
    assert progress == [(str(i + 1), *run) for i, run in enumerate(RUNS)]
    header, _, *table = ([c.strip() for c in line.split("|")] for line in lines if "|" in line)
    assert header[1:-1] == ["model", "exact match", "alignment"]
    for cells, model in zip(table, ("20 steps", "30 steps"), strict=True):
        values = [float(run["exact match"]) for run in runs if run["model"] == model]
        assert cells[1:3] == [model, seq2seq.cell(values)]


def test_an_experiment_draws_what_its_models_make_of_two_words(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    figures = {"some": lambda runs: seen.extend(runs) or seq2seq.Figure()}
    experiment = seq2seq.EXPERIMENTS["speed"]._replace(figures=figures)
    monkeypatch.setitem(seq2seq.EXPERIMENTS, "speed", experiment)
    monkeypatch.setattr(seq2seq, "measure", lambda *given: {"exact match": 50.0, "alignment": 50.0})
    seq2seq.main(command)
    assert (tmp_path / "pytorch_some.png").exists()
    assert [(run["model"], str(run["seed"])) for run in seen] == RUNS
    for run in seen:
        (own, given), long = run["pictures"], run["long picture"]
        assert own.word == given.word == "copyright" and long.word == "abcdefghijklmnopqrst"
        assert given.read == ["SOS", *"thgdirypoc"] and own.read == ["SOS", *own.written[:-1]]
        assert long.output == run["writes"]


def test_the_pictures_of_the_page_are_those_of_the_first_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models = seq2seq.EXPERIMENTS["alignment"].models
    for name in ("draw_readings", "draw_attention"):
        monkeypatch.setattr(seq2seq, name, lambda shown: shown)
    runs = [
        {"model": model, "pictures": f"{seed} {model}", "long picture": f"{model} {seed}"}
        for seed in range(2)
        for model in models
    ]
    figures = seq2seq.EXPERIMENTS["alignment"].figures
    assert figures["alignment"](runs) == {model: f"0 {model}" for model in models}
    assert figures["twenty_letters"](runs) == {model: f"{model} 0" for model in models}


def test_what_was_measured_before_an_interrupt_is_kept(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = {"exact match": 50.0, "alignment": 50.0}
    monkeypatch.setattr(seq2seq, "measure", Mock(side_effect=[numbers, numbers, KeyboardInterrupt]))
    with pytest.raises(KeyboardInterrupt):
        seq2seq.main(command)
    assert len(read_csv(tmp_path)) == 2
