"""Statements about the experiments: what they measure, how they run, what they report."""

import argparse
import csv
import dataclasses
import math
import multiprocessing
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import ROOT, looking_at, seq2seq, small
from torch import Tensor

# One letter too many


def counts(source: Tensor, tokens: Tensor, step: int = -1) -> Tensor:
    """Look at the column that the number of the decoder step gives, whatever is read."""
    t = torch.arange(tokens.size(1)).expand_as(tokens)
    return (source.size(1) - 1 - t if step == -1 else t * step).clamp(0, source.size(1) - 1)


def searches(source: Tensor, tokens: Tensor, beside: int = 0) -> Tensor:
    """Look at the symbol just read, or beside it."""
    is_there = source[:, None] == tokens[:, :, None]
    return (is_there.float().argmax(dim=-1) + beside).clamp(0, source.size(1) - 1)


@pytest.mark.parametrize(
    ("looks", "same", "further"),
    [
        (counts, 0, 100),
        (lambda source, tokens: (counts(source, tokens) + 1).clamp(max=source.size(1) - 1), 0, 100),
        (searches, 100, 0),
        (lambda source, tokens: searches(source, tokens, beside=-1), 100, 0),
        (
            # Half of the strings one way, half the other.
            lambda source, tokens: torch.where(
                source[:, :1] % 2 == 0, counts(source, tokens), searches(source, tokens)
            ),
            50,
            50,
        ),
        (lambda source, tokens: torch.full_like(tokens, 3), 100, 0),
    ],
    ids=["counts", "counts, one off", "searches, one off", "searches", "both", "stares"],
)
def test_one_letter_too_many_tells_counting_from_searching_whatever_the_picture(
    looks: Callable, same: float, further: float
) -> None:
    def model(source: Tensor, tokens: Tensor) -> object:
        return looking_at(looks(source, tokens), source.size(1), tokens)

    found = seq2seq.one_letter_too_many(model, seq2seq.Settings())
    assert found["same column"] == pytest.approx(same, abs=6 if same == 50 else 0.1)
    assert found["one column further"] == pytest.approx(further, abs=6 if further == 50 else 0.1)


def test_one_column_further_is_where_the_task_goes_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(seq2seq.TASKS, "every other", lambda length, t: 2 * t)
    for task, step in (("copy", 1), ("every other", 2)):

        def model(source: Tensor, tokens: Tensor, step: int = step) -> object:
            return looking_at(counts(source, tokens, step), source.size(1), tokens)

        found = seq2seq.one_letter_too_many(model, seq2seq.Settings(task=task))
        assert found == {"same column": 0, "one column further": 100}


# A run


def test_a_run_holds_its_settings_and_what_was_measured() -> None:
    settings = seq2seq.Settings(max_length=8, hidden_size=32, steps=130)
    found = seq2seq.measure(settings)
    assert found.items() >= dataclasses.asdict(settings).items()
    # The same, once more and by hand.
    model, source = seq2seq.Seq2Seq(settings), seq2seq.evaluation_strings(settings)
    steps_to_90 = []
    for step, loss, seconds in seq2seq.train(model, settings):
        if step == 20:
            assert found["loss at step 20"] == pytest.approx(loss, abs=1e-4)
        if step % 10 == 0:
            exact_match = seq2seq.evaluate(model, source[:200], "reverse")["exact match"]
            steps_to_90 += [step] if exact_match >= 90 else []
    assert found["steps to 90%"] == steps_to_90[0] < 130
    assert found["ms per step"] == pytest.approx(1000 * seconds / 130, rel=0.9)
    assert found["seconds to 90%"] < found["ms per step"] * 0.13
    for name, value in seq2seq.evaluate(model, source, "reverse").items():
        assert found[name] == pytest.approx(value, abs=1e-4)
    for name, value in seq2seq.one_letter_too_many(model, settings).items():
        assert found[name] == pytest.approx(value, abs=1e-4)
    exact_at = [found[f"exact match at length {length}"] for length in range(1, 11)]
    assert "exact match at length 11" not in found
    fixed = dataclasses.replace(settings, min_length=9, max_length=9)
    at_9 = seq2seq.evaluate(model, seq2seq.evaluation_strings(fixed, 500), "reverse")
    assert exact_at[8] == pytest.approx(at_9["exact match"])
    reached = int(found["90% right up to length"])
    assert min(exact_at[:reached]) >= 90 > exact_at[reached] > 80
    read = [decoded.read for decoded in found["pictures"]]
    assert read == [["SOS", *"thgirypoc"], ["SOS", *"thgairypoc"]]
    assert found["pictures"][0].word == "copyright"


# Tables


def test_a_cell_tells_the_median_and_the_range() -> None:
    inf, nan, cell = math.inf, math.nan, seq2seq.cell
    assert cell([3.0, 1.0, 5.0, 2.1]) == "2.5 (1 to 5)" and cell([0.004, 0.0]) == "0"
    assert cell([99.95, 99.8, 100.0]) == "99.95 (99.8 to 100)" and cell([98.9, 10.4])[-3:] == "99)"
    assert cell([35949.4] * 2) == "35,949" and cell([150, inf, 130]) == "150 (130 to never)"
    assert (cell([inf, inf]), cell([nan, nan])) == ("never", "")
    assert cell(["forward"] * 2) == "forward"


# An experiment from end to end, and what can go wrong


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Return a function that replaces an experiment by one with small models of given steps."""

    def replace(*steps: int, num_runs: int = 2) -> None:
        models = {f"{n} steps": {"max_length": 4, "hidden_size": 8, "steps": n} for n in steps}
        columns = ("steps", "exact match", "alignment")
        experiment = seq2seq.Experiment(models, columns, num_runs)
        monkeypatch.setitem(seq2seq.EXPERIMENTS, "history", experiment)

    return replace


def test_an_experiment_prints_the_medians_of_the_raw_results_that_it_writes(
    tiny: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    tiny(20, 30)
    seq2seq.main(["--experiment", "history", "--seed", "7", "--assets", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["pytorch_history.csv"]
    with (tmp_path / "pytorch_history.csv").open(newline="", encoding="utf-8") as file:
        runs = list(csv.DictReader(file))
    models = ["20 steps", "30 steps"]
    assert [(run["model"], run["seed"]) for run in runs] == [(m, s) for m in models for s in "78"]
    # What the other processes measured is what this one measures.
    expected = seq2seq.measure(small(alphabet=seq2seq.Settings().alphabet, max_length=4, steps=20))
    assert set(runs[0]) == {"model", *expected} - {"pictures"}
    settings = seq2seq.Settings(max_length=4, hidden_size=8, steps=20, seed=8)
    expected = {name: str(value) for name, value in seq2seq.measure(settings).items()}
    for name in set(expected) - {"pictures", "ms per step", "seconds to 90%"}:
        assert runs[1][name] == expected[name], name
    lines = capsys.readouterr().out.splitlines()
    progress = [
        line for line in lines if re.match(r"\d of 4 after \d+ s: \d0 steps, seed [78]", line)
    ]
    assert [line[0] for line in progress] == list("1234")
    header, _, *table = ([c.strip() for c in line.split("|")] for line in lines if "|" in line)
    assert header[1:-1] == ["model", "steps", "exact match", "alignment"]
    for cells, model in zip(table, models, strict=True):
        values = [float(run["exact match"]) for run in runs if run["model"] == model]
        assert cells[1:4] == [model, model.split(" ")[0], seq2seq.cell(values)]


def after_the_first_run(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something as soon as the first run of an experiment has ended."""
    run_jobs = seq2seq.run_jobs

    def interfered(jobs: dict) -> Iterator[tuple]:
        for result in run_jobs(jobs):
            act()
            yield result

    monkeypatch.setattr(seq2seq, "run_jobs", interfered)


def test_a_killed_process_ends_the_experiment_with_one_line_and_writes_nothing(
    tiny: Callable, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny(10**4, 1, num_runs=1)
    after_the_first_run(
        monkeypatch, lambda: [child.kill() for child in multiprocessing.active_children()]
    )
    with pytest.raises(SystemExit) as stopped:
        seq2seq.main(["--experiment", "history", "--assets", str(tmp_path)])
    error = capsys.readouterr().err
    assert stopped.value.code == 1 and len(error.splitlines()) == 1 and "memory" in error
    assert not list(tmp_path.iterdir())


def test_an_interrupt_ends_the_experiment_and_its_processes_and_keeps_the_old_files(
    tiny: Callable, tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pytorch_history.csv").write_text("old")
    tiny(10**4, 1, num_runs=1)
    children = []
    after_the_first_run(
        monkeypatch,
        lambda: (
            children.extend(multiprocessing.active_children()) or signal.raise_signal(signal.SIGINT)
        ),
    )
    # Where this process ignores the signal, as a shell's background jobs do, it should not now.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        seq2seq.main(["--experiment", "history", "--assets", str(tmp_path)])
    for child in children:
        child.join(timeout=10)
    assert children and not any(child.is_alive() for child in children)
    assert capfd.readouterr().err == ""
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
    # Started as a script, it then ends with the status that shells expect.
    monkeypatch.setattr(
        argparse.ArgumentParser, "parse_args", lambda *_: signal.raise_signal(signal.SIGINT)
    )
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "01_pytorch.py"), run_name="__main__")
    assert stopped.value.code == 130
    signal.signal(signal.SIGINT, before)


def test_no_process_outlives_an_experiment_that_is_killed(tmp_path: Path) -> None:
    # The script itself, but with an experiment that has one short run and a long one.
    script = (ROOT / "01_pytorch.py").read_text(encoding="utf-8")
    models = '{"long": {"steps": 10**6}, "short": {"max_length": 4, "steps": 1}}'
    ours = f'EXPERIMENTS["history"] = Experiment({models}, ("steps",), 1)\n\nif __name__ =='
    copy = tmp_path / "script.py"
    copy.write_text(script.replace("if __name__ ==", ours), encoding="utf-8")
    command = [sys.executable, str(copy), "--experiment", "history", "--assets", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert "short" in process.stdout.readline()
        process.kill()
        process.communicate(timeout=60)  # the pipe ends when the last process that holds it is gone
    assert [path.name for path in tmp_path.iterdir()] == ["script.py"]
