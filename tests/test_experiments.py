"""Statements about the experiments: what they change, what they measure, and how they report it."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import SMALL, seq2seq
from torch import Tensor, nn


def tell(settings: tuple) -> dict:
    """Measure nothing: return the settings."""
    return settings._asdict()


def test_a_row_changes_what_it_names_and_each_run_the_seed() -> None:
    settings = seq2seq.Settings(**SMALL)._replace(seed=5)
    rows = {
        row: new
        for experiment in seq2seq.EXPERIMENTS.values()
        for row, new in experiment.rows.items()
    }
    runs = [
        (row, told)
        for row, _, told in seq2seq.run_rows(seq2seq.Experiment(rows, tell, None), settings, 2, 1)
    ]
    assert (
        len(runs)
        == 2 * len(rows)
        == 2 * sum(len(experiment.rows) for experiment in seq2seq.EXPERIMENTS.values())
    )
    for row, told in runs:
        assert told == settings._asdict() | rows[row] | {"seed": told["seed"]}
    assert sorted((row, told["seed"]) for row, told in runs) == sorted(
        (row, seed) for row in rows for seed in (5, 6)
    )
    assert seq2seq.EXPERIMENTS["alignment"].rows["the default"] == {}


def test_one_worker_and_two_measure_the_same() -> None:
    rows = {"reading": {}, "blind": {"attention": "none"}, "copying": {"task": "copy"}}
    experiment = seq2seq.Experiment(rows, seq2seq.measure_bottleneck, seq2seq.draw_bottleneck)
    tables = []
    for workers in (1, 2):
        results = {row: {} for row in rows}
        for row, settings, measured in seq2seq.run_rows(
            experiment, seq2seq.Settings(**SMALL), 2, workers
        ):
            assert measured.pop("seconds") > 0
            results[row][settings.seed] = measured
        tables.append(
            seq2seq.markdown_table({row: [runs[0], runs[1]] for row, runs in results.items()})
        )
    assert tables[0] == tables[1] and len(tables[0].splitlines()) == 5


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([3.0, 1.0, 2.0], "2 (1 to 3)"),
        ([99.95, 99.8, 100.0], "99.95 (99.8 to 100)"),
        ([35949, 35949], "35,949"),
        ([150, math.inf, 130], "150 (130 to never)"),
        ([math.nan, math.nan], "none"),
        ([0.004, 0.0], "0"),
    ],
)
def test_a_cell_tells_the_median_and_the_range(values: list[float], told: str) -> None:
    assert seq2seq.median_and_range(values) == told


def test_a_table_has_a_line_for_each_row_and_a_column_for_each_number() -> None:
    results = {
        "one": [{"x": 1.0, "curve": []}, {"x": 2.0, "curve": []}],
        "two": [{"x": 3, "curve": []}] * 2,
    }
    assert seq2seq.markdown_table(results).splitlines() == [
        "| model | x |", "|---|--:|", "| one | 1.5 (1 to 2) |", "| two | 3 |"
    ]  # fmt: skip


def scripted(
    choose: Callable[[Tensor, int, int], int | None], neighbour: int
) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return a model that looks where `choose(source, t, read)` says and writes the symbol `neighbour` places on.

    Without a place it looks at the first symbol and writes EOS.
    """

    def model(source: Tensor, lengths: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        weights = torch.zeros(*tokens.shape, source.size(1))
        logits = torch.zeros(*tokens.shape, 29)
        for b, t in np.ndindex(*tokens.shape):
            place = choose(source[b], t, int(tokens[b, t]))
            weights[b, t, place or 0] = 1
            logits[b, t, 2 if place is None else source[b, min(15, max(0, place + neighbour))]] = 1
        return logits, weights

    return model


def test_the_swap_test_tells_looking_up_from_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(source: Tensor, t: int, read: int) -> int | None:
        return next((place for place in range(16) if source[place] == read), None)

    def look_up_next(source: Tensor, t: int, read: int) -> int | None:
        return next((place - 1 for place in range(1, 16) if source[place] == read), None)

    def count(source: Tensor, t: int, read: int) -> int:
        return max(0, 15 - t)

    settings, strings = seq2seq.Settings(), seq2seq.evaluation_strings
    monkeypatch.setattr(seq2seq, "evaluation_strings", lambda settings: strings(settings, 100))
    names = [
        "stays",
        "one column right",
        "on that symbol",
        "next to it",
        "writes its neighbour",
        "writes the right one",
    ]
    for choose, neighbour, swap, control in (
        (look_up, -1, [0, 0, 100, 0, 100, None], [0, 0, 0]),
        (look_up_next, 0, [0, 0, 0, 100, 100, None], [0, 0, 0]),
        (count, 0, [100, 0, 0, 0, None, 100], [100, 0, 100]),
        (lambda source, t, read: min(15, 16 - t), -1, [0, 100, 0, 0, None, 100], [0, 100, 100]),
    ):
        shares = seq2seq.swap_test(scripted(choose, neighbour), settings)
        for name, expected in zip(names, swap, strict=True):
            share = shares[f"swap: {name}"]
            assert share == expected if expected is not None else share < 15, (
                name,
                "by chance, a 26th",
            )
        assert [shares[f"control: {name}"] for name in (names[0], names[1], names[-1])] == control
    copying = seq2seq.swap_test(scripted(look_up, 1), settings._replace(task="copy"))
    assert copying["swap: on that symbol"] == copying["swap: writes its neighbour"] == 100
    repeat = seq2seq.swap_test(scripted(look_up, -1), settings)["repeat: on that symbol"]
    assert 10 < repeat < 90, (
        "one that goes by the symbol alone takes the first of two, which is often the wrong one"
    )


def test_the_swap_test_without_a_fitting_string_is_none() -> None:
    settings = seq2seq.Settings(alphabet="ab", steps=1)
    assert (
        seq2seq.median_and_range(
            [seq2seq.swap_test(seq2seq.build_model(settings), settings)["control: stays"]]
        )
        == "none"
    )


def test_the_default_model_counts_uses_what_it_looks_at_and_is_lost_without(
    trained: nn.Module,
) -> None:
    settings = seq2seq.Settings()
    shares = seq2seq.swap_test(trained, settings)
    source, lengths = seq2seq.evaluation_strings(settings._replace(min_length=16))
    read = seq2seq.previous_tokens(torch.randint(seq2seq.FIRST_SYMBOL, 29, source.shape))
    _, weights = trained(source, lengths, read)
    assert (weights.argmax(dim=-1) == torch.arange(15, -1, -1)).double().mean() > 0.95, (
        "whatever it reads"
    )
    assert shares["swap: stays"] > 95 and shares["control: writes the right one"] > 95
    exact = {
        shift: seq2seq.exact_match_attending(
            trained, *seq2seq.evaluation_strings(settings), "reverse", shift
        )
        for shift in (0, 1, None)
    }
    assert exact[0] > 95 and exact[1] < 20 and exact[None] < 20


def test_all_weight_on_a_column_is_what_a_score_that_chooses_it_gives() -> None:
    settings = seq2seq.Settings(**SMALL)._replace(
        alphabet="ab", max_length=2, min_length=2, steps=80, batch_size=64
    )
    model = seq2seq.build_model(settings)
    list(seq2seq.train(model, settings))
    source, lengths = seq2seq.evaluation_strings(settings, 200)
    own, asked = (
        model.decoder.score,
        seq2seq.exact_match_attending(model, source, lengths, "reverse", 1),
    )
    step = [0]

    def score(query: Tensor, keys: Tensor) -> Tensor:
        step[0] += (
            1  # the true positions are 1 and 0, a column to the right of them 1 (there is no more) and 1
        )
        return (
            own(query, keys)
            if step[0] == 3
            else torch.tensor([[[-1e9, 0.0]]]).expand(len(query), -1, -1)
        )

    model.decoder.score = score
    assert (
        seq2seq.evaluate(model, source, lengths, "reverse")[0] == pytest.approx(asked)
        and 0 < asked < 100
    )


def test_exact_match_by_length_tells_trained_lengths_from_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = seq2seq.Settings(**SMALL)._replace(max_length=4)
    monkeypatch.setattr(
        seq2seq,
        "evaluate",
        lambda model, source, lengths, task: (97.0 - 10 * lengths.max().item(), None),
    )
    measured = seq2seq.measure_bottleneck(settings._replace(min_length=2))
    assert measured["by length"] == {2: 77, 3: 67, 4: 57} and measured["beyond"] == {5: 47}
    assert measured["at the longest trained"] == measured["exact match"] == 57
    assert measured["90 % right up to length"] == 0
    monkeypatch.setattr(
        seq2seq,
        "evaluate",
        lambda model, source, lengths, task: (99.0 - 3 * lengths.max().item(), None),
    )
    assert seq2seq.measure_bottleneck(settings)["90 % right up to length"] == 3


def test_the_alignment_that_is_measured_is_that_of_the_trained_model() -> None:
    settings = seq2seq.Settings(**SMALL)._replace(
        alphabet="ab", max_length=3, steps=40, batch_size=64
    )
    measured, model = seq2seq.measure_alignment(settings), seq2seq.build_model(settings)
    list(seq2seq.train(model, settings))
    exact_match, shifts = seq2seq.evaluate(model, *seq2seq.evaluation_strings(settings), "reverse")
    assert measured["exact match"] == exact_match
    assert [measured[name] for name in ("-2", "-1", "true column", "+1", "+2")] == shifts
    written = seq2seq.write(model, "aba", settings)
    assert measured["written"].word == "aba" and measured["written"].output == written.output
    np.testing.assert_array_equal(measured["written"].weights, written.weights)


def one_result(**numbers: object) -> dict:
    """Return made-up measurements that serve every experiment's figure."""
    weights = np.eye(3)[::-1]
    swap = {
        f"swap: {name}": 25.0
        for name in ("stays", "one column right", "on that symbol", "next to it")
    }
    lengths = {"by length": {1: 100.0, 2: 50.0}, "beyond": {3: 0.0}, "steps": 400}
    written = seq2seq.Written("abc", "cba", list("cba"), weights, [2, 1, 0])
    return {"written": written, "curve": [(0, 0, 0), (10, 1.5, 60.0)], **lengths, **swap, **numbers}


def test_the_figures_show_medians_ranges_and_untrained_lengths() -> None:
    curves = ([(0, 0, 0), (10, 1.0, low), (20, 2.0, 100)] for low in (10, 20, 60))
    runs = [
        one_result(curve=curve, **{"swap: stays": share})
        for curve, share in zip(curves, (5, 7, 90), strict=True)
    ]
    by_step, by_second = seq2seq.draw_history(dict.fromkeys(seq2seq.HISTORY.rows, runs)).axes
    assert by_step.lines[0].get_xydata().tolist() == [[0, 0], [10, 20], [20, 100]]
    assert by_second.lines[0].get_xdata().tolist() == [0, 1, 2] and len(by_step.lines) == 5
    assert [60, 10] in [
        vertex.astype(int)[::-1].tolist()
        for vertex in by_step.collections[0].get_paths()[0].vertices
    ]

    panels = seq2seq.draw_bottleneck({row: [one_result()] for row in seq2seq.BOTTLENECK.rows}).axes
    for panel in panels:
        assert panel.lines[0].get_xydata().tolist() == [[1, 100], [2, 50], [3, 0]]
        assert (
            np.ravel(panel.patches[0].get_xy())[0] == 2.5
            and panel.texts[0].get_text() == "never trained"
        )

    axes = seq2seq.draw_alignment(dict.fromkeys(seq2seq.ALIGNMENT.rows, runs)).axes
    assert axes[0].get_title() == "forward, std 1, noise 0" and axes[2].get_title() == "the default"
    assert [bar.get_height() for bar in axes[3].patches] == [7, 25, 25, 25]
    assert sorted(line.get_ydata()[0] for line in axes[3].lines) == [5, 7, 90]
