"""Both scripts as a user runs them: as processes, from another folder, with figures to look at."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import numpy as np

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
    run_script: Callable[..., subprocess.CompletedProcess], tmp_path: Path
) -> None:
    def without_times(text: str) -> str:
        return re.sub(r"training time: .*|figure: .*", "", text)

    outputs = []
    for folder in ("one", "two"):
        done = run_script("01_pytorch.py", *TINY, "--sequence", "abcd", "--assets", folder)
        assert (done.returncode, done.stderr) == (0, "")
        outputs.append(done.stdout)
        for name in ("pytorch_seq2seq_loss.png", "pytorch_attention_matrix.png"):
            assert_drawn(tmp_path / folder / name)
            assert (tmp_path / folder / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
        assert len(list((tmp_path / folder).iterdir())) == 2, "no temporary file remains"
    assert without_times(outputs[0]) == without_times(outputs[1])
    assert "abcd has 4 symbols: a length that this model was not trained on" in outputs[0]


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
