"""Bad input and bad surroundings: one clear line, the right exit status, and figures that stay whole."""

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch.nn import functional as F

SCRATCH, SEQ2SEQ = "00_scratch.py", "01_pytorch.py"
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def bad_whole_numbers(flag: str, high: int) -> list[tuple[str, list[str]]]:
    """Return command lines that misuse a flag for whole numbers from 1 to `high`."""
    values = ("0", "-1", "1.5", str(high + 1), "9" * 5000, "nan", "inf", "", " ", "many", "1e3")
    return [(flag, [f"{flag}={value}"]) for value in values]


BAD = [
    *bad_whole_numbers("--steps", 10**6),
    *bad_whole_numbers("--batch-size", 4096),
    *bad_whole_numbers("--hidden-size", 1024),
    ("--hidden-size", ["--hidden-size=63"]),
    *bad_whole_numbers("--embedding-size", 1024),
    *bad_whole_numbers("--min-length", 512),
    *bad_whole_numbers("--max-length", 512),
    ("--min-length", ["--min-length", "17"]),
    ("--min-length", ["--min-length", "9", "--max-length", "8"]),
    *[("--lr", [f"--lr={value}"]) for value in ("0", "-0.1", "nan", "inf", "-inf", "1e999", "", "fast")],
    *[("--teacher-forcing", [f"--teacher-forcing={value}"]) for value in ("-0.1", "1.1", "nan", "inf", "", "half")],
    *[("--seed", [f"--seed={value}"]) for value in ("-1", str(2**63), "1.5", "nan", "", "random")],
    *[
        ("--alphabet", [f"--alphabet={value}"])
        for value in ("", "a", "aba", "ab c", "ab\t", "ab\n", "abé", "ab\x00", "日本")
    ],
    *[("--sequence", [f"--sequence={value}"]) for value in ("", "Hello", "a b", "abé", "a" * 513)],
    ("--sequence", ["--sequence", "abc", "--alphabet", "01"]),
    *[("--attention", [f"--attention={value}"]) for value in ("", "Dot", "general")],
    *[("--device", [f"--device={value}"]) for value in ("", "gpu", "meta", "cuda:99", "cpu:x")],
    ("--compare", ["--compare", "--attention", "none"]),
    ("--compare", ["--compare", "--teacher-forcing", "0.5"]),
    ("--compare", ["--compare", "--sequence", "abc"]),
    ("--step", ["--step", "3"]),
]


def assert_refused(error: str, flag: str, command: list[str]) -> None:
    """Assert that `error` is one ASCII line which names the flag and, escaped, the value."""
    assert error.count("\n") == 1 and error.endswith("\n")
    assert flag in error and "Traceback" not in error and error.isascii()
    if "=" in command[0] and len(command[0]) < 100:
        assert ascii(command[0].split("=", 1)[1]) in error


@pytest.mark.parametrize(
    ("flag", "command"), BAD, ids=lambda value: value if isinstance(value, str) else ascii(value)[:40]
)
def test_a_bad_value_is_refused_in_one_line_that_names_it(
    seq2seq: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture, flag: str, command: list[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        seq2seq.main([*command, "--assets", str(tmp_path / "figures")])
    assert stopped.value.code == 2
    assert_refused(capsys.readouterr().err, flag, command)
    assert not (tmp_path / "figures").exists(), "nothing was touched"


@pytest.mark.parametrize("value", ["-1", str(2**63), "1.5", "nan", "", "random"])
def test_the_numpy_script_refuses_a_bad_seed(
    scratch: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture, value: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        scratch.main([f"--seed={value}", "--assets", str(tmp_path / "figures")])
    assert stopped.value.code == 2
    assert_refused(capsys.readouterr().err, "--seed", [f"--seed={value}"])
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize("name", ["a_file", "a_file/below"])
def test_both_scripts_refuse_a_folder_that_cannot_be_written(
    scratch: ModuleType, seq2seq: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture, name: str
) -> None:
    (tmp_path / "a_file").write_text("here first")
    for script in (scratch, seq2seq):
        with pytest.raises(SystemExit) as stopped:
            script.main(["--assets", str(tmp_path / name)])
        assert stopped.value.code == 2
        assert_refused(capsys.readouterr().err, "--assets", [str(tmp_path / name)])


def test_every_flag_has_a_test_of_bad_values(seq2seq: ModuleType, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        seq2seq.main(["--help"])
    flags = {word.strip("[],") for word in capsys.readouterr().out.split() if word.strip("[],").startswith("--")}
    assert flags == {flag for flag, _ in BAD} - {"--step"} | {"--assets", "--help"}


# Surroundings


@pytest.mark.parametrize("script", [SCRATCH, SEQ2SEQ])
def test_the_scripts_need_no_display_no_unicode_and_tolerate_no_warning(
    run_script: Callable[..., subprocess.CompletedProcess], tmp_path: Path, script: str
) -> None:
    env = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "MPLBACKEND": "TkAgg"}
    env |= {"PYTHONWARNINGS": "error", "OMP_NUM_THREADS": "3"}
    env.pop("DISPLAY", None)
    tiny = ["--steps", "2", "--batch-size", "2", "--max-length", "2"] if script == SEQ2SEQ else []
    done = run_script(script, *tiny, "--assets", "naïve", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert "na\\xefve" in done.stdout or "na\\udcc3\\udcafve" in done.stdout
    assert list((tmp_path / "naïve").glob("*.png"))


@pytest.mark.parametrize("script", [SCRATCH, SEQ2SEQ])
def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path, script: str) -> None:
    command = [sys.executable, str(ROOT / script), "--assets", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
    assert not any(path.name.startswith(".") for path in tmp_path.iterdir())


def test_an_interrupted_run_ends_with_one_line_and_leaves_the_figures_whole(tmp_path: Path) -> None:
    for name in ("pytorch_seq2seq_loss.png", "pytorch_attention_matrix.png"):
        (tmp_path / name).write_bytes(b"old")
    command = [sys.executable, str(ROOT / SEQ2SEQ), "--assets", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while "step" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        _, error = process.communicate()
    assert process.returncode == 130
    assert error == "01_pytorch.py: error: interrupted\n"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "pytorch_seq2seq_loss.png": b"old",
        "pytorch_attention_matrix.png": b"old",
    }


@pytest.mark.parametrize("name", ["scratch", "seq2seq"])
def test_a_write_that_fails_keeps_the_old_figure(
    name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = request.getfixturevalue(name)
    figures = ["scratch_attention_weights.png"] if name == "scratch" else ["pytorch_seq2seq_loss.png"]
    (tmp_path / figures[0]).write_bytes(b"old")

    def full_disk(figure: object, path: Path, **options: object) -> None:
        path.write_bytes(b"half a fig")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(script.Figure, "savefig", full_disk)
    tiny = ["--steps", "1", "--batch-size", "2", "--max-length", "2"] if name == "seq2seq" else []
    assert script.main([*tiny, "--assets", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "cannot write: [Errno 28] No space left on device" in error
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {figures[0]: b"old"}


def test_a_diverging_run_says_at_which_step_and_what_to_try(
    seq2seq: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert seq2seq.main(["--lr", "1e6", "--assets", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "at step 2 of" in error and "try a smaller --lr than 1e+06" in error
    assert not list(tmp_path.iterdir())


# NumPy attention on hostile numbers


def test_attention_keeps_its_promises_on_10_000_random_inputs(scratch: ModuleType) -> None:
    generator = np.random.default_rng(0)
    compared = 0
    for case in range(10_000):
        batch = tuple(generator.integers(0, 4, size=generator.integers(0, 3)))
        steps, source, size = generator.integers(1, 6, size=3)
        kind = [np.float64, np.float32, np.float16, np.int64, np.int8, bool][case % 6]
        powers = {np.float64: 300, np.float32: 30, np.float16: 3, np.int64: 15, np.int8: 1, bool: 0}[kind]
        query, keys = (
            (generator.normal(size=(*batch, n, size)) * 10.0 ** generator.uniform(-powers, powers)).astype(kind)
            for n in (steps, source)
        )
        mask = generator.random((*batch, source)) < 0.7
        mask[..., generator.integers(source)] = True
        if case % 4 == 0 and not batch:
            query = query[0]
        context, weights = scratch.dot_product_attention(query, keys, mask)
        allowed = mask if query.ndim == 1 else mask[..., None, :]

        assert ((weights >= 0) & (weights <= 1)).all()
        assert (weights[np.broadcast_to(~allowed, weights.shape)] == 0).all()
        np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-12)
        hull = np.where(mask[..., None], keys.astype(np.float64), np.nan)
        low, high = np.nanmin(hull, axis=-2), np.nanmax(hull, axis=-2)
        if query.ndim > 1:
            low, high = low[..., None, :], high[..., None, :]
        slack = 1e-12 * np.maximum(np.abs(low), np.abs(high))
        assert ((context >= low - slack) & (context <= high + slack)).all()

        q, k = (torch.tensor(array.astype(np.float64)) for array in (query, keys))
        scores = q @ k.mT
        if scores.isfinite().all() and scores.numel() and scores.abs().max() < 1e3:  # else rounding decides
            bias = torch.tensor(np.where(allowed, 0.0, -math.inf))
            one = q.ndim == 1
            expected = F.scaled_dot_product_attention(q[None] if one else q, k, k, attn_mask=bias, scale=1.0)
            expected = expected[0] if one else expected
            assert (np.abs(expected.numpy() - context) <= 1e-9 * np.abs(keys.astype(np.float64)).max()).all()
            compared += 1
    assert compared > 4000
