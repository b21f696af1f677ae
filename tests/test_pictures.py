"""Statements about the figures: they show the numbers of the run, with labels, readable."""

from pathlib import Path

import numpy as np
import pytest
from lesson import decoded, scratch, seq2seq
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

WEIGHTS = np.array([[0.1, 0.2, 0.7], [0.25, 0.6, 0.15], [0.9, 0.06, 0.04], [0.5, 0.2, 0.3]])


@pytest.fixture
def word() -> object:
    return decoded("W$b", ["SOS", *"b$W"], [*"b$W", "EOS"], WEIGHTS)


def texts_of(figure: Figure) -> list[str]:
    """Return all text in a figure, after asserting that it can be read and that none overlaps.

    That is: 9 points at 100 pixels an inch, nothing outside, no panel over another.
    """
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if text.get_text().strip()]
    assert figure.get_figwidth() <= 8 and all(text.get_fontsize() >= 9 for text in texts)
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    for i, box in enumerate(boxes):
        assert min(box.x0, box.y0) > -2
        assert box.x1 < figure.bbox.x1 + 2 and box.y1 < figure.bbox.y1 + 2
        for other in boxes[:i]:
            assert min(np.minimum(box.max, other.max) - np.maximum(box.min, other.min)) < 2
    return [text.get_text() for text in texts]


def marks_of(axes: Axes, marker: str) -> list[list[float]]:
    lines = [line for line in axes.lines if len(line.get_xdata())]
    assert [line.get_marker() for line in lines] == [marker] * 2, "red on white, and no others"
    return lines[1].get_xydata().tolist()


def labels_of(axes: Axes) -> tuple[list[str], list[str]]:
    labels = axes.get_xticklabels(), axes.get_yticklabels()
    return tuple([label.get_text() for label in some] for some in labels)


def test_the_matrix_shows_the_weights_with_symbols_and_rings(word: object) -> None:
    figure = seq2seq.draw_attention({"some $ word": word})
    assert any("ring" in text for text in texts_of(figure))
    axes, bar = figure.axes
    assert axes.get_title() == "some $ word"
    np.testing.assert_array_equal(axes.images[0].get_array(), WEIGHTS[:3], "EOS has no place")
    assert axes.images[0].get_clim() == (0, 1) and bar.get_ylabel() == "attention weight"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("source symbol", "symbol written")
    assert labels_of(axes) == (["W", "$", "b"], ["b", "$", "W"])
    assert list(axes.get_xticks()) == list(axes.get_yticks()) == [0, 1, 2]
    assert axes.get_ylim() == (2.5, -0.5) and axes.get_xlim() == (-0.5, 2.5), "first at the top"
    assert marks_of(axes, "o") == [[2, 0], [1, 1], [0, 2]]


def test_several_matrices_stand_side_by_side_each_with_its_own_rows(word: object) -> None:
    short = decoded("W$b", ["SOS", "b", "$"], ["b", "$", "EOS"], WEIGHTS[:3] / 2)
    figure = seq2seq.draw_attention({"one": word, "two": short})
    texts_of(figure)
    one, two, _ = figure.axes
    for axes, title, symbols, weights in (
        (one, "one", ["b", "$", "W"], WEIGHTS[:3]),
        (two, "two", ["b", "$"], WEIGHTS[:2] / 2),
    ):
        assert axes.get_title() == title and labels_of(axes)[1] == symbols
        np.testing.assert_array_equal(axes.images[0].get_array(), weights)
        assert marks_of(axes, "o") == [[2, 0], [1, 1], [0, 2]][: len(symbols)]
    assert one.get_position().x1 < two.get_position().x0


@pytest.mark.parametrize("names", [["one"], ["one", "two", "three"]])
def test_squares_lie_where_the_model_looked_after_the_same_symbol(
    word: object, names: list[str]
) -> None:
    word = word._replace(read=["SOS", *"b$b"])
    given = decoded("W$b", ["SOS", *"bc$b"], [*"b$W", "EOS", "W"], np.full((5, 3), 1 / 3))
    figure = seq2seq.draw_readings(dict.fromkeys(names, (word, given)))
    assert any("ring" in text and "square" in text for text in texts_of(figure))
    panels = [axes for axes in figure.axes if axes.get_title()]
    titles = [f"{name}\nreads {reading}" for reading in ("b$b", "bc$b") for name in names]
    assert [axes.get_title() for axes in panels] == titles
    for own, disturbed in zip(panels[: len(names)], panels[len(names) :], strict=True):
        np.testing.assert_array_equal(own.images[0].get_array(), WEIGHTS)
        np.testing.assert_array_equal(disturbed.images[0].get_array(), given.weights)
        assert labels_of(own)[1] == ["SOS → b", "b → $", "$ → W", "b → EOS"]
        assert labels_of(disturbed)[1] == ["SOS → b", "b → $", "c → W", "$ → EOS", "b → W"]
        assert marks_of(own, "o") == [[2, 0], [1, 1], [0, 2]]
        # Largest weights of its own reading: SOS 2, b 1, $ 0, b 0. It never read a c.
        assert marks_of(disturbed, "s") == [[2, 0], [1, 1], [0, 1], [0, 3], [1, 4], [0, 4]]
    flat = word._replace(weights=np.full((4, 3), 1 / 3))
    lines = seq2seq.draw_readings({"": (flat, given)}).axes[1].lines
    assert not any(len(line.get_xdata()) for line in lines), "it looked nowhere in particular"


@pytest.mark.parametrize("length", [24, 512])
def test_no_word_is_too_long_to_be_drawn(length: int) -> None:
    symbols, weights = ("$%\\_^{" * 200)[:length], np.eye(length)
    long = decoded(("mW" * 256)[:length], ["SOS", *symbols[1:]], list(symbols), weights)
    figure = seq2seq.draw_readings({"": (long, long)})
    is_readable = length == 24
    assert is_readable == any("ring" in text for text in texts_of(figure))
    for axes in figure.axes[:2]:
        assert [len(labels) for labels in labels_of(axes)] == [24 * is_readable] * 2
        assert any(len(line.get_xdata()) for line in axes.lines) == is_readable


def test_the_animation_fills_row_by_row_and_shows_no_letter_before_it_is_written(
    word: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, grab = [], seq2seq.PillowWriter.grab_frame

    def observed(writer: object) -> None:
        assert writer.fps == 1
        left, right, _ = writer.fig.axes
        texts_of(writer.fig)
        title = [line.split() for line in left.get_title(loc="left").splitlines()]
        heights = [bar.get_height() for bar in left.patches]
        num_filled = np.isfinite(right.images[0].get_array().filled(np.nan)).all(axis=1).sum()
        frames.append((title, heights, num_filled))
        grab(writer)

    monkeypatch.setattr(seq2seq.PillowWriter, "grab_frame", observed)
    seq2seq.animate_decoding(word, tmp_path / "some.gif")
    for row, (title, heights, num_filled) in enumerate(frames[:3]):
        assert title == [["source", "W$b"], ["written", "b$W"[: row + 1]]]
        assert heights == WEIGHTS[row].tolist() and num_filled == row + 1
    assert frames[3:] == frames[2:3] * 2, "one a second, so it rests on the last for three"
    assert (tmp_path / "some.gif").read_bytes().startswith(b"GIF89a")


def test_the_loss_figure_shows_every_step_and_the_matrices_at_its_letters(word: object) -> None:
    losses = [10.0 ** (-step / 50) for step in range(400)]
    snapshots = {step: word._replace(weights=WEIGHTS / step) for step in (1, 50, 100, 400)}
    figure = seq2seq.draw_loss(losses, snapshots)
    texts_of(figure)
    (curve,) = (axes for axes in figure.axes if axes.get_xlabel() == "training step")
    assert curve.get_ylabel() == "loss (nats per symbol)" and curve.get_ylim()[0] == 0
    np.testing.assert_array_equal(curve.lines[0].get_xydata(), [*enumerate(losses, start=1)])
    places = {letter: (x, losses[x - 1]) for letter, x in zip("ABCD", snapshots, strict=True)}
    assert {text.get_text().strip(): text.xy for text in curve.texts} == places
    for letter, (step, _) in places.items():
        (panel,) = (axes for axes in figure.axes if axes.get_title() == f"{letter}: step {step}")
        np.testing.assert_array_equal(panel.images[0].get_array(), WEIGHTS[:3] / step)
        assert panel.get_xlabel() == "writes\nb$W"
    (only,) = seq2seq.draw_loss([3.0], {}).axes
    assert not only.images, "no weights, no matrices"
    assert {tick for tick in only.get_xticks() if tick <= 1} == {0, 1}, "whole steps"


def test_the_bottleneck_figure_shows_the_median_at_each_length() -> None:
    models, lengths = seq2seq.EXPERIMENTS["bottleneck"].models, range(1, 21)
    names = {n: f"right at {n} random letters" for n in lengths}
    runs = [
        {"model": model, "steps": 7, **{names[n]: 95 - 5 * n - i + d for n in lengths}}
        for d in (-1, 0, 2)
        for i, model in enumerate(models)
    ]
    figure = seq2seq.draw_bottleneck(runs)
    texts = [text.strip() for text in texts_of(figure)]
    axes = figure.axes[0]
    drawn = [line.get_ydata().tolist() for line in axes.lines if len(line.get_xdata())]
    assert drawn == [[95 - 5 * n - i for n in lengths] for i in range(len(models))]
    assert texts.count("7") >= 5 and "never trained on" in texts
    assert "dot attention, 7 steps" in texts and "uniform attention, 7 steps" in texts
    assert "source length" in axes.get_xlabel() and "right (%)" in axes.get_ylabel()


def test_the_figure_of_the_worked_example_is_readable() -> None:
    assert len(texts_of(scratch.draw_example())) > 100
