"""Statements about the README: what it shows and quotes is there, its tables are the results."""

import csv
import re
import shlex
import shutil
import statistics
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
COMMANDS = [line for language, block in BLOCKS if language == "bash" for line in block.splitlines()]


def read_results(name: str) -> list[dict[str, str]]:
    """Return the committed runs of an experiment."""
    with (ROOT / "assets" / f"pytorch_{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


RESULTS = {name: read_results(name) for name in seq2seq.EXPERIMENTS}


def numbers_of(name: str, row: str, column: str) -> list[float]:
    """Return what the runs of a row measured."""
    return [float(run[column]) for run in RESULTS[name] if run["row"] == row]


def test_the_sections_stand_in_the_order_of_the_lesson() -> None:
    numbered = re.findall(r"^## (\d\. .+)$", PROSE, re.MULTILINE)
    assert numbered == [
        "1. Overview",
        "2. Historical context",
        "3. Real-world analogy",
        "4. Mathematical foundation",
        "5. Implementation details",
        "6. Impact",
        "7. Results",
    ]
    headings = re.findall(r"^## (.+)$", PROSE, re.MULTILINE)
    assert headings[0] == "Quick start" and headings[-2:] == ["Exercises", "References"]


def test_every_figure_is_shown_with_a_description_and_every_file_is_committed() -> None:
    drawn = {path.name for path in (ROOT / "assets").iterdir() if path.suffix in (".png", ".gif")}
    shown = set(re.findall(r"assets/(\w+\.(?:png|gif))", README))
    assert shown == drawn
    described = re.findall(r"!\[[^\]]{20,}\]\(assets/([^)]+)\)", README)
    described += re.findall(r'<img src="assets/([^"]+)".* alt="[^"]{20,}"', README)
    assert shown - set(described) == {"pytorch_attention_matrix.png"}, "linked from the text"
    files = shown | set(re.findall(r"assets/(\w+\.csv)", README))
    for name, experiment in seq2seq.EXPERIMENTS.items():
        assert {f"pytorch_{name}.csv", *experiment.figures} <= files
    if shutil.which("git") and (ROOT / ".git").exists():
        command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "assets"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if listed.returncode == 0:
            assert files <= {Path(line).name for line in listed.stdout.split()}


def test_every_command_can_be_typed() -> None:
    plain = ("-m pip install -r requirements.txt", "-m pytest tests", "00_scratch.py")
    for line in COMMANDS:
        program, *words = shlex.split(line)
        if program == "python3":
            assert words == ["-m", "venv", ".venv"]
            continue
        assert program == ".venv/bin/python"
        if " ".join(words) in plain:
            continue
        assert words[0] == "01_pytorch.py"
        given = vars(seq2seq.make_parser().parse_args(words[1:]))
        seq2seq.checked_settings(seq2seq.make_parser(), given)
        assert words == ["01_pytorch.py"] or str(given["assets"]) == "out", "it keeps our figures"
    for experiment in re.findall(r"--experiment (\w+)", README):
        assert experiment in seq2seq.EXPERIMENTS


def test_every_flag_named_is_one(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        seq2seq.main(["--help"])
    flags = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    assert set(re.findall(r"--[a-z][a-z-]+", README + SCRIPTS)) <= flags


def test_every_line_of_code_quoted_and_every_name_is_in_the_scripts() -> None:
    quoted = [
        line for language, block in BLOCKS if language == "python" for line in block.splitlines()
    ]
    assert len(quoted) > 7
    for line in quoted:
        assert f" {line}\n" in SCRIPTS or f" {line}  #" in SCRIPTS, line
    for name in re.findall(r"(?<!\$)`([A-Za-z_]\w+)`", PROSE):
        assert re.search(rf"\b{name}\b", SCRIPTS) or name in ("py", "python3", "out"), name


def test_the_numbers_of_the_worked_example_are_those_that_the_script_prints() -> None:
    section = README[README.index("## 4.") : README.index("## 5.")]
    printed = set(re.findall(r"\d\.\d{3}", scratch.report(scratch.worked_example())))
    told = set(re.findall(r"\d\.\d{3}", section))
    assert len(told) >= 5 and told <= printed


def test_formulas_are_out_of_the_reach_of_markdown() -> None:
    assert sum(language == "math" for language, _ in BLOCKS) >= 6
    outside = re.sub(r"\$`[^`]+`\$|`[^`]+`", "", PROSE)
    assert "$" not in outside and "\\" not in outside


def test_every_reference_is_cited_and_every_anchor_exists() -> None:
    text, references = README.split("## References")
    assert set(re.findall(r"\]\(#(\w+)\)", text)) == {"references"}
    for authors in re.findall(r"^- ([^,:]+?)(?:,| et al\.| \d)", references, re.MULTILINE):
        assert authors.split()[-1] in text + SCRIPTS, authors


def tables() -> list[tuple[list[str], list[list[str]]]]:
    """Return (columns, rows of cells) of every table in the README that begins with a model."""
    found = []
    for block in re.findall(r"^\| model .*\n\|[-:|]+\n(?:\|.*\n)+", README, re.MULTILINE):
        lines = [
            [cell.strip() for cell in line.strip("|\n").split("|")] for line in block.splitlines()
        ]
        found.append((lines[0][1:], lines[2:]))
    return found


def test_every_cell_of_every_table_is_the_median_and_range_of_the_committed_runs() -> None:
    assert len(tables()) >= 5
    for columns, rows in tables():
        for row, *cells in rows:
            name = next(name for name in RESULTS if any(run["row"] == row for run in RESULTS[name]))
            runs = [run for run in RESULTS[name] if run["row"] == row]
            assert len(runs) == seq2seq.EXPERIMENTS[name].num_seeds
            settings = seq2seq.settings_that_differ(seq2seq.EXPERIMENTS[name])
            for column, told in zip(columns, cells, strict=True):
                values = [run[column] for run in runs]
                assert told == expected_cell(values, column in settings), (row, column)


def expected_cell(values: list[str], is_setting: bool) -> str:
    """Return what a table should say of the values in a column of a CSV file."""
    if is_setting:
        return values[0]
    if set(values) <= {"True", "False"}:
        return f"{values.count('True')} of {len(values)}"
    numbers = [float(value) for value in values]
    if any(number != number for number in numbers):
        return ""
    middle, low, high = map(rounded, (statistics.median(numbers), min(numbers), max(numbers)))
    return middle if low == high else f"{middle} ({low} to {high})"


def rounded(number: float) -> str:
    """Round to two decimals from 99 to 100, to one below 10, else to none; without a final zero."""
    if number == float("inf"):
        return "never"
    digits = 2 if 99 < number < 100 else 1 if abs(number) < 10 else 0
    text = format(number, f",.{digits}f")
    text = text.rstrip("0").rstrip(".") if digits else text
    return "0" if text == "-0" else text


@pytest.mark.parametrize("name", seq2seq.EXPERIMENTS)
def test_the_committed_runs_are_those_of_the_experiment_in_the_code(name: str) -> None:
    experiment = seq2seq.EXPERIMENTS[name]
    runs = [(run["row"], int(run["seed"])) for run in RESULTS[name]]
    assert runs == [(row, seed) for row in experiment.rows for seed in range(experiment.num_seeds)]
    names = seq2seq.settings_that_differ(experiment)
    for run in RESULTS[name]:
        changed = experiment.rows[run["row"]]
        for setting in names:
            expected = changed.get(setting, getattr(seq2seq.Settings(), setting))
            assert run[setting] == str(expected), (run["row"], setting)
        assert set(experiment.columns) <= set(run)


def test_a_number_of_runs_that_the_text_counts_is_in_the_results() -> None:
    for rule in ("off by one", "follows a swap"):
        right = sum(run[rule] == run[f"{rule}, predicted"] for run in RESULTS["alignment"])
        assert f"{right} of {len(RESULTS['alignment'])}" in " ".join(README.split()), rule


FIRST, NOISY = "no noise", "noise 0.2"
SAID = [  # numbers in the running text: the row, the column, of which it is the median
    (FIRST, "exact match", "93%"),
    (FIRST, "off by +1", "84%"),
    (FIRST, "swap: goes to the symbol", "54%"),
    (FIRST, "content part at +1", "6.6"),
    (FIRST, "position part at +1", "5.6"),
    (FIRST, "all weight on true column: right", "58%"),
    (FIRST, "all weight on one column right: right", "100%"),
    (FIRST, "other context: its symbol", "32%"),
    (FIRST, "read random: right", "24%"),
    (FIRST, "wrong at doubled letters", "16%"),
    (FIRST, "wrong elsewhere", "1.1%"),
    (NOISY, "all weight on true column: right", "22%"),
    (NOISY, "all weight on one column right: right", "99.76%"),
    (NOISY, "content part at +1", "1.2"),
    (NOISY, "follows at step 75", "60%"),
    (NOISY, "follows at step 400", "0.1%"),
    (NOISY, "read lacking: true column", "37%"),
    (NOISY, "read lacking: one column right", "62%"),
    (NOISY, "read true: one column right", "99.36%"),
    (NOISY, "swap: true column", "35%"),
    (NOISY, "near: goes to the symbol", "92%"),
    ("small embeddings", "content part at +1", "-0.6"),
    ("copying", "position part at +0", "9.4"),
    ("copying", "all lacking: score at +0", "2.8"),
    ("bidirectional encoder", "position part at +0", "6.2"),
    ("bidirectional encoder", "all lacking: score at +0", "2.1"),
    ("small embeddings", "read lacking: one column right", "65%"),
    ("small embeddings", "swap: one column right", "65%"),
    ("small embeddings", "near: leaves the true column", "92%"),
    ("location score", "off by +1", "57%"),
    ("location score", "all weight on true column: right", "99.11%"),
    ("location score", "all weight on one column right: right", "20%"),
    ("location score", "wrong at doubled letters", "20%"),
    ("location score", "wrong elsewhere", "4.2%"),
    ("the default", "other context: its symbol", "100%"),
    ("the default", "read random: right", "99.98%"),
    ("the default", "follows at step 75", "33%"),
    ("the default", "read all lacking: true column", "100%"),
]


@pytest.mark.parametrize(("row", "column", "said"), SAID)
def test_a_number_in_the_text_is_the_median_of_the_committed_runs(
    row: str, column: str, said: str
) -> None:
    text = README[README.index("### When can you trust") : README.index("## Exercises")]
    assert said.rstrip("%") == rounded(statistics.median(numbers_of("alignment", row, column)))
    assert re.search(rf"(?<![\d.]){re.escape(said)}(?!\.?\d)", " ".join(text.split()))


def test_the_counts_in_the_text_are_those_of_the_committed_runs() -> None:
    text = " ".join(README.split())
    runs = RESULTS["alignment"]
    follows = [run["follows a swap"] == "True" for run in runs]
    yes = [run["follows a swap, predicted"] == "True" for run in runs]
    assert f"right in {follows.count(False)}; the rule says yes in {yes.count(True)} runs" in text
    assert f"right in {sum(map(min, yes, follows))} of these" in text
    leans = [float(run["position part at +1"]) > float(run["position part at +0"]) for run in runs]
    is_off = [run["off by one"] == "True" for run in runs]
    assert f"in {sum(map(bool.__eq__, leans, is_off))} of the 130" in text
    falls = [
        float(run["position part at +0"]) - float(run["all lacking: score at +0"])
        for run in runs
        if run["row"] not in ("copying", "bidirectional encoder")
    ]
    assert f"falls by at most {rounded(max(falls))} in every run of eleven" in text
    changes = [
        abs(float(run[f"position part at {k:+d}"]) - float(run[f"all lacking: score at {k:+d}"]))
        for run in runs
        if run["row"] in seq2seq.IN_PARTS
        for k in range(-3, 4)
    ]
    assert max(changes) < 1 and "less than 1 in any column" in text
    forced, unforced = (
        numbers_of("history", row, "steps to 90%")
        for row in ("dot score (Luong et al. 2015)", "dot score, no teacher forcing")
    )
    assert sum(a < b for a, b in zip(forced, unforced, strict=True)) == 8
    assert sum(a == b for a, b in zip(forced, unforced, strict=True)) == 1
    assert "eight of ten seeds need fewer with it, one as many and one more" in text
    at_17 = numbers_of(
        "bottleneck", "reversing with attention, 400 steps", "exact match at length 17"
    )
    assert statistics.median(at_17) >= 90
    assert f"(with one seed, only {rounded(min(at_17))}%)" in text
