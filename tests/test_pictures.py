"""Statements about the figures: they show the numbers of the run, with labels, readable."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from conftest import decoded, scratch, seq2seq
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image


@pytest.fixture
def word() -> object:
    """Return a word of three symbols, reversed, with weights that are all different."""
    return decoded("a$b", "b$a", np.array([[0.1, 0.2, 0.7], [0.25, 0.6, 0.15], [0.9, 0.06, 0.04]]))


def assert_readable(figure: Figure) -> None:
    """Assert that text has 9 points where the figure is 8 inches wide, and axes have labels."""
    figure.draw_without_rendering()
    assert figure.get_figwidth() == 8
    texts = [text for text in figure.findobj(Text) if text.get_text().strip()]
    assert texts and all(text.get_fontsize() >= 9 for text in texts)
    for axes in figure.axes:
        box, size = axes.get_tightbbox(), figure.bbox
        assert min(box.x0, box.y0) > -2 and box.x1 < size.x1 + 2 and box.y1 < size.y1 + 2


def test_the_matrix_shows_the_weights_with_symbols_and_rings(word: object) -> None:
    figure = seq2seq.draw_attention(word)
    assert_readable(figure)
    axes, bar = figure.axes
    np.testing.assert_array_equal(axes.images[0].get_array(), word.weights)
    assert axes.images[0].get_clim() == (0, 1) and bar.get_ylabel() == "attention weight"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("source symbol", "symbol written")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "$", "b"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "$", "a"]
    assert list(axes.get_xticks()) == list(axes.get_yticks()) == [0, 1, 2]
    assert axes.get_ylim() == (2.5, -0.5) and axes.get_xlim() == (-0.5, 2.5), "first at the top"
    for rings in axes.lines:
        assert rings.get_xydata().tolist() == [[2, 0], [1, 1], [0, 2]]


def test_a_reading_is_labelled_with_what_was_read_and_what_was_written() -> None:
    reading = decoded("ab", ["b", "a", "EOS"], np.full((3, 2), 0.5), read="xy")
    axes = seq2seq.draw_attention(reading).axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["SOS → b", "x → a", "y → EOS"] and reading.output == "ba"
    assert axes.get_ylabel() == "symbol read → symbol written"
    assert axes.lines[0].get_xydata().tolist() == [[1, 0], [0, 1]], "no ring for EOS"


@pytest.mark.parametrize(("length", "num_rows"), [(1, 3), (24, 24), (512, 3), (3, 1025)])
def test_no_word_is_too_short_or_too_long_to_be_drawn(length: int, num_rows: int) -> None:
    weights = np.full((num_rows, length), 1 / length)
    figure = seq2seq.draw_attention(decoded(("$%\\_^{" * 90)[:length], "a" * num_rows, weights))
    assert_readable(figure)
    is_crowded = max(length, num_rows) > 24
    assert bool(figure.axes[0].lines) != is_crowded, "rings that would overlap are left out"


def test_the_animation_fills_row_by_row_and_shows_no_letter_before_it_is_written(
    word: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, annotate = [], seq2seq.Axes.annotate
    monkeypatch.setattr(
        seq2seq.Axes, "annotate", lambda *args, **kw: told.append(args[1]) or annotate(*args, **kw)
    )
    seq2seq.animate_decoding(word)(tmp_path / "some.gif")
    lines = [[line.split() for line in text.splitlines()] for text in told]
    assert lines == [[["source", "a$b"], ["written", x]] for x in ("b", "b$", "b$a")]
    heights, filled, durations = [], [], []
    with Image.open(tmp_path / "some.gif") as gif:
        assert gif.info["loop"] == 0, "for ever"
        for frame in range(gif.n_frames):
            gif.seek(frame)
            durations.append(gif.info["duration"])
            pixels = np.array(gif.convert("RGB")).astype(int)
            is_orange = np.abs(pixels - [230, 159, 0]).sum(axis=2) < 60
            columns = is_orange[:, : pixels.shape[1] // 2].sum(axis=0).tolist()
            groups = itertools.groupby(columns, bool)
            heights.append([max(group) for is_bar, group in groups if is_bar])
            # The matrix, without the colour bar beside it, in the middle of each row.
            right = pixels[:, pixels.shape[1] * 5 // 8 : pixels.shape[1] * 6 // 8]
            is_coloured = (np.ptp(right, axis=2) > 60).any(axis=1)
            filled.append(int(is_coloured.sum()))
    assert durations == [1000, 1000, 3000]
    scale = max(heights[2]) / 0.9
    np.testing.assert_allclose(np.array(heights) / scale, word.weights, atol=0.02)
    assert filled[0] > 50
    np.testing.assert_allclose(np.array(filled) / filled[0], [1, 2, 3], atol=0.05)


def test_the_loss_figure_shows_every_step_and_the_matrices_at_its_letters(word: object) -> None:
    losses = [10.0 ** (-step / 50) for step in range(400)]
    snapshots = {
        1 + 399 * k // 16: word._replace(weights=word.weights / (k + 1)) for k in range(17)
    }
    figure = seq2seq.draw_loss(losses, snapshots)
    assert_readable(figure)
    (curve,) = (axes for axes in figure.axes if axes.get_xlabel() == "training step")
    assert curve.get_ylabel() == "loss (nats per symbol)" and curve.get_ylim()[0] == 0
    np.testing.assert_array_equal(curve.lines[0].get_xydata(), [*enumerate(losses, start=1)])
    places = {
        letter: (step, losses[step - 1])
        for letter, step in zip("ABCD", (1, 50, 100, 400), strict=True)
    }
    assert {text.get_text(): text.xy for text in curve.texts} == places
    for letter, (step, _) in places.items():
        (panel,) = (axes for axes in figure.axes if axes.get_title() == f"{letter}: step {step}")
        np.testing.assert_array_equal(panel.images[0].get_array(), snapshots[step].weights)
        assert panel.get_xlabel() == "writes b$a"
    assert_readable(seq2seq.draw_loss([3.0], {1: word}))


def test_the_bottleneck_figure_shows_the_median_at_each_length() -> None:
    models, lengths = seq2seq.EXPERIMENTS["bottleneck"].models, range(1, 21)
    runs_of = {
        model: [
            {"steps": 7, **{f"exact match at length {n}": 95 - 5 * n - i + d for n in lengths}}
            for d in (-1, 0, 2)
        ]
        for i, model in enumerate(models)
    }
    figure = seq2seq.draw_bottleneck(runs_of)
    assert_readable(figure)
    axes = figure.axes[0]
    drawn = [line.get_ydata().tolist() for line in axes.lines if len(line.get_xdata())]
    shown = [i for i, model in enumerate(models) if model != "dot attention, 400 steps"]
    assert drawn == [[95 - 5 * n - i for n in lengths] for i in shown]
    labels = {text.get_text().strip() for text in axes.texts}
    assert labels == {"7", "never trained on"}
    looks = {(line.get_color(), line.get_linestyle(), line.get_linewidth()) for line in axes.lines}
    assert len({look[1:] for look in looks}) == len(looks) == 3, "told apart without colour"
    assert "source length" in axes.get_xlabel() and "right (%)" in axes.get_ylabel()


def test_the_alignment_figure_pairs_four_models_and_marks_where_each_looked_before() -> None:
    runs_of, weights = {}, np.random.default_rng(0).dirichlet(np.ones(9), (8, 11))
    for i, model in enumerate(seq2seq.EXPERIMENTS["alignment"].models):
        first = decoded("copyright", "thgirypoc" + "x", weights[2 * i, :10], "thgirypoc")
        second = decoded("copyright", "thgirypoc" + "xx", weights[2 * i + 1], "thgairypoc")
        runs_of[model] = [{"pictures": [first, second]}]
    figure = seq2seq.draw_alignment(runs_of)
    assert_readable(figure)
    panels = [axes for axes in figure.axes if axes.get_title().startswith("reads")]
    assert [axes.get_title() for axes in panels] == ["reads thgirypoc", "reads thgairypoc"] * 4
    pictures = [picture for (run,) in runs_of.values() for picture in run["pictures"]]
    for axes, picture in zip(panels, pictures, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), picture.weights)
    for left, right in zip(pictures[::2], panels[1::2], strict=True):
        (squares,) = (line for line in right.lines if line.get_marker() == "s")
        # The a is read in row 4; in row r + 1 the letter that on the left is read in row r.
        expected = [[left.weights[r].argmax(), r + 1] for r in range(4, 10)]
        assert squares.get_xydata().tolist() == expected
        (frame,) = right.patches
        ends = right.transData.inverted().transform(frame.get_extents())[:, 1]
        assert sorted(ends) == pytest.approx([3.5, 4.5])
    assert any("square" in axes.get_xlabel() for axes in figure.axes)


def test_the_figure_of_the_worked_example_is_readable() -> None:
    assert_readable(scratch.draw_example(scratch.worked_example()))
