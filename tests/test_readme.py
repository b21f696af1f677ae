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
from lesson import ROOT, scratch, seq2seq

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
COLUMNS = {name: seq2seq.EXPERIMENTS[name].columns for name in RESULTS}
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
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []
    monkeypatch.setattr(seq2seq, "run", lambda *given: ran.append(given) or True)
    monkeypatch.chdir(ROOT)
    commands = [block.splitlines() for language, block in BLOCKS if language == "bash"]
    lines = [line.strip() for line in itertools.chain(*commands)]
    assert lines[:3] == [
        "python3 -m venv .venv",
        "source .venv/bin/activate",
        "python -m pip install -r requirements.txt",
    ]
    assert lines[3:6] == ["python 00_scratch.py", "python 01_pytorch.py", "python -m pytest"]
    for line in lines[6:]:
        python, script, *words = shlex.split(line)
        assert (python, script) == ("python", "01_pytorch.py")
        seq2seq.main(words)
        assert words[words.index("--assets") + 1].startswith("out/")
    assert len(ran) == len(lines) - 6 == 2
    # The flags of a model in the text are those of the experiment.
    (flags,) = re.findall(r"For plain, add `(--[^`]+)` to the second command", TEXT)
    seq2seq.main(["--noise", "0", *flags.split(), "--assets", "out/plain"])
    assert ran[-1][0] == seq2seq.Settings(**seq2seq.EXPERIMENTS["alignment"].models["plain"])
    with pytest.raises(SystemExit):
        seq2seq.main(["--help"])
    known = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    assert set(re.findall(r"--[a-z][a-z-]+", README + SCRIPTS)) <= known


def test_every_line_of_code_quoted_and_every_name_is_in_the_scripts() -> None:
    quoted = [block.splitlines() for language, block in BLOCKS if language == "python"]
    quoted = [line for line in itertools.chain(*quoted) if line]
    assert len(quoted) > 12
    for line in quoted:
        assert f"{line}\n" in SCRIPTS or f"{line}  #" in SCRIPTS, line
    for name in re.findall(r"(?<!\$)`([A-Za-z_]\w+)`", PROSE):
        assert re.search(rf"\b{name}\b", SCRIPTS) or name in ("scaled",), name


def test_the_numbers_of_the_worked_example_are_those_of_the_script() -> None:
    section = README[README.index("## 4.") : README.index("**How looking is learnt.")]
    query, keys, mask, W_c, W_s = scratch.worked_example()
    context, _ = scratch.dot_product_attention(query, keys, mask)
    (combined,) = scratch.attentional_state(context[:1], query[:1], W_c)
    printed = set(re.findall(r"\d\.\d{3}", scratch.report()))
    told = set(re.findall(r"\d\.\d{3}", section))
    assert len(told) >= 8 and told <= printed | {f"{value:.3f}" for value in combined}
    logits = W_s @ combined
    assert f"= {logits[0]:.2f}`$" in section and f"= {logits[1]:.2f}`$" in section
    tabled = re.findall(r"^\| (?:query|key of).*\|$", section, re.MULTILINE)
    rows = [[cell.strip() for cell in line.strip("|").split("|")[1:]] for line in tabled]
    columns = [scratch.FEATURES.index(x) for x in ("noun", "subject", "object", "animal", "liquid")]
    words = list(scratch.SOURCE)
    vectors = [query[0], keys[words.index("cat")], keys[words.index("milk")]]
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


def values_of(name: str, model: str, column: str) -> list[float]:
    """Return a column of the committed runs of a model."""
    return [float(run[column]) for run in RESULTS[name] if run["model"] == model]


def test_every_cell_of_every_table_is_the_median_and_range_of_the_committed_runs() -> None:
    tables = re.findall(r"^\| model .*\n\|[-:|]+\n(?:\|.*\n)+", README, re.MULTILINE)
    assert len(tables) == 2
    for table in tables:
        lines = [[cell.strip() for cell in x.strip("|").split("|")] for x in table.splitlines()]
        (name,) = (name for name, columns in COLUMNS.items() if lines[0][1:] == list(columns))
        for model, *cells in lines[2:]:
            for column, told in zip(lines[0][1:], cells, strict=True):
                assert told == seq2seq.cell(values_of(name, model, column)), (model, column)
        assert [line[0] for line in lines[2:]] == list(seq2seq.EXPERIMENTS[name].models)


@pytest.mark.parametrize("name", RESULTS)
def test_the_committed_runs_are_those_of_the_experiment_in_the_code(name: str) -> None:
    models, runs = seq2seq.EXPERIMENTS[name].models, RESULTS[name]
    told = [(run["model"], int(run["seed"])) for run in runs]
    assert told == [(model, seed) for seed in range(5) for model in models]
    for run in runs:
        settings = seq2seq.Settings(**models[run["model"]], seed=int(run["seed"]))
        expected = {name: str(value) for name, value in dataclasses.asdict(settings).items()}
        assert expected.items() <= run.items(), run["model"]
        assert set(COLUMNS[name]) <= set(run)


@pytest.mark.parametrize(("name", "model"), MODELS)
def test_the_committed_runs_are_those_of_the_model_in_the_code(name: str, model: str) -> None:
    settings = seq2seq.Settings(**seq2seq.EXPERIMENTS[name].models[model])
    losses = seq2seq.train(seq2seq.Seq2Seq(settings), settings)
    *_, (_, loss, _) = itertools.islice(losses, 20)
    run = next(run for run in RESULTS[name] if run["model"] == model)
    assert float(run["loss at step 20"]) == pytest.approx(loss, rel=1e-4)


LENGTH = "90% right up to length"
VECTOR = [f"no attention, {steps} steps" for steps in (200, 400, 800, 1600, 3200)]
SAID = [  # a sentence in which each number is the median of a model's column
    ("are right up to {}, {}, {}, {} and {} letters", "bottleneck", VECTOR, LENGTH),
    ("It gets no further than {} letters", "bottleneck", ["uniform attention"], LENGTH),
    ("400 training steps get as far as {}.", "bottleneck", ["dot attention"], LENGTH),
]


@pytest.mark.parametrize(("sentence", "name", "models", "column"), SAID)
def test_a_number_in_the_text_is_the_median_of_the_committed_runs(
    sentence: str, name: str, models: list[str], column: str
) -> None:
    medians = [statistics.median(values_of(name, model, column)) for model in models]
    assert sentence.format(*map(round, medians)) in TEXT


def test_what_three_models_write_of_twenty_letters_is_what_they_wrote() -> None:
    runs, word = RESULTS["alignment"], seq2seq.LONG_WORD
    for run in runs[:3]:
        assert re.search(rf"^{run['model']} +{run['writes']} ", README, re.MULTILINE), run["model"]
    # In every seed plain is right, the default leaves a hole, and the other one stops early.
    answer = word[::-1]
    holes = {answer[:i] + answer[j:] for i in range(1, 20) for j in range(i + 1, 20)}
    early = {answer[:i] for i in range(1, 20)}
    expected = {"default": holes, "default, no noise": early, "plain": {answer}}
    assert all(run["writes"] in expected[run["model"]] for run in runs) and len(runs) == 15


def test_the_dot_score_and_mostly_teacher_forcing_save_steps_with_the_same_seed() -> None:
    default, additive, free = (
        values_of("speed", model, "steps to 90%") for model in seq2seq.EXPERIMENTS["speed"].models
    )
    assert max(default) < min(additive)
    assert [few < many for few, many in zip(default, free, strict=True)].count(True) == 4
    assert "in four seeds of five it saves steps" in TEXT


def test_plain_is_right_most_often_on_long_words_of_different_letters_and_least_within_16() -> None:
    models = seq2seq.EXPERIMENTS["alignment"].models

    def values(column: str) -> tuple[list[float], list[float]]:
        default, no_noise, plain = (values_of("alignment", model, column) for model in models)
        return plain, default + no_noise

    for length in (18, 20):
        plain, others = values(f"right at {length} different letters")
        assert min(plain) > max(others)
    plain, others = values("exact match")
    assert max(plain) < min(others)
