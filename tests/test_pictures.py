"""Statements about what the figures and the terminal show: the numbers of the run, in the right cells."""

import matplotlib.animation
import numpy as np
import pytest
import torch
from conftest import SMALL, scratch, seq2seq
from torch import nn


def written(word: str, output: str, weights: np.ndarray) -> tuple:
    """Return what a model might have made of a word when reversing."""
    return seq2seq.Written(word, output, [*output, "EOS"], weights, list(range(len(word)))[::-1])


@pytest.fixture
def reversed_word() -> tuple:
    """Return "a$b" reversed, with a matrix made by hand; its last row is that of EOS."""
    return written(
        "a$b", "b$a", np.array([[0, 0.1, 0.9], [0.19, 0.6, 0.21], [0.95, 0.05, 0], [0.5, 0.3, 0.2]])
    )


def test_a_word_is_written_as_the_decoder_says_and_eos_gets_a_row() -> None:
    settings = seq2seq.Settings(**{**SMALL, "alphabet": "xyzw"})
    model = seq2seq.build_model(settings)
    bias = torch.full((7,), -9.0)
    bias[3 + 2] = 9.0  # always the third symbol
    with torch.no_grad():
        model.decoder.W_s.bias.copy_(bias)
    result = seq2seq.write(model, "xy", settings)
    assert result.output == "zzzzz" and result.labels == list("zzzzz"), (
        "it ends at twice the length and one"
    )
    with torch.no_grad():
        model.decoder.W_s.bias[seq2seq.EOS] = 99.0
    result = seq2seq.write(model, "xy", settings)
    assert result.output == "" and result.labels == ["EOS"] and result.weights.shape == (1, 2)
    assert result.places == [1, 0]


def test_the_matrix_shows_the_weights_with_symbols_and_rings(reversed_word: tuple) -> None:
    axes = seq2seq.draw_attention(reversed_word).axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), reversed_word.weights)
    assert axes.images[0].get_clim() == (0, 1)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "$", "b"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "$", "a", "EOS"]
    assert axes.get_ylim() == (3.5, -0.5), "the first output symbol is at the top"
    white, red = axes.lines
    assert "rings" in axes.get_title()
    assert white.get_xydata().tolist() == red.get_xydata().tolist() == [[2, 0], [1, 1], [0, 2]]
    short = written("a$b", "b", np.full((2, 3), 1 / 3))
    assert seq2seq.draw_attention(short).axes[0].lines[0].get_xydata().tolist() == [[2, 0]], (
        "EOS comes from nowhere"
    )


@pytest.mark.parametrize(("length", "rows"), [(1, 3), (40, 41), (512, 3), (3, 1025)])
def test_no_word_is_too_short_or_too_long_to_be_drawn(length: int, rows: int) -> None:
    word = written(
        ("$%\\_^{" * 100)[:length],
        ("$%\\_^{" * 200)[: rows - 1],
        np.full((rows, length), 1 / length),
    )
    for figure in (seq2seq.draw_attention(word), seq2seq.draw_loss([3.0, 2.0], {1: word, 2: word})):
        figure.canvas.draw()
        right, top = figure.canvas.get_width_height()
        for axes in figure.findobj(matplotlib.axes.Axes):
            box = axes.get_tightbbox()
            assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= right + 1 and box.y1 <= top + 1, (
                "no label is cut"
            )


def test_the_animation_fills_the_matrix_row_by_row(reversed_word: tuple, tmp_path: object) -> None:
    animation = seq2seq.draw_decoding(reversed_word)
    bars, matrix, _ = animation._fig.axes
    frames = list(animation.new_frame_seq())
    assert frames == [4, 4, 4, 0, 1, 2, 3], "it rests on the whole picture"
    for rows in frames:
        animation._func(rows)
        image = np.ma.filled(matrix.images[0].get_array(), np.nan)
        np.testing.assert_array_equal(image[:rows], reversed_word.weights[:rows])
        assert np.isnan(image[rows:]).all()
        heights = [bar.get_height() for bar in bars.patches]
        assert heights == (reversed_word.weights[rows - 1].tolist() if rows else [0, 0, 0])
        assert bars.get_title(loc="left") == "writes: " + " ".join(["b", "$", "a", "EOS"][:rows])
    animation.save(tmp_path / "some.gif", writer=matplotlib.animation.PillowWriter(fps=1))
    assert (tmp_path / "some.gif").read_bytes().startswith(b"GIF89a")


def test_the_loss_figure_shows_every_step_and_marks_the_snapshots(reversed_word: tuple) -> None:
    losses = [10.0 ** (-t / 50) for t in range(200)]
    figure = seq2seq.draw_loss(losses, {1: reversed_word, 100: reversed_word})
    curve, first, second, *_ = figure.axes
    assert curve.get_yscale() == "log"
    np.testing.assert_array_equal(curve.lines[0].get_ydata(), losses)
    assert [line.get_xydata().tolist() for line in curve.lines[1:]] == [
        [[1, losses[0]]],
        [[100, losses[99]]],
    ]
    assert [panel.get_title() for panel in (first, second)] == ["A: step 1", "B: step 100"]
    np.testing.assert_array_equal(second.images[0].get_array(), reversed_word.weights)
    assert second.get_xlabel() == "b$a"


def test_the_matrix_in_the_terminal_has_a_shade_for_each_fifth(reversed_word: tuple) -> None:
    assert seq2seq.matrix_as_text(reversed_word).splitlines() == [
        "     a $ b",
        "  b      @",
        "  $    * .",
        "  a  @",
        "EOS  : . .",
    ]


def test_the_four_steps_in_the_terminal_are_those_of_the_model(trained: nn.Module) -> None:
    settings = seq2seq.Settings()
    lines = seq2seq.four_steps(trained, "attention", settings).splitlines()
    table = [line.split() for line in lines[2:11]]
    assert [row[1] for row in table] == list("attention")
    scores, weights = (np.array([float(row[column]) for row in table]) for column in (2, 3))
    np.testing.assert_allclose(scratch.softmax(scores), weights, atol=0.01)
    np.testing.assert_allclose(
        weights, seq2seq.write(trained, "attention", settings).weights[2], atol=0.001
    )
    with_context, without = lines[-2:]
    assert (
        with_context.startswith("next symbol with the context: i 0.9")
        or "context: i 1.0" in with_context
    )
    source, lengths = seq2seq.encode("attention", settings)
    keys, hidden = trained.encoder(source, lengths)
    tokens = torch.tensor([[seq2seq.SOS, *seq2seq.encode("no", settings)[0][0]]])
    logits, _, _ = trained.decoder(tokens, hidden, torch.zeros_like(keys), source != seq2seq.PAD)
    best = logits[0, -1].softmax(dim=-1)[seq2seq.EOS :].max()
    assert f"{best:.3f}" in without
