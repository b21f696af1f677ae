"""Both scripts as users meet them: flags, bad values, hostile surroundings, output to look at."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest
from lesson import OTHER, ROOT, SMALL, flags, scratch, seq2seq, small

TINY = [*flags(SMALL), "--sequence", "b"]
SCRATCH_FIGURES = {"scratch_attention_weights.png"}
FIGURES = {"pytorch_seq2seq_loss.png", "pytorch_attention_matrix.png", "pytorch_decoding.gif"}
SCRIPTS = [("00_scratch.py", scratch, SCRATCH_FIGURES), ("01_pytorch.py", seq2seq, FIGURES)]


def stop_of(module: ModuleType, words: list[str]) -> object:
    """Run a script with a command line that ends it; return its exit status."""
    with pytest.raises(SystemExit) as stopped:
        module.main(words)
    return stopped.value.code


@pytest.mark.parametrize(("script", "module", "names"), SCRIPTS)
def test_a_script_runs_whatever_surrounds_it(
    tmp_path: Path, script: str, module: ModuleType, names: set
) -> None:
    # From another folder, whose matplotlibrc asks for a LaTeX that is not there, without a display,
    # on a terminal that knows only ASCII.
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\ntext.latex.preamble: \\nonsense\n")
    (tmp_path / "naïve").mkdir()
    copy = Path(shutil.copy(ROOT / script, tmp_path / "naïve"))
    given = [*TINY, "--alphabet", "жяb"] if module is seq2seq else []
    env = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    env["PYTHONIOENCODING"] = "ascii"
    command, options = [sys.executable, str(copy), *given], {"capture_output": True, "text": True}
    found = subprocess.run(command, cwd=tmp_path, env=env, check=False, **options)
    assert (found.returncode, found.stderr) == (0, "") and found.stdout.isascii()
    assets = tmp_path / "naïve" / "assets"
    assert {path.name for path in assets.iterdir()} == names, "and no temporary file"


def test_a_run_shows_its_progress_and_ends_with_the_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = {"steps": 40, "max_length": 3, "batch_size": 32, "hidden_size": 32}
    settings, drawn = small(**changed), []
    monkeypatch.setattr(seq2seq, "animate_decoding", lambda own, path: drawn.append(own.weights))
    monkeypatch.setattr(seq2seq, "save", lambda write, path: write(path) or True)
    given = ["--sequence", "dec", "--read", "fade", "--assets", str(tmp_path)]
    seq2seq.main([*flags({**SMALL, **changed}), *given])
    lines = capsys.readouterr().out.splitlines()
    told = [re.fullmatch(r"step (\d+) of 40  loss (\d\.\d{4})  dec -> (.*)", x) for x in lines]
    told = {int(line[1]): line.groups()[1:] for line in told if line}
    assert min(told) == 1 and max(told) == 40 and len(told) == 17
    model = seq2seq.Seq2Seq(settings)
    for step, loss, _ in seq2seq.train(model, settings):
        if step in told:
            assert told[step] == (f"{loss:.4f}", seq2seq.decode_word(model, "dec", settings).output)
    found = seq2seq.evaluate(model, seq2seq.evaluation_strings(settings), settings)
    exact, letters, *percentages = found.values()
    alignment, left, right = (f"{value:.2f}%" for value in percentages)
    assert lines[17:20] == [
        f"reads fade, writes {seq2seq.decode_word(model, 'dec', settings, 'fade').output}",
        f"exact match: {exact:.2f}% ({round(20 * exact)} of 2000 strings)",
        f"alignment: {alignment} of {letters} letters (one column left {left}, right {right})",
    ]
    assert re.fullmatch(r"training time: \d+\.\d s", lines[20]) and exact > 0
    assert lines[21:] == [f"written to {tmp_path}"]
    assert (drawn[0] == seq2seq.decode_word(model, "dec", settings).weights).all(), "the last one"


def test_without_attention_there_is_no_alignment_and_no_matrix(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    seq2seq.main([*TINY, "--attention", "none", "--assets", str(tmp_path)])
    told = capsys.readouterr().out
    assert "alignment:" not in told and "exact match: " in told
    assert [path.name for path in tmp_path.iterdir()] == ["pytorch_seq2seq_loss.png"]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Start no run: keep what it would have been started with."""
    kept = []
    for name in ("run", "run_experiment"):
        monkeypatch.setattr(seq2seq, name, lambda *given: kept.append(given[:-1]) or True)
    return kept


def test_every_flag_arrives(started: list, tmp_path: Path) -> None:
    assets = ["--assets", str(tmp_path)]
    seq2seq.main(assets)
    seq2seq.main(["--max-length", "8", *assets])
    seq2seq.main([*flags(OTHER), "--sequence", "dab", "--read", "cc", *assets])
    seq2seq.main(["--experiment", "speed", "--seed", str(2**32 - 5), *assets])
    assert started == [
        (seq2seq.Settings(), "attention", None),
        (seq2seq.Settings(max_length=8), "abcdefgh", None),  # attention is too long
        (seq2seq.Settings(**OTHER), "dab", "cc"),
        ("speed", range(2**32 - 5, 2**32), "cpu"),
    ]


@pytest.mark.parametrize(
    ("flag", "command"),
    [
        ("--steps", "--steps=0"),
        ("--lr", "--lr=nan"),
        ("--embedding-std", "--embedding-std=inf"),
        ("--noise", "--noise=1.1"),
        ("--seed", f"--seed={2**32}"),
        ("--device", "--device=nowhere"),
        ("--hidden-size", "--hidden-size=63"),
        ("--min-length", "--min-length=17"),
        ("--alphabet", "--alphabet=aba"),
        ("--alphabet", "--alphabet=ab\tc"),
        ("--sequence", "--sequence=" + "a" * 513),
        ("--sequence", "--sequence=abc --experiment=speed"),
        ("--read", "--read="),
        ("--read", "--read=w0rld"),
        ("--lr", "--experiment=speed --lr=0.1"),
        ("--runs", "--runs=2"),
        ("--runs", f"--experiment=speed --seed={2**32 - 4}"),
        ("--step", "--step=3"),
        ("--assets", f"--assets={__file__}/below"),
    ],
)
def test_a_bad_value_is_refused_by_name_before_anything_starts(
    started: list, tmp_path: Path, capsys: pytest.CaptureFixture, flag: str, command: str
) -> None:
    assert stop_of(seq2seq, ["--assets", str(tmp_path / "figures"), *command.split(" ")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("usage: ") and re.search(rf"error: .*{flag}\b", error.splitlines()[-1])
    assert not started and not (tmp_path / "figures").exists()


@pytest.mark.parametrize(("script", "module", "names"), SCRIPTS)
def test_a_figure_that_cannot_be_written_is_one_line_and_the_others_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture, script: str, module: ModuleType, names: set
) -> None:
    savefig = module.Figure.savefig
    victim = min(name for name in names if name.endswith(".png"))

    def full_disk(figure: object, path: object, **options: object) -> None:
        if Path(str(path)).name == victim:
            Path(path).write_bytes(b"half a fig")
            raise OSError(28, "No space left on device")
        savefig(figure, path, **options)

    (tmp_path / victim).write_bytes(b"old")
    with mock.patch.object(module.Figure, "savefig", full_disk):
        words = [*(TINY if module is seq2seq else []), "--assets", str(tmp_path)]
        assert stop_of(module, words) == 1
    error = f"{script}: error: {tmp_path / victim}: No space left on device\n"
    assert capsys.readouterr().err == error
    assert {path.name for path in tmp_path.iterdir()} == names
    assert (tmp_path / victim).read_bytes() == b"old"


def test_a_training_that_diverges_ends_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert stop_of(seq2seq, [*TINY, "--lr", "1e39", "--assets", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "step 1 of 2" in error and not list(tmp_path.iterdir())
