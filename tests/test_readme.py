"""Statements about the README: what it shows exists, what it quotes is there, what it tells to type can be typed."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, scratch, seq2seq

README = (ROOT / "README.md").read_text(encoding="utf-8")
SCRIPTS = "".join(
    (ROOT / name).read_text(encoding="utf-8") for name in ("00_scratch.py", "01_pytorch.py")
)
BLOCKS = re.findall(r"^ *```(\w+)\n(.*?)^ *```", README, re.DOTALL | re.MULTILINE)
PROSE = re.sub(r"^ *```\w+\n.*?^ *```", "", README, flags=re.DOTALL | re.MULTILINE)
COMMANDS = [
    shlex.split(line)
    for language, block in BLOCKS
    if language == "bash"
    for line in block.splitlines()
]


def test_the_sections_stand_in_the_order_of_the_lesson() -> None:
    assert re.findall(r"^## (.+)$", PROSE, re.MULTILINE) == [
        "Quick start",
        "1. Overview",
        "2. Historical context",
        "3. Real-world analogy",
        "4. Mathematical foundation",
        "5. Implementation details",
        "6. Impact",
        "7. Results",
        "Exercises",
        "References",
    ]


def test_every_figure_is_shown_described_and_committed() -> None:
    shown = set(re.findall(r"assets/\w+\.(?:png|gif)", README))
    assert shown == {f"assets/{path.name}" for path in (ROOT / "assets").iterdir()}
    described = re.findall(r"!\[[^\]]{20,}\]\((assets/[^)]+)\)", README) + re.findall(
        r'<img src="([^"]+)".* alt="[^"]{20,}"', README
    )
    assert shown - set(described) == {"assets/pytorch_attention_matrix.png"}, (
        "linked beside a figure that shows it, too"
    )
    if shutil.which("git") and (ROOT / ".git").exists():
        listed = subprocess.run(
            ["git", "ls-files", *shown], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert set(listed.stdout.split()) == shown


def test_every_command_parses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = (
        ["-m", "pip", "install", "-r", "requirements.txt"],
        ["-m", "pytest", "tests"],
        ["00_scratch.py"],
    )
    for program, *words in COMMANDS:
        if program == "python3":
            assert words == ["-m", "venv", ".venv"]
        elif words not in known:
            assert program == ".venv/bin/python" and words[0] == "01_pytorch.py"
            _, given, _ = seq2seq.parse_arguments(words[1:])
            assert words == ["01_pytorch.py"] or given["assets"] == "out", (
                "no exercise replaces a figure of the README"
            )
    for experiment in re.findall(r"--experiment (\w+)", README):
        assert experiment in seq2seq.EXPERIMENTS


def test_every_flag_named_is_one(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        seq2seq.main(["--help"])
    assert set(re.findall(r"--[a-z][a-z-]+", README + SCRIPTS)) <= set(
        re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)
    )


def test_every_line_of_code_quoted_and_every_name_is_in_the_scripts() -> None:
    quoted = [
        line for language, block in BLOCKS if language == "python" for line in block.splitlines()
    ]
    assert len(quoted) > 8
    for line in quoted:
        assert f" {line}\n" in SCRIPTS or f" {line}  #" in SCRIPTS, line
    for name in re.findall(r"(?<!\$)`([A-Za-z_]\w+)`", PROSE):
        assert re.search(rf"\b{name}\b", SCRIPTS) or name in ("py", "python3"), name


def test_the_numbers_of_the_worked_example_are_those_that_the_script_prints() -> None:
    section = README[README.index("## 4.") : README.index("## 5.")]
    printed = set(re.findall(r"-?\d+\.\d+", scratch.report(scratch.worked_example())))
    told = set(re.findall(r"\d+\.\d{2,}", re.sub(r"\$`[^`]+`\$", "", section)))
    assert len(told) > 5 and told <= printed


def test_formulas_are_out_of_the_reach_of_markdown() -> None:
    assert sum(language == "math" for language, _ in BLOCKS) == 4
    outside = re.sub(r"\$`[^`]+`\$|`[^`]+`", "", PROSE)
    assert "$" not in outside and "\\" not in outside


def test_every_reference_is_cited_and_every_anchor_exists() -> None:
    text, references = README.split("## References")
    assert set(re.findall(r"\]\(#(\w+)\)", text)) == {"references"}
    for authors in re.findall(r"^- (\w+)", references, re.MULTILINE):
        assert authors in text, authors


def test_it_can_be_read_in_half_an_hour() -> None:
    assert len(README.split()) <= 3000
