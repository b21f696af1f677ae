"""Statements about the experiments: what they change, what they measure, how they report it."""

import csv
import dataclasses
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import seq2seq, small
from torch import Tensor
from torch.nn import functional as F

EXPERIMENTS = seq2seq.EXPERIMENTS


def tell(settings: object) -> dict:
    """Measure nothing: return the settings."""
    return dataclasses.asdict(settings)


# Rows and runs


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_row_changes_what_it_names_and_each_of_its_runs_the_seed(name: str) -> None:
    experiment, settings = EXPERIMENTS[name]._replace(measure=tell), small(seed=5, lr=0.07)
    told = [(row, of_run) for row, _, of_run in seq2seq.run_jobs(experiment, settings, 2, 1)]
    runs = [(row, of_run["seed"]) for row, of_run in told]
    assert sorted(runs) == sorted((row, seed) for row in experiment.rows for seed in (5, 6))
    for row, of_run in told:
        assert of_run == tell(settings) | experiment.rows[row] | {"seed": of_run["seed"]}
    differing = {
        field for field, value in tell(settings).items() if any(r[field] != value for _, r in told)
    }
    assert set(seq2seq.settings_that_differ(experiment)) >= differing - {"seed"}


@pytest.mark.parametrize(
    ("name", "row"), [(name, row) for name in EXPERIMENTS for row in EXPERIMENTS[name].rows]
)
def test_a_rows_settings_are_what_its_name_says(name: str, row: str) -> None:
    settings = dataclasses.replace(seq2seq.Settings(), **EXPERIMENTS[name].rows[row])
    model = seq2seq.build_model(settings)
    is_blind = bool(re.search("without attention|no attention|one vector", row))
    is_plain = name == "alignment" and row != "the default"
    score = model.decoder.score
    assert (score is None) == is_blind
    assert isinstance(score, seq2seq.AdditiveScore) == ("additive" in row)
    assert isinstance(score, seq2seq.LocationScore) == ("location" in row)
    assert (score is seq2seq.dot_score) == (
        not re.search("additive|location", row) and not is_blind
    )
    assert (settings.task == "copy") == ("copying" in row)
    assert settings.teacher_forcing == (0 if "no teacher forcing" in row else 1)
    steps, numbers = re.search(r"([\d,]+) steps", row), re.search(r"(\d+) numbers", row)
    assert settings.steps == (int(steps[1].replace(",", "")) if steps else 400)
    assert settings.hidden_size == (int(numbers[1]) if numbers else 64)
    is_forward = is_blind or is_plain or "forward" in row
    is_backward = "bidirectional" in row or not is_forward
    assert (model.encoder.backward_gru is not None) == is_backward
    assert (settings.gates == "usual") == (is_plain and "forgetful" not in row)
    small_embeddings = not is_plain or "small embeddings" in row
    std = model.encoder.embedding.weight.std().item()
    assert std == pytest.approx(0.2 if small_embeddings else 1, rel=0.15)
    told = re.search(r"noise ([\d.]+)", row)
    if name != "history":  # where noise and learning rate are those that suit a row best
        assert settings.noise == (float(told[1]) if told else 0 if is_forward else 0.2)


def test_one_worker_and_two_measure_the_same() -> None:
    rows = {"reading": {"steps": 3}, "blind": {"attention": "none"}}
    experiment = EXPERIMENTS["bottleneck"]._replace(rows=rows)
    results = []
    for num_workers in (1, 2):
        runs = {}
        for row, settings, measured in seq2seq.run_jobs(experiment, small(), 2, num_workers):
            assert measured.pop("seconds") > 0
            runs[row, settings.seed] = measured
        results.append(runs)
    assert results[0] == results[1] and len(results[0]) == 4


def test_there_are_as_many_workers_as_cores_but_no_more_than_windows_can_wait_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for num_cores, num_workers in ((1, 1), (3, 3), (100, 61)):
        cores = set(range(num_cores))
        monkeypatch.setattr(
            seq2seq.os, "sched_getaffinity", lambda _, cores=cores: cores, raising=False
        )
        assert seq2seq.count_workers() == num_workers
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["__main__"], "__file__", "<stdin>", raising=False)
        assert seq2seq.count_workers() == 1, "a new process would not find the main module"
    monkeypatch.setattr(seq2seq.sys, "path", [])
    assert seq2seq.count_workers() == 1, "a new process would not find the script"


# Tables


def test_a_cell_tells_the_median_and_the_range() -> None:
    inf, nan, cell = math.inf, math.nan, seq2seq.cell
    assert cell([3.0, 1.0, 5.0, 2.1]) == "2.5 (1 to 5)" and cell([0.004, -0.0]) == "0"
    assert cell([99.95, 99.8, 100.0]) == "99.95 (99.8 to 100)" and cell([98.94, 10.4]).endswith(
        "99)"
    )
    assert cell([35949.4] * 2) == "35,949" and cell([150, inf, 130]) == "150 (130 to never)"
    assert (cell([inf, inf]), cell([nan, nan])) == ("never", "")
    assert (cell([True, False, True]), cell(["forward"] * 2)) == ("2 of 3", "forward")


def test_a_table_has_a_line_for_each_row_and_the_columns_asked_for() -> None:
    runs = {"one": [{"x": 1.0, "y": 7}, {"x": 2.0, "y": 7}], "two": [{"x": 3, "y": 8.04}] * 2}
    lines = ["| model | y | x |", "|---|--:|--:|", "| one | 7 | 1.5 (1 to 2) |", "| two | 8 | 3 |"]
    assert seq2seq.markdown_table(runs, ("y", "x")).splitlines() == lines


def test_the_raw_results_can_be_read_back_and_hold_no_pictures(tmp_path: Path) -> None:
    decoded = seq2seq.Decoded("ab", "ba", ["b", "a"], None, [1, 0])
    runs = {
        row: [{"row": row, "seed": seed, "x": 0.1 * seed, "word": decoded} for seed in (0, 1)]
        for row in ("one, with a comma", "übrig")
    }
    seq2seq.write_csv(runs, tmp_path / "some.csv")
    with (tmp_path / "some.csv").open(newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    expected = [(run["row"], run["seed"], run["x"]) for of_row in runs.values() for run in of_row]
    assert [(run["row"], int(run["seed"]), float(run["x"])) for run in read] == expected
    assert list(read[0]) == ["row", "seed", "x"]


def test_a_rule_is_right_where_what_it_predicted_came_true() -> None:
    def runs(*pairs: tuple[bool, bool]) -> list[dict]:
        return [{"rule": came, "rule, predicted": predicted} for came, predicted in pairs]

    runs_of = {
        "A": runs((True, True), *[(False, False)] * 2),
        "B": runs((True, False), (False, True)),
    }
    told = seq2seq.how_often_predicted(runs_of, "rule")
    assert re.findall(r"\d+", told) == ["3", "5", "2"] and "B 2" in told and "A" not in told


# Bottleneck and history, with a scripted training and evaluation


@pytest.fixture
def progress(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Script the training: step t ends after t / 4 seconds, and the model's state is t."""
    now = SimpleNamespace(step=0)

    def train(model: object, settings: object) -> Iterator[tuple[int, float, float]]:
        for now.step in range(1, settings.steps + 1):
            yield now.step, 1.0, now.step / 4

    monkeypatch.setattr(seq2seq, "train", train)
    return now


@pytest.mark.parametrize(
    ("exact_at", "min_length", "reached"),
    [
        ([96, 93, 90, 89.9, 50], 1, 3),
        ([95, 80, 95, 95, 95], 1, 1),
        ([99, 89, 99, 99, 99], 2, 1),
        ([95, 95, 95, 95, 95], 1, 5),
    ],
)
def test_the_bottleneck_asks_up_to_which_length_nine_of_ten_strings_are_right(
    progress: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    exact_at: list[float],
    min_length: int,
    reached: int,
) -> None:
    def evaluate(_: object, source: Tensor, lengths: Tensor, task: str) -> tuple[float, dict]:
        assert progress.step == 8 and task == "copy"
        if lengths.min() < lengths.max():
            assert len(source) == 2000 and lengths.max() == 4
            return 12.5, {}
        assert len(source) == 500
        return exact_at[int(lengths[0]) - 1], {}

    monkeypatch.setattr(seq2seq, "evaluate", evaluate)
    settings = small(max_length=4, min_length=min_length, steps=8, task="copy")
    assert seq2seq.measure_bottleneck(settings) == {
        "seconds": 2.0,
        "exact match": 12.5,
        "90% right up to length": reached,
        **{f"exact match at length {n}": exact_at[n - 1] for n in range(min_length, 6)},
    }


@pytest.mark.parametrize(
    ("exact_at", "steps_to_90"),
    [({10: 50, 20: 89.9, 30: 90, 40: 70}, 30), ({10: 1, 20: 89, 30: 2, 40: 89.5}, math.inf)],
)
@pytest.mark.parametrize("shares", [{}, {-1: 3.0, 0: 71.0, 1: 5.0}])
def test_the_history_asks_when_nine_of_ten_strings_are_right(
    progress: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    exact_at: dict[int, float],
    steps_to_90: float,
    shares: dict[int, float],
) -> None:
    def evaluate(_: object, source: Tensor, lengths: Tensor, task: str) -> tuple[float, dict]:
        assert len(source) == len(lengths) and len(source) in (200, 2000)
        return (exact_at[progress.step] if len(source) == 200 else 66.0), shares

    monkeypatch.setattr(seq2seq, "evaluate", evaluate)
    measured = seq2seq.measure_history(small(steps=44))
    assert math.isnan(measured.pop("alignment")) if not shares else measured.pop("alignment") == 71
    assert measured == {
        "ms per step": 250.0,
        "steps to 90%": steps_to_90,
        "seconds to 90%": steps_to_90 / 4,
        "exact match": 66.0,
        **{f"exact match at step {step}": share for step, share in exact_at.items()},
    }


# Alignment: decoders made by hand, which look and write by a known rule


def scripted(
    hill: dict[int, float], bonus: float = 0, matched: int = 0, written: int = 0, way: int = -1
) -> SimpleNamespace:
    """Return a model whose scores are `hill`, by columns to the right of the true one.

    Where the symbol that it reads stands `matched` columns further right, the score is `bonus`
    higher. It writes the symbol that stands `written` columns right of where it looks. It reverses
    if `way` is -1 and copies if it is 1.
    """

    def encoder(source: Tensor, lengths: Tensor) -> tuple[Tensor, None]:
        around = F.one_hot(F.pad(source, (1, 1)), 29).float()
        parts = [around[:, 1 + k : 1 + k + source.size(1)] for k in (matched, written)]
        return torch.cat(parts, dim=-1), None

    def score(query: Tensor, keys: Tensor) -> Tensor:
        t, s = torch.arange(query.size(1))[:, None], torch.arange(keys.size(1))
        offset = s - (t if way == 1 else keys.size(1) - 1 - t)
        return bonus * query @ keys[..., :29].mT + sum(
            height * (offset == k) for k, height in hill.items()
        )

    decoder = SimpleNamespace(
        embedding=lambda tokens: F.one_hot(tokens, 29).float(),
        gru=lambda embedded, hidden: (embedded, hidden),
        score=score,
        final_output=lambda query, context: context[..., 29:],
    )
    return SimpleNamespace(encoder=encoder, decoder=decoder)


LOOK_UP, LOOK_UP_NEXT, COUNT, COUNT_RIGHT, REPELLED, COPY = (
    scripted({}, bonus=20, written=-1),
    scripted({}, bonus=20, matched=1),
    scripted({0: 18, 1: 3}),
    scripted({0: 5, 1: 16}, written=-1),
    scripted({0: 16, 1: 16.5}, bonus=-12),
    scripted({}, bonus=20, written=1, way=1),
)


@pytest.mark.parametrize(
    ("model", "looks", "parts", "verdicts"),
    [
        (LOOK_UP, "read true +1, near goes, swap goes", {"content+1": 20}, (True, True)),
        (LOOK_UP_NEXT, "read true 0, near leaves, swap next", {"content+0": 20}, (False, True)),
        (
            COUNT,
            "read true 0, read lacking 0, swap 0",
            {"position+0": 18, "position+1": 3},
            (False, False),
        ),
        (
            COUNT_RIGHT,
            "read true +1, read lacking +1, swap +1",
            {"position+0": 5, "position+1": 16},
            (True, False),
        ),
        (
            REPELLED,
            "read true 0, read lacking +1, near leaves, swap +1",
            {"position+0": 16, "position+1": 16.5, "content+1": -12},
            (False, False),
        ),
        (COPY, "near goes, swap goes", {"content-1": 20}, (False, True)),
    ],
)
def test_substituted_symbols_tell_looking_up_from_counting(
    model: SimpleNamespace, looks: str, parts: dict[str, float], verdicts: tuple[bool, bool]
) -> None:
    settings = seq2seq.Settings(task="copy" if model is COPY else "reverse")
    found = seq2seq.substitute(model, seq2seq.probe_strings(settings), 26)
    places = {"0": ": true column", "+1": ": one column right", "goes": ": goes to the symbol"}
    places |= {"next": ": goes next to it", "leaves": ": leaves the true column"}
    names = {
        f"{name}{place}" for name in ("near", "swap", "read true") for place in places.values()
    }
    expected = {
        f"{name}{places[place]}" for name, place in (s.rsplit(" ", 1) for s in looks.split(", "))
    }
    for name in names & found.keys() | expected:
        assert found[name] == (100 if name in expected else 0), name
    assert found["swap: writes the neighbour"] == (
        100 if "swap goes" in looks or "swap next" in looks else 0
    )
    assert found["read lacking: right symbol"] == pytest.approx(
        100 if model in (COUNT, COUNT_RIGHT) else 0, abs=10
    )
    for k in range(-3, 4):
        for part in ("position", "content"):
            expected_part = parts.get(f"{part}{k:+d}", 0)
            assert found[f"{part} part at {k:+d}"] == pytest.approx(expected_part, abs=1e-4)
        # These models remember nothing but the last symbol.
        assert found[f"all lacking: score at {k:+d}"] == found[f"position part at {k:+d}"]
    for column in ("true column", "one column right"):
        assert found[f"read all lacking: {column}"] == found[f"read lacking: {column}"]
    assert (found["off by one, predicted"], found["follows a swap, predicted"]) == verdicts
    assert found["follows a swap"] == verdicts[1]


def test_a_search_for_a_symbol_read_earlier_shows_only_where_all_are_lacking() -> None:
    model = scripted({0: 5}, bonus=20)
    # Its state is the symbol read before the last, so it looks two columns right.
    model.decoder.gru = lambda embedded, hidden: (F.pad(embedded[:, :-1], (0, 0, 1, 0)), hidden)
    settings = seq2seq.Settings()
    found = seq2seq.substitute(model, seq2seq.probe_strings(settings), 26)
    assert found["position part at +2"] > 15 and found["content part at +2"] == 0
    assert found["all lacking: score at +2"] == pytest.approx(0, abs=1e-4)
    assert found["all lacking: score at +0"] == pytest.approx(5, abs=1e-4)
    assert found["read lacking: true column"] == 0 and found["read all lacking: true column"] == 100


def test_scores_around_the_true_column_are_relative_to_those_further_away() -> None:
    scores = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    true = [1, 5, 8]
    found = seq2seq.around_true(scores, torch.tensor(true)[:, None])
    assert list(found) == list(range(-3, 4))
    for k, mean in found.items():
        terms = []
        for row, at in zip(scores.tolist(), true, strict=True):
            far = [score for s, score in enumerate(row) if abs(s - at) > 3]
            terms += [row[at + k] - sum(far) / len(far)] if 0 <= at + k < 10 else []
        assert mean == pytest.approx(sum(terms) / len(terms), abs=1e-5)
    alone = seq2seq.around_true(scores[:1], torch.tensor([[0]]))
    assert math.isnan(alone[-1]) and not math.isnan(alone[0])


def test_the_probed_step_is_in_the_middle_and_its_symbols_stand_once() -> None:
    probe = seq2seq.probe_strings(seq2seq.Settings())
    assert len(probe.source) > 500 and set(probe.step.flatten().tolist()) == set(range(4, 13))
    for row in zip(*(part.tolist() for part in probe), strict=True):
        source, length, target, (step,), (true,), (previous,) = row
        assert length == 16 and (true, previous) == (15 - step, 16 - step)
        assert target[step] == source[true] and target == [*source[::-1], seq2seq.EOS]
        assert source.count(source[true]) == source.count(source[previous]) == 1


def test_all_weight_on_a_column_writes_what_a_model_finds_there() -> None:
    settings = seq2seq.Settings()
    source, _ = seq2seq.evaluation_strings(dataclasses.replace(settings, min_length=16))
    by_chance = seq2seq.percent(source[:, 1:] == source[:, :-1])  # the last has no neighbour
    count = seq2seq.intervene(COUNT, settings)
    assert count["all weight on true column: right"] == 100
    assert count["all weight on one column right: right"] == pytest.approx(by_chance)
    assert count["other context: its symbol"] == 100
    assert count["read random: right"] == count["read random: true column"] == 100
    assert count["wrong at doubled letters"] == count["wrong elsewhere"] == 0
    right = seq2seq.intervene(COUNT_RIGHT, settings)
    assert right["all weight on one column right: right"] > 93
    assert right["all weight on true column: right"] < 7
    assert right["read random: true column"] == pytest.approx(100 / 16), "at a string's end alone"
    look_up = seq2seq.intervene(LOOK_UP, settings)
    assert look_up["read random: right"] < 15 > look_up["read random: true column"]


def test_errors_at_doubled_letters_are_counted_apart() -> None:
    model = scripted({0: 50})  # it counts, but cannot write the symbol that it has just read
    model.decoder.final_output = lambda query, context: context[..., 29:] - 2 * query
    found = seq2seq.intervene(model, seq2seq.Settings())
    assert found["wrong at doubled letters"] == 100 and found["wrong elsewhere"] == 0
    assert found["read random: right"] == pytest.approx(100 * 25 / 26, abs=0.5)


def test_a_string_has_the_same_scores_whether_asked_in_parts_or_at_once() -> None:
    model = seq2seq.build_model(small(attention="additive"))
    source, lengths = seq2seq.evaluation_strings(small(), count=250)
    tokens = seq2seq.make_targets(source, lengths, "reverse")
    at_once = seq2seq.four_steps(model, source, lengths, tokens)
    for whole, parts in zip(at_once, seq2seq.in_parts(model, source, lengths, tokens), strict=True):
        torch.testing.assert_close(parts, whole)


def test_the_alignment_experiment_asks_a_model_on_the_way_and_at_the_end(
    progress: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def now() -> SimpleNamespace:  # it looks up for 100 steps, in two ways, then counts
        return LOOK_UP_NEXT if progress.step <= 50 else LOOK_UP if progress.step <= 100 else COUNT

    class Turning(SimpleNamespace):
        decoder = property(lambda self: now().decoder)
        encoder = property(lambda self: now().encoder)

    shares = {-2: 1.0, -1: 2.0, 0: 40.0, 1: 41.0, 2: 5.0}
    monkeypatch.setattr(seq2seq, "build_model", lambda settings: Turning())
    monkeypatch.setattr(seq2seq, "evaluate", lambda *_: (77.0, shares))
    run = seq2seq.measure_alignment(seq2seq.Settings(steps=150))
    assert {step: run[f"follows at step {step}"] for step in (50, 75, 100, 150)} == {
        **dict.fromkeys((50, 75, 100), 100),
        150: 0,
    }
    assert run["one column right at step 100"] == run["true column at step 150"] == 100
    assert run["one column right at step 150"] == run["true column at step 100"] == 0
    assert (run["exact match"], run["alignment"], run["off by -2"]) == (77, 40, 1)
    assert (run["off by +1"], run["off by -1"], run["off by one"]) == (41, 2, True)
    assert run["swap: true column"] == run["read random: right"] == 100
    for test in ("none", "swap", "near"):
        assert run[f"word, {test}"].output[:9] == "thgirypoc"
    # What it measures is what the figures and the table need.
    runs = {row: [run, run] for row in EXPERIMENTS["alignment"].rows}
    assert set(EXPERIMENTS["alignment"].columns) <= run.keys()
    for draw in EXPERIMENTS["alignment"].figures.values():
        assert draw(runs).axes


def test_a_word_is_read_as_it_is_or_with_one_symbol_replaced() -> None:
    settings = seq2seq.Settings()
    tests = ("none", "swap", "near")
    plain, swap, near = (seq2seq.read_word(LOOK_UP, settings, test) for test in tests)
    assert plain.word == swap.word == near.word == "copyright"
    assert plain.output[1:9] == "hgirypoc" and plain.positions == [*range(9)][::-1]
    assert swap.output[1:9] == "hgprypoc", "where it reads y for g, it writes the p before y"
    assert near.output[1:9] == "hgrrypoc", "where it reads i for g, it writes the r before i"
    assert [read.weights[3].argmax() for read in (plain, swap, near)] == [6, 3, 5]
