"""Statements about the README: what it shows and quotes is there, its numbers are the results."""

import csv
import dataclasses
import itertools
import re
import shlex
import shutil
import statistics
import subprocess

import pytest
import torch
from conftest import ROOT, scratch, seq2seq
from torch.nn import functional as F

README = (ROOT / "README.md").read_text(encoding="utf-8")
SCRIPTS = "".join(
    (ROOT / name).read_text(encoding="utf-8") for name in ("00_scratch.py", "01_pytorch.py")
)
BLOCKS = re.findall(r"^ *```(\w+)\n(.*?)^ *```", README, re.DOTALL | re.MULTILINE)
PROSE = re.sub(r"^ *```\w+\n.*?^ *```", "", README, flags=re.DOTALL | re.MULTILINE)
TEXT = " ".join(PROSE.split())


def read_results(name: str) -> list[dict[str, str]]:
    """Return the committed runs of an experiment."""
    with (ROOT / "assets" / f"pytorch_{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


RESULTS = {name: read_results(name) for name in seq2seq.EXPERIMENTS}
MODELS = [(name, model) for name in RESULTS for model in seq2seq.EXPERIMENTS[name].models]


def test_the_sections_stand_in_the_order_of_the_lesson() -> None:
    headings = re.findall(r"^## (.+)$", PROSE, re.MULTILINE)
    lesson = ["1. Overview", "2. Historical context", "3. Real-world analogy"]
    lesson += ["4. Mathematical foundation", "5. Implementation details", "6. Impact", "7. Results"]
    expected = ["Quick start", *lesson, "What you know now", "Exercises", "References"]
    assert headings == expected


def test_every_figure_is_shown_with_a_description_and_committed() -> None:
    drawn = {path.name for path in (ROOT / "assets").iterdir() if path.suffix in (".png", ".gif")}
    shown = re.findall(r"!\[[^\]]{20,}\]\(assets/([^)]+)\)", README)
    shown += re.findall(r'<img src="assets/([^"]+)".* alt="[^"]{20,}"', README)
    assert set(shown) == drawn and len(shown) == len(drawn)
    if shutil.which("git") and (ROOT / ".git").exists():
        command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "assets"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        tables = {f"assets/pytorch_{name}.csv" for name in RESULTS}
        files = {f"assets/{name}" for name in drawn} | tables
        assert listed.returncode or set(listed.stdout.split()) == files


def test_every_command_can_be_typed_and_keeps_the_committed_results(
    capsys: pytest.CaptureFixture,
) -> None:
    commands = [block.splitlines() for language, block in BLOCKS if language == "bash"]
    plain = ["-m pip install -r requirements.txt", "-m pytest tests", "00_scratch.py"]
    for line in itertools.chain(*commands):
        program, words = line.strip().split(" ", 1)
        if program == "python3":
            assert words == "-m venv .venv"
            continue
        assert program == ".venv/bin/python"
        if words in (*plain, "01_pytorch.py"):
            continue
        script, *flags = shlex.split(words)
        parser = seq2seq.make_parser()
        given = vars(parser.parse_args(flags))
        settings = {name: given[name] for name in seq2seq.Settings.__annotations__ if name in given}
        word = given.get("sequence", "attention")
        seq2seq.refuse_bad_values(parser, seq2seq.Settings(**settings), word, given)
        assert script == "01_pytorch.py" and given["assets"] == "out"
    with pytest.raises(SystemExit):
        seq2seq.main(["--help"])
    known = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    assert set(re.findall(r"--[a-z][a-z-]+", README + SCRIPTS)) <= known


def test_every_line_of_code_quoted_and_every_name_is_in_the_scripts() -> None:
    quoted = [block.splitlines() for language, block in BLOCKS if language == "python"]
    quoted = [line for line in itertools.chain(*quoted) if line]
    assert len(quoted) > 20
    for line in quoted:
        assert f"{line}\n" in SCRIPTS or f"{line}  #" in SCRIPTS, line
    for name in re.findall(r"(?<!\$)`([A-Za-z_]\w+)`", PROSE):
        assert re.search(rf"\b{name}\b", SCRIPTS) or name in ("py", "python3"), name


def test_the_library_call_gives_the_context_of_our_own_attention() -> None:
    (call,) = re.findall(r"^context = (F\..*)$", README, re.MULTILINE)
    torch.manual_seed(0)
    names = {"query": torch.randn(2, 3, 8), "keys": torch.randn(2, 5, 8), "F": F}
    names["mask"] = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    found = eval(call, names)
    ours, _ = seq2seq.attend(seq2seq.dot_score, names["query"], names["keys"], names["mask"])
    torch.testing.assert_close(found, ours)


def test_the_numbers_of_the_worked_example_are_those_of_the_script() -> None:
    section = README[README.index("## 4.") : README.index("**How looking is learnt.")]
    example = scratch.worked_example()
    combined = torch.tensor(example.context[0] + example.query[0]).tanh()
    printed = set(re.findall(r"\d\.\d{3}", scratch.report(example)))
    told = set(re.findall(r"\d\.\d{3}", section))
    assert len(told) >= 8 and told <= printed | {f"{value:.3f}" for value in combined}
    logits = example.W_s @ combined.numpy()
    assert f"= {logits[0]:.2f}`$" in section and f"{logits[1]:.2f}`$" in section
    tabled = re.findall(r"^\| (?:query|key of).*\|$", section, re.MULTILINE)
    rows = [[cell.strip() for cell in line.strip("|").split("|")[1:]] for line in tabled]
    columns = [scratch.FEATURES.index(x) for x in ("noun", "subject", "object", "animal", "liquid")]
    keys, words = example.keys, list(scratch.SOURCE)
    vectors = [example.query[0], keys[words.index("cat")], keys[words.index("milk")]]
    for row, vector in zip(rows, vectors, strict=True):
        assert row[:5] == [f"{vector[c]:.0f}" if vector[c] else "" for c in columns]
        assert row[5] == (f"{vector @ vectors[0]:.0f}" if vector is not vectors[0] else "")


def test_formulas_are_out_of_the_reach_of_markdown() -> None:
    assert sum(language == "math" for language, _ in BLOCKS) >= 5
    outside = re.sub(r"\$`[^`]+`\$|`[^`]+`", "", PROSE)
    assert "$" not in outside and "\\" not in outside


def test_every_reference_is_cited_and_every_anchor_exists() -> None:
    text, references = README.split("## References")
    anchors = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) <= anchors
    for authors in re.findall(r"^- ([^,:]+?)(?:,| et al\.| \d)", references, re.MULTILINE):
        assert authors.split()[-1] in text, authors


# The results


def rounded(number: float) -> str:
    """Round to two decimals below 1 and from 99 to 100, to one below 10, else to none."""
    if number == float("inf"):
        return "never"
    digits = 2 if number < 1 or 99 < number < 100 else 1 if number < 10 else 0
    text = format(number, f",.{digits}f")
    return text.rstrip("0").rstrip(".") if digits else text


def expected_cell(values: list[str]) -> str:
    """Return what a table should say of the values in a column of a CSV file."""
    if not re.match(r"[\d.]|inf|nan", values[0]):
        return values[0]
    numbers = [float(value) for value in values]
    middle, low, high = map(rounded, (statistics.median(numbers), min(numbers), max(numbers)))
    return middle if low == high else f"{middle} ({low} to {high})"


def test_every_cell_of_every_table_is_the_median_and_range_of_the_committed_runs() -> None:
    tables = re.findall(r"^\| model .*\n\|[-:|]+\n(?:\|.*\n)+", README, re.MULTILINE)
    assert len(tables) == 2
    for table in tables:
        lines = [[cell.strip() for cell in x.strip("|").split("|")] for x in table.splitlines()]
        for model, *cells in lines[2:]:
            name = next(name for name, known in MODELS if known == model)
            runs = [run for run in RESULTS[name] if run["model"] == model]
            for column, told in zip(lines[0][1:], cells, strict=True):
                assert told == expected_cell([run[column] for run in runs]), (model, column)
        assert [line[0] for line in lines[2:]] == list(seq2seq.EXPERIMENTS[name].models)


@pytest.mark.parametrize("name", RESULTS)
def test_the_committed_runs_are_those_of_the_experiment_in_the_code(name: str) -> None:
    models, num_runs, runs = *seq2seq.EXPERIMENTS[name][:3:2], RESULTS[name]
    told = [(run["model"], int(run["seed"])) for run in runs]
    assert told == [(model, seed) for model in models for seed in range(num_runs)]
    for run in runs:
        settings = seq2seq.Settings(**models[run["model"]], seed=int(run["seed"]))
        expected = {name: str(value) for name, value in dataclasses.asdict(settings).items()}
        assert expected.items() <= run.items(), run["model"]
        assert set(seq2seq.EXPERIMENTS[name].columns) <= set(run)


@pytest.mark.parametrize(("name", "model"), MODELS)
def test_the_committed_runs_are_those_of_the_model_in_the_code(name: str, model: str) -> None:
    settings = seq2seq.Settings(**seq2seq.EXPERIMENTS[name].models[model])
    for step, loss, _ in seq2seq.train(seq2seq.Seq2Seq(settings), settings):
        if step == 20:
            break
    run = next(run for run in RESULTS[name] if run["model"] == model)
    assert float(run["loss at step 20"]) == pytest.approx(loss, rel=1e-4)


LENGTH, AT_17 = "90% right up to length", "exact match at length 17"
AT_18 = "exact match at length 18"
VECTOR = [f"no attention, {steps} steps" for steps in (200, 400, 800, 1600, 3200)]
SAID = [  # a sentence in which each number is the median of a model's column
    ("right up to {}, {}, {}, {} and {} letters", "bottleneck", VECTOR, [LENGTH] * 5),
    ("gets as far as {} letters,", "bottleneck", ["uniform attention, 400 steps"], [LENGTH]),
    ("dot attention gets as far as {}.", "bottleneck", ["dot attention, 400 steps"], [LENGTH]),
    ("no better than no attention, {}.", "bottleneck", [VECTOR[1]], [LENGTH]),
    ("training steps, still gets {}% of the", "bottleneck", ["default, 400 steps"], [AT_17]),
    ("alignment is {}%.)", "bottleneck", ["dot attention, 400 steps"], ["alignment"]),
    ("It gets {}% at 18 letters", "bottleneck", ["default, 400 steps"], [AT_18]),
]


@pytest.mark.parametrize(("sentence", "name", "models", "columns"), SAID)
def test_a_number_in_the_text_is_the_median_of_the_committed_runs(
    sentence: str, name: str, models: list[str], columns: list[str]
) -> None:
    numbers = [
        rounded(statistics.median(float(r[column]) for r in RESULTS[name] if r["model"] == model))
        for model, column in zip(models, columns, strict=True)
    ]
    assert sentence.format(*numbers) in TEXT


def test_a_range_in_the_text_is_that_of_the_committed_runs() -> None:
    def extremes(name: str, model: str, column: str) -> list[str]:
        numbers = [float(run[column]) for run in RESULTS[name] if run["model"] == model]
        return [rounded(min(numbers)), rounded(max(numbers))]

    _, additive, dot, _ = seq2seq.EXPERIMENTS["history"].models
    low, high = extremes("history", dot, "steps to 90%")
    assert f"it needs {low} to {high} training steps" in TEXT
    low, high = extremes("history", additive, "steps to 90%")
    assert f"the additive one {low} to {high}, and" in TEXT
    worst, _ = extremes("bottleneck", "default, 400 steps", AT_17)
    assert f"the worst gets {worst}%" in TEXT
