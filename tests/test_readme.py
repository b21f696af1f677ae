"""Statements about the README: what it shows exists, what it links is there, and what it tells to type can be typed."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PROSE = re.sub(r"^```.*?^```", "", README, flags=re.DOTALL | re.MULTILINE)
HEADINGS = re.findall(r"^#+ (.+)$", PROSE, re.MULTILINE)
LINKS = re.findall(r"(?<!!)\[([^\]]*(?:\[[^\]]*\][^\]]*)*)\]\(([^)\s]+)\)", PROSE)
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"^```bash\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]


def flags(script: ModuleType, capsys: pytest.CaptureFixture) -> set[str]:
    """Return the flags that a script's own help names."""
    with pytest.raises(SystemExit):
        script.main(["--help"])
    return set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out)) - {"--help"}


def test_every_figure_shown_exists_and_is_committed() -> None:
    figures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert set(figures) == {f"assets/{path.name}" for path in (ROOT / "assets").iterdir()}
    assert len(set(figures)) == 4
    for figure in figures:
        assert (ROOT / figure).read_bytes().startswith(b"\x89PNG")
    if shutil.which("git") and (ROOT / ".git").exists():
        listed = subprocess.run(["git", "ls-files", *figures], cwd=ROOT, capture_output=True, text=True, check=True)
        assert set(listed.stdout.split()) == set(figures)


def test_every_local_link_points_to_what_its_text_says() -> None:
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADINGS}
    anchors = 0
    for text, target in LINKS:
        path, _, fragment = target.partition("#")
        if target.startswith("https://"):
            continue
        if not path:
            assert fragment in slugs, target
            continue
        lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
        assert re.fullmatch(r"L\d+", fragment), f"{target}: a link to code names its line"
        line, code = lines[int(fragment[1:]) - 1], text.strip("`")
        if re.fullmatch(r"\w+", code):
            assert re.match(rf"(def|class) {code}\b", line), f"{target} is {line!r}, not the definition of {code}"
        else:
            assert code in line, f"{target} is {line!r}, not {code!r}"
        anchors += 1
    assert anchors > 40


def test_every_command_parses(
    scratch: ModuleType, seq2seq: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = []
    for program, *words in COMMANDS:
        if program == "python3":
            assert words == ["-m", "venv", ".venv"]
            continue
        assert program == ".venv/bin/python"
        if words[0] in ("00_scratch.py", "01_pytorch.py"):
            script = scratch if words[0] == "00_scratch.py" else seq2seq
            script.parse_arguments(words[1:])
            ran.append(words)
        else:
            assert words in (["-m", "pip", "install", "-r", "requirements.txt"], ["-m", "pytest", "tests"])
    assert ran[:2] == [["00_scratch.py"], ["01_pytorch.py"]]
    assert all(words[-2:] == ["--assets", "out"] for words in ran[2:]), "no experiment replaces a figure of the README"


def test_every_flag_is_explained_with_its_default(
    scratch: ModuleType, seq2seq: ModuleType, capsys: pytest.CaptureFixture
) -> None:
    for script in (scratch, seq2seq):
        for flag in flags(script, capsys):
            assert f"`{flag} " in README or f"`{flag}`" in README, flag
    rows = re.findall(r"^\| (`--.+) \| (.+) \| .+ \|$", README, re.MULTILINE)
    told = {}
    for names, values in rows:
        words = re.findall(r"--([a-z-]+)", names)
        told |= dict(zip(words, [value.strip("`") for value in values.split(", ")], strict=True))
    defaults = vars(seq2seq.parse_arguments([]))
    assert {name.replace("-", "_") for name in told} == set(defaults)
    for name in ("steps", "batch-size", "lr", "hidden-size", "embedding-size", "min-length", "max-length", "seed"):
        assert float(told[name]) == defaults[name.replace("-", "_")], name
    assert told["attention"] == defaults["attention"]
    assert float(told["teacher-forcing"]) == defaults["teacher_forcing"]


def test_the_sections_stand_in_the_order_of_the_lesson() -> None:
    sections = re.findall(r"^## (.+)$", PROSE, re.MULTILINE)
    assert sections == [
        "Quick start",
        "1. Overview",
        "2. Historical context",
        "3. Real-world analogy",
        "4. Mathematical foundation",
        "5. Implementation details",
        "6. Impact",
        "7. Results",
        "Experiments",
        "References",
    ]


def test_the_worked_example_is_quoted_as_the_script_prints_it(scratch: ModuleType) -> None:
    assert f"```text\n{scratch.report(*scratch.worked_example(0))}\n```" in README


def test_the_comparison_table_names_each_model_with_its_parameters(seq2seq: ModuleType) -> None:
    args = seq2seq.parse_arguments([])
    rows = []
    for name, attention, _ in seq2seq.HISTORY:
        model = seq2seq.build_model(len(args.alphabet), args.embedding_size, args.hidden_size, attention)
        rows.append((name, f"{sum(weight.numel() for weight in model.parameters()):,}"))
    head = seq2seq.comparison_table([], args.max_length).splitlines()[0]
    table = README[README.index(head) :].splitlines()[2 : 2 + len(rows)]
    assert [tuple(row.strip("| ").split(" | ")[:2]) for row in table] == rows


def test_no_display_formula_is_hidden_from_the_renderer() -> None:
    lines = PROSE.splitlines()
    fences = [i for i, line in enumerate(lines) if "$$" in line]
    assert len(fences) == 10
    for start, end in zip(fences[::2], fences[1::2], strict=True):
        assert lines[start] == lines[end] == "$$" and lines[start - 1] == lines[end + 1] == ""
    assert "\\operatorname" not in README
