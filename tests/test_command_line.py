"""Both scripts as users meet them: flags, bad values, hostile surroundings, output to look at."""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import matplotlib
import numpy as np
import pytest
from conftest import ROOT, SMALL, flags, scratch, seq2seq, small
from PIL import Image
from torch import Tensor

TINY = flags(SMALL)
FIGURES = {
    "00_scratch.py": {"scratch_attention_weights.png"},
    "01_pytorch.py": {
        *("pytorch_seq2seq_loss.png", "pytorch_attention_matrix.png", "pytorch_decoding.gif")
    },
}


# Whole runs


@pytest.mark.parametrize(
    ("script", "module"), [("00_scratch.py", scratch), ("01_pytorch.py", seq2seq)]
)
def test_a_script_prints_and_draws_the_same_whatever_surrounds_it(
    tmp_path: Path, capsys: pytest.CaptureFixture, script: str, module: ModuleType
) -> None:
    given = flags({**SMALL, "alphabet": "абв", "max_length": 3}) if module is seq2seq else []
    # From another folder, without a display, on a terminal that knows only ASCII, and with the
    # back end of a notebook that is not installed here.
    (tmp_path / "naïve").mkdir()
    copy = Path(shutil.copy(ROOT / script, tmp_path / "naïve"))
    env = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    env |= {"PYTHONIOENCODING": "ascii", "MPLBACKEND": "module://missing"}
    hostile = subprocess.run(
        [sys.executable, str(copy), *given],
        **{"cwd": tmp_path, "env": env, "capture_output": True, "text": True, "timeout": 120},
    )
    assert (hostile.returncode, hostile.stderr) == (0, "") and hostile.stdout.isascii()
    # In this process, with settings that would turn the picture over and need LaTeX.
    with matplotlib.rc_context({"image.origin": "lower", "text.usetex": True, "font.size": 30.0}):
        module.main([*given, "--assets", str(tmp_path / "a" / "b")])
    printed = capsys.readouterr().out.encode("ascii", "backslashreplace").decode()
    told = [re.sub("training time: .*|written: .*", "", text) for text in (hostile.stdout, printed)]
    assert told[0] == told[1]
    assets = tmp_path / "naïve" / "assets"
    assert {path.name for path in assets.iterdir()} == FIGURES[script], "and no temporary file"
    for name in FIGURES[script]:
        assert (assets / name).read_bytes() == (tmp_path / "a" / "b" / name).read_bytes()
        with Image.open(assets / name) as image:
            pixels = np.array(image.convert("RGB")).astype(int)
        assert (pixels[0, 0] > 250).all() and np.ptp(pixels, axis=2).max() > 80, "colour on white"


def test_a_run_shows_its_progress_and_ends_with_the_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    settings = small(steps=64, max_length=5, batch_size=32, hidden_size=32)
    seq2seq.run(settings, "decade", None, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    told = [re.fullmatch(r"step (\d+) of 64  loss (\d\.\d{4})  decade -> (.*)", x) for x in lines]
    told = {int(line[1]): line.groups()[1:] for line in told if line}
    assert min(told) == 1 and max(told) == 64 and len(told) == 17
    model = seq2seq.Seq2Seq(settings)
    for step, loss, _ in seq2seq.train(model, settings):
        if step in told:
            output = seq2seq.decode_word(model, "decade", settings).output
            assert told[step] == (f"{loss:.4f}", output)
    found = seq2seq.evaluate(model, seq2seq.evaluation_strings(settings), "reverse")
    percentages = [f"{value:.2f}%" for value in found.values()]
    summary = lines[len(told) : len(told) + 3]
    num_right = round(20 * found["exact match"])
    assert summary[0] == f"exact match: {percentages[0]} ({num_right} of 2000 strings)"
    beside = f"(one column left {percentages[2]}, right {percentages[3]})"
    assert summary[1] == f"alignment: {percentages[1]} {beside}"
    assert re.fullmatch(r"training time: \d+\.\d s", summary[2]) and found["exact match"] > 0


def test_read_decides_what_the_decoder_reads_and_the_report_says_both_strings(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, draw = [], seq2seq.draw_attention
    monkeypatch.setattr(
        seq2seq, "draw_attention", lambda decoded: drawn.append(decoded) or draw(decoded)
    )
    seq2seq.main([*TINY, "--sequence", "abc", "--read", "fade", "--assets", str(tmp_path)])
    settings = small()
    model = seq2seq.Seq2Seq(settings)
    list(seq2seq.train(model, settings))
    tokens = seq2seq.tokens_of("fade", settings)
    tokens = [[seq2seq.SOS, *tokens[0].tolist()]]
    output = model(seq2seq.tokens_of("abc", settings), Tensor(tokens).long())
    np.testing.assert_allclose(drawn[0].weights, output.weights[0].detach(), rtol=1e-5)
    assert f"reads fade, writes {drawn[0].output}" in capsys.readouterr().out.splitlines()
    assert (drawn[0].word, drawn[0].read) == ("abc", ["SOS", *"fade"])


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


# Flags


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Start no run: keep what it would have been started with."""
    kept = {}
    names = "settings", "word", "read", "folder"
    monkeypatch.setattr(seq2seq, "run", lambda *args: kept.update(zip(names, args, strict=True)))
    names_too = "experiment", "settings", "num_runs", "folder"
    monkeypatch.setattr(
        seq2seq, "run_experiment", lambda *args: kept.update(zip(names_too, args, strict=True))
    )
    return kept


def test_every_flag_arrives_and_help_tells_each_default(
    started: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    seq2seq.main(["--assets", str(tmp_path)])
    assert started["settings"] == seq2seq.Settings() and started["word"] == "attention"
    seq2seq.main(["--max-length", "8", "--assets", str(tmp_path)])
    assert started["word"] == "abcdefgh", "attention is too long"
    values = {"task": "copy", "alphabet": "xyz", "min_length": 8, "max_length": 8}
    values |= {"encoder": "forward", "gates": "usual", "attention": "additive", "hidden_size": 6}
    values |= {"embedding_size": 4, "embedding_std": 1.5, "batch_size": 5, "lr": 0.01, "steps": 4}
    values |= {"teacher_forcing": 0.5, "noise": 0.9, "seed": 2**32 - 1}
    words = ["--sequence", "zyx", "--read", "xx", "--assets", str(tmp_path)]
    seq2seq.main([*flags(values), *words])
    expected = {"word": "zyx", "read": "xx", "folder": tmp_path}
    assert started == {"settings": seq2seq.Settings(**values), **expected}
    for words, num_runs in (([], 10), (["--runs", "3"], 3)):
        seq2seq.main(["--experiment", "history", *words, "--assets", str(tmp_path)])
        assert (started["experiment"], started["num_runs"]) == ("history", num_runs)
    seq2seq.main(["--assets", "~/../" + str(tmp_path / "figures")])
    assert "~" not in str(started["folder"]) and (tmp_path / "figures").is_dir()
    with pytest.raises(SystemExit) as stopped:
        seq2seq.main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert stopped.value.code == 0 and told.startswith("usage: 01_pytorch.py")
    for field in dataclasses.fields(seq2seq.Settings):
        flag = f"--{field.name.replace('_', '-')} "
        assert re.search(rf"{flag}[^(]*\(default: {re.escape(str(field.default))}\)", told), flag


@pytest.mark.parametrize(
    ("flag", "command"),
    [
        ("--steps", "--steps=0"),
        ("--batch-size", "--batch-size=1.5"),
        ("--lr", "--lr=nan"),
        ("--noise", "--noise=1.1"),
        ("--seed", f"--seed={2**32}"),
        ("--attention", "--attention=genral"),
        ("--device", "--device=nowhere"),
        ("--hidden-size", "--hidden-size=63"),
        ("--min-length", "--min-length=17"),
        ("--max-length", "--max-length=513"),
        ("--alphabet", "--alphabet=aba"),
        ("--alphabet", "--alphabet=ab\tc"),
        ("--sequence", "--sequence=héllo"),
        ("--sequence", "--sequence=" + "a" * 513),
        ("--read", "--read="),
        ("--read", "--read=A"),
        ("--read", "--experiment=alignment --read=abc"),
        ("--lr", "--experiment=history --lr=0.1"),
        ("--runs", "--runs=2"),
        ("--step", "--step=3"),
    ],
)
def test_a_bad_value_is_refused_by_name_before_anything_starts(
    started: dict, tmp_path: Path, capsys: pytest.CaptureFixture, flag: str, command: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        seq2seq.main([*command.split(" "), "--assets", str(tmp_path / "figures")])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.startswith("usage: ") and error.isascii()
    assert re.search(rf"error: .*{flag}\b", error.splitlines()[-1])
    assert not started and not (tmp_path / "figures").exists()


# What goes wrong


@pytest.mark.parametrize("module", [scratch, seq2seq])
def test_a_folder_that_cannot_be_written_is_refused(
    started: dict, tmp_path: Path, capsys: pytest.CaptureFixture, module: ModuleType
) -> None:
    (tmp_path / "a_file").write_text("here first")
    with pytest.raises(SystemExit) as stopped:
        module.main(["--assets", str(tmp_path / "a_file" / "below")])
    assert stopped.value.code == 2 and "argument --assets: " in capsys.readouterr().err
    assert not started and [path.name for path in tmp_path.iterdir()] == ["a_file"]


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
