"""Both scripts as a user runs them: as processes, from another folder, with figures to look at."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import matplotlib.image
import numpy as np
import pytest

TINY = ["--steps", "2", "--batch-size", "4", "--hidden-size", "4", "--embedding-size", "2", "--max-length", "3"]


def assert_drawn(path: Path) -> None:
    """Assert that `path` is a PNG of sensible size in which something is drawn, in more than one colour."""
    assert path.read_bytes().startswith(b"\x89PNG")
    pixels = matplotlib.image.imread(path)[..., :3]
    height, width, _ = pixels.shape
    assert 400 <= height <= 2000 and 400 <= width <= 2000
    assert (pixels[0, 0] == 1).all(), "the background is white"
    colours = np.unique(pixels.reshape(-1, 3), axis=0)
    assert len(colours) > 50 and np.ptp(colours, axis=1).max() > 0.3


def test_the_numpy_script_prints_the_four_steps_and_draws(
    run_script: Callable[..., subprocess.CompletedProcess], tmp_path: Path
) -> None:
    done = run_script("00_scratch.py", "--assets", "figures")
    assert (done.returncode, done.stderr) == (0, "")
    assert [f"Step {i}" in done.stdout for i in (1, 2, 3, 4)] == [True, False, True, True]
    assert "step 2" in done.stdout, "steps 1 and 2 share a table"
    assert_drawn(tmp_path / "figures" / "scratch_attention_weights.png")
    again = run_script("00_scratch.py", "--assets", "again")
    assert again.stdout.replace("again", "figures") == done.stdout
    name = "scratch_attention_weights.png"
    assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "figures" / name).read_bytes()


def test_the_pytorch_script_trains_reports_and_draws_the_same_each_time(
    run_script: Callable[..., subprocess.CompletedProcess],
    seq2seq: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    def without_times(text: str) -> str:
        return re.sub(r"training time: .*|figure: .*", "", text)

    done = run_script("01_pytorch.py", *TINY, "--sequence", "abcd", "--assets", "one")
    assert (done.returncode, done.stderr) == (0, "")
    assert "abcd has 4 symbols: a length that this model was not trained on" in done.stdout
    seq2seq.main([*TINY, "--sequence", "abcd", "--assets", str(tmp_path / "two")])
    assert without_times(capsys.readouterr().out) == without_times(done.stdout)
    names = {"pytorch_seq2seq_loss.png", "pytorch_attention_matrix.png"}
    for folder in (tmp_path / "one", tmp_path / "two"):
        assert {path.name for path in folder.iterdir()} == names, "both figures, and no temporary file"
    for name in names:
        assert_drawn(tmp_path / "one" / name)
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_without_attention_there_is_no_matrix_to_draw_and_the_old_one_stays(
    seq2seq: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    old = tmp_path / "pytorch_attention_matrix.png"
    old.write_bytes(b"old")
    seq2seq.main([*TINY, "--attention", "none", "--assets", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "no attention matrix to draw" in printed and "alignment:" not in printed
    assert old.read_bytes() == b"old"
    assert_drawn(tmp_path / "pytorch_seq2seq_loss.png")


def test_the_comparison_prints_a_table_and_draws_one_figure(
    seq2seq: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    seq2seq.main([*TINY, "--compare", "--assets", str(tmp_path)])
    assert sum(line.startswith("|") for line in capsys.readouterr().out.splitlines()) == 2 + 4
    assert [path.name for path in tmp_path.iterdir()] == ["pytorch_comparison.png"]
    assert_drawn(tmp_path / "pytorch_comparison.png")


def test_the_default_settings_learn_to_reverse_and_to_align(
    run_script: Callable[..., subprocess.CompletedProcess], tmp_path: Path
) -> None:
    done = run_script("01_pytorch.py", "--assets", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "attention -> noitnetta  right" in done.stdout
    exact, right, alignment = re.search(
        r"^exact match: (\S+)% \((\d+) of 2000 fresh sequences\)\nalignment: (\S+)%\ntraining time: \S+ s$",
        done.stdout,
        re.MULTILINE,
    ).groups()
    assert float(exact) >= 99 and int(right) == round(20 * float(exact))
    assert float(alignment) >= 98
