"""Both scripts as users meet them: flags, bad values, hostile surroundings, output to look at."""

import csv
import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import matplotlib
import numpy as np
import pytest
import torch
from conftest import ROOT, SMALL, flags, scratch, seq2seq, small
from PIL import Image
from torch import Tensor

SCRATCH, SEQ2SEQ = "00_scratch.py", "01_pytorch.py"
TINY = flags(SMALL)
FIGURES = {
    SCRATCH: {"scratch_attention_weights.png"},
    SEQ2SEQ: {"pytorch_seq2seq_loss.png", "pytorch_attention_matrix.png", "pytorch_decoding.gif"},
}
CYRILLIC = flags({**SMALL, "alphabet": "абвгде", "sequence": "д"})
FLAGS = {SCRATCH: [], SEQ2SEQ: CYRILLIC}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Start no run: keep what it would have been started with."""
    kept = {}
    monkeypatch.setattr(
        seq2seq, "run", lambda *args: kept.update(settings=args[0], word=args[1], folder=args[2])
    )
    monkeypatch.setattr(
        seq2seq, "run_experiment", lambda *args: kept.update(experiment=args[0], seeds=args[2])
    )
    return kept


# Whole runs


@pytest.mark.parametrize(("script", "module"), [(SCRATCH, scratch), (SEQ2SEQ, seq2seq)])
def test_a_script_prints_and_draws_the_same_whatever_surrounds_it(
    run_script: Callable[..., subprocess.CompletedProcess],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    script: str,
    module: ModuleType,
) -> None:
    # From another folder, without a display, on a terminal that knows only ASCII, in a notebook's
    # environment whose back end is not installed.
    (tmp_path / "naïve").mkdir()
    copy = Path(shutil.copy(ROOT / script, tmp_path / "naïve"))
    env = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    env |= {"PYTHONUTF8": "1", "PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "3"}
    env |= {"MPLBACKEND": "a_back_end_that_is_missing"}
    hostile = run_script(copy, *FLAGS[script], env=env)
    assert (hostile.returncode, hostile.stderr) == (0, "") and hostile.stdout.isascii()
    # In this process, with settings that would turn the picture over and need LaTeX.
    unkind = {"image.origin": "lower", "text.usetex": True, "font.size": 30.0}
    num_threads, stdout = torch.get_num_threads(), sys.stdout
    torch.set_num_threads(2)
    with matplotlib.rc_context(unkind):
        module.main([*FLAGS[script], "--assets", str(tmp_path / "a" / "b")])
        assert {name: matplotlib.rcParams[name] for name in unkind} == unkind
        assert torch.get_num_threads() == 2 and sys.stdout is stdout
    torch.set_num_threads(num_threads)
    printed = capsys.readouterr().out.encode("ascii", "backslashreplace").decode()
    told = [re.sub("training time: .*|figure: .*", "", text) for text in (hostile.stdout, printed)]
    assert told[0] == told[1]
    assets = tmp_path / "naïve" / "assets"
    assert {path.name for path in assets.iterdir()} == FIGURES[script], "and no temporary file"
    for name in FIGURES[script]:
        assert (assets / name).read_bytes() == (tmp_path / "a" / "b" / name).read_bytes()
        with Image.open(assets / name) as image:
            pixels = np.array(image.convert("RGB")).astype(int)
        assert (pixels[0, 0] > 250).all() and np.ptp(pixels, axis=2).max() > 80, "colour on white"


def test_a_run_shows_its_progress_and_ends_with_the_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares, snapshots, draw_loss = (
        {-2: 0.5, -1: 1.25, 0: 94.0, 1: 2.5, 2: 0.75},
        {},
        seq2seq.draw_loss,
    )
    monkeypatch.setattr(seq2seq, "evaluate", lambda *_: (99.95, shares))
    monkeypatch.setattr(seq2seq, "animate_decoding", lambda decoded: Path.touch)
    monkeypatch.setattr(
        seq2seq, "draw_loss", lambda *args: snapshots.update(args[1]) or draw_loss(*args)
    )
    settings = small(steps=64, max_length=5, batch_size=32)
    seq2seq.run(settings, "decade", tmp_path)
    lines = capsys.readouterr().out.splitlines()
    told = [re.fullmatch(r"step (\d+) of 64  loss (\d\.\d{4})  decade -> (.*)", x) for x in lines]
    told = {int(line[1]): (line[2], line[3]) for line in told if line}
    assert list(told) == [1, *range(4, 65, 4)] and list(snapshots) == [1, 8, 16, 24, 32, 64]
    model = seq2seq.build_model(settings)
    for step, loss, _ in seq2seq.train(model, settings):
        if step in told:
            output = seq2seq.decode_word(model, "decade", settings).output
            assert told[step] == (f"{loss:.4f}", output)
            assert step not in snapshots or snapshots[step].output == output
    assert len({output for _, output in told.values()}) > 2
    summary = [line for line in lines if line.startswith(("exact match", "alignment", "training"))]
    assert summary[0] == "exact match: 99.95% (1999 of 2000 strings)"
    assert summary[1] == "alignment: 94.00% (one column left 1.25%, right 2.50%)"
    assert re.fullmatch(r"training time: \d+\.\d s", summary[2]) and len(summary) == 3


def test_without_attention_there_is_no_matrix_and_the_old_one_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    old = tmp_path / "pytorch_attention_matrix.png"
    old.write_bytes(b"old")
    seq2seq.main([*TINY, "--attention", "none", "--assets", str(tmp_path)])
    told = capsys.readouterr().out
    assert "alignment:" not in told and "exact match: " in told
    assert {path.name for path in tmp_path.iterdir()} == {old.name, "pytorch_seq2seq_loss.png"}
    assert old.read_bytes() == b"old"


def test_an_experiment_prints_the_medians_of_the_raw_results_that_it_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seq2seq, "count_workers", lambda: 1)
    rows, settings = seq2seq.EXPERIMENTS["history"].rows, {**SMALL, "steps": 10, "max_length": 2}
    figures = dict.fromkeys(("one.png", "two.png"), seq2seq.draw_history)
    history = seq2seq.EXPERIMENTS["history"]._replace(figures=figures)
    monkeypatch.setitem(seq2seq.EXPERIMENTS, "history", history)
    where = ["--assets", str(tmp_path), "--runs", "2", "--seed", "7"]
    seq2seq.main(["--experiment", "history", *flags(settings), *where])
    assert {path.name for path in tmp_path.iterdir()} == {"pytorch_history.csv", *figures}
    with (tmp_path / "pytorch_history.csv").open(newline="", encoding="utf-8") as file:
        runs = list(csv.DictReader(file))
    assert [(run["row"], run["seed"]) for run in runs] == [(row, s) for row in rows for s in "78"]
    for run in runs:
        changes = {name: str(value) for name, value in rows[run["row"]].items()}
        assert run.items() >= changes.items() and float(run["ms per step"]) > 0
        assert set(run) > {"exact match at step 10", "noise", "encoder", "alignment"}
    lines = capsys.readouterr().out.splitlines()
    progress = [line for line in lines if re.match(r"\d+ of \d+  .*, seed [78]: exact match", line)]
    assert [line.split("  ")[0] for line in progress] == [
        f"{i + 1} of {2 * len(rows)}" for i in range(2 * len(rows))
    ]
    header, _, *table = ([c.strip() for c in line.split("|")] for line in lines if "|" in line)
    assert header[1:-1] == ["model", *seq2seq.EXPERIMENTS["history"].columns]
    for cells, row in zip(table, rows, strict=True):
        values = [float(run["exact match"]) for run in runs if run["row"] == row]
        assert cells[1] == row and cells[header.index("exact match")] == seq2seq.cell(values)


# Flags


def test_every_flag_arrives_in_the_settings_and_help_tells_each_default(
    started: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    seq2seq.main(["--assets", str(tmp_path)])
    assert started["settings"] == seq2seq.Settings()
    values = {"task": "copy", "alphabet": "xyz", "min_length": 8, "max_length": 8}
    values |= {"encoder": "forward", "gates": "usual", "attention": "additive", "hidden_size": 6}
    values |= {"embedding_size": 4, "embedding_std": 1.5, "batch_size": 5, "lr": 0.01, "steps": 4}
    values |= {"teacher_forcing": 0.5, "noise": 0.9, "seed": 2**32 - 1}
    seq2seq.main([*flags(values), "--sequence", "zyx", "--assets", str(tmp_path)])
    assert started["settings"] == seq2seq.Settings(**values)
    assert (started["word"], started["folder"]) == ("zyx", tmp_path)
    seq2seq.main(["--experiment", "bottleneck", "--assets", str(tmp_path)])
    assert (started["experiment"], started["seeds"]) == ("bottleneck", 5)
    seq2seq.main(["--experiment", "history", "--runs", "3", "--assets", str(tmp_path)])
    assert (started["experiment"], started["seeds"]) == ("history", 3)
    with pytest.raises(SystemExit) as stopped:
        seq2seq.main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert stopped.value.code == 0 and told.startswith(f"usage: {SEQ2SEQ}")
    for field in dataclasses.fields(seq2seq.Settings):
        flag = f"--{field.name.replace('_', '-')} "
        assert re.search(rf"{flag}[^(]*\(default: {re.escape(str(field.default))}\)", told), flag


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "attention"),
        ({"max_length": 9, "min_length": 9}, "attention"),
        ({"max_length": 8}, "abcdefgh"),
        ({"min_length": 10, "max_length": 12}, "abcdefghijkl"),
        ({"alphabet": "01", "max_length": 5}, "01010"),
        ({"alphabet": "atenio", "max_length": 10}, "attention"),
        ({"alphabet": "абвгд", "max_length": 7}, "абвгдаб"),
    ],
)
def test_the_word_is_attention_or_else_one_that_fits(
    started: dict, tmp_path: Path, changes: dict[str, object], word: str
) -> None:
    seq2seq.main([*flags(changes), "--assets", str(tmp_path)])
    assert started["word"] == word


@pytest.mark.parametrize(
    ("flag", "command"),
    [
        ("--steps", "--steps=0"),
        ("--batch-size", "--batch-size=1.5"),
        ("--lr", "--lr=nan"),
        ("--noise", "--noise=1.1"),
        ("--seed", f"--seed={2**32}"),
        ("--attention", "--attention=general"),
        ("--device", "--device=nowhere"),
        ("--hidden-size", "--hidden-size=63"),
        ("--min-length", "--min-length=17"),
        ("--alphabet", "--alphabet=aba"),
        ("--alphabet", "--alphabet=ab c"),
        ("--alphabet", "--alphabet=a"),
        ("--sequence", "--sequence=héllo"),
        ("--sequence", "--sequence="),
        ("--sequence", f"--attention=location --sequence={'a' * 17}"),
        ("--runs", "--runs=2"),
        ("--lr", "--experiment=history --lr=0.1"),
        ("--hidden-size", "--experiment=bottleneck --hidden-size=8"),
        ("--sequence", "--experiment=alignment --sequence=abc"),
        ("--step", "--step=3"),
    ],
)
def test_a_bad_value_is_refused_by_name_before_anything_starts(
    started: dict, tmp_path: Path, capsys: pytest.CaptureFixture, flag: str, command: str
) -> None:
    words = [command] if "ab c" in command else command.split(" ")
    with pytest.raises(SystemExit) as stopped:
        seq2seq.main([*words, "--assets", str(tmp_path / "figures")])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.startswith("usage: ") and error.isascii()
    assert flag in error.splitlines()[-1] and "error: " in error.splitlines()[-1]
    assert not started and not (tmp_path / "figures").exists()


def test_what_is_longer_than_any_trained_string_is_refused_by_the_location_score_alone(
    started: dict, tmp_path: Path
) -> None:
    for words in ("--attention=location --sequence=" + "a" * 16, "--sequence=" + "a" * 17):
        seq2seq.main([*words.split(" "), "--assets", str(tmp_path)])
        assert started["word"] == "a" * len(started["word"])
    seq2seq.main(["--experiment", "history", "--steps", "7", "--assets", str(tmp_path)])
    assert started["experiment"] == "history", "which does not choose the steps"


FOLDERS = ["a_file", "a_file/below"]
FOLDERS += ["/proc/self"] if Path("/proc/self").is_dir() else []  # where nobody can make a file


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("module", [scratch, seq2seq])
def test_a_folder_that_cannot_be_written_is_refused(
    started: dict, tmp_path: Path, capsys: pytest.CaptureFixture, module: ModuleType, name: str
) -> None:
    (tmp_path / "a_file").write_text("here first")
    with pytest.raises(SystemExit) as stopped:
        module.main(["--assets", str(tmp_path / name)])
    assert stopped.value.code == 2 and "argument --assets: " in capsys.readouterr().err
    assert not started and [path.name for path in tmp_path.iterdir()] == ["a_file"]


# What goes wrong later


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="os.killpg is POSIX's")
def test_an_interrupted_experiment_ends_with_all_its_processes_and_keeps_the_old_files(
    tmp_path: Path,
) -> None:
    old = dict.fromkeys(("pytorch_history.png", "pytorch_history.csv"), b"old")
    for name, content in old.items():
        (tmp_path / name).write_bytes(content)
    settings = flags({**SMALL, "steps": 3})
    command = [sys.executable, str(ROOT / SEQ2SEQ), "--experiment", "history", "--runs", "999"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True}
    command += [*settings, "--assets", str(tmp_path)]
    # Where this process ignores the signal, as a shell's background jobs do, a new one would, too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, text=True, **pipes) as process:
        signal.signal(signal.SIGINT, before)
        assert re.match(r"1 of \d+", process.stdout.readline())
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes of the run
        try:
            _, error = process.communicate(timeout=60)  # it ends when the last of them is gone
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 130 and "Traceback" not in error
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == old


@pytest.mark.parametrize(
    ("module", "name", "words"),
    [(scratch, "scratch_attention_weights.png", []), (seq2seq, "pytorch_seq2seq_loss.png", TINY)],
)
def test_a_write_that_fails_keeps_the_old_figure_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, words: list[str]
) -> None:
    def full_disk(figure: object, path: Path) -> None:
        path.write_bytes(b"half a fig")
        raise OSError(28, "No space left on device")

    (tmp_path / name).write_bytes(b"old")
    monkeypatch.setattr(module.Figure, "savefig", full_disk)
    with pytest.raises((OSError, SystemExit), match=r"No space left|^2$"):
        module.main([*words, "--assets", str(tmp_path)])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {name: b"old"}


def test_a_training_that_diverges_ends_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stopped:
        seq2seq.main([*TINY, "--lr", "1e39", "--assets", str(tmp_path)])
    error = capsys.readouterr().err
    assert stopped.value.code == 1 and len(error.splitlines()) == 1 and "step 1 of 2" in error
    assert not list(tmp_path.iterdir())


def test_a_mistake_in_the_score_keeps_its_traceback_and_the_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(query: Tensor, keys: Tensor) -> Tensor:
        return query @ keys  # a learner forgot to transpose

    monkeypatch.setattr(seq2seq, "dot_score", broken)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(RuntimeError) as raised:
            seq2seq.main([*TINY, "--assets", str(tmp_path)])
        assert raised.traceback[-1].name == "broken" and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(num_threads)
