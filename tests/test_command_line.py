"""Both scripts as users meet them: flags, bad values, hostile surroundings, output to look at."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import matplotlib.image
import numpy as np
import pytest
from conftest import ROOT, TINY, scratch, seq2seq

SCRATCH, SEQ2SEQ = "00_scratch.py", "01_pytorch.py"
FIGURES = {
    SCRATCH: {"scratch_attention_weights.png"},
    SEQ2SEQ: {"pytorch_seq2seq_loss.png", "pytorch_attention_matrix.png", "pytorch_decoding.gif"},
}
FLAGS = {SCRATCH: [], SEQ2SEQ: [*TINY, "--sequence", "fade"]}


def assert_drawn(path: Path) -> None:
    """Assert that `path` is a picture of sensible size on white, in which something is drawn in colour."""
    pixels = matplotlib.image.imread(path)[..., :3] / (255 if path.suffix == ".gif" else 1)
    assert all(300 <= size <= 2000 for size in pixels.shape[:2])
    assert (pixels[0, 0] > 0.99).all() and np.ptp(pixels, axis=2).max() > 0.3


@pytest.mark.parametrize(("script", "module"), [(SCRATCH, scratch), (SEQ2SEQ, seq2seq)])
def test_a_script_prints_and_draws_the_same_each_time_wherever_it_runs(
    run_script: Callable[..., subprocess.CompletedProcess],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    script: str,
    module: ModuleType,
) -> None:
    env = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    env |= {
        "LC_ALL": "C",
        "PYTHONIOENCODING": "ascii",
        "PYTHONUTF8": "0",
        "MPLBACKEND": "TkAgg",
        "OMP_NUM_THREADS": "3",
    }
    hostile = run_script(script, *FLAGS[script], "--assets", "naïve", env=env)
    assert (hostile.returncode, hostile.stderr) == (0, "") and hostile.stdout.isascii()
    module.main([*FLAGS[script], "--assets", str(tmp_path / "a" / "b")])
    told = [
        re.sub(r"training time: .*|figure: .*", "", text)
        for text in (hostile.stdout, capsys.readouterr().out)
    ]
    assert told[0] == told[1]
    assert {path.name for path in (tmp_path / "naïve").iterdir()} == FIGURES[script], (
        "and no temporary file"
    )
    for name in FIGURES[script]:
        assert (tmp_path / "naïve" / name).read_bytes() == (
            tmp_path / "a" / "b" / name
        ).read_bytes()
        assert_drawn(tmp_path / "naïve" / name)


def test_a_run_shows_its_progress_and_ends_with_the_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots = {}
    draw_loss = seq2seq.draw_loss
    monkeypatch.setattr(
        seq2seq, "draw_loss", lambda *args: snapshots.update(args[1]) or draw_loss(*args)
    )
    seq2seq.main([*TINY, "--steps", "64", "--sequence", "fade", "--assets", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    progress = [
        line
        for line in lines
        if re.fullmatch(r"step \d+ of 64  loss \d\.\d{4}  fade -> [a-f]*", line)
    ]
    assert [int(line.split()[1]) for line in progress] == [1, *range(4, 65, 4)]
    told = {int(line.split()[1]): line.split("-> ")[1] for line in progress}
    assert list(snapshots) == [1, 8, 16, 24, 32, 64]
    assert {step: written.output for step, written in snapshots.items()}.items() <= told.items()
    summary = [
        line for line in lines if line.startswith(("exact match:", "alignment:", "training time:"))
    ]
    assert re.fullmatch(r"exact match: \d+\.\d\d% \(\d+ of 2000 strings\)", summary[0])
    share = r"\d+\.\d\d%"
    assert re.fullmatch(
        rf"alignment: {share} \(one column left {share}, right {share}\)", summary[1]
    )
    assert re.fullmatch(r"training time: \d+\.\d s", summary[2])
    histogram = next(line for line in lines if line.startswith("off the true column by: "))
    shares = [float(share) for share in re.findall(r"[+-]\d (\d+\.\d\d)%", histogram)]
    assert (
        len(shares) == 5
        and f"alignment: {shares[2]:.2f}% (one column left {shares[1]:.2f}%" in summary[1]
    )


def test_a_snapshot_is_what_the_model_writes_at_that_step(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    settings = seq2seq.Settings(alphabet="abcdef", max_length=5, steps=20)
    seq2seq.run(settings, "decade", tmp_path)
    told = dict(re.findall(r"step (\d+) of .* -> (.*)", capsys.readouterr().out))
    model = seq2seq.build_model(settings)
    for step, _ in enumerate(seq2seq.train(model, settings), start=1):
        assert (
            told.get(str(step), seq2seq.write(model, "decade", settings).output)
            == seq2seq.write(model, "decade", settings).output
        )
    assert len(set(told.values())) > 2


def test_without_attention_there_is_no_matrix_and_the_old_one_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "pytorch_attention_matrix.png").write_bytes(b"old")
    seq2seq.main([*TINY, "--attention", "none", "--assets", str(tmp_path)])
    assert "alignment:" not in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {
        "pytorch_attention_matrix.png",
        "pytorch_seq2seq_loss.png",
    }
    assert (tmp_path / "pytorch_attention_matrix.png").read_bytes() == b"old"


def test_every_flag_arrives_in_the_settings_and_each_tells_its_default(
    capsys: pytest.CaptureFixture,
) -> None:
    assert seq2seq.parse_arguments([])[2] == seq2seq.Settings()
    values = {
        "task": "copy",
        "alphabet": "xyz",
        "min_length": 2,
        "max_length": 8,
        "encoder": "forward",
    }
    values |= {
        "gates": "usual",
        "attention": "additive",
        "hidden_size": 6,
        "embedding_size": 4,
        "seed": 2**32 - 1,
    }
    values |= {
        "embedding_std": 1.5,
        "batch_size": 5,
        "lr": 0.01,
        "teacher_forcing": 0.5,
        "noise": 0.9,
        "steps": 4,
    }
    flags = [
        word
        for name, value in values.items()
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    assert seq2seq.parse_arguments(flags)[2] == seq2seq.Settings(**values)
    with pytest.raises(SystemExit):
        seq2seq.main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    for default in seq2seq.Settings():
        assert f"(default: {default})" in told
    assert "None" not in told


WHOLE = "--steps --batch-size --hidden-size --embedding-size --min-length --max-length --seed --runs".split()  # noqa: SIM905
SHARES = "--lr --teacher-forcing --noise --embedding-std".split()  # noqa: SIM905
BAD = [(flag, value) for flag in WHOLE for value in ("-1", "1.5", "9" * 5000, "", "many", "--")]
BAD += [(flag, value) for flag in SHARES for value in ("-1", "nan", "inf", "x")]
BAD += [
    (flag, "general")
    for flag in ("--attention", "--encoder", "--task", "--gates", "--experiment", "--device")
]
BAD += [("--alphabet", value) for value in ("", "a", "aba", "ab c", "ab\n", "abé")]
BAD += [("--sequence", value) for value in ("", "Hello", "a b", "a" * 513)]
BAD += [
    ("--hidden-size", "63"),
    ("--min-length", "17"),
    ("--seed", str(2**32)),
    ("--runs", "2"),
    ("--step", "3"),
]


@pytest.mark.parametrize(("flag", "value"), BAD, ids=lambda text: ascii(text)[:30])
def test_a_bad_value_is_refused_by_name_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture, flag: str, value: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        seq2seq.main([f"{flag}={value}", "--assets", str(tmp_path / "figures")])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.startswith("usage: ") and error.isascii()
    assert flag in error.splitlines()[-1] and "error: " in error.splitlines()[-1]
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize("flag", ["--sequence=abc", "--noise=0.5", "--attention=none", "--lr=0.1"])
def test_an_experiment_refuses_what_it_chooses_itself(
    capsys: pytest.CaptureFixture, flag: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        seq2seq.main(["--experiment", "history", flag])
    assert stopped.value.code == 2 and f"argument {flag.split('=')[0]}: " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "a_file", "a_file/below"])
@pytest.mark.parametrize("script", [scratch, seq2seq])
def test_a_folder_that_cannot_be_written_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture, script: ModuleType, name: str
) -> None:
    (tmp_path / "a_file").write_text("here first")
    with pytest.raises(SystemExit) as stopped:
        script.main(["--assets", name and str(tmp_path / name)])
    assert stopped.value.code == 2 and "argument --assets: " in capsys.readouterr().err


@pytest.mark.parametrize("script", [SCRATCH, SEQ2SEQ])
def test_a_reader_that_leaves_early_gets_no_traceback(tmp_path: Path, script: str) -> None:
    command = [sys.executable, "-u", str(ROOT / script), *FLAGS[script], "--assets", str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
    assert process.returncode in (141, -signal.SIGPIPE)
    assert not list(tmp_path.iterdir())


EXPERIMENT = ["--experiment", "alignment", "--runs", "99", "--steps", "20"]


@pytest.mark.parametrize(
    ("experiment", "signal_sent", "status"),
    [
        ([], signal.SIGINT, 130),
        ([], signal.SIGTERM, 143),
        (EXPERIMENT, signal.SIGINT, 130),
        (EXPERIMENT, signal.SIGKILL, -9),
    ],
)
def test_an_interrupted_run_ends_at_once_with_all_its_processes_and_leaves_the_figures_whole(
    tmp_path: Path, experiment: list[str], signal_sent: int, status: int
) -> None:
    for name in FIGURES[SEQ2SEQ]:
        (tmp_path / name).write_bytes(b"old")
    command = [
        sys.executable,
        str(ROOT / SEQ2SEQ),
        "--max-length",
        "3",
        *experiment,
        "--assets",
        str(tmp_path),
    ]
    pipes = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "start_new_session": True,
    }
    with subprocess.Popen(command, **pipes) as process:
        while not re.match(r"step|\d+ of", process.stdout.readline()):
            assert process.poll() is None
        if signal_sent == signal.SIGINT:
            os.killpg(process.pid, signal_sent)  # as a terminal does: to all processes of the run
        else:
            process.send_signal(signal_sent)
        _, error = process.communicate(timeout=30)  # which comes back when the last of them is gone
    assert process.returncode == status
    assert (
        error == "01_pytorch.py: error: interrupted\n"
        if status == 130
        else "Traceback" not in error
    )
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == dict.fromkeys(
        FIGURES[SEQ2SEQ], b"old"
    )


@pytest.mark.parametrize(
    ("script", "name", "flags"),
    [(scratch, "scratch_attention_weights.png", []), (seq2seq, "pytorch_seq2seq_loss.png", TINY)],
)
def test_a_write_that_fails_keeps_the_old_figure_and_says_why(
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    script: ModuleType,
    name: str,
    flags: list[str],
) -> None:
    figure = tmp_path / name
    figure.write_bytes(b"old")

    def full_disk(figure: object, path: Path) -> None:
        path.write_bytes(b"half a fig")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(script.Figure, "savefig", full_disk)
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    with pytest.raises(SystemExit) as stopped:
        script.main([*flags, "--assets", str(tmp_path)])
    assert stopped.value.code == 1
    assert capsys.readouterr().err.endswith("error: [Errno 28] No space left on device\n")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {figure.name: b"old"}


@pytest.mark.parametrize(
    ("raised", "advice"),
    [
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            "not enough memory: try a smaller --batch-size",
        ),
        (
            FloatingPointError("training diverged at step 1 of 2"),
            "training diverged at step 1 of 2: try a smaller --lr",
        ),
    ],
)
def test_a_failure_while_training_is_one_line_that_says_what_to_try(
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    raised: Exception,
    advice: str,
) -> None:
    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr(seq2seq, "train", fail)
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    with pytest.raises(SystemExit) as stopped:
        seq2seq.main([*TINY, "--assets", str(tmp_path)])
    assert stopped.value.code == 1 and capsys.readouterr().err.startswith(
        f"{Path(sys.argv[0]).name}: error: {advice}"
    )
    assert not list(tmp_path.iterdir())


def test_an_experiment_prints_its_table_and_draws_its_figure(
    run_script: Callable[..., subprocess.CompletedProcess], tmp_path: Path
) -> None:
    rows = len(seq2seq.HISTORY.rows)
    tiny = ["--max-length", "6", "--steps", "10", "--batch-size", "2"]
    done = run_script(
        SEQ2SEQ, "--experiment", "history", "--runs", "1", *tiny, "--assets", "figures"
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    progress = [
        line
        for line in lines
        if re.match(rf"\d+ of {rows}  .*, seed 0: exact match .*%  \(about \d+ s left\)", line)
    ]
    table = [line for line in lines if line.startswith("|")]
    assert (
        len(progress) == rows
        and len(table) == 2 + rows
        and len({line.count("|") for line in table}) == 1
    )
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["pytorch_history.png"]
    assert_drawn(tmp_path / "figures" / "pytorch_history.png")
