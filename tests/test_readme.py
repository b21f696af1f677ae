"""Statements about the README: what it shows and quotes is there, its numbers are the results."""

import csv
import dataclasses
import itertools
import re
import shlex
import statistics
from pathlib import Path

import pytest
from lesson import ROOT, scratch, seq2seq

README = (ROOT / "README.md").read_text(encoding="utf-8")
SCRIPTS = "".join(
    (ROOT / name).read_text(encoding="utf-8") for name in ("00_scratch.py", "01_pytorch.py")
)
BLOCKS = re.findall(r"^ *```(\w+)\n(.*?)^ *```", README, re.DOTALL | re.MULTILINE)
TEXT = " ".join(README.split())
EXPERIMENTS = seq2seq.EXPERIMENTS


def read_results(name: str) -> list[dict[str, str]]:
    with (ROOT / "assets" / f"pytorch_{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


RESULTS = {name: read_results(name) for name in EXPERIMENTS}
MODELS = [(name, model) for name in RESULTS for model in EXPERIMENTS[name].models]


def values_of(name: str, model: str, column: str) -> list[float]:
    return [float(run[column]) for run in RESULTS[name] if run["model"] == model]


def test_every_figure_is_shown_with_a_description() -> None:
    drawn = {path.name for path in (ROOT / "assets").iterdir() if path.suffix in (".png", ".gif")}
    shown = re.findall(r"!\[[^\]]{20,}\]\(assets/([^)]+)\)", README)
    shown += re.findall(r'<img src="assets/([^"]+)".* alt="[^"]{20,}"', README)
    assert set(shown) == drawn and len(shown) == len(drawn)


def test_every_command_can_be_typed_and_keeps_the_committed_results(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []
    for name in ("run", "run_experiment"):
        monkeypatch.setattr(seq2seq, name, lambda *given: ran.append(given) or True)
    monkeypatch.chdir(ROOT)
    commands = [block.splitlines() for language, block in BLOCKS if language == "bash"]
    start, tests, (figure, no_noise) = commands
    scripts = ["python 00_scratch.py", "python 01_pytorch.py", "python -m pytest"]
    assert [line for line in start + tests if line.startswith("python ")][1:] == scripts
    # The flags of a model in the text are those of the experiment, its word that of the figure.
    (flags,) = re.findall(r"\*plain\*, also has no noise, [^`]+: `(--[^`]+)`", TEXT)
    default, plain = (no_noise.replace("--noise 0", x) for x in ("", flags))
    for command in (figure, default, no_noise, plain):
        python, script, *words = shlex.split(command)
        assert (python, script) == ("python", "01_pytorch.py")
        seq2seq.main(words)
    word, reading, folder = seq2seq.WORD, seq2seq.READING, Path("out/no_noise")
    models = EXPERIMENTS["alignment"].models.values()
    settings = [(seq2seq.Settings(**model), word, reading, folder) for model in models]
    assert ran == [("alignment", range(1), "cpu", Path("out")), *settings]
    with pytest.raises(SystemExit):
        seq2seq.main(["--help"])
    known = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    assert set(re.findall(r"--[a-z][a-z-]+", README + SCRIPTS)) <= known


def test_every_line_of_code_quoted_is_in_the_scripts() -> None:
    quoted = [block.splitlines() for language, block in BLOCKS if language == "python"]
    quoted = [line.strip() for line in itertools.chain(*quoted) if line]
    assert len(quoted) >= 8
    for line in quoted:
        assert f" {line}\n" in SCRIPTS or f" {line}  #" in SCRIPTS, line


def test_the_numbers_of_the_worked_example_are_those_of_the_script() -> None:
    section = README[README.index("## 4.") : README.index("**How it learns")]
    query, keys, mask, W_c, W_s = scratch.worked_example()
    context, _ = scratch.dot_product_attention(query, keys, mask)
    (combined,) = scratch.attentional_state(context[:1], query[:1], W_c)
    printed = set(re.findall(r"\d\.\d{3}", scratch.report()))
    told = set(re.findall(r"\d\.\d{3}", section))
    assert len(told) >= 7 and told <= printed | {f"{value:.3f}" for value in combined}
    assert f"= {W_s[0] @ combined:.2f}`$" in section
    # The scores of the seven words, in the order of the sentence and in the softmax for "cat".
    scores = [round(score) for score in keys[mask] @ query[0]]
    assert f"In order, the keys score {', '.join(map(str, scores))}." in " ".join(section.split())
    assert sorted(scores) == [0, 0, 0, 2, 2, 2, 4] and "e^4 / (e^4 + 3 e^2 + 3 e^0)" in section
    tabled = re.findall(r"^\| (?:query|key of).*\|$", section, re.MULTILINE)
    rows = [[cell.strip() for cell in line.strip("|").split("|")[1:]] for line in tabled]
    columns = [scratch.FEATURES.index(x) for x in ("noun", "subject", "object", "animal", "liquid")]
    words = list(scratch.SOURCE)
    vectors = [query[0], keys[words.index("cat")], keys[words.index("milk")]]
    for row, vector in zip(rows, vectors, strict=True):
        assert row[:5] == [f"{vector[c]:.0f}" if vector[c] else "" for c in columns]
        assert row[5] == (f"{vector @ vectors[0]:.0f}" if vector is not vectors[0] else "")


def test_every_cell_of_every_table_is_the_median_and_range_of_the_committed_runs() -> None:
    tables = re.findall(r"^\| model .*\n\|[-:|]+\n(?:\|.*\n)+", README, re.MULTILINE)
    shown = []
    for table in tables:
        lines = [[cell.strip() for cell in x.strip("|").split("|")] for x in table.splitlines()]
        (_, *columns), _, *rows = lines
        (name,) = (name for name in RESULTS if set(columns) <= set(EXPERIMENTS[name].columns))
        for model, *cells in rows:
            for column, told in zip(columns, cells, strict=True):
                assert told == seq2seq.cell(values_of(name, model, column)), (model, column)
        assert [model for model, *_ in rows] == list(EXPERIMENTS[name].models)
        shown += columns
    expected = EXPERIMENTS["speed"].columns + EXPERIMENTS["alignment"].columns
    assert sorted(shown) == sorted(expected), "each once"


@pytest.mark.parametrize("name", RESULTS)
def test_the_committed_runs_are_those_of_the_experiment_in_the_code(name: str) -> None:
    models, runs = EXPERIMENTS[name].models, RESULTS[name]
    told = [(run["model"], int(run["seed"])) for run in runs]
    assert told == [(model, seed) for seed in range(5) for model in models]
    for run in runs:
        settings = seq2seq.Settings(**models[run["model"]], seed=int(run["seed"]))
        expected = {name: str(value) for name, value in dataclasses.asdict(settings).items()}
        assert expected.items() <= run.items(), run["model"]


@pytest.mark.parametrize(("name", "model"), MODELS)
def test_the_committed_runs_are_those_of_the_model_in_the_code(name: str, model: str) -> None:
    settings = seq2seq.Settings(**EXPERIMENTS[name].models[model])
    losses = seq2seq.train(seq2seq.Seq2Seq(settings), settings)
    *_, (_, loss, _) = itertools.islice(losses, 20)
    assert values_of(name, model, "loss at step 20")[0] == pytest.approx(loss, rel=1e-4)


def test_the_lengths_in_the_text_are_the_medians_of_the_committed_runs() -> None:
    models, column = EXPERIMENTS["bottleneck"].models, "90% right up to length"
    medians = [round(statistics.median(values_of("bottleneck", x, column))) for x in models]
    for sentence, lengths in (
        ("200 training steps are enough for {} letters", medians[:1]),
        ("400 for {}, 800 for {}, 1,600 for {}, and 3,200 for {}.", medians[1:5]),
        ("With attention, 400 steps reach {}.", medians[6:]),
    ):
        assert sentence.format(*lengths) in TEXT
    _, none, *_, uniform, _ = models
    for length in range(1, 17):
        less, more = (
            values_of("bottleneck", x, f"right at {length} random letters") for x in (uniform, none)
        )
        assert statistics.median(less) <= statistics.median(more)
    assert min(values_of("bottleneck", [*models][4], "right at 16 random letters")) > 50


def test_what_three_models_write_of_twenty_letters_is_what_they_wrote() -> None:
    runs, answer = RESULTS["alignment"], seq2seq.LONG_WORD[::-1]
    for run in runs[:3]:
        assert re.search(rf"^{run['model']} +{run['writes']} ", README, re.MULTILINE), run["model"]
    default, no_noise, plain = (run["writes"] for run in runs[:3])
    assert no_noise == answer[:-2] and plain == answer
    # Four defaults begin as they should, and go on as with fewer letters.
    holes = {answer[:i] + answer[-n:][i:] for n in (16, 17) for i in range(1, n)}
    assert default in holes and [run["writes"] in holes for run in runs[::3]].count(True) == 4
    assert "with four of five seeds, its later weights mostly lie on the diagonal" in TEXT


def test_the_dot_score_and_teacher_forcing_save_steps_and_seconds_with_each_seed() -> None:
    default, *others = EXPERIMENTS["speed"].models
    for column in ("steps to 90%", "seconds to 90%"):
        own = values_of("speed", default, column)
        for other in others:
            pairs = zip(own, values_of("speed", other, column), strict=True)
            assert all(less < more for less, more in pairs), (other, column)


def test_within_the_trained_lengths_the_default_is_best_and_beyond_them_it_is_lost() -> None:
    default, no_noise, plain = EXPERIMENTS["alignment"].models

    def of(column: str) -> list[list[float]]:
        return [values_of("alignment", model, column) for model in (default, no_noise, plain)]

    for counts, *listen in zip(*of("exact match"), strict=True):
        assert counts > max(listen)
    # At twenty letters, each looks as it did: by the step, or by what it reads.
    counting, listening = of("counts at 20 letters"), of("listens at 20 letters")
    assert min(counting[0]) > 80 and max(listening[0]) < 1
    assert max(counting[1] + counting[2]) < 2 and min(listening[1] + listening[2]) > 85
    # The default is lost even if it may not stop; the second mostly only stops too early; plain
    # does not stop before it has gone wrong.
    right, held_back = of("right at 20 different letters"), of("right if EOS is held back")
    assert not any(right[0]) and max(held_back[0]) < 30
    assert max(right[1]) < 75 and min(held_back[1]) > 85
    assert right[2] == pytest.approx(held_back[2], abs=1)
    assert [x < y for x, y in zip(right[1], right[2], strict=True)].count(True) == 4
    # Plain is misled by repeated letters.
    assert max(of("right at 20 random letters")[2]) < min(right[2])
